// A whole benchmark, tiny, on an adapter: stopped in the middle and gone on with, nothing done twice; a training that fails and
// what becomes of the others; a changed configuration. The order of cells and the tables are benchmark.test.ts.

import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, expect, type MockInstance, test, vi } from "vitest";
import { runBenchmark } from "../cli/benchmark.ts";
import { checkHeldOut, openTests, stickersOf } from "../cli/benchmark_sets.ts";
import type { Device } from "../engine/index.ts";
import { parseBenchmark } from "../eval/benchmark/config.ts";
import { planBenchmark } from "../eval/benchmark/plan.ts";
import type { BenchmarkResult, Cell } from "../eval/benchmark/result.ts";
import { Clip } from "../models/clip.ts";
import { Sampler } from "../train/sample.ts";
import { onGpu } from "./device.ts";

const dir = mkdtempSync(join(tmpdir(), "gifgrad-benchmark-"));
const out = join(dir, "run");
afterAll(() => rmSync(dir, { recursive: true }));
afterEach(() => {
  process.exitCode = undefined;
});

const starter = (count: number, seed: number, domain: string) => ({
  starter: { count, seed, domains: [domain], plain: true },
});
/** There are no Real stickers to train on: those trainings fail. */
const CONFIG = {
  preset: "nano",
  systems: ["sti"],
  training: { stickers: starter(4, 1, "Cartoon") },
  test: { "VSD-R": starter(4, 2, "Real"), "VSD-C": starter(4, 2, "Cartoon") },
  tables: { separate: true, curves: { systems: ["sti"], set: "cartoon", every: 1 } },
  steps: { autoencoder: 1, diffusion: 2, vqvae: 1, prior: 1 },
  sampling: { steps: 1, guidance: 1, batch: 2 },
  weights: { train: { steps: 2, batch: 2 } },
  gallery: 1,
};

async function work(device: Device, over: object = {}): Promise<BenchmarkResult> {
  const config = parseBenchmark({ ...CONFIG, ...over }, "the test", dir);
  await runBenchmark(config, planBenchmark(config), out, device);
  return JSON.parse(readFileSync(join(out, "benchmark.json"), "utf8"));
}

/** Every file that takes time to make, with when it was written. */
function madeIn(): Map<string, number> {
  const files = readdirSync(out, { recursive: true, encoding: "utf8" });
  const kept = files.filter((name) => /^(samples|cells|features-|sets).*\.(gif|json|jsonl|safetensors)$/.test(name));
  const states = files.filter((name) => /^trainings.*(state\.safetensors|training\.json)$/.test(name));
  return new Map([...kept, ...states].map((name) => [name, statSync(join(out, name)).mtimeMs]));
}

/** Ctrl-C in the middle of the second batch of stickers that is sampled. */
function stopWhileSampling(): MockInstance {
  const { sample } = Sampler.prototype;
  let batches = 0;
  return vi.spyOn(Sampler.prototype, "sample").mockImplementation(function (this: Sampler, ...args) {
    if (++batches === 2) process.emit("SIGINT", "SIGINT");
    return sample.apply(this, args);
  });
}

const stateOf = ({ cells }: BenchmarkResult): Record<string, string> =>
  Object.fromEntries(cells.map(({ id, state }) => [id, state]));

const made: { before: Map<string, number>; after: Map<string, number>; result: BenchmarkResult | null } = {
  before: new Map(),
  after: new Map(),
  result: null,
};

onGpu("Ctrl-C while stickers are sampled keeps those that are done", async (device) => {
  const spy = stopWhileSampling();
  const stopped = await work(device);
  spy.mockRestore();
  expect(process.exitCode).toBe(130);
  expect(stopped.complete).toBe(false);
  expect(stateOf(stopped)["separate/sti/cartoon/VSD-C"]).toBe("pending");
  made.before = madeIn();
  const names = [...made.before.keys()];
  expect(names.filter((name) => name.endsWith(".gif") && name.startsWith("samples"))).toHaveLength(2);
  expect(names.some((name) => name.startsWith("cells"))).toBe(false);
});

onGpu("the same command goes on where it was, and what fails does not stop the rest", async (device) => {
  expect(made.before.size).toBeGreaterThan(0);
  const result = await work(device);
  expect(process.exitCode).toBe(1); // something failed
  for (const [name, time] of made.before) expect([name, statSync(join(out, name)).mtimeMs]).toEqual([name, time]);
  expect(result.complete).toBe(true);
  expect(stateOf(result)).toEqual({
    "separate/sti/real/VSD-R": "failed",
    "separate/sti/cartoon/VSD-C": "done",
    "curves/sti/cartoon/VSD-C/1": "done",
    "curves/sti/cartoon/VSD-C/2": "done",
  });
  const { reason } = result.cells.find(({ id }) => id === "separate/sti/real/VSD-R") ?? {};
  expect(reason).toMatch(/^the training real\/sti failed: none of the 4 stickers is of the domain Real/);
  const of = (id: string) => result.cells.find((cell) => cell.id === id)?.scores;
  expect(Object.keys(of("separate/sti/cartoon/VSD-C") ?? {}).sort()).toEqual(["clip", "fvd", "vqa"]);
  // The last point of a curve is the table's cell, and not made again; the first is another model.
  expect(of("curves/sti/cartoon/VSD-C/2")).toEqual(of("separate/sti/cartoon/VSD-C"));
  expect(of("curves/sti/cartoon/VSD-C/1")).not.toEqual(of("separate/sti/cartoon/VSD-C"));
  const shown = result.gallery.find(({ test }) => test === "VSD-C");
  for (const path of [shown?.reference, ...(shown?.stickers ?? []).map(({ gif }) => gif)])
    expect(existsSync(join(out, path ?? "nowhere"))).toBe(true);
  made.after = madeIn();
  made.result = result;
});

