// The benchmark itself: its numbers are the ones every implementation is given, its command line and its verdicts mean what
// they say, and one workload goes through build, child process, measurement and comparison.

import { execFile, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { channelsFirst, channelsLast, I, kernelFirst, kernelLast, numel, R, u } from "./bench/data.ts";
import { ddimSchedule } from "./bench/diffusion.ts";
import { lossErrors, outputErrors, reference } from "./bench/errors.ts";
import { parseOptions } from "./bench/options.ts";
import { loadParams, MODELS } from "./bench/params.ts";
import { GIFGRAD, JAX, PEAK, RATIOS, type Report, type Result, TFJS, verdicts } from "./bench/results.ts";
import { render, resultTable, targetTable } from "./bench/table.ts";
import { select, WORKLOADS } from "./bench/workloads.ts";
import { onGpu } from "./device.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const ref = `${root}../shared/bench/data/ref.json`;

describe("data", () => {
  test("the seeded numbers are these", () => {
    expect([u(0, 1), u(1, 1), u(5, 1003)]).toEqual([-0.2800297737121582, 0.4472200870513916, -0.5917160511016846]);
    const many = R([1000], 3, 2);
    expect(Math.max(...many.map(Math.abs))).toBeLessThan(2);
    const labels = I(256, 10, 2);
    expect(labels.every((l) => l >= 0 && l < 10)).toBe(true);
    expect(new Set(labels).size).toBe(10);
  });
  test("layouts there and back", () => {
    const x = R([2, 3, 4, 5], 1);
    expect(channelsLast(x, [2, 3, 4, 5])[1]).toBe(x[20]); // channel 1 of the first pixel
    expect(channelsFirst(channelsLast(x, [2, 3, 4, 5]), [2, 4, 5, 3])).toEqual(x);
    expect(kernelFirst(kernelLast(x, [2, 3, 4, 5]), [4, 5, 3, 2])).toEqual(x);
  });
  test("models have the parameters that are counted", () => {
    const counts = Object.values(MODELS).map((params) => params.reduce((sum, p) => sum + numel(p.shape), 0));
    expect(counts).toEqual([669_706, 1_132_164, 1_422_340, 891_648, 234_787]);
    const [w, b, second] = loadParams("mlp");
    expect([w.data[0], b.data[0], second.data[0]]).toEqual([
      Math.fround(u(0, 1000) / 28),
      0,
      Math.fround(u(0, 1002) / Math.sqrt(512)),
    ]);
  });
  test("the sampling schedule ends at the image", () => {
    const steps = ddimSchedule();
    expect(steps.map(({ t }) => t).slice(0, 2)).toEqual([960, 920]);
    const last = steps[24];
    expect([steps.length, last.t]).toEqual([25, 0]);
    expect(last.keep).toBeCloseTo(1 / Math.sqrt(1 - 1e-4), 12);
    expect(last.add).toBeCloseTo(-0.01 / Math.sqrt(1 - 1e-4), 12);
  });
});

describe("command line", () => {
  test("a name stands for itself and for all that continue it", () => {
    expect(select("W1,W9").map(({ id }) => id)).toEqual(["W1.512", "W1.1024", "W9"]);
    expect(select("W3.fb").map(({ id }) => id)).toEqual(["W3.fb"]);
    expect(select("")).toHaveLength(WORKLOADS.length);
    expect(() => select("W13")).toThrow("no workload W13");
  });
  test("options, defaults and mistakes", () => {
    const parse = (...argv: string[]) => parseOptions(argv, true);
    expect(parse()).toMatchObject({ peers: [], json: false, runs: 5, cold: false });
    expect(parse("--peers", "--json", "--only", "W8")).toMatchObject({ peers: [JAX, "jax-js wasm", TFJS], json: true });
    expect(parse("--peers", "tfjs").peers).toEqual([TFJS]);
    expect(() => parse("--peers", "torch")).toThrow("there is no torch");
    expect(() => parse("--runs", "none")).toThrow("above zero");
    expect(() => parse("--fast")).toThrow("--fast");
  });
});

test("a mistake gives one line and exit code 1", () => {
  const args = ["test/bench/bench.mjs", "--only", "W99"];
  const { status, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: "utf8" });
  expect(stderr).toMatch(/^bench: --only: there is no workload W99; [^\n]+\n$/);
  expect(status).toBe(1);
});

