// What one sticker of each system takes, as a table of texts: parameters by component, seconds, memory, operations. Whether Table 4
// is asked for makes no difference. Called by markdown.ts and report.ts; measuring is eval/cost.ts.

import type { BenchmarkResult } from "./result.ts";

export interface CostTable {
  readonly head: readonly string[];
  /** One for each system that was measured; the first text is its title. */
  readonly rows: readonly (readonly string[])[];
  readonly note: string;
}

/** Null where nothing was measured. */
export function costTable({ systems }: BenchmarkResult): CostTable | null {
  const costs = systems.flatMap(({ title, cost }) => (cost ? [{ title, cost }] : []));
  if (costs.length === 0) return null;
  const parts = [...new Set(costs.flatMap(({ cost }) => Object.keys(cost.parameters.components)))];
  const times = ["Seconds, mean", "median", "5 % to 95 %", "runs"];
  const rest = ["Memory, planned", "measured", "Operations", "Dispatches"];
  return {
    head: ["System", "Parameters", ...parts, ...times, ...rest],
    rows: costs.map(({ title, cost: { parameters, time, memory, flops, dispatches } }) => [
      title,
      count(parameters.total),
      ...parts.map((part) => (part in parameters.components ? count(parameters.components[part]) : "–")),
      seconds(time.mean),
      seconds(time.median),
      `${seconds(time.p5)} to ${seconds(time.p95)}`,
      count(time.runs),
      megabytes(memory.planned),
      memory.measured === null ? "not known" : megabytes(memory.measured),
      `${(flops / 1e9).toPrecision(3)} G`,
      count(dispatches),
    ]),
    note: "Seconds from a caption to pixels, one sticker at a time, the first one left out. Memory is that of the device.",
  };
}

const count = (n: number): string => n.toLocaleString("en");
const seconds = (s: number): string => s.toPrecision(3);
const megabytes = (n: number): string => (n >= 1e9 ? `${(n / 1e9).toFixed(2)} GB` : `${(n / 1e6).toFixed(1)} MB`);