onGpu(
  "a benchmark that is done is not done again; another metric is another cell, of the same stickers",
  async (device) => {
    const { after, result } = made;
    expect(result?.complete).toBe(true);
    const again = await work(device);
    expect(madeIn()).toEqual(after);
    expect({ ...again, written: "", seconds: 0 }).toEqual({ ...result, written: "", seconds: 0 });
    const fewer = await work(device, { metrics: ["vqa"] });
    for (const [name, time] of after) expect(statSync(join(out, name)).mtimeMs).toBe(time);
    const added = [...madeIn().keys()].filter((name) => !after.has(name));
    expect(added.map((name) => name.split("/")[0])).toEqual(["cells", "cells"]);
    expect(fewer.cells.filter(({ state }) => state === "done").map(({ scores }) => Object.keys(scores))).toEqual(
      new Array(3).fill(["vqa"]),
    );
  },
);

onGpu("a metric that fails leaves the others, is shown, and is tried again", async (device) => {
  const cellsIn = (r: BenchmarkResult): Cell[] => r.cells.filter(({ state }) => state === "done");
  const metrics = ["vqa", "clip"];
  const spy = vi.spyOn(Clip.prototype, "embedText").mockImplementation(() => {
    throw new Error("no text\nhere");
  });
  const failed = await work(device, { metrics });
  spy.mockRestore();
  expect(process.exitCode).toBe(1);
  const own = cellsIn(failed);
  expect(own.map(({ scores, failed: why }) => [Object.keys(scores), why])).toEqual(
    new Array(3).fill([["vqa"], { clip: "no text here" }]),
  );
  expect(own[0]).toEqual({ ...own[0], samples: cellsIn(made.result as BenchmarkResult)[0].samples });
  expect(failed.gallery).toEqual(made.result?.gallery);
  for (const name of ["benchmark.md", "report.html"])
    expect(readFileSync(join(out, name), "utf8")).toMatch(/separate\/sti\/cartoon\/VSD-C, CLIP-x: no text here/);
  const again = cellsIn(await work(device, { metrics }));
  expect(again.map(({ scores, failed: why }) => [Object.keys(scores), why])).toEqual(
    new Array(3).fill([["vqa", "clip"], undefined]),
  );
});

onGpu("a run is taken instead of trained, and one of another system is not", async (device) => {
  const { after, result } = made;
  const run = result?.trainings.find(({ id }) => id === "cartoon/sti")?.run ?? "";
  const tables = { separate: true };
  const taken = await work(device, { tables, take: { "cartoon/sti": join(out, run) } });
  expect(taken.trainings.find(({ id }) => id === "cartoon/sti")).toMatchObject({ taken: true, state: "done" });
  const cell = (r: BenchmarkResult | null) => r?.cells.find(({ id }) => id === "separate/sti/cartoon/VSD-C");
  expect(cell(taken)).toEqual(cell(result)); // the same weights: nothing is sampled or scored again
  for (const [name, time] of after) expect(statSync(join(out, name)).mtimeMs).toBe(time);

  const systems = ["videoldm"];
  const wrong = await work(device, { tables, systems, take: { "cartoon/videoldm": join(out, run) } });
  const { reason } = wrong.trainings.find(({ id }) => id === "cartoon/videoldm") ?? {};
  expect(reason).toBe(`${join(out, run)} is a run of sti, not of videoldm`);

  // Where nothing is trained, the stickers to train on need not be there.
  const nowhere = { training: { stickers: { folder: "nowhere" } }, test: { "VSD-C": CONFIG.test["VSD-C"] } };
  const [networks] = readdirSync(out).filter((name) => name.startsWith("features-"));
  const weights = { folder: join(out, networks) };
  const alone = await work(device, { ...nowhere, tables, weights, take: { "cartoon/sti": join(out, run) } });
  expect(cell(alone)).toEqual(cell(result));
});

onGpu("networks that are not there and a damaged record are refused before anything is trained", async (device) => {
  const weights = { folder: mkdtempSync(join(dir, "none-")) };
  const trainings = readdirSync(join(out, "trainings"));
  await expect(work(device, { weights, seed: 2 })).rejects.toThrow(
    /^weights: no network for any of vqa, fvd, clip: .*none-\w+ has no FAST_VQA_B_1_4\.pth or /,
  );
  writeFileSync(join(out, "benchmark.json"), '{"format": 1, "beg');
  await expect(work(device, { seed: 2 })).rejects.toThrow(
    /benchmark\.json is damaged \(.*\): remove it and give the same command again$/,
  );
  expect(readdirSync(join(out, "trainings"))).toEqual(trainings);
});

test("a test sticker that is trained on is named", async () => {
  const held = join(dir, "held");
  const set = starter(3, 5, "Cartoon");
  const config = parseBenchmark({ ...CONFIG, training: { stickers: set }, test: { "VSD-C": set } }, "b.json", dir);
  const bench = { config, out: held, size: 16 };
  const trained = await stickersOf(config.training.stickers, bench);
  const tests = await openTests(bench);
  await expect(checkHeldOut(tests, [trained])).rejects.toThrow(/000000\.gif is a test sticker and is trained on, as /);
  const other = await stickersOf({ starter: { ...set.starter, seed: 6, domains: ["Cartoon"] } }, bench);
  await checkHeldOut(tests, [other]);
  for (const { clips } of tests) clips.close();
});
