// Models from checkpoints of other programs, imported or where they lie: a whole diffusion system to sample from, or the
// image model that training starts with.

import { join } from "node:path";
import type { Tokenizer } from "../../data/tokenizer.ts";
import { openTokenizer } from "../../data/tokenizer_folder.ts";
import { load } from "../../engine/checkpoint.ts";
import { openTensors } from "../../engine/index.ts";
import type { Module } from "../../engine/nn/index.ts";
import { ArrangedFile, byRules } from "../../models/checkpoints/layout.ts";
import { CHECKPOINTS, type CheckpointKind, type Part, type PartName } from "../../models/checkpoints/parts.ts";
import type { SchedulerDescription } from "../../models/checkpoints/scheduler.ts";
import type { UNetDescription } from "../../models/checkpoints/unet.ts";
import { type AutoencoderConfig, downsampling, type SystemConfig, type TextConfig } from "../../models/config.ts";
import type { VisionConfig } from "../../models/image_encoder.ts";
import { LatentDiffusion } from "../../models/latent_diffusion.ts";
import { type OpenCheckpoint, type OpenPart, openForeign } from "./open.ts";
import { holdsImport, readRecord, SOURCE, weightsFile } from "./record.ts";

/** The imported checkpoint in `dir`. Throws one line when there is none, or files of it are missing. */
export async function openImported(dir: string): Promise<OpenCheckpoint> {
  const record = await readRecord(dir);
  const known: Readonly<Record<string, Part>> = CHECKPOINTS[record.as];
  const parts: OpenPart[] = [];
  const close = async (): Promise<void> => {
    for (const { store } of parts) await store.close();
  };
  try {
    for (const [name, { config }] of Object.entries(record.parts)) {
      const path = weightsFile(dir, name);
      const store = await openTensors(path);
      const layout = byRules([]);
      const file = new ArrangedFile(store, layout, known[name].build(config).state(), path);
      parts.push({ name: name as PartName, config, store, file, layout, place: null });
    }
  } catch (error) {
    await close();
    throw error;
  }
  return { kind: record.as, path: dir, parts, scheduler: record.scheduler, close };
}

/** A checkpoint of a kind: imported, or another program's where it lies. Throws as `openImported` and `openForeign`. */
export async function openCheckpoint(path: string, kind: CheckpointKind): Promise<OpenCheckpoint> {
  if (!holdsImport(path)) return openForeign(path, kind);
  const checkpoint = await openImported(path);
  if (checkpoint.kind === kind) return checkpoint;
  await checkpoint.close();
  throw new Error(`${path} holds ${checkpoint.kind}, not ${kind}`);
}

/** The tokenizer that lies beside the weights. Throws one line when there is none. */
export async function tokenizerOf({ path }: OpenCheckpoint): Promise<Tokenizer> {
  return openTokenizer(join(path, holdsImport(path) ? SOURCE : "", "tokenizer"));
}

/** Fills a module from a part. Throws LoadError when they do not fit. */
export async function loadPart({ file }: OpenPart, into: Module): Promise<void> {
  await load(file, into.state(), { layout: "torch" });
}

/** A part by name; its configuration is the one that this part has. Throws one line when the checkpoint lacks it. */
export function partOf(checkpoint: OpenCheckpoint, name: PartName): OpenPart {
  const part = checkpoint.parts.find((p) => p.name === name);
  if (part) return part;
  throw new Error(`${checkpoint.path} has no ${name}`);
}

const SYSTEMS = { sd21: "make-a-video", "text-to-video-ms": "make-a-video", "i2vgen-xl": "i2vgen-xl" } as const;

/** What the published models predict, and on which schedule if not Stable Diffusion's, where a checkpoint does not say it. */
const UNSAID = {
  sd21: { prediction: "v" },
  "text-to-video-ms": { prediction: "epsilon" },
  "i2vgen-xl": { prediction: "v", schedule: { betas: "cosine", zeroTerminalSnr: true } }, // VGen's i2vgen_xl_train.yaml
} as const;

/**
 * The whole system as a configuration. An image model is Make-A-Video without temporal layers, and draws one frame.
 * Throws one line when a part is missing, or the model was trained on a noise schedule that cannot be sampled from.
 */
export function systemOf(checkpoint: OpenCheckpoint): SystemConfig {
  const { kind, path, scheduler } = checkpoint;
  if (kind === "clip" || kind === "videogpt")
    throw new Error(`${path} holds ${kind}, which draws nothing by denoising`);
  const { config, temporal, sample = 32 } = partOf(checkpoint, "unet").config as UNetDescription;
  const { config: autoencoder } = partOf(checkpoint, "vae").config as { readonly config: AutoencoderConfig };
  const imageEncoder = checkpoint.parts.find(({ name }) => name === "image_encoder")?.config as
    | VisionConfig
    | undefined;
  const { prediction, schedule }: Diffused = scheduler ? diffusedBy(path, scheduler) : UNSAID[kind];
  return {
    system: SYSTEMS[kind],
    preset: "paper",
    size: sample * downsampling(autoencoder),
    frames: temporal ? 8 : 1,
    autoencoder,
    text: partOf(checkpoint, "text_encoder").config as TextConfig,
    unet: temporal ? config : { ...config, temporal },
    ...(imageEncoder ? { imageEncoder } : {}),
    ...(kind === "i2vgen-xl" ? { pictures: true } : {}), // it was trained on them
    prediction,
    ...(schedule ? { schedule } : {}),
  };
}

type Diffused = Pick<SystemConfig, "prediction" | "schedule">;

/** The prediction and the noise schedule, which is left out where it is Stable Diffusion's. */
function diffusedBy(path: string, { prediction, schedule }: SchedulerDescription): Diffused {
  const refuse = (why: string): Error => new Error(`${path}: the noise schedule it was trained on ${why}`);
  const { steps, betas, range = [0.00085, 0.012], zeroTerminalSnr = false } = schedule;
  if (prediction === "sample") throw refuse("goes with predicting the clean sample, which no system here does");
  if (steps !== 1000) throw refuse(`has ${steps} steps; all systems here have 1000`);
  if (zeroTerminalSnr && prediction !== "v")
    throw refuse("ends in pure noise, which only a model that predicts v can be sampled from");
  if (typeof betas !== "string") throw refuse("is given by its betas, not by its name");
  if (betas === "cosine") return { prediction, schedule: { betas, zeroTerminalSnr } };
  if (!(range[0] > 0 && range[0] <= range[1] && range[1] < 1))
    throw refuse(`has betas from ${range.join(" to ")}, which do not rise between 0 and 1`);
  if (betas === "scaled-linear" && range.join() === "0.00085,0.012" && !zeroTerminalSnr) return { prediction };
  return { prediction, schedule: { betas, range, zeroTerminalSnr } };
}

/** The system with its weights. Its parameters take the memory of float32, whatever the files hold. */
export async function loadSystem(checkpoint: OpenCheckpoint): Promise<LatentDiffusion> {
  const model = new LatentDiffusion(systemOf(checkpoint));
  model.autoencoder.scale = (partOf(checkpoint, "vae").config as { readonly scale: number }).scale;
  await loadPart(partOf(checkpoint, "unet"), model.unet);
  await loadPart(partOf(checkpoint, "vae"), model.autoencoder);
  await loadPart(partOf(checkpoint, "text_encoder"), model.textEncoder);
  if (model.imageEncoder) await loadPart(partOf(checkpoint, "image_encoder"), model.imageEncoder);
  return model;
}
