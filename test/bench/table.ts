// Results as tables for people. Pure; called by main.ts.

import { GIFGRAD, type Report, type Result, type Verdict } from "./results.ts";
import { WORKLOADS } from "./workloads.ts";

/** Columns of equal width, numbers to the right; the first row is the heading. */
export function align(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((r) => r[i].length)));
  const numeric = rows[0].map((_, i) => i > 1);
  const line = (r: readonly string[]): string =>
    r
      .map((cell, i) => (numeric[i] ? cell.padStart(widths[i]) : cell.padEnd(widths[i])))
      .join("  ")
      .trimEnd();
  return rows.map(line).join("\n");
}

/** Three digits that mean something. */
export function short(x: number | undefined): string {
  if (x === undefined) return "-";
  if (!Number.isFinite(x)) return String(x);
  if (x >= 100) return x.toFixed(0);
  return x >= 10 ? x.toFixed(1) : x >= 0.01 || x === 0 ? x.toFixed(2) : x.toExponential(1);
}

function error({ errors }: Result): string {
  if (errors === null) return "unchecked";
  if (!errors) return "-";
  return errors.err === 0 ? "0" : errors.err.toExponential(0);
}

/** One line per framework and workload; `ratio` is its CPU time over Gifgrad's. */
export function resultTable(results: readonly Result[]): string {
  const head = [
    "workload",
    "framework",
    "cpu ms",
    "ratio",
    "min ms",
    "med ms",
    "GFLOP/s",
    "cold ms",
    "init ms",
    "MB",
    "error",
  ];
  const own = new Map(results.filter((r) => r.framework === GIFGRAD).map((r) => [r.workload, r.cpuMs]));
  const rows = results.map((r) => {
    const base = own.get(r.workload);
    const ratio = r.framework !== GIFGRAD && r.cpuMs !== undefined && base !== undefined ? r.cpuMs / base : undefined;
    const cold = r.coldMs === undefined ? "-" : `${short(r.coldMs)}${r.cache === "empty" ? "*" : ""}`;
    const numbers = [r.cpuMs, ratio, r.minMs, r.medMs, r.gflops].map(short);
    return [
      r.workload,
      r.earlier ? `${r.framework} \u2020` : r.framework,
      ...numbers,
      cold,
      short(r.initMs),
      short(r.rssMb),
      error(r),
    ];
  });
  const costs = results.flatMap(({ workload, host, arena }) => [
    ...(host
      ? [
          `${workload}: ${host.dispatches} dispatches encoded in ${short(host.encodeMs)} ms (median; least ${short(host.encodeMinMs)}; ${short(host.bareMs)} for the calls alone), submitted in ${short(host.submitMs)} ms; ${host.grownBytes} bytes more on the device after ${host.calls} calls`,
        ]
      : []),
    ...(arena ? [`${workload}: arena ${arena.bytes} bytes, lower bound ${arena.least}`] : []),
  ]);
  const failures = results
    .filter((r) => r.failed !== undefined)
    .map((r) => `${r.workload} ${r.framework}: ${r.failed}`);
  return [align([head, ...rows]), ...costs, ...failures].join("\n");
}

/** By how much a target is met or missed: above 1 is better than asked. */
function margin({ want, got, less }: Verdict): number {
  if (got === want) return 1; // zero of zero
  return less ? want / (got as number) : (got as number) / want;
}

export function targetTable(verdicts: readonly Verdict[]): string {
  if (verdicts.length === 0) return "";
  const rows = verdicts.map((v) => {
    const outcome = v.met === undefined ? "not measured" : v.met ? "met" : "MISSED";
    const by = v.met === undefined ? "-" : `${short(margin(v))}x`;
    const got = v.cpuMs === undefined ? short(v.got) : `${short(v.got)} (${short(v.cpuMs)} CPU)`;
    return [v.workload, v.target, got, outcome, by];
  });
  return align([["workload", "target", "got", "outcome", "of what is asked"], ...rows]);
}

export function render(report: Report): string {
  const titles = WORKLOADS.filter(({ id }) => report.results.some((r) => r.workload === id)).map(
    ({ id, title }) => `${id}: ${title}`,
  );
  const versions = Object.entries(report.versions).map(([name, v]) => `${name} ${v}`);
  return [
    `${report.date}, commit ${report.commit}, Node ${report.node}, ${report.cores} cores, load ${report.load.map(short).join(" to ")}`,
    `${report.adapter} (${report.driver}); ${versions.join(", ")}`,
    "",
    resultTable(report.results),
    "",
    targetTable(report.targets),
    "",
    "cpu: least process CPU time of one execution, all threads. ratio: over Gifgrad's. cold: first execution; * with an empty driver cache.",
    ...(report.results.some((r) => r.earlier) ? ["\u2020 measured earlier"] : []),
    titles.join("; "),
  ].join("\n");
}
