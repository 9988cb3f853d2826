// The statistics as one self-contained page: Tables 2 and 3 with the paper's numbers beside, Figures 3 and 4, what the filter
// rejected, and sheets of samples. Bars are inline SVG. Called by `dataset stats`.

import { escapeHtml } from "../html.ts";
import { type Bar, type DatasetFacts, FIGURE_4, FRAME_BINS, LENGTH_BINS, TABLE_2, TABLE_3 } from "./paper.ts";
import type { Stats } from "./stats.ts";

export interface SampleSheet {
  readonly title: string;
  readonly png: Uint8Array;
}

export function statsPage(stats: Stats, sheets: readonly SampleSheet[]): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(stats.name)}: statistics</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff; }
  h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.5rem; } .note { color: #666; font-size: 0.85rem; }
  table { border-collapse: collapse; } th, td { padding: 0.2rem 0.9rem 0.2rem 0; text-align: left; border-bottom: 1px solid #eee; }
  td.n { text-align: right; font-variant-numeric: tabular-nums; } tr.ours { font-weight: 600; }
  .pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: 1.5rem; }
  .cloud { line-height: 1.1; text-align: center; } .cloud span { margin: 0 0.3em; display: inline-block; }
  img, svg { max-width: 100%; height: auto; } rect.ours { fill: #3b6fb6; } rect.paper { fill: #d9a441; }
</style>
</head>
<body>
<h1>${escapeHtml(stats.name)}: ${stats.stickers} stickers</h1>
<p class="note">Blue: this data set. Ochre: what the VSD2M paper prints (arXiv 2412.08259; its figure read off the bars).</p>
<h2>Sticker data sets (Table 2)</h2>
${table2([...TABLE_2, stats.facts])}
<h2>Statistics (Table 3)</h2>
${table3(stats)}
<h2>Words of descriptions, trigger words (Figure 3)</h2>
<div class="pair">${cloud(stats.words)}${cloud(stats.triggers)}</div>
<h2>Distributions (Figure 4)</h2>
<div class="pair">
${shares("(a) trigger words", stats.triggers.slice(0, 25), FIGURE_4.triggers)}
${histogram("(b) frames of animated stickers", FRAME_BINS, stats.frames, FIGURE_4.frames)}
${shares("(c) words of descriptions", stats.words.slice(0, 25), FIGURE_4.words)}
${histogram("(d) characters of descriptions", LENGTH_BINS, stats.lengths, FIGURE_4.lengths)}
</div>
<h2>The filter</h2>
${counts(Object.entries(stats.filter))}
${stats.notCollected.length > 0 ? `<p>Entries of the sources that could not be taken:</p>\n${counts(stats.notCollected)}` : ""}
<h2>Splits</h2>
${counts(Object.entries(stats.splits))}
<h2>Licences</h2>
${counts(stats.licenses)}
${sheets.map(({ title, png }) => `<h2>${escapeHtml(title)}</h2>\n<img alt="${escapeHtml(title)}" src="data:image/png;base64,${Buffer.from(png).toString("base64")}">`).join("\n")}
</body>
</html>
`;
}

function table2(rows: readonly DatasetFacts[]): string {
  const mark = (value: boolean): string => (value ? "✓" : "–");
  const line = (f: DatasetFacts, i: number): string =>
    `<tr${i === rows.length - 1 ? ' class="ours"' : ""}>${[f.dataset, f.size, f.modality, f.language || "–", mark(f.trigger_words), mark(f.ocr), mark(f.domain)].map((cell) => `<td>${escapeHtml(cell)}</td>`).join("")}</tr>`;
  const head = ["Data set", "Size", "Modality", "Language", "Trigger words", "OCR", "Real/cartoon"];
  return `<table><tr>${head.map((cell) => `<th>${cell}</th>`).join("")}</tr>${rows.map(line).join("")}</table>`;
}

function table3({ table3: ours }: Stats): string {
  const names = Object.keys(TABLE_3) as (keyof typeof TABLE_3)[];
  const percent = (name: string, value: number | null): string =>
    value === null ? "–" : name.endsWith("_ratio") ? `${(100 * value).toFixed(1)} %` : value.toFixed(2);
  const line = (name: keyof typeof TABLE_3): string =>
    `<tr><td>${name.replaceAll("_", " ")}</td><td class="n">${percent(name, ours[name])}</td><td class="n">${percent(name, TABLE_3[name])}</td></tr>`;
  return `<table><tr><th></th><th>here</th><th>paper</th></tr>${names.map(line).join("")}</table>`;
}

/** Words as large as the square root of their frequency, which makes areas proportional. */
function cloud(words: readonly Bar[]): string {
  if (words.length === 0) return "<p>none</p>";
  const most = words[0][1];
  const span = ([word, n]: Bar): string =>
    `<span style="font-size:${(0.7 + 2.1 * Math.sqrt(n / most)).toFixed(2)}rem" title="${n}">${escapeHtml(word)}</span>`;
  const mixed = [...words].sort(([a], [b]) => (a < b ? -1 : 1)); // by name: large and small beside each other
  return `<p class="cloud">${mixed.map(span).join(" ")}</p>`;
}

const [WIDTH, ROW] = [460, 15];

/** Two lists that need not share their labels: each with its own bars, as shares of its largest. */
function shares(title: string, ours: readonly Bar[], paper: readonly Bar[]): string {
  const column = (bars: readonly Bar[], name: string, left: number): string =>
    bars
      .map(([label, n], i) => {
        const width = (n / bars[0][1]) * (WIDTH / 2 - 120);
        const y = 20 + ROW * i;
        return `<text x="${left + 100}" y="${y + 11}" text-anchor="end" font-size="10">${escapeHtml(label.slice(0, 18))}</text><rect class="${name}" x="${left + 105}" y="${y + 2}" width="${width.toFixed(1)}" height="${ROW - 4}"><title>${n}</title></rect>`;
      })
      .join("");
  const height = 24 + ROW * Math.max(ours.length, paper.length);
  return svg(title, height, column(ours, "ours", 0) + column(paper, "paper", WIDTH / 2));
}

/** One histogram beside the other, as shares of all. */
function histogram(
  title: string,
  bounds: readonly number[],
  ours: readonly number[],
  paper: readonly number[],
): string {
  const label = (i: number): string =>
    i === bounds.length ? `over ${bounds[i - 1]}` : `${(bounds[i - 1] ?? 0) + 1}–${bounds[i]}`;
  const total = (values: readonly number[]): number =>
    Math.max(
      1,
      values.reduce((a, b) => a + b, 0),
    );
  const [a, b] = [total(ours), total(paper)];
  const most = Math.max(...ours.map((n) => n / a), ...paper.map((n) => n / b));
  const bar = (name: string, share: number, n: number, y: number): string =>
    `<rect class="${name}" x="75" y="${y}" width="${((share / most) * (WIDTH - 130)).toFixed(1)}" height="6"><title>${n}</title></rect>`;
  const rows = ours.map((n, i) => {
    const y = 20 + ROW * i;
    return `<text x="70" y="${y + 11}" text-anchor="end" font-size="10">${label(i)}</text>${bar("ours", n / a, n, y + 1)}${bar("paper", paper[i] / b, paper[i], y + 7)}`;
  });
  return svg(title, 24 + ROW * ours.length, rows.join(""));
}

function svg(title: string, height: number, body: string): string {
  return `<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escapeHtml(title)}"><text x="0" y="12" font-size="12" font-weight="600">${escapeHtml(title)}</text>${body}</svg>`;
}

function counts(rows: readonly (readonly [string, number])[]): string {
  const line = ([name, n]: readonly [string, number]): string =>
    `<tr><td>${escapeHtml(name)}</td><td class="n">${n}</td></tr>`;
  return rows.length === 0 ? "<p>none</p>" : `<table>${rows.map(line).join("")}</table>`;
}
