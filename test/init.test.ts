// Training that starts from an image model: every system's first samples are those of the image model, frame by frame; the
// weights it does not train stay as they were; the commands that do it, to a sticker and back to a run that goes on.

import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { saveTokenizer } from "../data/tokenizer.ts";
import { trainTokenizer } from "../data/tokenizer_train.ts";
import { type Data, Rng, type Tensor, useDevice } from "../engine/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { type DiffusionSystem, systemConfig } from "../models/config.ts";
import { LatentDiffusion } from "../models/latent_diffusion.ts";
import { SAMPLERS, sample, samplerStep } from "../models/samplers.ts";
import { exportModel, kindOf } from "../train/foreign/export_model.ts";
import { loadSystem, openCheckpoint, tokenizerOf } from "../train/foreign/imported.ts";
import { configFrom, loadImageModel, openImageModel } from "../train/foreign/init.ts";
import type { OpenCheckpoint } from "../train/foreign/open.ts";
import { difference, expectClose } from "./close.ts";
import { randomParts, writePipeline } from "./foreign_files.ts";

const folder = mkdtempSync(join(tmpdir(), "init-"));
const there = join(folder, "image");
let image: OpenCheckpoint;
beforeAll(async () => {
  useDevice(new ReferenceDevice());
  await writePipeline(there, randomParts());
  const tokenizer = trainTokenizer(["a red disc", "a green disc that moves"], { vocabSize: 600 });
  mkdirSync(join(there, "tokenizer"));
  await saveTokenizer(tokenizer, join(there, "tokenizer", "tokenizer.json"));
  image = await openImageModel(["sd21", there]);
});
afterAll(async () => {
  await image.close();
  rmSync(folder, { recursive: true });
});

/** Two deterministic steps from `x`, latents [b, f, h, w, 4], by one caption. */
async function drawn(model: LatentDiffusion, x: Tensor): Promise<Data> {
  const text = new Rng(2).normal([1, 5, 12]).expand([x.shape[0], 5, 12]);
  const predict = (y: Tensor, step: Tensor): Tensor => model.unet.forward(y, step, text);
  const update = samplerStep(predict, model.config.prediction);
  let last = x;
  for await (const progress of sample(update, x, SAMPLERS.ddim(model.noiseSchedule, { steps: 2 }))) last = progress.x;
  return last.data();
}

/** Latents of a clip of two frames, and what the image model makes of each. */
const noise = (): Tensor => new Rng(1).normal([1, 2, 4, 4, 4]);
let still: Promise<Data> | undefined;
const frames = (): Promise<Data> => {
  still ??= loadSystem(image).then((model) => drawn(model, noise().reshape([2, 1, 4, 4, 4])));
  return still;
};

describe("a system made from an image model", () => {
  const systems: readonly DiffusionSystem[] = ["make-a-video", "videoldm", "videofactory", "sti"];

  test.each(systems)("%s draws what the image model draws, frame by frame", async (system) => {
    const config = configFrom(image, systemConfig(system, "nano"));
    expect(config).toMatchObject({ system, size: 16, frames: 8, prediction: "v" });
    const model = new LatentDiffusion(config).seed(5).train("temporal");
    await loadImageModel(model, image);
    expectClose(await drawn(model, noise()), await frames(), system, { rtol: 1e-5 }); // spec 9.2
  });

  test("the comparison notices a layer between frames that is no identity", async () => {
    const model = new LatentDiffusion(configFrom(image, systemConfig("sti", "nano"))).seed(5);
    await loadImageModel(model, image);
    const last = [...model.unet.state()].find(([name]) => /mid_block.*conv4\.3\.weight/.test(name))?.[1];
    last?.write(Float32Array.from({ length: last.shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i)));
    const [moved, want] = [await drawn(model, noise()), await frames()];
    expect(difference(moved, want, { rtol: 1e-5 })).not.toBeNull();
  });

  test("I2VGen-XL's wider first convolution reads the picture with zeros", async () => {
    const model = new LatentDiffusion(configFrom(image, systemConfig("i2vgen-xl", "nano"))).seed(5).train("temporal");
    await loadImageModel(model, image);
    const wide = await model.unet.convIn.weight.data();
    const narrow = await (await loadSystem(image)).unet.convIn.weight.data();
    const [inputs, outputs] = [8, 8]; // 2 x 4 latents, 8 channels
    for (let tap = 0; tap < 9; tap++) {
      const at = tap * inputs * outputs;
      expect(wide.slice(at, at + 4 * outputs)).toEqual(narrow.slice(tap * 4 * outputs, (tap + 1) * 4 * outputs));
      expect(wide.slice(at + 4 * outputs, at + inputs * outputs).every((v: number) => v === 0)).toBe(true);
    }
  });

  test("what is no image model, or of other sizes, is refused in one line", async () => {
    await expect(openImageModel(["clip", there])).rejects.toThrow("--init clip");
    await expect(openImageModel(["sd21"])).rejects.toThrow('--init sd21: expected "sd21" and a folder');
    await expect(openImageModel(["sd21", join(folder, "nothing")])).rejects.toThrow("nothing");
    const other = new LatentDiffusion(systemConfig("sti", "nano"));
    await expect(loadImageModel(other, image)).rejects.toThrow("does not fit");
  });
});

test.each(["make-a-video", "videoldm", "sti", "i2vgen-xl"] as const)(
  "%s, written as diffusers would, comes back with the same configuration and weights",
  async (system) => {
    const model = new LatentDiffusion(configFrom(image, systemConfig(system, "nano"))).seed(5);
    model.autoencoder.scale = 0.5;
    const out = join(folder, system);
    await exportModel(model, await tokenizerOf(image), out);
    const back = await openCheckpoint(out, kindOf(model));
    const again = await loadSystem(back);
    await back.close();
    const unet = { ...model.config.unet, dropout: again.config.unet.dropout }; // the library's own, whatever the file says
    expect(again.config.unet).toMatchObject(JSON.parse(JSON.stringify({ ...unet, heads: undefined })));
    expect(again.config).toMatchObject({ size: 16, frames: 8, prediction: "v", autoencoder: model.config.autoencoder });
    expect(again.autoencoder.scale).toBe(0.5);
    const state = again.state();
    for (const [name, p] of model.state()) expect(await state.get(name)?.data(), name).toEqual(await p.data());
  },
);
