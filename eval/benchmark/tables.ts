// A benchmark's result in the layout of the paper's Tables 4 to 7 and Figure 6: which cell stands where, what is best, and which of
// the paper's numbers may stand beside it. Pure; markdown.ts and report.ts only print what is laid out here.

import { METRICS, type Metric, ProtocolError, rank, type Score } from "../score.ts";
import { JOINT, METHODS, PARAMETERS, type PaperColumn, SECONDS, SEPARATE, TRAINING_SETS } from "./paper.ts";
import { metricsOf } from "./plan.ts";
import {
  type BenchmarkResult,
  type BenchmarkSystem,
  type Cell,
  type PaperNumber,
  type Part,
  type ScoreCurve,
  type Table,
  type TableCell,
  TEST_NAMES,
  type TestName,
} from "./result.ts";

/** The tables that the result has cells of, and Table 6, which says what the systems are; without those that would be empty. */
export function tablesOf(result: BenchmarkResult): Table[] {
  const out = leftOut(result).map(({ table: name }) => name);
  return [
    ...(has(result, "separate") ? [systemsTable(result, "separate")] : []),
    ...(has(result, "joint") ? [systemsTable(result, "joint")] : []),
    ...(has(result, "trainingSets") ? [trainingSetsTable(result)] : []),
    methodsTable(result),
  ].filter(({ name }) => !out.includes(name));
}

/** Tables without a column, or without a row, and why. */
export function leftOut(result: BenchmarkResult): { readonly table: string; readonly why: string }[] {
  const columns = !has(result, "trainingSets") || asked(result, OF_TRAINING_SETS).length > 0;
  const rows = result.systems.some(({ name }) => METHODS[name]);
  return [
    ...(columns ? [] : [{ table: "Table 5", why: "it compares VQA and FVD, and neither is among the metrics" }]),
    ...(rows
      ? []
      : [{ table: "Table 6", why: "it says where the systems compared with are from, and there are none" }]),
  ];
}

function has({ cells }: BenchmarkResult, part: Part): boolean {
  return cells.some((cell) => cell.part === part);
}

/** The metrics of Table 5. */
const OF_TRAINING_SETS = ["vqa", "fvd"] as const;

/** The lines of Figure 6, those points that are done. */
export function curvesOf({ cells }: BenchmarkResult): ScoreCurve[] {
  const points = cells.filter(({ part, state, steps }) => part === "curves" && state === "done" && steps !== null);
  const lines = new Map(points.map((cell) => [`${cell.system} ${cell.set} ${cell.test}`, cell]));
  return [...lines.values()].flatMap(({ system, set, test }) =>
    METRICS.map((metric): ScoreCurve => {
      const own = points.filter((cell) => cell.system === system && cell.set === set && cell.test === test);
      const scored = own.flatMap(({ steps, scores: { [metric]: score } }) =>
        score ? [{ steps: steps as number, score }] : [],
      );
      return { system, set, test, metric, points: scored.sort((a, b) => a.steps - b.steps) };
    }).filter((curve) => curve.points.length > 0),
  );
}

/** All that failed, a line each: trainings, costs, cells and single metrics of cells. */
export function failuresOf(result: BenchmarkResult): string[] {
  const { trainings, systems, cells } = result;
  return [
    ...trainings.flatMap(({ id, state, reason }) => (state === "failed" ? [`training ${id}: ${reason}`] : [])),
    ...systems.flatMap(({ title, costFailed }) => (costFailed ? [`cost of ${title}: ${costFailed}`] : [])),
    ...cells.flatMap(({ id, state, reason, failed = {} }) => [
      ...(state === "failed" ? [`${id}: ${reason}`] : []),
      ...METRICS.flatMap((m) => (failed[m] === undefined ? [] : [`${id}, ${metricName(m, result)}: ${failed[m]}`])),
    ]),
  ];
}

/** "FVD", or "FVD-x" where it is not the published network's. */
export function metricName(metric: Metric, { published }: Pick<BenchmarkResult, "published">): string {
  return `${metric.toUpperCase()}${published ? "" : "-x"}`;
}

/** Three decimals, as the paper's; two for distances of hundreds. */
export function scoreText(value: number): string {
  return value.toFixed(Math.abs(value) >= 100 ? 2 : 3);
}

const BETTER: Readonly<Record<Metric, "lower" | "higher">> = { vqa: "higher", fvd: "lower", clip: "higher" };

/** Of one column of a table: what is in its rows, before any is called best. */
interface Column {
  readonly title: string;
  readonly better: "lower" | "higher" | null;
  readonly cells: readonly TableCell[];
}

