// report.html of a benchmark: one self-contained page with the paper's tables, curves, costs, what every number was measured with,
// and playing stickers. What stands where in the tables is tables.ts's business, the stickers are gallery.ts. Called by the
// benchmark's command; made again from benchmark.json and the GIFs alone.

import { escapeHtml, factsTable, renderPage } from "../../data/html.ts";
import { PLOT_STYLE, type PlotPoint, renderPlot } from "../../data/plot.ts";
import type { Score } from "../score.ts";
import { costTable } from "./costs.ts";
import { GALLERY_SCRIPT, GALLERY_STYLE, type LoadFile, renderGallery } from "./gallery.ts";
import type { BenchmarkResult, ColumnGroup, PaperNumber, ScoreCurve, Table, TableCell } from "./result.ts";
import { curvesOf, failuresOf, leftOut, metricName, scoreText, tablesOf } from "./tables.ts";

/** The page. `load` reads a GIF by its path in the result; one that cannot be read is shown as missing. */
export async function renderBenchmarkReport(result: BenchmarkResult, load: LoadFile): Promise<string> {
  const body = [
    result.complete
      ? ""
      : '<p class="warning">This benchmark is not complete: cells that are not done yet are empty.</p>',
    factsTable(factsOf(result)),
    '<p class="soft">In the tables: <strong>best</strong>, <u>second best</u>; in brackets the interval of 95 %; "paper: 1 of 6" is the place in the paper&#39;s own column, behind its number where that may be compared.</p>',
    ...tablesOf(result).map((table, i) => renderTable(table, `table-${i}`)),
    renderCurves(result),
    await renderGallery(result, load),
    renderCosts(result),
    renderProtocols(result),
    renderTrainings(result),
    renderFailures(result),
  ];
  return renderPage({
    title: result.title,
    style: [STYLE, PLOT_STYLE, GALLERY_STYLE].join("\n"),
    script: GALLERY_SCRIPT,
    body: body.filter((part) => part !== "").join("\n"),
  });
}

const STYLE = `  .scroll { position: relative; overflow-x: auto; margin: 0.5rem 0; } .scroll:focus-visible { outline: 2px solid var(--accent); }
  .scores { overflow-wrap: normal; } .scores th, .scores td { padding: 0.3rem 0.7rem; border-bottom: 1px solid var(--line); vertical-align: top; white-space: nowrap; }
  .scores thead th { vertical-align: bottom; } .scores .n { text-align: right; font-variant-numeric: tabular-nums; } .scores .group { border-left: 1px solid var(--line); }
  .scores th[scope="row"] { position: sticky; left: 0; background: var(--paper); } .scores small { display: block; color: var(--soft); }
  .scores tfoot td, .scores tfoot th { font-style: italic; color: var(--soft); }
  .failed { color: var(--mark); } .warning { border-left: 4px solid var(--mark); padding-left: 0.7rem; } u { text-underline-offset: 3px; }
  .hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
  summary { cursor: pointer; font-weight: 600; } li { margin: 0.15rem 0; }`;

function factsOf(r: BenchmarkResult): [string, string][] {
  const { adapter, environment: e, tests, complete } = r;
  return [
    ["adapter", `${adapter.name} (${adapter.kind})`],
    [
      "Gifgrad",
      `${e.versions.gifgrad}${e.git ? `, commit ${e.git.commit.slice(0, 12)}${e.git.dirty ? " and changes" : ""}` : ""}`,
    ],
    ["models", `preset ${r.preset}, ${r.frames} frames of ${r.size} pixels, seed ${r.seed}`],
    ["sampling", r.sampling],
    ["test sets", tests.map(({ name, domain, stickers }) => `${name}: ${stickers} ${domain} stickers`).join("; ")],
    ["scores", r.published ? "by published networks" : "by networks trained on these stickers: FVD-x, CLIP-x, VQA-x"],
    [
      "written",
      `${r.written.slice(0, 16).replace("T", " ")} UTC${complete ? "" : ", not complete"}; ${duration(r.seconds)} of work`,
    ],
    ...Object.entries(r.missing).map(([metric, why]): [string, string] => [
      `no ${metricName(metric as "fvd", r)}`,
      why,
    ]),
    ...leftOut(r).map(({ table, why }): [string, string] => [`no ${table}`, why]),
  ];
}

// ---- tables

