// Training with frozen parts: what is trained and held, what is kept on disk and read back, gradients of several batches, one
// domain of two, and the same bits after an interrupt in every one of these.

import { readFileSync } from "node:fs";
import { mkdtemp, readdir, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { type Dataset, openDataset } from "../data/store.ts";
import { ofDomain } from "../data/subset.ts";
import { Parameter, Rng, type Tensor, tensor, useDevice } from "../engine/index.ts";
import { mse } from "../engine/nn/index.ts";
import { LossScaler } from "../engine/optim/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { openSafetensors } from "../engine/safetensors.ts";
import { Autoencoder } from "../models/autoencoder.ts";
import { presetConfig, type SystemConfig } from "../models/config.ts";
import { LatentDiffusion } from "../models/latent_diffusion.ts";
import { TextEncoder } from "../models/text_encoder.ts";
import { trainingStep } from "../train/accumulate.ts";
import { trainAutoencoder } from "../train/autoencoder.ts";
import { type DiffusionRecipe, trainDiffusion } from "../train/diffusion.ts";
import { trainable } from "../train/frozen.ts";
import { MetricsFile, readMetrics } from "../train/metrics.ts";
import { readRun } from "../train/run.ts";
import { loadModel } from "../train/sample.ts";
import type { StageResult } from "../train/stage.ts";
import { expectClose } from "./close.ts";
import { gpu, onGpu } from "./device.ts";
import { writeMixedFolder } from "./stickers.ts";

vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 }); // the first step of a model compiles its kernels

// One level, narrow: each run plans its programs anew.
const nano = presetConfig("nano");
const config: SystemConfig = {
  ...nano,
  size: 8,
  autoencoder: { channels: [8, 8], layers: 1, latent: 4, groups: 2 },
  text: { ...nano.text, width: 16, layers: 1, heads: 2, mlp: 16, length: 8 },
  unet: {
    ...nano.unet,
    ...{ channels: [16], headDim: 8, context: 16, groups: 2, transformerIn: { heads: 2, dim: 8 } },
    sti: { heads: 2, dim: 8, pool: 2, outNorm: false },
  },
};
let folder: string;
let data: Dataset;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "gifgrad-frozen-"));
  vi.spyOn(process.stderr, "write").mockImplementation(() => true);
  vi.spyOn(console, "error").mockImplementation(() => {});
  await writeMixedFolder(join(folder, "stickers"));
  data = await openDataset(join(folder, "stickers"), { size: config.size });
  if (!(await gpu())) return;
  const common = { data, config, steps: 1, batch: 1, lr: 1e-3, seed: 1, resume: false };
  await trainAutoencoder({ ...common, out: join(folder, "autoencoder") });
});
afterAll(async () => {
  vi.restoreAllMocks();
  data.close();
  await rm(folder, { recursive: true });
});

const cache = (): string => join(folder, "cache");
const diffusion = (name: string, o: Partial<DiffusionRecipe> = {}): Promise<StageResult> =>
  trainDiffusion({
    ...{ data, config, steps: 3, batch: 1, lr: 1e-3, seed: 3, resume: false, trained: "conv" },
    ...{ autoencoder: join(folder, "autoencoder"), out: join(folder, name), cache: cache() },
    ...o,
  });

/** Presses Ctrl-C when the first step is logged. */
function interruptOnce(): void {
  const { append } = MetricsFile.prototype;
  vi.spyOn(MetricsFile.prototype, "append").mockImplementationOnce(function (this: MetricsFile, metrics) {
    append.call(this, metrics);
    process.emit("SIGINT", "SIGINT");
  });
}

/** A run of three steps with a Ctrl-C after the first, resumed. */
async function interrupted(name: string, o: Partial<DiffusionRecipe> = {}): Promise<StageResult> {
  interruptOnce();
  expect(await diffusion(name, o)).toMatchObject({ stopped: "SIGINT", sha256: null });
  expect((await readRun(join(folder, name))).checkpoint.step).toBe(1);
  return diffusion(name, { ...o, resume: true });
}

async function names(path: string): Promise<string[]> {
  const file = await openSafetensors(path);
  await file.close();
  return [...file.tensors.keys()];
}

