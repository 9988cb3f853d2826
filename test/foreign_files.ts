// Checkpoints as other programs write them, made here for tests: the folder of a tiny Stable Diffusion 2, with random
// weights, in every form that people have such folders in. Names, order of axes and containers are written out by hand,
// independently of models/checkpoints.

import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { packHalf } from "../engine/dtype.ts";
import type { Parameter } from "../engine/index.ts";
import type { Module } from "../engine/nn/index.ts";
import { Autoencoder } from "../models/autoencoder.ts";
import type { AutoencoderConfig, TextConfig, UNetConfig } from "../models/config.ts";
import { TextEncoder } from "../models/text_encoder.ts";
import { VideoUNet } from "../models/video_unet.ts";
import { type Made, torchZip } from "./torch_files.ts";

export interface Weight {
  readonly shape: readonly number[];
  readonly values: ArrayLike<number>;
  /** Whole numbers are stored as I64. */
  readonly whole?: boolean;
}
export type Weights = ReadonlyMap<string, Weight>;

// ---- a small model -------------------------------------------------------------------------------------------------

export const UNET: UNetConfig = {
  ...{ latent: 4, channels: [8, 16], heads: [2, 4], headDim: 4, layers: 1, context: 12, groups: 4, dropout: 0 },
  ...{ transformerIn: { heads: 1, dim: 8 }, sti: null, mixing: false, swap: null, image: null },
};
export const VAE: AutoencoderConfig = { channels: [8, 8], layers: 1, latent: 4, groups: 4 };
export const TEXT: TextConfig = { vocabulary: 600, width: 12, layers: 2, heads: 2, mlp: 20, length: 10 };

export const CONFIGS = {
  unet: {
    ...{ _class_name: "UNet2DConditionModel", act_fn: "silu", attention_head_dim: [2, 4], block_out_channels: [8, 16] },
    ...{ cross_attention_dim: 12, down_block_types: ["CrossAttnDownBlock2D", "DownBlock2D"], in_channels: 4 },
    ...{ layers_per_block: 1, norm_num_groups: 4, out_channels: 4, sample_size: 8, use_linear_projection: true },
    up_block_types: ["UpBlock2D", "CrossAttnUpBlock2D"],
  },
  vae: {
    ...{ _class_name: "AutoencoderKL", block_out_channels: [8, 8], in_channels: 3, out_channels: 3, act_fn: "silu" },
    ...{ layers_per_block: 1, latent_channels: 4, norm_num_groups: 4, scaling_factor: 0.25 },
  },
  text_encoder: {
    ...{ architectures: ["CLIPTextModel"], model_type: "clip_text_model", hidden_act: "gelu", hidden_size: 12 },
    ...{ intermediate_size: 20, num_attention_heads: 2, num_hidden_layers: 2, max_position_embeddings: 10 },
    ...{ vocab_size: 600, eos_token_id: 2 },
  },
  scheduler: {
    ...{ _class_name: "DDIMScheduler", beta_end: 0.012, beta_schedule: "scaled_linear", beta_start: 0.00085 },
    ...{ clip_sample: false, prediction_type: "v_prediction", set_alpha_to_one: false, steps_offset: 1 },
  },
} as const;

export interface Parts {
  readonly unet: VideoUNet;
  readonly vae: Autoencoder;
  readonly text_encoder: TextEncoder;
}

/** The three networks with every weight drawn, biases and zero starts included. */
export function randomParts(): Parts {
  const parts = {
    unet: new VideoUNet(UNET, { temporal: false }),
    vae: new Autoencoder(VAE),
    text_encoder: new TextEncoder(TEXT),
  };
  let seed = 1;
  for (const part of Object.values(parts))
    for (const p of part.state().values()) {
      // A power of two, so that what F16 holds stays so.
      const spread = 2 ** -Math.round(Math.log2(p.shape.slice(0, -1).reduce((a, b) => a * b, 1)) / 2);
      p.write(Float32Array.from({ length: p.shape.reduce((a, b) => a * b, 1) }, () => spread * (draw(seed++) - 0.5)));
    }
  return parts;
}

/** In [0, 1); of eleven bits, so that F16 holds it. */
function draw(n: number): number {
  return (Math.imul(n, 2654435761) >>> 21) / 2048;
}

/** A network's weights as torch would hold them: kernels are [out, in, ...kernel]. */
export async function weightsOf(network: Module): Promise<Map<string, Weight>> {
  const entries = [...network.state()].map(async ([name, p]): Promise<[string, Weight]> => [name, await asTorch(p)]);
  return new Map(await Promise.all(entries));
}

async function asTorch(p: Parameter): Promise<Weight> {
  const values = await p.data();
  if (p.layout !== "conv" || p.shape.length < 3) return { shape: p.shape, values };
  const kernel = p.shape.slice(0, -2);
  const [inputs, outputs] = p.shape.slice(-2);
  const taps = kernel.reduce((a, b) => a * b, 1);
  const out = new Float32Array(values.length);
  for (let o = 0; o < outputs; o++)
    for (let i = 0; i < inputs; i++)
      for (let k = 0; k < taps; k++) out[(o * inputs + i) * taps + k] = values[(k * inputs + i) * outputs + o];
  return { shape: [outputs, inputs, ...kernel], values: out };
}

