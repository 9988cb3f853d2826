// benchmark.md: the tables of a result as Markdown. Best in bold, second best underlined, as in the paper; below each number its
// interval. What stands where is tables.ts's business; the page with curves and playing GIFs is report.ts.

import { costTable } from "./costs.ts";
import type { BenchmarkResult, PaperNumber, Table, TableCell } from "./result.ts";
import { curvesOf, failuresOf, leftOut, metricName, scoreText, tablesOf } from "./tables.ts";

export function renderBenchmarkMarkdown(result: BenchmarkResult): string {
  return `${[
    `# ${text(result.title)}`,
    facts(result),
    ...tablesOf(result).map(renderTable),
    ...renderCurves(result),
    ...renderCosts(result),
    ...renderFloors(result),
    ...renderFailures(result),
  ].join("\n\n")}\n`;
}

function facts(result: BenchmarkResult): string {
  const { adapter, environment, preset, size, frames, seed, sampling, tests, seconds, complete } = result;
  const commit = environment.git ? `, commit ${environment.git.commit.slice(0, 12)}` : "";
  const lines = [
    `- adapter: ${text(adapter.name)} (${adapter.kind}); gifgrad ${environment.versions.gifgrad}${commit}`,
    `- preset ${preset}, ${frames} frames of ${size} pixels, seed ${seed}`,
    `- sampling: ${text(sampling)}`,
    `- test sets: ${tests.map(({ name, stickers }) => `${name} (${stickers} stickers)`).join(", ")}`,
    `- ${Math.round(seconds)} s in all${complete ? "" : "; not complete yet"}`,
    ...leftOut(result).map(({ table, why }) => `- no ${table}: ${text(why)}`),
    "- **best**, <u>second best</u>, [95 % interval]; p3/6: third of six in the paper's table",
  ];
  return lines.join("\n");
}

function renderTable({ name, title, corner, groups, rows, notes }: Table): string {
  const columns = groups.flatMap((group) =>
    group.columns.map((column) => {
      const arrow = { lower: " ↓", higher: " ↑", none: "" }[column.better ?? "none"];
      return `${group.title === "" ? "" : `${group.title} `}${column.title}${arrow}`;
    }),
  );
  return [
    `## ${name}: ${text(title)}`,
    "",
    line([corner, ...columns]),
    line(["---", ...columns.map(() => "---")]),
    ...rows.map((row) => line([text(row.title), ...row.cells.map(renderCell)])),
    ...(notes.length > 0 ? ["", ...notes.map((note) => `- ${text(note)}`)] : []),
  ].join("\n");
}

/** Of Markdown's table. */
function line(cells: readonly string[]): string {
  return `| ${cells.join(" | ")} |`;
}

function renderCell(cell: TableCell): string {
  if (cell.kind === "text") return text(cell.text);
  if (cell.kind === "pending") return "...";
  if (cell.kind === "failed") return "failed";
  if (cell.kind === "none") return ["–", ...paper(cell.paper)].join(" ");
  const marked = { 1: `**${cell.text}**`, 2: `<u>${cell.text}</u>`, 0: cell.text }[cell.place ?? 0];
  const interval = cell.score?.interval;
  const spread = interval ? [`[${scoreText(interval.low)}, ${scoreText(interval.high)}]`] : [];
  return [marked, ...spread, ...paper(cell.paper)].join(" ");
}

/** "(paper: 2613.41, p1/6)", or the place alone. */
function paper(number: PaperNumber | null): string[] {
  if (!number) return [];
  const place = `p${number.place}/${number.of}`;
  return [`(${number.text === null ? place : `paper: ${number.text}, ${place}`})`];
}

/** Figure 6 in numbers: a table per metric and test set, systems by steps. */
function renderCurves(result: BenchmarkResult): string[] {
  const curves = curvesOf(result);
  const titles = new Map(result.systems.map(({ name, title }) => [name, title]));
  const figures = new Map(curves.map((curve) => [`${curve.test} ${curve.metric}`, curve]));
  const tables = [...figures.values()].map(({ test, metric }) => {
    const own = curves.filter((curve) => curve.test === test && curve.metric === metric);
    const steps = [...new Set(own.flatMap(({ points }) => points.map((point) => point.steps)))].sort((a, b) => a - b);
    const rows = own.map(({ system, set, points }) => {
      const values = steps.map((step) => {
        const score = points.find((point) => point.steps === step)?.score;
        return score ? scoreText(score.value) : "";
      });
      return `| ${text(titles.get(system) ?? system)} (${text(set)}) | ${values.join(" | ")} |`;
    });
    const head = `| ${test}: ${metricName(metric, result)} after steps | ${steps.join(" | ")} |`;
    return [head, `|${"---|".repeat(steps.length + 1)}`, ...rows].join("\n");
  });
  return tables.length > 0 ? ["## Figure 6: scores against training steps", ...tables] : [];
}

function renderCosts(result: BenchmarkResult): string[] {
  const costs = costTable(result);
  if (!costs) return [];
  const { head, rows, note } = costs;
  const lines = [line(head.map(text)), line(head.map(() => "---")), ...rows.map((row) => line(row.map(text)))];
  return ["## What one sticker takes", lines.join("\n"), `- ${note}`];
}

/** What real stickers score, by test set and metric: the same for all systems. */
function renderFloors(result: BenchmarkResult): string[] {
  const lines = new Set(
    result.cells.flatMap(({ test, scores }) =>
      Object.values(scores).flatMap(({ name, floor }) =>
        floor ? [`- ${test}, ${name}: ${scoreText(floor.value)} (n ${floor.n})`] : [],
      ),
    ),
  );
  return lines.size > 0 ? [`## What real stickers score\n\n${[...lines].sort().join("\n")}`] : [];
}

function renderFailures(result: BenchmarkResult): string[] {
  const missing = Object.entries(result.missing).map(([metric, why]) => `${metric} is not computed: ${why}`);
  const lines = [...failuresOf(result), ...missing].map((line) => `- ${line}`);
  return lines.length > 0 ? [`## What failed\n\n${lines.map(text).join("\n")}`] : [];
}

/** Without what Markdown, or a cell of its tables, would take for itself. */
function text(words: string): string {
  return words
    .replace(/\s+/g, " ")
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replace(/[\\|*_`[\]]/g, "\\$&");
}
