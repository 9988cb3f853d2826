// I2VGen-XL: golden data of its two published implementations, what a picture is to the network and what no picture is,
// gradients of the new parts by random directions, and the paper's parameter counts.

import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { run as train } from "../cli/train.ts";
import { CLIP_PREPROCESS } from "../data/clip_preprocess.ts";
import type { Dataset } from "../data/store.ts";
import { trainTokenizer } from "../data/tokenizer_train.ts";
import { full, grad, Rng, type Tensor, tensor, useDevice, zeros } from "../engine/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { directional } from "../engine/testing/index.ts";
import { CHECKPOINTS, type Part } from "../models/checkpoints/parts.ts";
import { ConfigReader } from "../models/checkpoints/reader.ts";
import { readI2VGenXLConfig, type UNetDescription } from "../models/checkpoints/unet.ts";
import { readVgenConfig, vgenTensors } from "../models/checkpoints/vgen.ts";
import { writeUNetConfig } from "../models/checkpoints/write.ts";
import { PLAIN, systemConfig, type UNetConfig } from "../models/config.ts";
import { dropPictures, I2VGenXLUNet, pictureFrames, thumbnail } from "../models/i2vgen_xl.ts";
import { ImageEncoder } from "../models/image_encoder.ts";
import { type Guidance, LatentDiffusion } from "../models/latent_diffusion.ts";
import { type PictureInput, pictureInput, pictureVectors, readPicture } from "../train/pictures.ts";
import { Sampler } from "../train/sample.ts";
import { expectClose } from "./close.ts";
import { describeFolder } from "./golden.ts";
import { goldenFailures } from "./golden_failures.ts";

// Everything here is float64 on the host; only `gifgrad golden` asks a GPU about these networks.
vi.setConfig({ testTimeout: 120_000 });
const reference = new ReferenceDevice();

/** Failures of a copy of a folder that asks for no gradients, which take most of the time, after `change`. */
async function outputFailures(path: string, change: (copy: string) => void = () => {}): Promise<string[]> {
  const copy = mkdtempSync(join(tmpdir(), "golden-"));
  try {
    cpSync(path, copy, { recursive: true });
    // Without a projection there is no loss.
    rename(join(copy, "io.safetensors"), { "proj.eps": "none.eps", "proj.sample": "none.sample" });
    rmSync(join(copy, "grad_norms.json"));
    change(copy);
    useDevice(reference);
    return (await goldenFailures(copy)).failed.filter((name) => !/^(loss|grad)/.test(name));
  } finally {
    rmSync(copy, { recursive: true });
  }
}

/** Replaces names in a safetensors file by others of the same length. */
function rename(file: string, names: Readonly<Record<string, string>>): void {
  const bytes = readFileSync(file);
  const places = Object.entries(names).map(([from, to]) => [bytes.indexOf(`"${from}"`), to] as const);
  for (const [at, to] of places) if (at >= 0) bytes.write(to, at + 1);
  writeFileSync(file, bytes);
}

for (const folder of ["i2vgenxl-unet-a", "vgen-unet-a", "vgen-i2vgen-a"])
  describeFolder(folder, (path) => {
    // Gradients take ten times as long: `gifgrad golden` checks them.
    test("outputs", async () => {
      expect(await outputFailures(path)).toEqual([]);
    });
  });

describeFolder("vgen-unet-a", (path) => {
  test("weights of two layers in each other's place are noticed", async () => {
    const [a, b] = ["conv2.0.bias", "conv3.0.bias"].map((name) => `input_blocks.1.0.temopral_conv.${name}`);
    const swapped = await outputFailures(path, (copy) => {
      rename(join(copy, "weights.safetensors"), { [a]: b, [b]: a });
    });
    expect(swapped).toEqual([expect.stringContaining("out.eps: error")]);
  });
});

const config: UNetConfig = {
  ...PLAIN,
  latent: 2,
  inputs: 4,
  channels: [8, 8],
  layers: 1,
  headDim: 4,
  context: 6,
  groups: 4,
  transformerIn: { heads: 2, dim: 4 },
  dropout: 0,
  image: { side: 4, embedding: 5, tokens: 3 },
};
const shape = [2, 3, 4, 4, 2];

