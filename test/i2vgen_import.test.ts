// I2VGen-XL from the files of other programs: a tiny pipeline as diffusers lays it out, imported, asked with a picture and
// written back; its UNet under VGen's names; and a folder that lacks the image encoder.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { trainTokenizer } from "../data/tokenizer_train.ts";
import { Rng, type Tensor, tensor, useDevice } from "../engine/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { vgenTensors } from "../models/checkpoints/vgen.ts";
import { writeTextConfig, writeUNetConfig, writeVaeConfig, writeVisionConfig } from "../models/checkpoints/write.ts";
import { PLAIN, type SystemConfig, systemConfig } from "../models/config.ts";
import type { I2VGenXLUNet } from "../models/i2vgen_xl.ts";
import { LatentDiffusion } from "../models/latent_diffusion.ts";
import { exportImported } from "../train/foreign/export.ts";
import { exportModel } from "../train/foreign/export_model.ts";
import { importCheckpoint } from "../train/foreign/import.ts";
import { loadSystem, openImported, systemOf } from "../train/foreign/imported.ts";
import { configFrom } from "../train/foreign/init.ts";
import { openForeign } from "../train/foreign/open.ts";
import { pictureInput } from "../train/pictures.ts";
import { Sampler } from "../train/sample.ts";
import { put, safetensorsBytes, type Weight, type Weights, weightsOf } from "./foreign_files.ts";

const config: SystemConfig = {
  ...systemConfig("i2vgen-xl", "paper"),
  ...{ size: 16, frames: 8, pictures: true },
  autoencoder: { channels: [8, 8], layers: 1, latent: 4, groups: 4 },
  text: { vocabulary: 20, width: 12, layers: 2, skip: 1, heads: 2, mlp: 8, length: 5, epsilon: 1e-5 },
  unet: {
    ...PLAIN,
    ...{ latent: 4, inputs: 8, channels: [8, 8], layers: 1, headDim: 4, context: 12, groups: 4, dropout: 0 },
    ...{ transformerIn: { heads: 8, dim: 4 }, image: { side: 32, embedding: 12, tokens: 4 } },
  },
  imageEncoder: { size: 6, patch: 3, width: 8, layers: 1, heads: 2, mlp: 8, projection: 12 },
};

const root = mkdtempSync(join(tmpdir(), "i2vgen-"));
afterAll(() => rmSync(root, { recursive: true }));

let model: LatentDiffusion;
beforeAll(() => {
  useDevice(new ReferenceDevice());
  model = new LatentDiffusion(config).seed(1);
  model.autoencoder.scale = 0.25;
});

/** The files of a pipeline; `unet` where its weights have other names. */
async function write(dir: string, unet: (weights: Weights) => Weights = (weights) => weights): Promise<void> {
  const { autoencoder, text, unet: net, imageEncoder } = config;
  const unetWeights = unet(await weightsOf(model.unet));
  const parts = [
    ["unet", "diffusion_pytorch_model", unetWeights, writeUNetConfig({ config: net, temporal: true, sample: 8 })],
    [
      "vae",
      "diffusion_pytorch_model",
      await weightsOf(model.autoencoder),
      writeVaeConfig({ config: autoencoder, scale: 0.25 }),
    ],
    ["text_encoder", "model", await weightsOf(model.textEncoder), writeTextConfig(text)],
    ["image_encoder", "model", await weightsOf(model.imageEncoder!), writeVisionConfig(imageEncoder!)],
  ] as const;
  for (const [name, base, weights, json] of parts) {
    put(join(dir, name, `${base}.safetensors`), safetensorsBytes(weights, "F32"));
    put(join(dir, name, "config.json"), JSON.stringify(json));
  }
}

async function imported(from: string): Promise<LatentDiffusion> {
  const dir = `${from}-imported`;
  await importCheckpoint(from, "i2vgen-xl", dir);
  const checkpoint = await openImported(dir);
  try {
    return await loadSystem(checkpoint);
  } finally {
    await checkpoint.close();
  }
}

/** What a model answers for a picture of noise and a caption of numbers. */
async function answer(of: LatentDiffusion): Promise<ArrayLike<number>> {
  const rgb = Uint8Array.from({ length: 16 * 16 * 3 }, (_, i) => (31 * i) % 256);
  const { image, prepared } = pictureInput(rgb, of.config);
  const text = of.embed(tensor(Int32Array.of(1, 2, 3, 4, 5), [1, 5]));
  const x: Tensor = new Rng(1).normal([1, 2, 8, 8, 4]);
  const guidance = { text, plain: text, scale: tensor(1), ...of.picture(image, prepared) };
  return of.guided(x, tensor(Int32Array.of(500)), guidance).data();
}

