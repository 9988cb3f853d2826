// The page that a demonstration run leaves behind: one self-contained HTML file with loss curves (inline SVG) and the
// stickers themselves (GIFs as data URLs), so that it can be mailed or archived. No logic of training lives here.

import { escapeHtml } from "../data/html.ts";

export interface Curve {
  readonly title: string;
  /** What the reader should compare the curve with: the loss of predicting the mean. */
  readonly baseline: number;
  readonly points: readonly { readonly step: number; readonly loss: number }[];
}

export interface Picture {
  readonly caption: string;
  readonly note?: string;
  readonly gif: Uint8Array;
}

export interface ReportContent {
  readonly title: string;
  /** Rows of the facts table: adapter, seed, seconds. */
  readonly facts: readonly (readonly [label: string, value: string])[];
  readonly curves: readonly Curve[];
  /** Sections of stickers, e.g. training ones beside generated ones. */
  readonly galleries: readonly { readonly title: string; readonly pictures: readonly Picture[] }[];
}

/** The page as HTML. Stickers are shown at `pixels` a side, whatever their own size. */
export function renderReport(content: ReportContent, pixels = 128): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(content.title)}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff; }
  h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
  table { border-collapse: collapse; } td { padding: 0.15rem 1rem 0.15rem 0; vertical-align: top; } td:first-child { color: #666; }
  .gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(${pixels + 16}px, 1fr)); gap: 1rem; }
  figure { margin: 0; } figcaption { font-size: 0.85rem; } .note { color: #666; }
  img { width: ${pixels}px; height: ${pixels}px; image-rendering: pixelated; border: 1px solid #ddd; border-radius: 8px; }
  svg { width: 100%; max-width: 40rem; height: auto; } .curves { display: grid; gap: 1rem; }
</style>
</head>
<body>
<h1>${escapeHtml(content.title)}</h1>
<table>${content.facts.map(([k, v]) => `<tr><td>${escapeHtml(k)}</td><td>${escapeHtml(v)}</td></tr>`).join("")}</table>
<h2>Training</h2>
<div class="curves">${content.curves.map(curve).join("\n")}</div>
${content.galleries.map(gallery).join("\n")}
</body>
</html>
`;
}

function gallery({ title, pictures }: ReportContent["galleries"][number]): string {
  const figures = pictures.map(({ caption, note, gif }) => {
    const extra = note ? `<br><span class="note">${escapeHtml(note)}</span>` : "";
    return `<figure><img alt="${escapeHtml(caption)}" src="data:image/gif;base64,${Buffer.from(gif).toString("base64")}"><figcaption>${escapeHtml(caption)}${extra}</figcaption></figure>`;
  });
  return `<h2>${escapeHtml(title)}</h2>\n<div class="gallery">${figures.join("\n")}</div>`;
}

const WIDTH = 640;
const HEIGHT = 220;
const LEFT = 60;
const BOTTOM = 30;

/** A loss curve on a logarithmic axis, the baseline as a dashed line. */
function curve({ title, baseline, points }: Curve): string {
  const losses = points.map((p) => p.loss).filter((l) => l > 0);
  if (losses.length === 0) return `<p>${escapeHtml(title)}: no steps were taken</p>`;
  const [low, high] = [Math.min(...losses, baseline), Math.max(...losses, baseline)].map(Math.log10);
  const last = Math.max(1, points[points.length - 1].step);
  const x = (step: number): number => LEFT + ((WIDTH - LEFT - 10) * step) / last;
  const y = (loss: number): number =>
    20 + ((HEIGHT - BOTTOM - 20) * (high - Math.log10(Math.max(loss, 1e-12)))) / Math.max(high - low, 1e-6);
  const path = points.map((p) => `${x(p.step).toFixed(1)},${y(p.loss).toFixed(1)}`).join(" ");
  const tick = (loss: number): string =>
    `<text x="${LEFT - 6}" y="${y(loss) + 4}" text-anchor="end" font-size="11">${loss.toPrecision(2)}</text>`;
  return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escapeHtml(title)}">
  <text x="${LEFT}" y="12" font-size="12" font-weight="600">${escapeHtml(title)}</text>
  ${tick(10 ** high)}${tick(10 ** low)}
  <line x1="${LEFT}" x2="${WIDTH - 10}" y1="${y(baseline)}" y2="${y(baseline)}" stroke="#b33" stroke-dasharray="5 4"/>
  <text x="${WIDTH - 12}" y="${y(baseline) - 4}" text-anchor="end" font-size="11" fill="#b33">predicting the mean: ${baseline.toPrecision(3)}</text>
  <polyline points="${path}" fill="none" stroke="#2563eb" stroke-width="1.5"/>
  <text x="${WIDTH - 10}" y="${HEIGHT - 8}" text-anchor="end" font-size="11">step ${last}</text>
</svg>`;
}
