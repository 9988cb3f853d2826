// `gifgrad train`: opens the data and the device, picks the recipe's defaults for the preset, runs the recipe.

import { basename, dirname, join } from "node:path";
import { type Dataset, openDataset } from "../data/store.ts";
import { type Device, openDevice } from "../engine/index.ts";
import { type Preset, presetConfig, type SystemConfig } from "../models/config.ts";
import { trainAutoencoder } from "../train/autoencoder.ts";
import { trainDiffusion } from "../train/diffusion.ts";
import { exitCode } from "../train/log.ts";
import { type Progress, progress } from "../train/progress.ts";
import { checkResume, holdsRun } from "../train/run.ts";
import type { StageResult } from "../train/stage.ts";
import type { TrainOptions } from "./options.ts";

interface Defaults {
  readonly batch: number;
  readonly lr: number;
}

/** What suits a preset: small networks take large steps. The paper trains one sticker per GPU at 1e-5. */
export const DEFAULTS: Readonly<Record<TrainOptions["recipe"], Readonly<Record<Preset, Defaults>>>> = {
  autoencoder: {
    nano: { batch: 4, lr: 3e-3 },
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

/**
 * That folder, where there is a run in it.
 * @throws Error that says how to make one
 */
export function existingStage(out: string, recipe: TrainOptions["recipe"]): string {
  const dir = stageFolder(out, recipe);
  if (holdsRun(dir)) return dir;
  if (holdsRun(out) && basename(out) === recipe)
    throw new Error(`${out} is one stage of a run: give the run folder, ${dirname(out)}`);
  throw new Error(`${out} holds no ${recipe} yet: train one with gifgrad train <data> --recipe ${recipe} --out ${out}`);
}

/** Trains one stage. The exit code is that of an interrupted process when it was, so that `&&` does not go on. */
export async function run(o: TrainOptions): Promise<void> {
  const config = presetConfig(o.preset, o.size ? { size: o.size } : {});
  checkSize(config);
  checkResume(stageFolder(o.out, o.recipe), o.resume);
  if (o.recipe === "diffusion") existingStage(o.autoencoder ?? o.out, "autoencoder");
  const device = await openDevice();
  try {
    announce(device);
    const { stopped, sha256 } = await trainStage(o, config);
    if (stopped && !sha256) process.exitCode = exitCode(stopped);
  } finally {
    device.close();
  }
}

/** Names the adapter, and says so when it is a software one: nobody should train on it by accident. */
export function announce(device: Device): void {
  const software = device.details().kind === "software";
  console.error(
    `adapter: ${device.name}${software ? " (software: slow; a GPU is used when its driver is installed)" : ""}`,
  );
}

/** Runs one recipe on the open device. `goOn` says how the user continues it after an interrupt, where not by --resume. */
export async function trainStage(o: TrainOptions, config: SystemConfig, goOn?: string): Promise<StageResult> {
  const { batch, lr } = DEFAULTS[o.recipe][o.preset];
  const data = await openStickers(o.data, config);
  try {
    const common = {
      data,
      config,
      steps: o.steps,
      batch: o.batch ?? batch,
      lr: o.lr ?? lr,
      seed: o.seed,
      resume: o.resume,
      out: stageFolder(o.out, o.recipe),
      goOn,
    };
    if (o.recipe === "autoencoder") return await trainAutoencoder(common);
    return await trainDiffusion({
      ...common,
      autoencoder: stageFolder(o.autoencoder ?? o.out, "autoencoder"),
      tokenizer: o.tokenizer,
    });
  } finally {
    data.close();
  }
}

/** Opens the data set with a progress line, where files have to be decoded, and a line on what was found. */
async function openStickers(dir: string, { size, frames }: SystemConfig): Promise<Dataset> {
  let line: Progress | undefined;
  const onProgress = (done: number, total: number): void => {
    line ??= progress("decoding", total);
    line.update(done);
  };
  const data = await openDataset(dir, { size, frames, onProgress });
  line?.done();
  const rejected = data.rejected.length > 0 ? `, ${data.rejected.length} rejected (see rejected.jsonl)` : "";
  console.error(`${data.length} stickers in ${dir}${rejected}`);
  return data;
}

/** The UNet halves the latents once per level, and STI pools what is left. */
function checkSize(config: SystemConfig): void {
  const unit = 2 ** (config.autoencoder.channels.length - 1) * 2 ** config.unet.channels.length;
  if (config.size % unit !== 0)
    throw new Error(`--size ${config.size} does not suit preset ${config.preset}: give a multiple of ${unit}`);
}