/** Tables 4 and 7: systems by test sets and metrics. Times and parameters stand in the first of them. */
function systemsTable(result: BenchmarkResult, part: "separate" | "joint"): Table {
  const { systems } = result;
  const separate = part === "separate";
  const notes: string[] = [];
  const groups: { title: string; columns: Column[] }[] = testsOf(result, part).map((test) => ({
    title: test,
    columns: asked(result, METRICS).map((metric) => {
      const paper = (separate ? SEPARATE : JOINT)[test][metric];
      const cells = systems.map(({ name, title }) =>
        metricsOf(name, { metrics: [metric] }).length === 0
          ? none(`${title} is told tags, not captions`)
          : scored(result, { part, test, metric, row: name, paper }, (cell) => cell.system === name),
      );
      return ranked({ title: metricName(metric, result), better: BETTER[metric], cells }, `${test}, `, notes);
    }),
  }));
  const costs = systems.some(({ cost, costFailed }) => cost || costFailed !== undefined);
  if (separate && costs) groups.push({ title: "", columns: costColumns(result) });
  return table({
    name: separate ? "Table 4" : "Table 7",
    title: separate ? "Trained on the stickers of one domain" : "Trained on both domains",
    corner: "Method",
    groups,
    rows: systems.map(({ title }) => title),
    notes: [...notes, ...commonNotes(result, groups)],
  });
}

/** Table 5: one system by the sets that it was trained on. */
function trainingSetsTable(result: BenchmarkResult): Table {
  const cells = result.cells.filter(({ part }) => part === "trainingSets");
  const own = ownName(result);
  const nameOf = ({ set }: Cell): string => (set === "real" || set === "cartoon" ? own : set);
  const rows = [...new Set(cells.map(nameOf))].sort((a, b) => Number(a === own) - Number(b === own)); // the last, as there
  const notes: string[] = [];
  const groups = testsOf(result, "trainingSets").map((test) => ({
    title: test,
    columns: asked(result, OF_TRAINING_SETS).map((metric) => {
      const paper = TRAINING_SETS[test][metric];
      const column = rows.map((row) =>
        scored(result, { part: "trainingSets", test, metric, row, paper }, (cell) => nameOf(cell) === row),
      );
      return ranked({ title: metricName(metric, result), better: BETTER[metric], cells: column }, `${test}, `, notes);
    }),
  }));
  const system = result.systems.find(({ name }) => name === cells[0].system);
  return table({
    name: "Table 5",
    title: `${system?.title ?? cells[0].system}, trained on other sets`,
    corner: "Training set",
    groups,
    rows,
    notes: [...notes, ...commonNotes(result, groups)],
  });
}

/** What the benchmark's own training set is called in Table 5. */
function ownName({ config }: BenchmarkResult): string {
  return (config.training as { readonly name: string }).name;
}

/** Table 6: who the systems are from. */
function methodsTable({ systems }: BenchmarkResult): Table {
  const titles = ["Publication", "Category", "Institution"];
  const known = systems.filter(({ name }) => METHODS[name]);
  const columns = titles.map((title, i) => ({
    title,
    better: null,
    cells: known.map(({ name }): TableCell => ({ kind: "text", text: METHODS[name]?.[i] ?? "" })),
  }));
  const groups = [{ title: "", columns }];
  const rows = known.map(({ title }) => title);
  return table({ name: "Table 6", title: "The systems compared with", corner: "Method", groups, rows, notes: [] });
}

// ---- columns

interface Place {
  readonly part: Part;
  readonly test: TestName;
  readonly metric: Metric;
  /** Of the paper's column. */
  readonly row: string;
  readonly paper: PaperColumn;
}

/** The score of the one cell that is at a place, or what is there in its stead. */
function scored(result: BenchmarkResult, place: Place, isRow: (cell: Cell) => boolean): TableCell {
  const { part, test, metric, row, paper } = place;
  const number = paperNumber(paper, row, BETTER[metric], result.published ? scoreText : null);
  const cell = result.cells.find((c) => c.part === part && c.test === test && isRow(c));
  if (!cell) return none("not asked for", number);
  if (cell.state === "pending") return { kind: "pending" };
  if (cell.state === "failed") return { kind: "failed", reason: cell.reason ?? "no reason was given" };
  const score = cell.scores[metric];
  const reason = cell.failed?.[metric];
  if (reason !== undefined) return { kind: "failed", reason };
  if (!score) return none(result.missing[metric] ?? "not computed", number);
  return { kind: "value", text: scoreText(score.value), value: score.value, place: null, score, paper: number };
}

function none(why: string, paper: PaperNumber | null = null): TableCell {
  return { kind: "none", why, paper };
}

