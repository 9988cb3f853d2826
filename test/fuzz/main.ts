// `npm run fuzz -- --cases 10000`: the long run of the fuzz test (run.ts). `--seed` and `--from` choose the cases, `--keep FILE`
// with `--cases 1` writes that case to a file to look at. Prints a report; the exit code is 1 when anything went wrong.

import { writeFile } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { parseArgs } from "node:util";
import { progress } from "../../train/progress.ts";
import { fuzzCase } from "./mutate.ts";
import { fuzz, fuzzArchives, poolDecoder } from "./run.ts";
import { seeds } from "./seeds.ts";

const text = { type: "string" } as const;
const { values } = parseArgs({
  options: { cases: text, seed: text, from: text, processes: text, keep: text },
});
const [cases, seed, from] = [Number(values.cases ?? 10_000), Number(values.seed ?? 1), Number(values.from ?? 0)];
const processes = Number(values.processes ?? cpus().length);

if (values.keep) await writeFile(values.keep, fuzzCase(await seeds(), seed, from).bytes);

const started = performance.now();
const decoder = poolDecoder(processes);
const line = progress("fuzz", cases);
const report = await fuzz({
  seed,
  from,
  cases,
  dir: tmpdir(),
  decoder,
  parallel: 2 * processes,
  onProgress: (done) => line.update(done),
});
await decoder.close();
line.done();
const archives = Math.ceil(cases / 50);
const failures = [...report.failures, ...(await fuzzArchives(seed, archives, tmpdir()))];

const seconds = Math.round((performance.now() - started) / 1000);
const [decoded, peak] = [report.decoded, Math.round(report.peakBytes / 1e6)];
console.log(`${cases} files and ${archives} archives in ${seconds} s: ${decoded} decoded, ${cases - decoded} rejected`);
console.log(`most memory of a decoding process: ${peak} MB`);
for (const [reason, count] of [...report.rejected].sort((a, b) => b[1] - a[1]).slice(0, 25))
  console.log(`${String(count).padStart(7)}  ${reason}`);
for (const failure of failures) console.log(`FAILED ${failure.case}: ${failure.what}`);
console.log(failures.length === 0 ? "nothing went wrong" : `${failures.length} went wrong`);
process.exitCode = failures.length === 0 ? 0 : 1;
