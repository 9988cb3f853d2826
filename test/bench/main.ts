// `npm run bench`: reads the options, measures, prints. Built and started by bench.mjs, which passes the checkout's folder
// and the built child in the environment.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, loadavg } from "node:os";
import { dirname, join } from "node:path";
import { measure } from "./harness.ts";
import { parseOptions } from "./options.ts";
import { GIFGRAD, type Report, type Result, verdicts } from "./results.ts";
import { render } from "./table.ts";

const root = process.env.BENCH_ROOT as string;
const options = parseOptions(process.argv.slice(2));
const say = (text: string): void => console.error(text);

function commit(): string {
  const git = (...args: string[]): string => execFileSync("git", args, { cwd: root, encoding: "utf8" }).trim();
  try {
    return git("rev-parse", "--short", "HEAD") + (git("status", "--porcelain") === "" ? "" : " with changes");
  } catch {
    return "unknown";
  }
}

/** Results of peers that this run did not measure, from an earlier one. */
function earlier(now: readonly Result[]): Result[] {
  if (!options.against) return [];
  const { results } = JSON.parse(readFileSync(options.against, "utf8")) as Report;
  const same = (a: Result, b: Result): boolean => a.workload === b.workload && a.framework === b.framework;
  return results.filter((r) => now.some((n) => n.workload === r.workload) && !now.some((n) => same(n, r)));
}

const load = loadavg()[0];
const measured = await measure({
  ...options,
  frameworks: [GIFGRAD, ...options.peers],
  child: process.env.BENCH_CHILD as string,
  ref: join(root, "..", "shared", "bench", "data", "ref.json"),
  say,
});
const order = new Map(options.workloads.map(({ id }, i) => [id, i]));
const rank = (r: Result): number => order.get(r.workload) ?? 0;
const results = [...measured.results, ...earlier(measured.results)].toSorted((a, b) => rank(a) - rank(b));
const [adapter, driver] = (measured.adapters[GIFGRAD] ?? "no adapter").split("; ");
const report: Report = {
  date: new Date().toISOString(),
  commit: commit(),
  node: process.versions.node,
  adapter,
  driver: driver ?? "",
  versions: measured.versions,
  cores: availableParallelism(),
  load: [load, loadavg()[0]],
  results,
  targets: verdicts(results),
};
const text = JSON.stringify(report, null, 1);
if (options.out) {
  const path = options.out.includes("/") ? options.out : join(root, "test", "bench", "results", options.out);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${text}\n`);
}
console.log(options.json ? text : render(report));
if (!existsSync(join(root, "..", "shared", "bench", "data", "ref.json")))
  say("no ref.json beside the checkout: errors of the small workloads only");
