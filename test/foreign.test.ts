// Checkpoints of other programs: imported, used, exported and compared byte by byte, in every form that folders have. What
// is refused, and how much memory it takes, is foreign_refused.test.ts.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { importedSampler } from "../cli/makers.ts";
import { openTokenizer } from "../data/tokenizer_folder.ts";
import { type Data, useDevice } from "../engine/index.ts";
import type { Module } from "../engine/nn/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { LatentDiffusion } from "../models/latent_diffusion.ts";
import { exportImported } from "../train/foreign/export.ts";
import { importCheckpoint } from "../train/foreign/import.ts";
import { loadSystem, openCheckpoint } from "../train/foreign/imported.ts";
import { Sampler } from "../train/sample.ts";
import {
  CONFIGS,
  type FolderOptions,
  type Parts,
  publishedWeights,
  put,
  randomParts,
  safetensorsBytes,
  torchBytes,
  type Weight,
  type Weights,
  writePipeline,
} from "./foreign_files.ts";

const root = mkdtempSync(join(tmpdir(), "foreign-"));
afterAll(() => rmSync(root, { recursive: true }));
let folders = 0;
/** A folder that is not there yet. */
const fresh = (): string => join(root, `${++folders}`);

let parts: Parts;
beforeAll(() => {
  useDevice(new ReferenceDevice());
  parts = randomParts();
});