function inputs(seed: number): { x: Tensor; step: Tensor; text: Tensor; latents: Tensor; vector: Tensor } {
  const rng = new Rng(seed);
  const [x, latents] = [rng.normal(shape), rng.normal([2, 4, 4, 2])];
  const [text, vector] = [rng.normal([2, 2, 6]), rng.normal([2, 5])];
  return { x, step: tensor(Int32Array.of(7, 400)), text, latents, vector };
}

describe("what a picture is", () => {
  test("its latents, then each frame's place in time", async () => {
    useDevice(reference);
    const picture = tensor([5, 6, 7, 8], [1, 2, 2, 1]);
    const frames = await pictureFrames(picture, 5).data();
    expect([...frames]).toEqual([5, 6, 7, 8, ...[0.25, 0.5, 0.75, 1].flatMap((t) => [t, t, t, t])]);
    expect([...(await pictureFrames(picture, 1).data())]).toEqual([5, 6, 7, 8]);
  });

  test("without an encoder, cells of its latents", async () => {
    useDevice(reference);
    const row = Float32Array.from({ length: 64 }, (_, i) => Math.floor(i / 8)); // 8 x 8, each row one number
    const cells = await thumbnail(tensor(row, [1, 8, 8, 1])).data();
    expect([...cells]).toEqual([0.5, 2.5, 4.5, 6.5].flatMap((v) => [v, v, v, v]));
  });

  test("nothing, where there is none: zeros, at 8 frames per second", async () => {
    useDevice(reference);
    const unet = new I2VGenXLUNet(config).seed(2);
    const { x, step, text, latents, vector } = inputs(1);
    const none = { frames: zeros(shape), vector: zeros([2, 5]) };
    const some = { frames: pictureFrames(latents, 3), vector };
    const plain = await unet.forward(x, step, text).data();
    const answer = (picture: typeof none, fps: number): Promise<ArrayLike<number>> =>
      unet.forward(x, step, text, { picture, fps: full([2], fps, "i32") }).data();
    expect(await answer(none, 8)).toEqual(plain);
    const others = [answer(none, 9), answer({ ...none, vector }, 8), answer({ ...some, vector: none.vector }, 8)];
    for (const other of await Promise.all(others)) expect(difference(other, plain)).toBeGreaterThan(1e-3);
  });

  test("of another size it is refused", () => {
    const unet = new I2VGenXLUNet(config);
    const { x, step, text, vector } = inputs(1);
    const picture = { frames: zeros([2, 3, 2, 2, 2]), vector };
    expect(() => unet.forward(x, step, text, { picture })).toThrow(/frames \[2, 3, 4, 4, 2\] and a vector \[2, 5\]/);
    expect(() => new I2VGenXLUNet({ ...config, inputs: 2 })).toThrow("4 inputs for 2 latents, got 2");
  });
});

function difference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return Math.max(...Array.from(a, (v, i) => Math.abs(v - b[i])));
}

test("gradients of everything that a picture goes through, by random directions", async () => {
  useDevice(reference);
  const unet = new I2VGenXLUNet(config).seed(3);
  const { x, step, ...drawn } = inputs(4);
  const leaf = async (t: Tensor): Promise<Tensor> => tensor(await t.data(), t.shape);
  const [text, latents, vector] = await Promise.all([drawn.text, drawn.latents, drawn.vector].map(leaf));
  const out = unet.forward(x, step, text, { picture: { frames: pictureFrames(latents, 3), vector } });
  const parts = [...unet.state()].filter(([name]) => /^(conv_in|image_latents|context_emb|fps)/.test(name));
  expect(parts).toHaveLength(2 + 6 + 11 + 6 + 4 + 4);
  await directional(out, [latents, vector, text, ...parts.map(([, p]) => p)], { directions: 1 });
  for (const t of [latents, vector, text]) await directional(out, [t], { directions: 1 });
});