// ---- containers ----------------------------------------------------------------------------------------------------

export type Floats = "F32" | "F16" | "BF16";

/** A safetensors file whose tensors lie in the order given, under a header with spaces where nobody else has them. */
export function safetensorsBytes(weights: Weights, floats: Floats): Buffer {
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  const data: Buffer[] = [];
  let at = 0;
  for (const [name, { shape, values, whole }] of weights) {
    const bytes = whole
      ? Buffer.from(BigInt64Array.from(Array.from(values), BigInt).buffer)
      : floatBytes(values, floats);
    header[name] = { shape, dtype: whole ? "I64" : floats, data_offsets: [at, at + bytes.length] };
    at += bytes.length;
    data.push(bytes);
  }
  const text = Buffer.from(JSON.stringify(header, null, 1));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, ...data]);
}

function floatBytes(values: ArrayLike<number>, floats: Floats): Buffer {
  const exact = Float32Array.from(values);
  if (floats === "F32") return Buffer.from(exact.buffer);
  const words = new Uint32Array(exact.buffer);
  const halves = Uint16Array.from(exact, (x, i) => (floats === "F16" ? packHalf(x) : words[i] >>> 16));
  return Buffer.from(halves.buffer);
}

/** A torch file of the same tensors, each with a storage of its own. */
export function torchBytes(weights: Weights): Uint8Array {
  const storages = [...weights.values()].map(({ values, whole }) => {
    return { dtype: whole ? "I64" : "F32", values: Array.from(values) } as const;
  });
  const strides = (shape: readonly number[]): number[] =>
    shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));
  const tensors = [...weights].map(
    ([name, { shape }], storage) => [name, { storage, offset: 0, shape, strides: strides(shape) }] as const,
  );
  return torchZip({ storages, tensors: Object.fromEntries(tensors) } satisfies Made);
}

// ---- folders -------------------------------------------------------------------------------------------------------

export interface FolderOptions {
  readonly floats?: Floats;
  /** "fp16": in the names of files. */
  readonly variant?: string;
  /** Files per network, with an index. */
  readonly shards?: number;
  /** torch's files in the place of safetensors. */
  readonly torch?: boolean;
}

/** Names that the attention of published autoencoders still has. */
const OLD: Readonly<Record<string, string>> = { to_q: "query", to_k: "key", to_v: "value", "to_out.0": "proj_attn" };

/** The weights of each part under the names of published files, position numbers included. */
export async function publishedWeights(parts: Parts): Promise<Record<keyof Parts, Weights>> {
  const vae = [...(await weightsOf(parts.vae))].map(([name, w]): [string, Weight] => [
    name.replace(/(attentions\.0\.)(to_[qkv]|to_out\.0)\./, (_, path, part) => `${path}${OLD[part]}.`),
    w,
  ]);
  const positions: Weight = { shape: [1, 10], values: Array.from({ length: 10 }, (_, i) => i), whole: true };
  const text = new Map([["text_model.embeddings.position_ids", positions], ...(await weightsOf(parts.text_encoder))]);
  return { unet: await weightsOf(parts.unet), vae: new Map(vae), text_encoder: text };
}

/** A pipeline's folder below `dir`. */
export async function writePipeline(dir: string, parts: Parts, o: FolderOptions = {}): Promise<void> {
  const weights = await publishedWeights(parts);
  for (const name of ["unet", "vae", "text_encoder"] as const) {
    const base = name === "text_encoder" ? (o.torch ? "pytorch_model" : "model") : "diffusion_pytorch_model";
    writeWeights(join(dir, name), base, weights[name], o);
    put(join(dir, name, "config.json"), JSON.stringify(CONFIGS[name], null, 2));
  }
  put(join(dir, "scheduler/scheduler_config.json"), JSON.stringify(CONFIGS.scheduler));
  put(join(dir, "model_index.json"), '{ "_class_name": "StableDiffusionPipeline" }');
}

function writeWeights(folder: string, base: string, weights: Weights, o: FolderOptions): void {
  const { floats = "F32", variant, shards = 1, torch } = o;
  const extension = torch ? "bin" : "safetensors";
  const bytes = (some: Weights): Uint8Array => (torch ? torchBytes(some) : safetensorsBytes(some, floats));
  const dotted = variant ? `.${variant}` : "";
  if (shards === 1) {
    put(join(folder, `${base}${dotted}.${extension}`), bytes(weights));
    return;
  }
  const map: Record<string, string> = {};
  for (let i = 0; i < shards; i++) {
    const file = `${base}${dotted}-0000${i + 1}-of-0000${shards}.${extension}`;
    const some = new Map([...weights].filter((_, at) => at % shards === i));
    for (const name of some.keys()) map[name] = file;
    put(join(folder, file), bytes(some));
  }
  const index = { metadata: { total_size: 0 }, weight_map: map };
  put(join(folder, `${base}.${extension}.index${dotted}.json`), JSON.stringify(index, null, 2));
}

export function put(path: string, content: string | Uint8Array): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
}