function renderTable({ name, title, corner, groups, rows, notes }: Table, id: string): string {
  const columns = groups.flatMap((group) =>
    group.columns.map((column, i) => ({ ...column, group: group.title, first: i === 0 })),
  );
  const grouped = groups.some((group) => group.title !== "");
  const align = (i: number): string => (rows.some(({ cells }) => cells[i].kind === "text") ? "" : "n");
  const edge = (i: number): string => (grouped && columns[i].first ? " group" : "");
  const reasons = new Set<string>();
  const body = rows.map((row) => {
    const cells = row.cells.map((cell, i) => {
      if (cell.kind === "failed")
        reasons.add(`${[row.title, columns[i].group].filter(Boolean).join(", ")}: ${cell.reason}`);
      return `<td class="${align(i)}${edge(i)}">${renderCell(cell)}</td>`;
    });
    return `<tr><th scope="row">${escapeHtml(row.title)}</th>${cells.join("")}</tr>`;
  });
  const head = columns.map(({ title: text, better }, i) => {
    const arrow = better === null ? "" : ARROWS[better];
    return `<th scope="col" class="${align(i)}${edge(i)}">${escapeHtml(text)}${arrow}</th>`;
  });
  return `<h2 id="${id}">${escapeHtml(`${name}: ${title}`)}</h2>
${scroll(
  id,
  `<table class="scores"><thead>${grouped ? groupRow(corner, groups) : ""}<tr>${grouped ? "" : `<th scope="col">${escapeHtml(corner)}</th>`}${head.join("")}</tr></thead>
<tbody>${body.join("\n")}</tbody>${floorRow(rows, columns.length, edge)}</table>`,
)}
${list(notes)}${reasons.size > 0 ? `<p class="failed">What failed in this table:</p>${list([...reasons])}` : ""}`;
}

/** A wide table that scrolls by itself, by keyboard too. */
function scroll(id: string, table: string): string {
  return `<div class="scroll" tabindex="0" role="region" aria-labelledby="${id}">${table}</div>`;
}

const ARROWS = {
  lower: ' <span aria-hidden="true">↓</span><span class="hidden"> (lower is better)</span>',
  higher: ' <span aria-hidden="true">↑</span><span class="hidden"> (higher is better)</span>',
} as const;

function groupRow(corner: string, groups: readonly ColumnGroup[]): string {
  const cells = groups.map(
    ({ title, columns }) => `<th scope="colgroup" colspan="${columns.length}" class="group">${escapeHtml(title)}</th>`,
  );
  return `<tr><th scope="col" rowspan="2">${escapeHtml(corner)}</th>${cells.join("")}</tr>`;
}

function renderCell(cell: TableCell): string {
  if (cell.kind === "text") return escapeHtml(cell.text);
  if (cell.kind === "pending") return '<span class="soft">not done</span>';
  if (cell.kind === "failed") return `<span class="failed" title="${escapeHtml(cell.reason)}">failed</span>`;
  if (cell.kind === "none")
    return `<span title="${escapeHtml(cell.why)}">–<span class="hidden"> ${escapeHtml(cell.why)}</span></span>${paper(cell.paper)}`;
  const { place, score } = cell;
  const text = escapeHtml(cell.text);
  const marked =
    place === 1
      ? `<strong>${text}</strong><span class="hidden"> best</span>`
      : place === 2
        ? `<u>${text}</u><span class="hidden"> second best</span>`
        : text;
  const interval = score?.interval
    ? `<small>[${scoreText(score.interval.low)}, ${scoreText(score.interval.high)}]</small>`
    : "";
  return `${marked}${interval}${paper(cell.paper)}`;
}

/** The paper's number where it may be compared, else its place alone. */
function paper(number: PaperNumber | null): string {
  if (!number) return "";
  const place = `${number.place} of ${number.of}`;
  return `<small>paper: ${escapeHtml(number.text === null ? place : `${number.text}, ${place}`)}</small>`;
}

/** What real stickers score in each column, which is the same for all systems. */
function floorRow(rows: Table["rows"], count: number, edge: (i: number) => string): string {
  const floors = Array.from({ length: count }, (_, i) => {
    const found = rows.flatMap(({ cells }) =>
      cells[i].kind === "value" && cells[i].score?.floor ? [cells[i].score.floor] : [],
    );
    return new Map(found.map((floor) => [`${scoreText(floor.value)} ${floor.n}`, floor]));
  });
  if (floors.every(({ size }) => size === 0)) return "";
  const cells = floors.map((some, i) => {
    const texts = [...some.values()].map(({ value, n }) => `${scoreText(value)}<small>n ${n}</small>`);
    return `<td class="n${edge(i)}">${texts.join("")}</td>`;
  });
  return `\n<tfoot><tr><th scope="row">Real stickers</th>${cells.join("")}</tr></tfoot>`;
}

function list(lines: readonly string[]): string {
  return lines.length > 0
    ? `<ul class="soft">${lines.map((line) => `<li>${escapeHtml(line)}</li>`).join("")}</ul>`
    : "";
}

// ---- curves, costs, protocols