describe("with only the temporal convolutions trained", () => {
  onGpu("the rest has no gradient, no moment and no average, and stays as it was", async () => {
    const result = await diffusion("conv");
    expect(result.sha256).not.toBeNull();
    const { checkpoint } = await readRun(join(folder, "conv"));
    const model = new LatentDiffusion({ ...config }).train("conv");
    const trained = [...trainable(model).keys()];
    expect(trained.length).toBeGreaterThan(20);
    expect(trained.every((name) => name.includes(".temp_convs."))).toBe(true);
    const stored = await names(checkpoint.path);
    // Weights, averages and two moments of what is trained; the counts of the optimiser and the generator.
    const expected = trained.flatMap((name) => [
      `model.${name}`,
      `ema.${name}`,
      `optimizer.m.${name}`,
      `optimizer.v.${name}`,
    ]);
    expect(stored.filter((name) => !expected.includes(name)).sort()).toEqual(["optimizer.c1", "optimizer.c2", "rng"]);
    expect(expected.every((name) => stored.includes(name))).toBe(true);
    const loaded = await loadModel(join(folder, "conv"));
    const state = loaded.state();
    const fresh = new LatentDiffusion(loaded.config).seed(3).state();
    const moved = async (name: string): Promise<boolean> =>
      (await state.get(name)?.data())?.join() !== (await fresh.get(name)?.data())?.join();
    expect(await moved("unet.conv_in.weight")).toBe(false);
    expect(await moved("text_encoder.text_model.embeddings.position_embedding.weight")).toBe(false);
    expect(await moved(trained.find((name) => name.endsWith("weight")) as string)).toBe(true);
  });

  onGpu(
    "latents and text features come from the disk, also for a resumed run, which ends in the same bits",
    async () => {
      const encode = vi.spyOn(Autoencoder.prototype, "encode");
      const embed = vi.spyOn(TextEncoder.prototype, "forward");
      const before = await readdir(cache());
      expect(before.map((name) => name.replace(/-\w+\./, ".")).sort()).toEqual(
        ["latents.f32", "latents.json", "text.f32", "text.json"].sort(),
      );
      const whole = (await readRun(join(folder, "conv"))).checkpoint;
      expect((await interrupted("cached")).sha256).toBe(whole.sha256);
      expect([encode.mock.calls.length, embed.mock.calls.length]).toEqual([0, 0]);
      expect(await readdir(cache())).toEqual(before);
      // A file that was cut short is made again, to the same bits.
      const [latents] = before.filter((name) => name.startsWith("latents") && name.endsWith(".f32"));
      const bytes = readFileSync(join(cache(), latents));
      await truncate(join(cache(), latents), 100);
      expect((await diffusion("again")).sha256).toBe(whole.sha256);
      expect(readFileSync(join(cache(), latents)).equals(bytes)).toBe(true);
      expect(encode.mock.calls.length).toBeGreaterThan(0);
      encode.mockRestore();
      embed.mockRestore();
    },
  );

  onGpu("other data or other weights are not taken for these", async () => {
    const before = (await readdir(cache())).length;
    // Another data set, and by the seed another text encoder.
    await diffusion("other", { steps: 1, seed: 4, data: { ...data, fingerprint: "other" } });
    expect((await readdir(cache())).length).toBe(before + 4);
  });
});

