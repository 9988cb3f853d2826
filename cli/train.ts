// `gifgrad train`: opens the data and the device, picks the recipe's defaults for the preset, runs the recipe.

import { join } from "node:path";
import { openDataset } from "../data/store.ts";
import { type Device, openDevice } from "../engine/index.ts";
import { type Preset, presetConfig, type SystemConfig } from "../models/config.ts";
import { trainAutoencoder } from "../train/autoencoder.ts";
import { trainDiffusion } from "../train/diffusion.ts";
import { progress } from "../train/progress.ts";
import type { StageResult } from "../train/stage.ts";
import type { TrainOptions } from "./options.ts";

interface Defaults {
  readonly batch: number;
  readonly lr: number;
}

/** What suits a preset: small networks take large steps. The paper trains one sticker per GPU at 1e-5. */
export const DEFAULTS: Readonly<Record<TrainOptions["recipe"], Readonly<Record<Preset, Defaults>>>> = {
  autoencoder: {
    nano: { batch: 4, lr: 2e-3 },
    micro: { batch: 4, lr: 1e-3 },
    tiny: { batch: 4, lr: 5e-4 },
    small: { batch: 2, lr: 2e-4 },
    paper: { batch: 1, lr: 1e-4 },
  },
  diffusion: {
    nano: { batch: 4, lr: 2e-3 },
    micro: { batch: 4, lr: 5e-4 },
    tiny: { batch: 4, lr: 2e-4 },
    small: { batch: 2, lr: 1e-4 },
    paper: { batch: 1, lr: 1e-5 },
  },
};

/** Folder of a recipe's run inside the run folder that the user names. */
export function stageFolder(out: string, recipe: TrainOptions["recipe"]): string {
  return join(out, recipe);
}

export async function run(o: TrainOptions): Promise<void> {
  const config = presetConfig(o.preset, o.size ? { size: o.size } : {});
  checkSize(config);
  const device = await openDevice();
  try {
    announce(device);
    await trainStage(o, config);
  } finally {
    device.close();
  }
}

/** Names the adapter, and says so when it is a software one: nobody should train on it by accident. */
export function announce(device: Device): void {
  const software = device.details().kind === "software";
  console.error(`adapter: ${device.name}${software ? " (software: slow; a GPU is used when its driver is installed)" : ""}`);
}

/** Runs one recipe on the open device. */
export async function trainStage(o: TrainOptions, config: SystemConfig): Promise<StageResult> {
  const { batch, lr } = DEFAULTS[o.recipe][o.preset];
  const line = progress("decoding", 1);
  const data = await openDataset(o.data, { size: config.size, frames: config.frames, onProgress: (done, total) => line.update(done / total) });
  line.done(`${data.length} stickers${data.rejected.length > 0 ? `, ${data.rejected.length} rejected (see rejected.jsonl)` : ""}`);
  try {
    const common = { data, config, steps: o.steps, batch: o.batch ?? batch, lr: o.lr ?? lr, seed: o.seed, resume: o.resume, out: stageFolder(o.out, o.recipe) };
    if (o.recipe === "autoencoder") return await trainAutoencoder(common);
    return await trainDiffusion({ ...common, autoencoder: stageFolder(o.autoencoder ?? o.out, "autoencoder"), tokenizer: o.tokenizer });
  } finally {
    data.close();
  }
}

/** The UNet halves the latents once per level, and STI pools what is left. */
function checkSize(config: SystemConfig): void {
  const unit = 2 ** (config.autoencoder.channels.length - 1) * 2 ** config.unet.channels.length;
  if (config.size % unit !== 0) throw new Error(`--size ${config.size} does not suit preset ${config.preset}: give a multiple of ${unit}`);
}