test("diffusers' folder: the same network, guided by pictures, and the same bytes when it is written back", async () => {
  const from = join(root, "pipeline");
  await write(from);
  const got = await imported(from);
  expect(got.config).toMatchObject({
    system: "i2vgen-xl",
    pictures: true,
    text: { skip: 1 },
    unet: { image: { side: 32 } },
    ...{ prediction: "v", schedule: { betas: "cosine", zeroTerminalSnr: true } }, // no file says so: as published
  });
  expect(got.noiseSchedule.alphaBar[999]).toBe(0);
  expect(await answer(got)).toEqual(await answer(model));
  await exportImported(`${from}-imported`, join(root, "again"));
  for (const part of readdirSync(from))
    for (const file of readdirSync(join(from, part)))
      expect(readFileSync(join(root, "again", part, file))).toEqual(readFileSync(join(from, part, file)));
});

test("weights under VGen's names: the same, with the picture's features counted twice", async () => {
  const from = join(root, "vgen");
  const names = (ours: Weights): Weights => {
    const tensors = [...vgenTensors(ours.keys(), config.unet)];
    return new Map(tensors.map(([name, held]) => [name, stacked(held.map((key) => ours.get(key)!))]));
  };
  await write(from, names);
  const got = await imported(from);
  const twice = { ...config.unet, image: { ...config.unet.image!, gain: 2 } };
  const want = new LatentDiffusion({ ...config, unet: twice }).seed(1);
  want.autoencoder.scale = 0.25;
  expect((got.unet as I2VGenXLUNet).image.gain).toBe(2);
  expect(await answer(got)).toEqual(await answer(want));
});

test("the noise schedule is its scheduler's, goes to what is trained from it, and is written with that", async () => {
  const from = join(root, "scheduled");
  await write(from);
  const say = (over: object): void =>
    put(join(from, "scheduler", "scheduler_config.json"), JSON.stringify({ ...PUBLISHED, ...over }));
  const read = async () => {
    const checkpoint = await openForeign(from, "i2vgen-xl");
    await checkpoint.close();
    return checkpoint;
  };
  say({});
  const published = systemOf(await read());
  expect(published).toMatchObject({ prediction: "v", schedule: { betas: "cosine", zeroTerminalSnr: true } });
  expect(configFrom(await read(), config).schedule).toEqual(published.schedule);
  const made = new LatentDiffusion(published).seed(1);
  // sqrt(alphaBar) of the cosine schedule is cos(pi / 2 (t + 1 + 8) / 1008), stretched by next to nothing.
  expect(Math.sqrt(made.noiseSchedule.alphaBar[499])).toBeCloseTo(Math.cos((Math.PI / 2) * (508 / 1008)), 3);
  const tokenizer = trainTokenizer(["a b"], { vocabSize: 600 });
  for (const sampler of ["ddim", "ddpm", "dpm++", "euler"] as const)
    for (const spacing of ["leading", "trailing"] as const)
      for (const { numbers } of new Sampler(made, tokenizer, { spacing }).plan({ steps: 5, sampler }))
        expect(Object.values(numbers).every(Number.isFinite)).toBe(true);
  await exportModel(made, tokenizer, join(root, "rewritten"));
  const rewritten = await openForeign(join(root, "rewritten"), "i2vgen-xl");
  await rewritten.close();
  expect(systemOf(rewritten).schedule).toEqual(published.schedule);

  say({ beta_schedule: "scaled_linear", beta_start: 0.00085, beta_end: 0.012, rescale_betas_zero_snr: false });
  expect(systemOf(await read())).not.toHaveProperty("schedule");
  say({ prediction_type: "epsilon" });
  await expect(read().then(systemOf)).rejects.toThrow("ends in pure noise");
  say({ num_train_timesteps: 4000 });
  await expect(read().then(systemOf)).rejects.toThrow("has 4000 steps");
  say({ beta_schedule: "linear", beta_start: 2 });
  await expect(read().then(systemOf)).rejects.toThrow("has betas from 2 to 0.02");
});

/** What the published folder says. */
const PUBLISHED = {
  ...{ _class_name: "DDIMScheduler", beta_schedule: "squaredcos_cap_v2", clip_sample: false, steps_offset: 1 },
  ...{ prediction_type: "v_prediction", rescale_betas_zero_snr: true, timestep_spacing: "leading" },
};

/** Rows of several matrices in one. */
function stacked(parts: readonly Weight[]): Weight {
  const [rows, ...rest] = parts[0].shape;
  const values = Float32Array.from(parts.flatMap((part) => Array.from(part.values)));
  return { shape: [rows * parts.length, ...rest], values };
}

test("without the image encoder there are no pictures, and it says why", async () => {
  const from = join(root, "blind");
  await write(from);
  rmSync(join(from, "image_encoder"), { recursive: true });
  const got = await imported(from);
  await expect(answer(got)).rejects.toThrow(
    "the UNet reads a picture as 12 numbers, and without an image encoder there are 64",
  );
});
