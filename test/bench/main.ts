// `npm run bench`: reads the options, measures, prints. Built and started by bench.mjs, which passes the checkout's folder
// and the built child in the environment.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, loadavg } from "node:os";
import { dirname, join } from "node:path";
import { type Measured, measure } from "./harness.ts";
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

/** Results of peers that this run did not measure, from an earlier report. */
function earlier(now: readonly Result[]): Result[] {
  if (!options.against) return [];
  const { date, results } = JSON.parse(readFileSync(options.against, "utf8")) as Report;
  const missing = ({ workload, framework }: Result): boolean =>
    framework !== GIFGRAD &&
    now.some((n) => n.workload === workload) &&
    !now.some((n) => n.workload === workload && n.framework === framework);
  return results.filter(missing).map((r) => ({ ...r, earlier: r.earlier ?? date }));
}

const ref = join(root, "..", "shared", "bench", "data", "ref.json");
const began = { load: loadavg()[0], commit: commit() };
const order = new Map(options.workloads.map(({ id }, i) => [id, i]));
const rank = (r: Result): number => order.get(r.workload) ?? 0;

function report({ results: now, versions, adapters }: Measured): Report {
  const results = [...now, ...earlier(now)].toSorted((a, b) => rank(a) - rank(b));
  const [adapter, driver = ""] = (adapters[GIFGRAD] ?? "no adapter").split(": "); // as Dawn describes it
  return {
    date: new Date().toISOString(),
    commit: began.commit,
    node: process.versions.node,
    adapter,
    driver,
    versions,
    cores: availableParallelism(),
    load: [began.load, loadavg()[0]],
    results,
    targets: verdicts(results),
  };
}

/** After every workload, so that a run that is stopped has not been for nothing. */
function write(measured: Measured): void {
  if (!options.out) return;
  const path = options.out.includes("/") ? options.out : join(root, "test", "bench", "results", options.out);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${JSON.stringify(report(measured), null, 1)}\n`);
}

const frameworks = [GIFGRAD, ...options.peers];
const child = process.env.BENCH_CHILD as string;
const measured = await measure({ ...options, frameworks, child, ref, say, done: write });
const final = report(measured);
console.log(options.json ? JSON.stringify(final, null, 1) : render(final));
if (!existsSync(ref)) say("no ref.json beside the checkout: errors of the small workloads only");
if (measured.results.some((r) => r.framework === GIFGRAD && r.failed !== undefined)) process.exitCode = 1;
