// The page that a demonstration run leaves behind: one self-contained HTML file with loss curves (inline SVG) and the
// stickers themselves (GIFs as data URLs), so that it can be mailed or archived. No logic of training lives here.

import { escapeHtml, factsTable, imageUrl, renderPage } from "../data/html.ts";
import { PLOT_STYLE, renderPlot } from "../data/plot.ts";

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
  return renderPage({
    title: content.title,
    style: `${PLOT_STYLE}
  .gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(${pixels + 16}px, 1fr)); gap: 1rem; }
  .gallery img { width: ${pixels}px; height: ${pixels}px; } .gallery figcaption { font-size: 0.85rem; color: var(--ink); }`,
    body: `${factsTable(content.facts)}
<h2>Training</h2>
<div class="plots">${content.curves.map(plotOf).join("\n")}</div>
${content.galleries.map(gallery).join("\n")}`,
  });
}

function gallery({ title, pictures }: ReportContent["galleries"][number]): string {
  const figures = pictures.map(({ caption, note, gif }) => {
    const extra = note ? `<br><span class="note">${escapeHtml(note)}</span>` : "";
    return `<figure><img alt="${escapeHtml(caption)}" src="${imageUrl(gif)}"><figcaption>${escapeHtml(caption)}${extra}</figcaption></figure>`;
  });
  return `<h2>${escapeHtml(title)}</h2>\n<div class="gallery">${figures.join("\n")}</div>`;
}

function plotOf({ title, baseline, points }: Curve): string {
  if (points.length === 0) return `<p>${escapeHtml(title)}: no steps were taken</p>`;
  return renderPlot({
    title,
    unit: "steps",
    lines: [{ name: "loss", points: points.map(({ step, loss }) => ({ x: step, y: loss })) }],
    baseline: { name: "predicting the mean", value: baseline },
    log: true,
  });
}