/** Inference time and parameters. */
function costColumns({ systems, preset }: BenchmarkResult): Column[] {
  const column = (
    of: (cost: NonNullable<BenchmarkSystem["cost"]>) => readonly [value: number, text: string],
    paper: PaperColumn,
    print: ((value: number) => string) | null,
  ): TableCell[] =>
    systems.map(({ name, cost, costFailed }) => {
      if (!cost) return costFailed === undefined ? { kind: "pending" } : { kind: "failed", reason: costFailed };
      const [value, text] = of(cost);
      return { kind: "value", value, text, place: null, score: null, paper: paperNumber(paper, name, "lower", print) };
    });
  const billions = (value: number): string => `${(value / 1e9).toFixed(3)} B`;
  const count = (value: number): string => (preset === "paper" ? billions(value) : value.toLocaleString("en"));
  return [
    {
      title: "Inference time (s)",
      better: null,
      cells: column(({ time }) => [time.mean, time.mean.toPrecision(3)], SECONDS, null), // another machine's
    },
    {
      title: "Parameters",
      better: null,
      cells: column(
        ({ parameters: { total } }) => [total, count(total)],
        PARAMETERS,
        preset === "paper" ? billions : null,
      ),
    },
  ];
}

/** What the paper has in a row of a column, and where it stands there; null for its dashes. */
function paperNumber(
  column: PaperColumn,
  row: string,
  better: "lower" | "higher",
  print: ((value: number) => string) | null,
): PaperNumber | null {
  const value = column[row];
  if (value === null || value === undefined) return null;
  const values = Object.values(column).filter((x): x is number => typeof x === "number");
  const place = 1 + values.filter((x) => (better === "lower" ? x < value : x > value)).length;
  return { text: print?.(value) ?? null, place, of: values.length };
}

/**
 * Marks the best and the second best; values that print alike share a place, and two that are best leave no second. Scores
 * that were measured unlike each other are not ranked, and a note says what differs.
 */
function ranked(column: Column, where: string, notes: string[]): Column {
  const scores = column.cells.flatMap((cell) => (cell.kind === "value" && cell.score ? [cell.score] : []));
  try {
    const order = rank(scores);
    const placeOf = (text: string): 1 | 2 | null => {
      const place = 1 + order.findIndex((i) => scoreText(scores[i].value) === text);
      return scores.length > 1 && (place === 1 || place === 2) ? place : null;
    };
    const cells = column.cells.map((cell) => (cell.kind === "value" ? { ...cell, place: placeOf(cell.text) } : cell));
    return { ...column, cells };
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    notes.push(`${where}not ranked: ${error.message}`);
    return column;
  }
}

// ---- the rest of a table

/** The test sets that cells of a part are of, in the paper's order. */
function testsOf({ cells }: BenchmarkResult, part: Part): TestName[] {
  return TEST_NAMES.filter((test) => cells.some((cell) => cell.part === part && cell.test === test));
}

/** Those of the metrics that the configuration asks for. */
function asked<M extends Metric>({ config }: BenchmarkResult, metrics: readonly M[]): M[] {
  return metrics.filter((metric) => (config.metrics as readonly string[]).includes(metric));
}

interface Layout extends Omit<Table, "groups" | "rows"> {
  readonly groups: readonly { readonly title: string; readonly columns: readonly Column[] }[];
  readonly rows: readonly string[];
}

function table({ groups, rows, ...rest }: Layout): Table {
  const columns = groups.flatMap((group) => group.columns);
  return {
    ...rest,
    groups: groups.map((group) => ({
      title: group.title,
      columns: group.columns.map(({ title, better }) => ({ title, better })),
    })),
    rows: rows.map((title, i) => ({ title, cells: columns.map(({ cells }) => cells[i]) })),
  };
}

/** How sure the marks are, and what the paper's numbers are worth here. */
function commonNotes(result: BenchmarkResult, groups: Layout["groups"]): string[] {
  const columns = groups.flatMap((group) => group.columns).filter(({ better }) => better !== null);
  const compared = columns.filter(({ cells }) => cells.some((cell) => cell.kind === "value" && cell.place === 1));
  const close = compared.filter((column) => overlapping(column, 1)).length;
  const all = compared.filter((column) => overlapping(column, -1)).length;
  const notes: string[] = [];
  if (close > 0)
    notes.push(
      `The intervals of the best and the next overlap in ${close} of ${compared.length} ranked columns, those of the best ` +
        `and the worst in ${all}: the order there is no finding.`,
    );
  notes.push(
    result.published
      ? "The paper's numbers are of its own data and weights; what clips were scored, and how, is not known of them."
      : "Scores that end in -x are by networks trained on these stickers: they cannot be held against the paper's numbers. " +
          "Of those only the order is shown.",
  );
  return notes;
}

/** Whether the interval of the best score of a column reaches that of another: at place 1 the next, at -1 the worst. */
function overlapping({ cells, better }: Column, place: number): boolean {
  const scores = cells.flatMap((cell): Score[] => (cell.kind === "value" && cell.score ? [cell.score] : []));
  if (scores.length < 2) return false;
  const sorted = [...scores].sort((a, b) => (better === "lower" ? a.value - b.value : b.value - a.value));
  const [best, other] = [sorted[0].interval, sorted.at(place)?.interval];
  if (!best || !other) return true;
  return best.low <= other.high && other.low <= best.high;
}