function renderCurves(result: BenchmarkResult): string {
  const curves = curvesOf(result);
  const titles = new Map(result.systems.map(({ name, title }) => [name, title]));
  const sets = new Set(curves.map(({ set }) => set));
  // The same lines in each figure, so that a system has one colour; one that has no such score is empty.
  const drawn = [...new Map(curves.map((curve) => [`${curve.system} ${curve.set}`, curve])).values()];
  const figures = [...new Map(curves.map((curve) => [`${curve.test} ${curve.metric}`, curve])).values()];
  const plots = figures.map(({ test, metric }) =>
    renderPlot({
      title: `${test}: ${metricName(metric, result)}`,
      unit: "training steps",
      lines: drawn.map(({ system, set }) => ({
        name: `${titles.get(system) ?? system}${sets.size > 1 ? ` (${set})` : ""}`,
        points: pointsOf(
          curves.find((c) => c.test === test && c.metric === metric && c.system === system && c.set === set),
        ),
      })),
    }),
  );
  if (plots.length === 0) return "";
  return `<h2>Figure 6: scores against training steps</h2>
<p class="soft">Bands are the intervals of 95 %. FVD: lower is better; CLIP and VQA: higher.</p>
<div class="plots">${plots.join("\n")}</div>`;
}

function pointsOf(curve: ScoreCurve | undefined): PlotPoint[] {
  return (curve?.points ?? []).map(({ steps, score: { value, interval } }) => ({
    x: steps,
    y: value,
    ...(interval && { low: interval.low, high: interval.high }),
  }));
}

/** A table of texts whose first column names the rows; columns of numbers stand to the right. */
function plain(id: string, head: readonly string[], rows: readonly (readonly string[])[]): string {
  const numbers = head.map((_, i) => rows.every((row) => /^[\d–][\d.,]*( [a-zA-Z]+)?$/.test(row[i])));
  const cell = (text: string, i: number): string =>
    i === 0
      ? `<th scope="row">${escapeHtml(text)}</th>`
      : `<td${numbers[i] ? ' class="n"' : ""}>${escapeHtml(text)}</td>`;
  const titles = head.map((text, i) => `<th scope="col"${numbers[i] ? ' class="n"' : ""}>${escapeHtml(text)}</th>`);
  return scroll(
    id,
    `<table class="scores"><thead><tr>${titles.join("")}</tr></thead>
<tbody>${rows.map((row) => `<tr>${row.map(cell).join("")}</tr>`).join("\n")}</tbody></table>`,
  );
}

function renderCosts(result: BenchmarkResult): string {
  const costs = costTable(result);
  if (!costs) return "";
  return `<h2 id="costs">What one sticker takes</h2>
${plain("costs", costs.head, costs.rows)}
<p class="soft">${escapeHtml(costs.note)}</p>`;
}

/** Each way of measuring once, with what it was used for. */
function renderProtocols({ cells }: BenchmarkResult): string {
  const scores = cells.flatMap(({ test, scores }) =>
    Object.values(scores).map((score): [string, Score] => [test, score]),
  );
  const ways = new Map(
    scores.map(([test, score]) => [`${test} ${score.name} ${JSON.stringify(score.protocol)}`, { test, score }]),
  );
  if (ways.size === 0) return "";
  const hash = (text: string | null): string => (text === null ? "none" : text.slice(0, 12));
  const rows = [...ways.values()].map(({ test, score: { name, protocol: p, seed, interval } }) => [
    `${test}: ${name}`,
    String(p.n),
    `${p.frames} frames of ${p.size} pixels`,
    p.extension,
    `${p.clips}, ${p.preprocessing}`,
    `${p.extractor} ${hash(p.extractorHash)}`,
    hash(p.real),
    hash(p.captions),
    String(seed),
    interval ? `${interval.rounds} resamples, ${100 * interval.share} %` : "none",
  ]);
  const head = ["Score", "n", "Stickers", "Played", "Path", "Network", "Real set", "Captions", "Seed", "Interval"];
  return `<h2 id="protocols">How it was measured</h2>
${plain("protocols", head, rows)}
<p class="soft">Scores that differ in any of these, other than the seed, are not ranked. "Real stickers" in the tables is what real ones score in the same
place: for FVD the distance between two halves of the real set, which are half as many and so lie further apart than whole sets would.</p>`;
}

function renderTrainings({ trainings }: BenchmarkResult): string {
  const rows = trainings.flatMap(({ id, stickers, state, taken, stages }) =>
    stages.map((stage) => [
      id,
      stickers === null ? "not known" : count(stickers),
      taken ? "taken" : state,
      stage.recipe,
      count(stage.steps),
      duration(stage.seconds),
      `${stage.firstLoss.toPrecision(3)} to ${stage.lastLoss.toPrecision(3)}`,
      stage.baseline.toPrecision(3),
    ]),
  );
  if (rows.length === 0) return "";
  const head = ["Training", "Stickers", "State", "Stage", "Steps", "Time", "Loss, first to last", "The mean scores"];
  return `<h2 id="trainings">Trainings</h2>\n${plain("trainings", head, rows)}`;
}

function renderFailures(result: BenchmarkResult): string {
  const lines = failuresOf(result);
  return lines.length > 0 ? `<h2>What failed</h2>\n${list(lines)}` : "";
}

const count = (n: number): string => n.toLocaleString("en");

function duration(s: number): string {
  return s < 120 ? `${s.toPrecision(3)} s` : `${Math.round(s / 60)} min`;
}