describe("mixed precision", () => {
  onGpu("begins with the loss of full precision, and keeps the scale in its checkpoint", async () => {
    await diffusion("f16", { precision: "f16", steps: 1 });
    const first = (name: string): number => readMetrics(join(folder, name, "metrics.jsonl"))[0].loss;
    expectClose([first("f16")], [first("conv")], "loss", { rtol: 0.01 }); // f16 has 11 bits; a loss sums in f32
    expect(first("f16")).not.toBe(first("conv"));
    expect(await names((await readRun(join(folder, "f16"))).checkpoint.path)).toContain("scaler.scale");
  });

  test("an overflow leaves the step out and halves the scale", async () => {
    useDevice(new ReferenceDevice());
    const w = new Parameter([2], [1, 2]);
    const scaler = new LossScaler({ initial: 8 });
    for (const parts of [1, 2]) {
      const before = [...(await w.data())];
      const scale = await scaler.value.item();
      const step = trainingStep({
        name: "test",
        parts,
        scaler,
        targets: [w],
        loss: ({ x }: Record<"x", Tensor>) => w.mul(x).sum(),
        update: ([g], { lr }: Record<"lr", Tensor>, finite) => {
          w.assign((finite as Tensor).where(w.sub(g.mul(lr)), w));
          return g.square().sum().sqrt();
        },
      });
      const batch = (...x: number[]): { x: Tensor }[] => new Array(parts).fill({ x: tensor(x) });
      const bad = step(batch(Number.POSITIVE_INFINITY, 1), { lr: 0.5 });
      expect([await bad.norm.item(), ...(await w.data())]).toEqual([0, ...before]);
      expect(await scaler.value.item()).toBe(scale / 2);
      const good = step(batch(3, 4), { lr: 0.5 });
      expect([await good.norm.item(), ...(await w.data())]).toEqual([5, before[0] - 1.5, before[1] - 2]);
    }
  });
});

describe("gradients of several batches", () => {
  onGpu("are averaged by a run that can be interrupted between steps", async () => {
    const o = { accumulate: 2, schedule: "constant", warmup: 2 } as const;
    const whole = await diffusion("sums-whole", o);
    expect(whole.sha256).not.toBeNull();
    expect((await interrupted("sums-half", o)).sha256).toBe(whole.sha256);
    const lrs = readMetrics(join(folder, "sums-whole", "metrics.jsonl")).map(({ lr }) => lr);
    expect(lrs).toEqual([0.5e-3, 1e-3, 1e-3]);
  });

  test("are those of one large batch", async () => {
    useDevice(new ReferenceDevice());
    const [x, y] = [new Rng(1).normal([6, 3]), new Rng(2).normal([6, 2])];
    const run = async (parts: number): Promise<number[]> => {
      const w = new Parameter([3, 2], [1, 2, 3, 4, 5, 6]);
      const seen: number[] = [];
      const step = trainingStep({
        name: "test",
        parts,
        targets: [w],
        loss: (batch: Record<"x" | "y", Tensor>) => mse(batch.x.matmul(w), batch.y),
        update: ([g], { lr }: Record<"lr", Tensor>) => {
          w.assign(w.sub(g.mul(lr)));
          return g.square().sum().sqrt();
        },
      });
      for (let k = 0; k < 2; k++) {
        const rows = 6 / parts;
        const part = (t: Tensor, i: number): Tensor => t.slice(0, i * rows, (i + 1) * rows);
        const batches = Array.from({ length: parts }, (_, i) => ({ x: part(x, i), y: part(y, i) }));
        const { loss, norm } = step(batches, { lr: 0.1 });
        seen.push(await loss.item(), await norm.item());
      }
      return [...seen, ...(await w.data())];
    };
    const once = await run(1);
    for (const parts of [2, 3]) expectClose(await run(parts), once, `${parts} parts`, { rtol: 1e-6 });
  });
});

describe("one domain of two", () => {
  test("is a data set of its own", async () => {
    const records = data.records.map((record, i) => ({ ...record, domain: i % 3 === 0 ? ("Real" as const) : null }));
    const mixed = { ...data, records };
    const [real, cartoon] = [ofDomain(mixed, "Real"), ofDomain(mixed, "Cartoon")];
    expect([real.length, cartoon.length]).toEqual([3, 4]);
    expect(real.records.map((r) => r.file_name)).toEqual([0, 3, 6].map((i) => data.records[i].file_name));
    expect(real.captions[1]).toBe(data.captions[3]);
    expect(Buffer.from(cartoon.frame(1)).equals(Buffer.from(data.frame(2)))).toBe(true);
    expect((await real.batch([2, 0])).join()).toBe((await data.batch([6, 0])).join());
    expect(new Set([data.fingerprint, real.fingerprint, cartoon.fingerprint]).size).toBe(3);
    expect(() => real.frame(3)).toThrow("does not exist");
    expect(ofDomain(data, "Cartoon")).toBe(data);
    expect(() => ofDomain(data, "Real")).toThrow("none of the 7 stickers is of the domain Real");
  });
});