describe("errors", () => {
  const want = { y: { n: 4, samples: [1, -2, 3, 4], norm: Math.sqrt(30), max: 4 } };
  test("are relative to the largest magnitude, and NaN is the worst", () => {
    expect(outputErrors("W5", { y: [1, -2, 3, 4] }, want)).toEqual({ err: 0, errNorm: 0 });
    expect(outputErrors("W5", { y: [1, -2, 3.5, 4] }, want).err).toBe(0.125);
    expect(outputErrors("W5", { y: [1, Number.NaN, 3, 4] }, want).err).toBe(Number.POSITIVE_INFINITY);
    expect(outputErrors("W11.sample", { y: [1, -2, 3, 5] }, want).err).toBe(0.25);
    expect(() => outputErrors("W5", { y: [1] }, want)).toThrow("expected 4 values");
    expect(lossErrors([2, 1.01], [2, 1, 0.5])).toEqual({ err: expect.closeTo(0.01), steps: 2 });
  });
  test("the float64 loops agree with the stored results", (context) => {
    if (!existsSync(ref)) context.skip("../shared/bench is absent");
    for (const id of ["W1b", "W6", "W7.row"]) {
      const [own, stored] = [reference(id, "nowhere")?.outputs?.y, reference(id, ref)?.outputs?.y];
      const got = { y: stored?.samples ?? [] };
      expect(outputErrors(id, got, { y: { n: 256, samples: own?.samples ?? [] } }).err).toBeLessThan(1e-6);
    }
  });
});

describe("verdicts and tables", () => {
  const result = (framework: string, cpuMs: number): Result => ({ workload: "W9", framework, runs: 3, cpuMs });
  const results: Result[] = [
    { ...result(GIFGRAD, 100), cache: "empty", coldMs: 12_000, warmMs: 900, errors: { err: 2e-6 } },
    result(JAX, 500),
    { workload: "W9", framework: TFJS, runs: 0, failed: "too slow" },
  ];
  test("a target is met, missed or not measured", () => {
    const met = verdicts(results).map((v) => v.met);
    expect(met).toEqual([true, undefined, false, true, undefined]);
    expect(verdicts([result(GIFGRAD, 101), result(JAX, 500)])[0].met).toBe(false);
  });
  test("every target is about a workload that exists", () => {
    const ids = WORKLOADS.map(({ id }) => id);
    expect([...RATIOS.map((t) => t.workload), ...PEAK.workloads].filter((id) => !ids.includes(id))).toEqual([]);
  });
  test("planned memory, the host's time and growth are targets too, and less is better", () => {
    const of = (bytes: number, encodeMs: number, grownBytes: number): Result[] => [
      { ...result(GIFGRAD, 100), arena: { bytes, least: 100 } },
      {
        ...result(GIFGRAD, 1),
        workload: "host",
        host: { dispatches: 501, encodeMs, encodeMinMs: 1, submitMs: 0.5, bareMs: 1, calls: 1000, grownBytes },
      },
    ];
    const outcomes = (results: readonly Result[]): unknown[] =>
      verdicts(results)
        .filter((v) => v.workload === "host" || v.target.startsWith("planned"))
        .map((v) => v.met);
    expect(outcomes(of(130, 1.7, 0))).toEqual([true, true, true]);
    expect(outcomes(of(131, 1.8, 16))).toEqual([false, false, false]);
    expect(outcomes([result(GIFGRAD, 100)])).toEqual([undefined]);
    expect(targetTable(verdicts(of(260, 3.4, 0)))).toMatch(/500 dispatches .* 3\.40 +MISSED +0\.50x/);
    expect(resultTable(of(260, 3.4, 0))).toContain("host: 501 dispatches encoded in 3.40 ms");
  });
  test("the tables show them", () => {
    const table = resultTable(results);
    expect(table).toMatch(/W9 +jax-js webgpu +500 +5\.00/);
    expect(table).toContain("W9 tfjs webgpu: too slow");
    const targets = targetTable(verdicts(results));
    expect(targets).toMatch(/1\/5 of jax-js webgpu +5\.00 +met/);
    expect(targets).toMatch(/at most 10000 ms +12000 +MISSED +0\.83x/);
  });
});

onGpu("one workload end to end", async () => {
  const args = ["test/bench/bench.mjs", "--only", "W7.row", "--runs", "2", "--json"];
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: root });
  const report = JSON.parse(stdout) as Report;
  const [result] = report.results;
  expect(result).toMatchObject({ workload: "W7.row", framework: GIFGRAD, runs: 2 });
  expect(result.failed).toBeUndefined();
  expect(result.errors?.err).toBeLessThan(1e-6);
  expect(
    Math.min(...[result.cpuMs, result.minMs, result.coldMs, result.initMs, result.rssMb].map((n) => n ?? 0)),
  ).toBeGreaterThan(0);
  expect(render(report)).toContain("W7.row: sums of 4096 rows");
});