describe("training and guidance", () => {
  const system = systemConfig("i2vgen-xl", "nano", { size: 8 });
  const small = {
    ...system,
    frames: 2,
    autoencoder: { channels: [4, 4], layers: 1, latent: 2, groups: 2 },
    text: { ...system.text, vocabulary: 9, length: 3, layers: 1, mlp: 8, width: 6, heads: 1 },
    unet: { ...config, image: { side: 4, embedding: 32, tokens: 1 } },
  };
  const seen = { ...small, imageEncoder: { size: 6, patch: 3, width: 8, layers: 1, heads: 2, mlp: 8, projection: 32 } };
  const rng = new Rng(5);
  const batch = {
    latents: rng.normal([2, 2, 4, 4, 2]),
    captions: tensor(Int32Array.of(1, 2, 3, 4, 5, 6), [2, 3]),
    empty: tensor(Int32Array.of(1, 0, 0)),
  };

  test("pictures reach the loss when the configuration says so, and only then", async () => {
    useDevice(reference);
    const gradient = async (pictures: boolean): Promise<number> => {
      const model = new LatentDiffusion({ ...small, pictures }).seed(1);
      const loss = model.loss(batch, new Rng(1), { drop: 0 });
      const [g] = grad(loss, [model.unet.state().get("context_embedding.0.weight")!]);
      return Math.max(...Array.from(await g.data(), Math.abs));
    };
    expect(await gradient(true)).toBeGreaterThan(1e-6);
    expect(await gradient(false)).toBe(0); // the weights meet zeros
  });

  test("a share of the pictures is dropped whole, and as many lose their vector", async () => {
    useDevice(reference);
    const guide = { frames: full([2000, 1, 1, 1, 1], 1), vector: full([2000, 1], 1) };
    const { frames, vector } = dropPictures(guide, new Rng(1), 0.2);
    const [f, v] = [await frames.data(), await vector.data()];
    const count = (of: (i: number) => boolean): number => Array.from(f.keys()).filter(of).length;
    expect(count((i) => f[i] === 0 && v[i] === 1)).toBe(0);
    // Counts of 2000 draws; four standard deviations.
    expect(Math.abs(count((i) => f[i] === 0) - 400)).toBeLessThan(72);
    expect(Math.abs(count((i) => f[i] === 1 && v[i] === 0) - 400)).toBeLessThan(72);
  });

  test("guidance moves away from the picture without its vector, and without the caption", async () => {
    useDevice(reference);
    const model = new LatentDiffusion(small).seed(1);
    const { latents: x } = batch;
    const step = tensor(Int32Array.of(3, 900));
    const [text, plain] = [model.embed(batch.captions), model.embed(batch.empty.expand([2, 3]))];
    const pixels = new Rng(2).uniform([2, 8, 8, 3]).mul(2).sub(1);
    const picture = model.picture(pixels);
    const guidance = (scale: number): Guidance => ({ text, plain, scale: tensor(scale), ...picture });
    const unet = model.unet as I2VGenXLUNet;
    const frames = pictureFrames(picture.latents, 2);
    const on = unet.forward(x, step, text, { picture: { frames, vector: picture.vector } });
    const off = unet.forward(x, step, plain, { picture: { frames, vector: zeros([2, 32]) } });
    expectClose(await model.guided(x, step, guidance(1)).data(), await on.data(), "scale 1", { rtol: 1e-6 });
    expectClose(await model.guided(x, step, guidance(0)).data(), await off.data(), "scale 0", { rtol: 1e-6 });
    expect(difference(await on.data(), await off.data())).toBeGreaterThan(1e-3);
  });

  test("a sampler's stickers show the picture, each as it would alone", async () => {
    useDevice(reference);
    const tokenizer = trainTokenizer(["a red heart"], { vocabSize: 600 });
    const text = { ...small.text, vocabulary: tokenizer.vocabSize };
    const sampler = new Sampler(new LatentDiffusion({ ...small, text }).seed(1), tokenizer);
    const rgb = Uint8Array.from({ length: 8 * 8 * 3 }, (_, i) => (37 * i) % 256);
    const sample = (indices: readonly number[], picture?: PictureInput): Promise<Float32Array[]> =>
      sampler.sample(
        indices.map((index) => ({ caption: "a red heart", index })),
        { seed: 1, steps: 2, guidance: 2, picture },
      );
    const picture = pictureInput(rgb, sampler.config);
    const [first, second] = await sample([0, 1], picture);
    const [alone] = await sample([1], picture);
    expect(second).toEqual(alone);
    const [without] = await sample([0]);
    expect(difference(first, without)).toBeGreaterThan(1e-3);
  });

  test("an image encoder reads the picture as CLIP does", async () => {
    useDevice(reference);
    const model = new LatentDiffusion(seen).seed(1);
    const { image, prepared } = pictureInput(new Uint8Array(8 * 8 * 3).fill(255), model.config);
    const white = CLIP_PREPROCESS.mean.map((m, c) => (1 - m) / CLIP_PREPROCESS.std[c]);
    expectClose(await prepared!.slice(1, 0, 1).slice(2, 0, 1).data(), white, "white", { rtol: 1e-6 });
    const { vector } = model.picture(image, prepared);
    expectClose(await vector.data(), await model.imageEncoder!.embed(prepared!).data(), "vector", { rtol: 1e-6 });
    expect(() => model.picture(image)).toThrow("needs the picture as CLIP reads it");
    expect(() => new LatentDiffusion({ ...seen, pictures: true }).loss(batch, rng)).toThrow("vectors");
  });

  test("an image encoder's vectors of first frames are made once and kept", async () => {
    useDevice(reference);
    const encoder = new ImageEncoder({ ...seen.imageEncoder, projection: 7 }).seed(1);
    const frame = (record: number): Uint8Array =>
      // 2 frames of 8 x 8; the second must not matter
      Uint8Array.from({ length: 2 * 8 * 8 * 3 }, (_, i) => (record * 50 + (i < 192 ? i : 7 * i)) % 256);
    const data = { length: 5, fingerprint: "five", frame } as unknown as Dataset;
    const cache = mkdtempSync(join(tmpdir(), "pictures-"));
    try {
      const vectors = await pictureVectors(data, encoder, { size: 8, cache });
      const [got, want] = [await vectors.batch([4, 2]), [4, 2].map((i) => pictureInput(frame(i).slice(0, 192), seen))];
      const embedded = want.map(({ prepared }) => encoder.embed(prepared!));
      expectClose(await got.data(), await embedded[0].concat([embedded[1]], 0).data(), "vectors", { rtol: 1e-6 });
      vectors.close();
      const unread = { ...data, frame: () => expect.fail("read again") } as Dataset;
      const again = await pictureVectors(unread, encoder, { size: 8, cache });
      expect(await (await again.batch([4, 2])).data()).toEqual(await got.data());
      again.close();
    } finally {
      rmSync(cache, { recursive: true });
    }
  });

  test("other systems are not guided by pictures", async () => {
    const sti = systemConfig("sti", "nano");
    const model = new LatentDiffusion(sti);
    expect(() => model.picture(zeros([1, 16, 16, 3]))).toThrow("sti is not guided by pictures");
    await expect(readPicture("cat.png", sti)).rejects.toThrow("sti is not guided by pictures");
    const options = { data: "d", out: "r", preset: "nano", steps: 1, seed: 1, resume: false } as const;
    await expect(train({ ...options, system: "sti", pictures: true })).rejects.toThrow("only i2vgen-xl is");
    await expect(readPicture("no such cat.png", system)).rejects.toThrow(/^no such cat.png cannot be read: ENOENT$/);
  });
});

