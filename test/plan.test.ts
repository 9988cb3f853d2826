// `gifgrad plan`: its numbers follow from the model's and from each other, every system has a plan, and the paper's network is
// planned in f16 within the memory of a 16 GB card, in seconds and without allocating its weights.

import { describe, expect, test } from "vitest";
import type { PlanOptions } from "../cli/options.ts";
import { plan } from "../cli/plan.ts";
import { heldBytes } from "../engine/plan/summary.ts";
import { DIFFUSION_SYSTEMS, systemConfig } from "../models/config.ts";
import { LatentDiffusion } from "../models/latent_diffusion.ts";
import { VideoGpt, videoGptConfig } from "../models/videogpt.ts";

const DEFAULTS: PlanOptions = {
  system: "sti",
  preset: "nano",
  batch: 1,
  dtype: "f32",
  train: false,
  trainable: "scratch",
  steps: 25,
  adapter: "discrete",
  json: true,
};

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

describe("sampling", () => {
  test.each(DIFFUSION_SYSTEMS)("%s: every weight is counted, and the peak is the sum of its parts", async (system) => {
    const { stages } = await plan({ ...DEFAULTS, system });
    expect(stages.map((s) => s.name)).toEqual(["sampling"]);
    const [{ steps, held, peak, dispatches, flops }] = stages;
    const named = Object.fromEntries(steps.map((s) => [s.name, s.calls]));
    expect(named).toMatchObject({ embed: 2, sampler: 25, decode: 1 });
    expect(sum(held.map((h) => h.values))).toBe(new LatentDiffusion(systemConfig(system, "nano")).count());
    expect(peak).toBe(sum(held.map((h) => h.bytes)) + sum(steps.map((s) => heldBytes(s.memory))));
    expect(Math.min(...held.map((h) => h.bytes))).toBeGreaterThanOrEqual(0);
    expect(dispatches).toBe(sum(steps.map((s) => s.calls * s.dispatches)));
    expect(flops).toBe(sum(steps.map((s) => s.calls * s.flops)));
  });

  test("videogpt: a call per tag and code, and its own stages of training", async () => {
    const { stages } = await plan({ ...DEFAULTS, system: "videogpt" });
    const { prior } = new VideoGpt(videoGptConfig("nano"));
    const calls = stages[0].steps.map((s) => [s.name, s.calls]);
    expect(calls).toEqual([
      ["next code", prior.length + (prior.config.tags?.slots ?? 0)],
      ["decode", 1],
    ]);
    const trained = await plan({ ...DEFAULTS, system: "videogpt", train: true, recipe: "prior" });
    expect(trained.stages.map((s) => s.name)).toEqual(["training: prior"]);
    expect(ofPart(trained.stages[0], "weights that are trained", "values")).toBe(prior.count());
    await expect(plan({ ...DEFAULTS, system: "videogpt", train: true, recipe: "diffusion" })).rejects.toThrow(
      "plan: videogpt has no stage diffusion: give --recipe vqvae or prior",
    );
    await expect(plan({ ...DEFAULTS, system: "videogpt", dtype: "f16" })).rejects.toThrow("videogpt computes in f32");
  });
  test("more steps are more calls of the same update; weights in f16 take half", async () => {
    const { stages } = await plan({ ...DEFAULTS, preset: "micro", dtype: "f16", steps: 50 });
    expect(stages[0].steps.find((s) => s.name === "sampler")?.calls).toBe(50);
    const [values, bytes] = ["values", "bytes"].map((key) => ofPart(stages[0], "weights: unet", key));
    expect(bytes / values).toBeCloseTo(2, 2); // some vectors are padded
  });
});

function ofPart(stage: Stage, what: string, key: string): number {
  const found = stage.held.find((h) => h.what === what);
  return Number(found?.[key as "values" | "bytes"] ?? 0);
}

type Stage = Awaited<ReturnType<typeof plan>>["stages"][number];

describe("training", () => {
  test("what is frozen has no moments and no averages", async () => {
    const { stages } = await plan({ ...DEFAULTS, train: true, trainable: "conv" });
    expect(stages.map((s) => s.name)).toEqual(["training: autoencoder", "training: diffusion"]);
    const model = new LatentDiffusion(systemConfig("sti", "nano")).train("conv");
    const trained = sum(model.parameters().map((p) => p.storage.shape.reduce((a, b) => a * b, 1)));
    const [first, second] = stages;
    expect(ofPart(first, "weights that are trained", "values")).toBe(model.autoencoder.count());
    expect(ofPart(first, "averaged weights", "values")).toBe(0);
    expect(ofPart(second, "weights that are trained", "values")).toBe(trained);
    expect(ofPart(second, "frozen weights", "values")).toBe(model.count() - trained - model.autoencoder.count());
    expect(ofPart(second, "moments", "values")).toBe(2 * trained + 2); // and the powers of the betas
    expect(ofPart(second, "averaged weights", "values")).toBe(trained);
    // Features of the captions are made before: the text encoder is not on the device.
    expect(ofPart(second, "frozen weights", "bytes")).toBeLessThan(4 * (model.unet.count() - trained) * 1.02);
    expect(second.peak).toBeGreaterThan(4 * 4 * trained);
  });
  test("mixed precision keeps weights and moments in f32, and most of what lives in f16", async () => {
    const train = (dtype: "f32" | "f16") => plan({ ...DEFAULTS, train: true, recipe: "autoencoder", batch: 4, dtype });
    const [[single], [half]] = [(await train("f32")).stages, (await train("f16")).stages];
    for (const what of ["weights that are trained", "moments"])
      expect(ofPart(half, what, "bytes")).toBe(ofPart(single, what, "bytes"));
    expect(half.steps[0].memory.arena).toBeLessThan(0.9 * single.steps[0].memory.arena);
  });
});

test("the paper's network, in f16: under 16 GB, within 60 s, and nothing is allocated", async () => {
  const [time, memory] = [process.cpuUsage(), process.memoryUsage()];
  const { stages, seconds } = await plan({ ...DEFAULTS, preset: "paper", dtype: "f16" });
  const [{ held, peak, steps }] = stages;
  expect(sum(held.map((h) => h.values))).toBe(1_855_939_607);
  const used = sum(held.map((h) => h.bytes)) / 2; // the decoder's weights, not the encoder's
  expect(used).toBeGreaterThan(1.8e9);
  expect(used).toBeLessThan(1_855_939_607);
  expect(peak).toBeGreaterThan(2 * used);
  expect(peak).toBeLessThan(16e9);
  expect(steps.find((s) => s.name === "sampler")?.flops).toBeGreaterThan(3e12);
  // Processor time, because other jobs on the machine change the time on the clock; usually 5 s.
  const { user, system } = process.cpuUsage(time);
  expect((user + system) / 1e6).toBeLessThan(60);
  expect(seconds).toBeGreaterThan(0);
  const grown = process.memoryUsage();
  expect(grown.arrayBuffers - memory.arrayBuffers).toBeLessThan(1e8);
  expect(grown.rss - memory.rss).toBeLessThan(1e9);
});

test("an adapter that could not run it is refused by name, with what to do", async () => {
  await expect(plan({ ...DEFAULTS, preset: "paper", adapter: "minimum" })).rejects.toThrow(
    /takes [\d,]+ bytes in memory, and this adapter binds at most 134,217,728 at once/,
  );
});
