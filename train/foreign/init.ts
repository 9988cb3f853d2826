// Training that starts from an image model (`--init sd21 DIR`): the configuration that fits it, and its weights in the places
// of a video system. What is between frames begins as the identity, so that the first samples are the image model's, frame
// by frame (spec 9.2); I2VGen-XL alone has more beside it, whose biases are not zero.

import { createHash } from "node:crypto";
import { join } from "node:path";
import { saveTokenizer } from "../../data/tokenizer.ts";
import { load } from "../../engine/checkpoint.ts";
import { device } from "../../engine/index.ts";
import type { Parameter } from "../../engine/state.ts";
import { Autoencoder } from "../../models/autoencoder.ts";
import type { SystemConfig } from "../../models/config.ts";
import type { LatentDiffusion } from "../../models/latent_diffusion.ts";
import { VideoUNet } from "../../models/video_unet.ts";
import type { Json } from "../checkpoints.ts";
import type { Initialiser } from "../diffusion.ts";
import { holdsRun, openRun } from "../run.ts";
import { loadPart, openCheckpoint, partOf, systemOf, tokenizerOf } from "./imported.ts";
import type { OpenCheckpoint } from "./open.ts";

/**
 * What an image model says of the system that is trained on it; what stands between frames is as in `base`. `pixels` a side
 * where they are not those of the image model.
 */
export function configFrom(image: OpenCheckpoint, base: SystemConfig, pixels?: number): SystemConfig {
  const { autoencoder, text, unet, size, prediction, schedule } = systemOf(image);
  const { latent, channels, attended, layers, headDim, heads, context, groups } = unet;
  const guided = base.unet.image ? { inputs: 2 * latent } : {};
  return {
    ...base,
    ...{ autoencoder, text, size: pixels ?? size, prediction },
    ...(schedule ? { schedule } : {}),
    unet: { ...base.unet, latent, channels, attended, layers, headDim, heads, context, groups, ...guided },
  };
}

/**
 * Loads an image model into a system: text encoder, autoencoder, and the layers of the UNet that see one frame at a time.
 * Nothing else is touched. Throws LoadError when the system's sizes are others.
 */
export async function loadImageModel(model: LatentDiffusion, image: OpenCheckpoint): Promise<void> {
  const { file } = partOf(image, "unet");
  const state = model.unet.state();
  const perFrame = new VideoUNet(systemOf(image).unet).state();
  const into = new Map([...perFrame.keys()].flatMap((name) => [[name, state.get(name)]] as [string, Parameter][]));
  const first = into.get(FIRST) as Parameter;
  if (model.config.unet.image) {
    await load(file, new Map([[FIRST, perFrame.get(FIRST) as Parameter]]), { layout: "torch", partial: true });
    await widen(perFrame.get(FIRST) as Parameter, first);
    into.delete(FIRST);
    await load(file, into, { layout: "torch", rename: (name) => (name === FIRST ? null : name) });
  } else await load(file, into, { layout: "torch" });
  await loadPart(partOf(image, "text_encoder"), model.textEncoder);
  await loadPart(partOf(image, "vae"), model.autoencoder);
  model.autoencoder.scale = scaleOf(image);
}

/** The UNet's first convolution. */
const FIRST = "conv_in.weight";

/** Kernels [3, 3, in, out] into ones with more inputs, which read the others with zeros: I2VGen-XL's picture. */
async function widen(from: Parameter, into: Parameter): Promise<void> {
  const [rows, columns, inputs, outputs] = from.shape;
  const values = await from.data();
  const wide = new Float32Array(into.shape.reduce((a, b) => a * b, 1));
  for (let tap = 0; tap < rows * columns; tap++)
    wide.set(values.subarray(tap * inputs * outputs, (tap + 1) * inputs * outputs), tap * into.shape[2] * outputs);
  into.write(wide);
}

function scaleOf(image: OpenCheckpoint): number {
  return (partOf(image, "vae").config as { readonly scale: number }).scale;
}

/** SHA-256 of all weights with their names, types and shapes. Reads everything once. */
async function identityOf(image: OpenCheckpoint): Promise<string> {
  const hash = createHash("sha256");
  for (const { name, store } of image.parts)
    for (const tensor of [...store.tensors.keys()].sort()) {
      hash.update(JSON.stringify([name, tensor, store.tensors.get(tensor)]));
      for await (const piece of store.pieces(tensor)) hash.update(piece);
    }
  return hash.digest("hex");
}

/** What the recipes take from an image model. */
export interface Start {
  readonly config: SystemConfig;
  readonly init: Initialiser;
  /** A tokenizer.json. */
  readonly tokenizer: string;
}

/**
 * Prepares the run folder `out` for training from an image model: its tokenizer, and its autoencoder as a run of that stage
 * with no steps. `config` is from `configFrom`; a device is open. `image` must stay open until training has begun.
 */
export async function startFrom(image: OpenCheckpoint, config: SystemConfig, out: string): Promise<Start> {
  const sha256 = await identityOf(image);
  await autoencoderRun(image, config, sha256, join(out, "autoencoder"));
  const tokenizer = join(out, "tokenizer.json");
  await saveTokenizer(await tokenizerOf(image), tokenizer);
  const init = {
    identity: { kind: image.kind, sha256 },
    scale: scaleOf(image),
    load: (m: LatentDiffusion) => loadImageModel(m, image),
  };
  return { config, init, tokenizer };
}

async function autoencoderRun(image: OpenCheckpoint, config: SystemConfig, sha256: string, dir: string): Promise<void> {
  if (holdsRun(dir)) return;
  const model = new Autoencoder(config.autoencoder);
  await loadPart(partOf(image, "vae"), model);
  const recorded = { recipe: "autoencoder", config: { ...config } as unknown as Json, steps: 0, init: sha256 };
  const run = await openRun(dir, { config: recorded, resume: false, adapter: device().name });
  try {
    const state = new Map([...model.state()].map(([name, p]) => [`model.${name}`, p]));
    await run.finish(await run.save(0, state));
  } finally {
    run.close();
  }
}

/** Opens the image model that `--init KIND DIR` names. Throws one line for a kind that is no image model. */
export async function openImageModel([kind, path, ...rest]: readonly string[]): Promise<OpenCheckpoint> {
  if (kind === "sd21" && path !== undefined && rest.length === 0) return openCheckpoint(path, kind);
  throw new Error(`--init ${[kind, path, ...rest].join(" ").trim()}: expected "sd21" and a folder`);
}