/** Every file below a folder with its bytes. */
function tree(dir: string): Map<string, string> {
  const files = readdirSync(dir, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = files.map((entry) => join(entry.parentPath, entry.name)).sort();
  return new Map(paths.map((path) => [relative(dir, path), readFileSync(path).toString("base64")]));
}

/** Largest relative difference of any weight of two modules with the same names. */
async function difference(got: Module, want: Module): Promise<number> {
  const state = got.state();
  expect([...state.keys()]).toEqual([...want.state().keys()]);
  let worst = 0;
  for (const [name, p] of want.state()) {
    const [a, b] = [(await state.get(name)?.data()) as Data, await p.data()];
    b.forEach((x: number, i: number) => {
      worst = Math.max(worst, a[i] === x ? 0 : Math.abs(a[i] - x) / Math.abs(x));
    });
  }
  return worst;
}

/** How far the model in `dir`, imported or not, is from the one that was written. */
async function distance(dir: string): Promise<number> {
  const checkpoint = await openCheckpoint(dir, "sd21");
  try {
    const model = await loadSystem(checkpoint);
    expect(model.autoencoder.scale).toBe(0.25);
    expect(model.config).toMatchObject({ size: 16, frames: 1, prediction: "v" });
    const pairs = [
      [model.unet, parts.unet],
      [model.autoencoder, parts.vae],
      [model.textEncoder, parts.text_encoder],
    ] as const;
    return Math.max(...(await Promise.all(pairs.map(([a, b]) => difference(a, b)))));
  } finally {
    await checkpoint.close();
  }
}

describe("a pipeline's folder", () => {
  // The weights have eleven bits, so only bfloat16 rounds them.
  test.each<[string, FolderOptions, number]>([
    ["float32, old names and position numbers", {}, 0],
    ["float16 in three files each", { floats: "F16", variant: "fp16", shards: 3 }, 0],
    ["bfloat16 in two files each, without a variant", { floats: "BF16", shards: 2 }, 2 ** -7],
  ])("%s: imported and exported, the same bytes and the same model", async (_, o, rounding) => {
    const [there, here, back] = [fresh(), fresh(), fresh()];
    await writePipeline(there, parts, o);
    await importCheckpoint(there, "sd21", here);
    await exportImported(here, back);
    expect(tree(back)).toEqual(tree(there));
    expect(await distance(here)).toBeLessThanOrEqual(rounding);
  });

  test("can be used where it lies", async () => {
    const there = fresh();
    await writePipeline(there, parts);
    expect(await distance(there)).toBe(0);
  });

  test("torch's files are read, and written as safetensors of the same model", async () => {
    const [there, here, back] = [fresh(), fresh(), fresh()];
    await writePipeline(there, parts, { torch: true, shards: 2 });
    await importCheckpoint(there, "sd21", here);
    await exportImported(here, back);
    expect([...tree(back).keys()]).toContain("unet/diffusion_pytorch_model.safetensors");
    expect(tree(back).get("unet/config.json")).toBe(tree(there).get("unet/config.json"));
    expect(await distance(back)).toBe(0);
  });

  test("of several forms, the plain safetensors are taken, and others when they are asked for", async () => {
    const [there, plain, half] = [fresh(), fresh(), fresh()];
    await writePipeline(there, parts, { variant: "fp16", floats: "F16" });
    await writePipeline(there, parts, { torch: true });
    await writePipeline(there, parts);
    await importCheckpoint(there, "sd21", plain);
    await importCheckpoint(there, "sd21", half, { variant: "fp16" });
    const bytes = (dir: string): number => readFileSync(join(dir, "unet.safetensors")).length;
    expect(bytes(plain)).toBeGreaterThan(1.5 * bytes(half));
  });

  test("one network alone, and a pipeline without a text encoder, are what is there", async () => {
    const [there, alone, some] = [fresh(), fresh(), fresh()];
    await writePipeline(there, parts);
    expect(Object.keys((await importCheckpoint(join(there, "vae"), "sd21", alone)).parts)).toEqual(["vae"]);
    rmSync(join(there, "text_encoder"), { recursive: true });
    expect(Object.keys((await importCheckpoint(there, "sd21", some)).parts)).toEqual(["unet", "vae"]);
    await expect(distance(some)).rejects.toThrow(`${some} has no text_encoder`);
  });
});

test("its scheduler says how generate visits the steps: all samplers the steps, DDIM alone where it ends", async () => {
  const [there, here] = [fresh(), fresh()];
  await writePipeline(there, parts);
  const { steps_offset: _, ...rest } = CONFIGS.scheduler;
  const scheduler = { ...rest, timestep_spacing: "trailing", set_alpha_to_one: true };
  put(join(there, "scheduler/scheduler_config.json"), JSON.stringify(scheduler));
  put(join(there, "tokenizer/merges.txt"), "#version: 0.2\na b\n");
  await importCheckpoint(there, "sd21", here);
  const imported = await importedSampler(here);
  const visited = (sampler: Sampler, o: Parameters<Sampler["plan"]>[0]): number[] =>
    sampler.plan(o).map(({ step }) => step);
  for (const sampler of ["ddim", "ddpm", "dpm++", "euler"] as const)
    expect(visited(imported, { steps: 4, sampler })).toEqual([999, 749, 499, 249]);
  expect(imported.plan({ steps: 4 }).at(-1)?.numbers.nextSignal).toBe(1);
  const tokenizer = await openTokenizer(join(there, "tokenizer"));
  const model = new LatentDiffusion(imported.config);
  const leading = new Sampler(model, tokenizer, { spacing: "leading", offset: 1, end: "first", next: "stride" });
  expect(visited(leading, { steps: 4 })).toEqual([751, 501, 251, 1]);
  expect(leading.plan({ steps: 4 }).at(-1)?.numbers.nextSignal).toBeLessThan(1);
  expect(leading.plan({ steps: 4, sampler: "euler" }).at(-1)?.numbers.nextSignal).toBe(1);
  expect(visited(leading, { steps: 1000 }).at(-1)).toBe(0); // there is no room for an offset
});

describe("one file", () => {
  /** The names that Stable Diffusion's authors give a weight: rules of their own, written from their files. */
  function original(part: keyof Parts, name: string): string {
    if (part === "vae") {
      const theirs = name
        .replace(/mid_block\.resnets\.(\d)/, (_, i) => `mid.block_${Number(i) + 1}`)
        .replace("mid_block.attentions.0", "mid.attn_1")
        .replace(/down_blocks\.(\d)\.resnets/, "down.$1.block")
        .replace(/down_blocks\.(\d)\.downsamplers\.0/, "down.$1.downsample")
        .replace(/up_blocks\.(\d)\.resnets/, (_, i) => `up.${1 - Number(i)}.block`)
        .replace(/up_blocks\.(\d)\.upsamplers\.0/, (_, i) => `up.${1 - Number(i)}.upsample`)
        .replace("group_norm", "norm")
        .replace(/attn_1\.(query|key|value)/, (_, x) => `attn_1.${x[0]}`)
        .replace("proj_attn", "proj_out")
        .replace("conv_norm_out", "norm_out")
        .replace("conv_shortcut", "nin_shortcut");
      return `first_stage_model.${theirs}`;
    }
    // Channels 8, 16 with one block each; the first level has text attention.
    const blocks: readonly (readonly [string, string])[] = [
      ["conv_in", "input_blocks.0.0"],
      ["time_embedding.linear_1", "time_embed.0"],
      ["time_embedding.linear_2", "time_embed.2"],
      ["down_blocks.0.resnets.0", "input_blocks.1.0"],
      ["down_blocks.0.attentions.0", "input_blocks.1.1"],
      ["down_blocks.0.downsamplers.0.conv", "input_blocks.2.0.op"],
      ["down_blocks.1.resnets.0", "input_blocks.3.0"],
      ["mid_block.resnets.0", "middle_block.0"],
      ["mid_block.attentions.0", "middle_block.1"],
      ["mid_block.resnets.1", "middle_block.2"],
      ["up_blocks.0.resnets.0", "output_blocks.0.0"],
      ["up_blocks.0.resnets.1", "output_blocks.1.0"],
      ["up_blocks.0.upsamplers.0", "output_blocks.1.1"],
      ["up_blocks.1.resnets.0", "output_blocks.2.0"],
      ["up_blocks.1.attentions.0", "output_blocks.2.1"],
      ["up_blocks.1.resnets.1", "output_blocks.3.0"],
      ["up_blocks.1.attentions.1", "output_blocks.3.1"],
      ["conv_norm_out", "out.0"],
      ["conv_out", "out.2"],
    ];
    const [ours, theirs] = blocks.find(([prefix]) => name.startsWith(`${prefix}.`)) as readonly [string, string];
    const resnet = { norm1: "in_layers.0", conv1: "in_layers.2", time_emb_proj: "emb_layers.1" };
    const rest = { norm2: "out_layers.0", conv2: "out_layers.3", conv_shortcut: "skip_connection" };
    const inside = name.slice(ours.length + 1);
    const renamed = ours.includes("resnets")
      ? inside.replace(/^\w+/, (p) => ({ ...resnet, ...rest })[p] as string)
      : inside;
    return `model.diffusion_model.${theirs}.${renamed}`;
  }

  /** Query, key and value in one tensor, and a third layer that is not used. */
  function originalText(text: Weights): [string, Weight][] {
    const at = (name: string): Weight => text.get(`text_model.${name}`) as Weight;
    const fused = (layer: number, kind: "weight" | "bias"): Weight => {
      const three = ["q", "k", "v"].map((x) => at(`encoder.layers.${layer}.self_attn.${x}_proj.${kind}`));
      return {
        shape: [36, ...three[0].shape.slice(1)],
        values: three.flatMap(({ values }) => Array.from(values)),
      };
    };
    const layer = (i: number, from: number): [string, Weight][] => {
      const both = (theirs: string, ours: string): [string, Weight][] =>
        ["weight", "bias"].map((kind) => [`${theirs}.${kind}`, at(`encoder.layers.${from}.${ours}.${kind}`)]);
      const all: [string, Weight][] = [
        ["attn.in_proj_weight", fused(from, "weight")],
        ["attn.in_proj_bias", fused(from, "bias")],
        ...both("attn.out_proj", "self_attn.out_proj"),
        ...both("ln_1", "layer_norm1"),
        ...both("ln_2", "layer_norm2"),
        ...both("mlp.c_fc", "mlp.fc1"),
        ...both("mlp.c_proj", "mlp.fc2"),
      ];
      return all.map(([name, w]) => [`transformer.resblocks.${i}.${name}`, w]);
    };
    const names: [string, Weight][] = [
      ["token_embedding.weight", at("embeddings.token_embedding.weight")],
      ["positional_embedding", at("embeddings.position_embedding.weight")],
      ["ln_final.weight", at("final_layer_norm.weight")],
      ["ln_final.bias", at("final_layer_norm.bias")],
      ["text_projection", { shape: [12, 12], values: new Float32Array(144) }],
      ["logit_scale", { shape: [], values: [4.6] }],
      ...[0, 1, 2].flatMap((i) => layer(i, i % 2)),
    ];
    return names.map(([name, w]) => [`cond_stage_model.model.${name}`, w]);
  }

  async function originalWeights(): Promise<Map<string, Weight>> {
    const { unet, vae, text_encoder } = await publishedWeights(parts);
    const square = (name: string, w: Weight): Weight =>
      /attn_1\.(q|k|v|proj_out)\.weight/.test(name) ? { ...w, shape: [...w.shape, 1, 1] } : w;
    const moved = (part: keyof Parts, weights: Weights): [string, Weight][] =>
      [...weights].map(([name, w]) => [original(part, name), square(original(part, name), w)]);
    const constants: [string, Weight][] = [
      ["betas", { shape: [3], values: [1, 2, 3] }],
      ["model_ema.decay", { shape: [], values: [0.5] }],
    ];
    return new Map([...moved("unet", unet), ...moved("vae", vae), ...originalText(text_encoder), ...constants]);
  }

  test.each(["safetensors", "ckpt"])(
    "as Stable Diffusion's authors publish it (%s), written as a folder",
    async (type) => {
      const [there, configs, here, back] = [fresh(), fresh(), fresh(), fresh()];
      for (const [name, config] of Object.entries(CONFIGS)) {
        const file = name === "scheduler" ? "scheduler_config.json" : "config.json";
        put(join(configs, name, file), JSON.stringify(config));
      }
      const weights = await originalWeights();
      const nested = new Map([...weights].map(([name, w]) => [`state_dict.${name}`, w] as const));
      const path = `${there}.${type}`;
      put(path, type === "ckpt" ? torchBytes(nested) : safetensorsBytes(weights, "F32"));
      await importCheckpoint(path, "sd21", here, { config: configs });
      expect(await distance(here)).toBe(0);
      await exportImported(here, back);
      expect(await distance(back)).toBe(0);
    },
  );
});
