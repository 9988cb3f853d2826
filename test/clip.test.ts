// CLIP's two encoders: parameter counts of the published networks, gradients along random directions, and what can be said
// of them without anybody's numbers. Agreement with other implementations is the golden kinds' business.

import { describe, expect, test } from "vitest";
import { Rng, type Tensor, tensor, useDevice } from "../engine/index.ts";
import { l2Normalize } from "../engine/nn/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { directional } from "../engine/testing/index.ts";
import { Clip, type ClipConfig } from "../models/clip.ts";
import type { TextConfig } from "../models/config.ts";
import { ImageEncoder, type VisionConfig } from "../models/image_encoder.ts";
import { TextEncoder } from "../models/text_encoder.ts";

const text: TextConfig = { vocabulary: 20, width: 8, layers: 2, heads: 2, mlp: 12, length: 6, projection: 5 };
const vision: VisionConfig = { width: 12, layers: 2, heads: 3, mlp: 16, size: 6, patch: 3, projection: 5 };
const config: ClipConfig = { text, vision };
const VIT_H = { vocabulary: 49408, width: 1024, heads: 16, mlp: 4096, length: 77 };

const ids = (...rows: number[][]): Tensor => tensor(Int32Array.from(rows.flat()), [rows.length, rows[0].length]);
const rowsOf = async (x: Tensor): Promise<number[][]> => {
  const [flat, d] = [[...(await x.data())], x.shape[x.rank - 1]];
  return Array.from({ length: flat.length / d }, (_, i) => flat.slice(i * d, (i + 1) * d));
};

describe("counts of the published networks (spec 1), without allocating them", () => {
  test.each<[string, () => { count(): number }, number]>([
    ["Stable Diffusion 2's 23 layers", () => new TextEncoder({ ...VIT_H, layers: 23 }), 340_387_840],
    ["I2VGen-XL's 24, the last unused", () => new TextEncoder({ ...VIT_H, layers: 24, skip: 1 }), 352_984_064],
    [
      "ViT-H/14 with its projection",
      () => new ImageEncoder({ width: 1280, layers: 32, heads: 16, mlp: 5120, size: 224, patch: 14, projection: 1024 }),
      632_076_800,
    ],
    [
      "OpenAI's ViT-B/32, both towers", // 151,277,313 in openai/clip-vit-base-patch32
      () =>
        new Clip({
          text: { vocabulary: 49408, width: 512, layers: 12, heads: 8, mlp: 2048, length: 77, projection: 512 },
          vision: { width: 768, layers: 12, heads: 12, mlp: 3072, size: 224, patch: 32, projection: 512 },
        }),
      151_277_313,
    ],
  ])("%s", (_, make, count) => {
    expect(make().count()).toBe(count);
  });
});

describe("gradients along random directions", () => {
  useDevice(new ReferenceDevice());
  test("the contrastive loss, through both encoders, their projections and the scale", async () => {
    const clip = new Clip(config).seed(2);
    const captions = clip.embedText(ids([1, 4, 19, 0], [2, 19, 0, 0]), { mask: ids([1, 1, 1, 0], [1, 1, 0, 0]) });
    const images = clip.embedImages(new Rng(3).normal([2, 6, 6, 3]));
    await directional(clip.loss(images, captions), [...clip.state().values()], { directions: 2 });
  });
  test.each(["quick_gelu", "gelu_new", "silu"] as const)("the text encoder with %s", async (activation) => {
    const encoder = new TextEncoder({ ...text, activation, skip: 1, endId: 19, epsilon: 1e-2 }).seed(4);
    const weights = [...encoder.state()].filter(([name]) => !name.includes("layers.1.")).map(([, p]) => p);
    await directional(
      encoder
        .embed(ids([1, 19, 3], [2, 4, 19]))
        .square()
        .sum(),
      weights,
      { directions: 2 },
    );
  });
});

