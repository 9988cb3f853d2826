// CLIP's two encoders: parameter counts of the published networks, gradients along random directions, and what can be said
// of them without anybody's numbers. Agreement with other implementations is the golden kinds' business.

import { describe, expect, test } from "vitest";
import { Rng, type Tensor, tensor, useDevice } from "../engine/index.ts";
import { l2Normalize } from "../engine/nn/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { directional } from "../engine/testing/index.ts";
import { openaiClipConfig, readOpenClipConfig, readTextConfig, readVisionConfig } from "../models/checkpoints/clip.ts";
import { openaiLayout } from "../models/checkpoints/clip_names.ts";
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

describe("names of OpenAI's and open_clip's files", () => {
  const files = ["token_embedding.weight", "positional_embedding", "transformer.resblocks.11.attn.in_proj_bias"];
  const visual = ["visual.positional_embedding", "visual.transformer.resblocks.0.mlp.c_fc.weight", "visual.proj"];
  const where = (name: string, names: readonly string[]) => openaiLayout(names)?.(name);

  test("fused and turned tensors go where they belong", () => {
    const names = [...files, ...visual, "logit_scale", "input_resolution"];
    const part = (x: string) => `text_model.encoder.layers.11.self_attn.${x}_proj.bias`;
    expect(where(files[2], names)).toMatchObject({ names: [part("q"), part("k"), part("v")] });
    expect(where(visual[1], names)?.names).toEqual(["vision_model.encoder.layers.0.mlp.fc1.weight"]);
    expect(where("visual.proj", names)).toEqual({ names: ["visual_projection.weight"], transposed: true });
    expect(where("logit_scale", names)?.names).toEqual(["logit_scale"]);
    expect(where("input_resolution", names)?.names).toEqual([]);
    expect(where("visual.layer1.0.conv1.weight", [...names, "visual.layer1.0.conv1.weight"])?.names).toEqual([
      "visual.layer1.0.conv1.weight", // nothing is known of it: loading names it as extra
    ]);
  });
  test.each<[string, string[], string]>([
    ["behind a prefix, among other parts", files.map((n) => `cond_stage_model.model.${n}`), "cond_stage_model.model."],
    ["a text tower of its own", [...files.map((n) => `text.${n}`), ...visual], "text."],
    ["trained in parallel", [...files, ...visual].map((n) => `module.${n}`), "module."],
  ])("%s", (_, names, prefix) => {
    const all = [...names, "first_stage_model.encoder.norm_out.weight"];
    expect(where(`${prefix}positional_embedding`, all)?.names).toEqual([
      "text_model.embeddings.position_embedding.weight",
    ]);
    const image = all.find((name) => name.endsWith("visual.positional_embedding"));
    if (image) expect(where(image, all)?.names).toEqual(["vision_model.embeddings.position_embedding.weight"]);
    expect(where("first_stage_model.encoder.norm_out.weight", all)?.names).toEqual([]);
  });
  test("those of transformers are none of them", () => {
    expect(openaiLayout(new Clip(config).state().keys())).toBeNull();
  });
  test("sizes follow from the shapes; head widths and the activation from open_clip's configuration", () => {
    const [L, W] = [77, 1280];
    const shapes = new Map<string, number[]>([
      ["visual.conv1.weight", [W, 3, 14, 14]],
      ["visual.positional_embedding", [257, W]],
      ["visual.proj", [W, 1024]],
      ["positional_embedding", [L, 1024]],
      ["token_embedding.weight", [49408, 1024]],
      ["text_projection", [1024, 1024]],
      ["transformer.resblocks.0.mlp.c_fc.weight", [4096, 1024]],
      ["visual.transformer.resblocks.0.mlp.c_fc.weight", [5120, W]],
      ...Array.from({ length: 24 }, (_, i) => [`transformer.resblocks.${i}.ln_1.weight`, [1024]] as [string, number[]]),
      ...Array.from(
        { length: 32 },
        (_, i) => [`visual.transformer.resblocks.${i}.ln_1.weight`, [W]] as [string, number[]],
      ),
    ]);
    const json = { model_cfg: { vision_cfg: { head_width: 80 }, text_cfg: { width: 1024, heads: 16 } } };
    const read = openaiClipConfig(shapes, readOpenClipConfig(json, "open_clip_config.json"));
    // OpenCLIP's ViT-H/14, counted by its authors: 986,109,441.
    expect(new Clip(read).count()).toBe(986_109_441);
    expect(read).toMatchObject({
      text: { heads: 16, activation: "gelu", length: L },
      vision: { heads: 16, size: 224, patch: 14, activation: "gelu" },
    });
    shapes.delete("visual.conv1.weight");
    expect(() => openaiClipConfig(shapes)).toThrow(/visual.conv1.weight is missing/);
    const other = { text_cfg: { hf_model_name: "roberta" }, vision_cfg: {} };
    expect(() => readOpenClipConfig(other, "o.json")).toThrow(/o.json: text_cfg: hf_model_name is "roberta"/);
  });
});

describe("configurations of transformers", () => {
  const tower = { hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 12 };
  test("an absent field has its library's default; the end token of 2 means the highest id", () => {
    const text = readTextConfig({ ...tower, hidden_act: "gelu", eos_token_id: 49407 }, "c");
    expect(text).toMatchObject({ vocabulary: 49408, length: 77, activation: "gelu", epsilon: 1e-5, endId: 49407 });
    expect(readTextConfig({ ...tower, eos_token_id: 2 }, "c")).not.toHaveProperty("endId");
    expect(text).not.toHaveProperty("projection");
    const projecting = { ...tower, architectures: ["CLIPTextModelWithProjection"], projection_dim: 6 };
    expect(readTextConfig(projecting, "c").projection).toBe(6);
    const image = { ...tower, model_type: "clip_vision_model", architectures: ["CLIPVisionModelWithProjection"] };
    expect(readVisionConfig(image, "c")).toMatchObject({ patch: 32, size: 224, projection: 512 });
  });
  test.each<[object, RegExp]>([
    [{ ...tower, hidden_act: "swish2" }, /^c: hidden_act is "swish2": only gelu, .* are supported$/],
    [{ ...tower, model_type: "t5" }, /model_type is "t5"/],
    [{ ...tower, num_hidden_layers: -1 }, /num_hidden_layers/],
  ])("%j is refused", (json, message) => {
    expect(() => readTextConfig(json, "c")).toThrow(message);
  });
});

describe("text encoder", () => {
  test("a position does not depend on later tokens, and does on earlier ones", async () => {
    useDevice(new ReferenceDevice());
    const encoder = new TextEncoder(text).seed(5);
    const a = await rowsOf(encoder.forward(ids([1, 2, 3, 4])));
    const b = await rowsOf(encoder.forward(ids([1, 2, 9, 4])));
    expect(b.slice(0, 2)).toEqual(a.slice(0, 2));
    expect(b[3]).not.toEqual(a[3]);
  });

  test("too many tokens are refused", () => {
    expect(() => new TextEncoder(text).forward(ids([0, 0, 0, 0, 0, 0, 0]))).toThrow("7 tokens, at most 6");
  });
});