describe("the paper's network", () => {
  const model = new LatentDiffusion(systemConfig("i2vgen-xl", "paper"));

  test("counts, part by part (spec 1 and 3.4)", () => {
    const { unet, textEncoder, imageEncoder, autoencoder } = model;
    const parts = [unet, textEncoder, imageEncoder, autoencoder].map((part) => part?.count());
    expect(parts).toEqual([1_420_469_224, 352_984_064, 632_076_800, 83_653_863]);
    expect(model.count()).toBe(2_489_183_951);
    const within = (prefix: string): number =>
      [...unet.state()]
        .filter(([name]) => name.startsWith(prefix))
        .reduce((sum, [, p]) => sum + p.shape.reduce((a, b) => a * b, 1), 0);
    const added = ["image_latents_proj_in", "image_latents_temporal", "image_latents_context", "context", "fps"];
    expect(added.map(within)).toEqual([3492, 288, 610_528, 6_558_976, 2_050_560]);
  });

  test("the picture gives 64 and 4 tokens", () => {
    expect(model.config.unet.image).toEqual({ side: 32, embedding: 1024, tokens: 4 });
  });

  test("on top of an image model, what pictures go through trains with the temporal layers", () => {
    const names = [...model.train("temporal").state()].filter(([, p]) => p.trainable).map(([name]) => name);
    for (const part of ["conv_in", "image_latents_proj_in", "context_embedding", "fps_embedding", "transformer_in"])
      expect(names.some((name) => name.startsWith(`unet.${part}`))).toBe(true);
    expect(names.some((name) => /resnets|\.attentions|image_encoder|autoencoder|text_encoder/.test(name))).toBe(false);
    expect([...model.train("conv").state()].some(([name, p]) => p.trainable && /conv_in/.test(name))).toBe(false);
  });
});