describe("text encoder", () => {
  useDevice(new ReferenceDevice());
  const encoder = new TextEncoder(text).seed(5);

  test("a caption's vector is read at the first highest id, or at the first end token where one is named", async () => {
    const captions = ids([1, 9, 7, 9], [3, 7, 11, 7]);
    const features = tensor(
      Float32Array.from({ length: 8 }, (_, i) => i),
      [2, 4, 1],
    );
    expect(await rowsOf(encoder.pooled(features, captions))).toEqual([[1], [6]]);
    expect(await rowsOf(new TextEncoder({ ...text, endId: 7 }).pooled(features, captions))).toEqual([[2], [5]]);
  });
  test("masked tokens are not seen by others; without a mask padding is", async () => {
    const [a, b] = [ids([5, 3, 4]), ids([6, 3, 4])];
    const mask = ids([0, 1, 1]);
    const tail = async (x: Tensor, o?: { mask: Tensor }) => (await rowsOf(encoder.forward(x, o))).slice(1);
    expect(await tail(a, { mask })).toEqual(await tail(b, { mask }));
    expect(await tail(a)).not.toEqual(await tail(b));
  });
  test("a skipped layer has no part in the features, whose norm stays", async () => {
    const shorter = new TextEncoder({ ...text, skip: 1 }).seed(5);
    const norm = shorter.textModel.finalLayerNorm;
    const want = await rowsOf(norm.forward(encoder.hidden(ids([1, 2, 3]), 1)));
    expect(await rowsOf(shorter.forward(ids([1, 2, 3])))).toEqual(want);
    expect(await rowsOf(encoder.forward(ids([1, 2, 3])))).not.toEqual(want);
  });
  test("without a projection there is no common space", () => {
    expect(() => new TextEncoder({ ...text, projection: undefined }).embed(ids([1, 2]))).toThrow("no projection");
    expect(() => new Clip({ text, vision: { ...vision, projection: 6 } })).toThrow("text projects to 5, images to 6");
  });
});

describe("image encoder", () => {
  useDevice(new ReferenceDevice());

  test("patches are taken row by row and the class token stands first", async () => {
    const { embeddings } = new ImageEncoder({ ...vision, width: 3, heads: 1 }).visionModel;
    embeddings.positionEmbedding.weight.write(new Float32Array(5 * 3));
    embeddings.classEmbedding.write([7, 8, 9]);
    // Output c is the first pixel's channel c of each patch.
    embeddings.patchEmbedding.weight.write(Float32Array.from({ length: 81 }, (_, i) => (i < 9 && i % 4 === 0 ? 1 : 0)));
    const image = Float32Array.from({ length: 108 }, (_, i) => i);
    const at = (y: number, x: number) => [0, 1, 2].map((c) => (y * 6 + x) * 3 + c);
    const tokens = await rowsOf(embeddings.forward(tensor(image, [1, 6, 6, 3])));
    expect(tokens).toEqual([[7, 8, 9], at(0, 0), at(0, 3), at(3, 0), at(3, 3)]);
  });
  test("images of another size are refused", () => {
    const encoder = new ImageEncoder(vision);
    expect(() => encoder.forward(tensor(new Float32Array(6 * 9 * 3), [1, 6, 9, 3]))).toThrow(
      /expected images "b 6 6 3"/,
    );
  });
});

test("the contrastive loss is that of the matching pairs in both directions", async () => {
  useDevice(new ReferenceDevice());
  const clip = new Clip(config).seed(1);
  const [a, b] = [1, 2].map((seed) => l2Normalize(new Rng(seed).normal([3, 5])));
  const scores = await rowsOf(clip.logits(a, b));
  const own = (rows: number[][]) =>
    rows.reduce((sum, row, i) => sum + Math.log(row.reduce((s, x) => s + Math.exp(x), 0)) - row[i], 0) / rows.length;
  const transposed = scores[0].map((_, j) => scores.map((row) => row[j]));
  expect(await clip.loss(a, b).item()).toBeCloseTo((own(scores) + own(transposed)) / 2, 4);
});
