// Line plots as inline SVG for the pages of html.ts: training curves on a logarithmic axis, scores with the band of their
// intervals. Colours come from the page, so that plots can be read in the dark; lines differ in their markers too.

import { escapeHtml } from "./html.ts";

export interface PlotPoint {
  readonly x: number;
  readonly y: number;
  /** Ends of the interval around y. */
  readonly low?: number;
  readonly high?: number;
}

export interface Plot {
  readonly title: string;
  /** Of the horizontal axis, which begins at 0. */
  readonly unit: string;
  readonly lines: readonly { readonly name: string; readonly points: readonly PlotPoint[] }[];
  /** A dashed line to compare with. */
  readonly baseline?: { readonly name: string; readonly value: number };
  /** Logarithmic in y: what is not above 0 is left out. */
  readonly log?: boolean;
}

const WIDTH = 420;
const HEIGHT = 230;
const [LEFT, RIGHT, TOP, BOTTOM] = [56, 12, 12, 40];
/** Points with markers of their own; longer lines are curves. */
const MARKED = 24;

/** Rules for pages with plots: Okabe and Ito's colours, which colour-blind readers tell apart, darker on white. */
export const PLOT_STYLE = `  .plot svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; } .plot text { fill: var(--soft); } .plot .axis { stroke: var(--line); }
  .plot .band { opacity: 0.1; stroke: none; } .plot .curve { fill: none; stroke-width: 1.8; } .plot .baseline { stroke: var(--mark); stroke-dasharray: 5 4; }
  .plot .base { fill: var(--mark); } .plot h3 { margin: 0 0 0.3rem; }
  .legend { list-style: none; margin: 0.2rem 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: 0.1rem 0.9rem; font-size: 0.85rem; } .legend svg { width: 26px; height: 12px; }
${[
  ["#0072b2", "#5fb3e6"],
  ["#a66f00", "#e69f00"],
  ["#007d5a", "#2fc79b"],
  ["#a3487c", "#e39ac2"],
  ["#c24a00", "#ff8a4d"],
  ["#555f6b", "#b8c0cc"],
]
  .map(([light, dark], i) => {
    const rule = (colour: string): string => `.plot .l${i} { stroke: ${colour}; fill: ${colour}; }`;
    return `  ${rule(light)} @media (prefers-color-scheme: dark) { ${rule(dark)} }`;
  })
  .join("\n")}
  .plot .curve { fill: none; }`;
const COLOURS = 6;

/** One figure: heading, drawing, and which line is which; one alone is named too. Without points a sentence says so. */
export function renderPlot({ title, unit, lines, baseline, log = false }: Plot): string {
  const drawn = lines
    .map((line, i) => ({ ...line, i, points: line.points.filter(({ y }) => Number.isFinite(y) && (!log || y > 0)) }))
    .filter(({ points }) => points.length > 0);
  const heading = `<h3>${escapeHtml(title)}</h3>`;
  if (drawn.length === 0)
    return `<figure class="plot">${heading}<p class="note">There is nothing to show yet.</p></figure>`;
  const points = drawn.flatMap((line) => line.points);
  const last = Math.max(1, ...points.map(({ x }) => x));
  const values = points.flatMap(({ y, low = y, high = y }) => [y, low, high]).concat(baseline ? [baseline.value] : []);
  const scale = scaleOf(log ? values.filter((v) => v > 0) : values, log);
  const x = (value: number): string => (LEFT + ((WIDTH - LEFT - RIGHT) * value) / last).toFixed(1);
  const y = (value: number): string => (TOP + (HEIGHT - TOP - BOTTOM) * (1 - scale.at(value))).toFixed(1);
  const labels = tickTexts(scale.ticks);
  const grid = scale.ticks.map(
    (tick, i) =>
      `<line class="axis" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(tick)}" y2="${y(tick)}"/>` +
      `<text x="${LEFT - 6}" y="${y(tick)}" dy="4" text-anchor="end">${labels[i]}</text>`,
  );
  const steps = ticksOf(0, last, 4);
  const counts = tickTexts(steps);
  const along = steps.map(
    (tick, i) => `<text x="${x(tick)}" y="${HEIGHT - BOTTOM + 16}" text-anchor="middle">${counts[i]}</text>`,
  );
  const base = baseline && [
    `<line class="baseline" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(baseline.value)}" y2="${y(baseline.value)}"/>`,
    `<text class="base" x="${WIDTH - RIGHT}" y="${y(baseline.value)}" dy="-4" text-anchor="end">${escapeHtml(`${baseline.name}: ${baseline.value.toPrecision(3)}`)}</text>`,
  ];
  const bands = drawn.map(({ i, points: all }) => {
    const banded = all.filter(({ low, high }) => low !== undefined && high !== undefined);
    if (banded.length < 2) return "";
    const edge = [
      ...banded.map((p) => `${x(p.x)},${y(p.high as number)}`),
      ...banded.toReversed().map((p) => `${x(p.x)},${y(p.low as number)}`),
    ];
    return `<polygon class="band l${i % COLOURS}" points="${edge.join(" ")}"/>`;
  });
  const curves = drawn.map(({ i, points: all }) => {
    const path = all.map((p) => `${x(p.x)},${y(p.y)}`).join(" ");
    const marks = all.length > MARKED ? [] : all.map((p) => marker(i, Number(x(p.x)), Number(y(p.y))));
    const bars = all.length === 1 ? all.map((p) => bar(i, p, x, y)) : [];
    return `<polyline class="curve l${i % COLOURS}" points="${path}"/>${[...marks, ...bars].join("")}`;
  });
  const words = drawn.map(
    ({ name, points: all }) => `${name} ${tickText(all[0].y)} to ${tickText(all[all.length - 1].y)}`,
  );
  return `<figure class="plot">${heading}
<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escapeHtml(`${title}: ${words.join("; ")}`)}">
${grid.join("")}${along.join("")}<text x="${WIDTH - RIGHT}" y="${HEIGHT - 6}" text-anchor="end">${escapeHtml(unit)}</text>
${bands.join("")}${(base ?? []).join("")}
${curves.join("\n")}
</svg>${legend(drawn)}</figure>`;
}