test.each(["nano", "paper"] as const)("the configuration of %s, written for diffusers and read again", (preset) => {
  const { unet } = systemConfig("i2vgen-xl", preset);
  const json = writeUNetConfig({ config: unet, temporal: true });
  expect("image" in json).toBe(preset === "nano");
  const { attended: _, ...again } = readI2VGenXLConfig(new ConfigReader(json, "config.json"));
  expect(again).toEqual({ ...unet, dropout: 0.1 });
});

describe("VGen's files", () => {
  const json = {
    type: "UNetSD_T2VBase",
    in_dim: 4,
    out_dim: 4,
    dim: 320,
    context_dim: 1024,
    dim_mult: [1, 2, 4, 4],
    num_heads: 8,
    head_dim: 64,
    num_res_blocks: 2,
    attn_scales: [1, 0.5, 0.25],
  };

  test("the released text-to-video configuration is the paper's network", () => {
    const { unet } = readVgenConfig(new ConfigReader(json, "config"));
    const paper = systemConfig("make-a-video", "paper").unet;
    expect(unet).toEqual({ ...paper, inputs: 4, attended: [true, true, true, false] });
  });

  test("every parameter has one tensor, but those of a fused query, key and value", () => {
    const { unet } = readVgenConfig(
      new ConfigReader({ ...json, type: "UNetSD_I2VGen", y_dim: 1024, num_tokens: 4 }, "config"),
    );
    const names = [...new I2VGenXLUNet(unet).state().keys()];
    const tensors = vgenTensors(names, unet);
    expect(tensors.get("local_temporal_encoder.layers.0.0.fn.to_qkv.weight")).toHaveLength(3);
    expect(tensors.size).toBe(names.length - 2);
    // Places where released files have what is said here.
    for (const name of ["input_blocks.3.op.weight", "output_blocks.2.1.conv.weight", "output_blocks.8.3.conv.bias"])
      expect(tensors.has(name), name).toBe(true);
  });

  test("a file with their names has the picture's features twice, one of diffusers once", () => {
    const { unet } = CHECKPOINTS["i2vgen-xl"] as { unet: Part };
    const info = { dtype: "F32", shape: [320, 8, 3, 3] } as const;
    const gain = (name: string): unknown => {
      const { config } = unet.read(null, "file", new Map([[name, info]])) as UNetDescription;
      return config.image?.gain;
    };
    expect([gain("input_blocks.0.0.weight"), gain("conv_in.weight")]).toEqual([2, undefined]);
    const theirs = unet.read(null, "file", new Map([["input_blocks.0.0.weight", info]]));
    expect(() => unet.write(theirs)).toThrow("VGen's I2VGen-XL cannot be written");
  });

  test.each([
    ["UNetSD_VideoLCM", { type: "UNetSD_VideoLCM" }, /type is "UNetSD_VideoLCM"/],
    ["no temporal attention", { temporal_attention: false }, /temporal_attention is false/],
    ["outputs of another width", { out_dim: 8 }, /out_dim is 8/],
  ])("refused: %s", (_, over, message) => {
    expect(() => readVgenConfig(new ConfigReader({ ...json, ...over }, "config"))).toThrow(message);
  });
});