/** The interval of a point that stands alone. */
function bar(i: number, { x: at, low, high }: PlotPoint, x: (v: number) => string, y: (v: number) => string): string {
  if (low === undefined || high === undefined) return "";
  return `<line class="l${i % COLOURS}" x1="${x(at)}" x2="${x(at)}" y1="${y(low)}" y2="${y(high)}"/>`;
}

function legend(lines: readonly { readonly name: string; readonly i: number }[]): string {
  const items = lines.map(
    ({ name, i }) =>
      `<li><svg viewBox="0 0 26 12" aria-hidden="true"><line class="l${i % COLOURS}" x1="0" x2="26" y1="6" y2="6" stroke-width="2"/>${marker(i, 13, 6)}</svg> ${escapeHtml(name)}</li>`,
  );
  return `<ul class="legend">${items.join("")}</ul>`;
}

/** Circle, square, triangle, diamond, triangle on its point, ring. */
function marker(i: number, x: number, y: number): string {
  const corners: readonly (readonly (readonly [number, number])[])[] = [
    [],
    [
      [-3, -3],
      [3, -3],
      [3, 3],
      [-3, 3],
    ],
    [
      [0, -4],
      [4, 3],
      [-4, 3],
    ],
    [
      [0, -4.5],
      [4.5, 0],
      [0, 4.5],
      [-4.5, 0],
    ],
    [
      [0, 4],
      [4, -3],
      [-4, -3],
    ],
  ];
  const shape = corners[i % COLOURS] ?? [];
  if (shape.length === 0) {
    const ring = i % COLOURS === COLOURS - 1 ? ' style="fill: var(--paper)"' : "";
    return `<circle class="l${i % COLOURS}" cx="${x}" cy="${y}" r="3.2"${ring}/>`;
  }
  const path = shape.map(([dx, dy]) => `${(x + dx).toFixed(1)},${(y + dy).toFixed(1)}`).join(" ");
  return `<polygon class="l${i % COLOURS}" points="${path}"/>`;
}

interface Scale {
  /** From 0 at the bottom to 1. */
  at(value: number): number;
  readonly ticks: readonly number[];
}

function scaleOf(values: readonly number[], log: boolean): Scale {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  if (log) {
    const [low, high] = [Math.log10(least), Math.log10(most)];
    const at = (value: number): number => (Math.log10(Math.max(value, least)) - low) / Math.max(high - low, 1e-6);
    const round = [-9, -8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5].flatMap((e) =>
      [1, 2, 5].map((m) => m * 10 ** e),
    );
    const inside = round.filter((tick) => tick >= least && tick <= most);
    return { at, ticks: inside.length >= 2 && inside.length <= 6 ? inside : [least, most] };
  }
  const margin = most > least ? 0.05 * (most - least) : Math.max(1e-6, 0.1 * Math.abs(most));
  const [low, high] = [least - margin, most + margin];
  return { at: (value) => (value - low) / (high - low), ticks: ticksOf(low, high, 5) };
}

/** About `count` round numbers from low to high. */
function ticksOf(low: number, high: number, count: number): number[] {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((m) => m * power >= rough) ?? 10);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) =>
    Number(((first + i) * step).toPrecision(10)),
  );
}

/** Round numbers as they are; others with as many digits as tell them apart, at least 3. */
function tickTexts(ticks: readonly number[]): string[] {
  const some = [3, 4, 5, 6, 7, 8, 9, 10];
  const texts = (digits: number): string[] => ticks.map((tick) => tickText(tick, digits));
  const digits =
    some.find((d) => ticks.every((tick) => Number(tick.toPrecision(d)) === tick)) ??
    some.find((d) => new Set(texts(d)).size === ticks.length);
  return texts(digits ?? 10);
}

function tickText(value: number, digits = 3): string {
  const rounded = Number(value.toPrecision(digits));
  return Math.abs(rounded) >= 1e4 ? rounded.toLocaleString("en") : String(rounded);
}
