// `gifgrad train`: opens the data and the device, picks the recipes' defaults for the preset, runs the recipes of a system.

import { existsSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { DOMAINS } from "../data/record.ts";
import { type Dataset, openDataset } from "../data/store.ts";
import { ofDomain } from "../data/subset.ts";
import { type Device, openDevice } from "../engine/index.ts";
import { type Preset, type SystemConfig, systemConfig } from "../models/config.ts";
import { SYSTEMS } from "../models/systems.ts";
import { type VideoGptConfig, videoGptConfig } from "../models/videogpt.ts";
import { trainAutoencoder } from "../train/autoencoder.ts";
import { type DiffusionRecipe, trainDiffusion } from "../train/diffusion.ts";
import { configFrom, openImageModel, type Start, startFrom } from "../train/foreign/init.ts";
import { exitCode } from "../train/log.ts";
import { trainPrior } from "../train/prior.ts";
import { type Progress, progress } from "../train/progress.ts";
import { checkResume, holdsRun } from "../train/run.ts";
import type { StageResult } from "../train/stage.ts";
import { trainVqVae } from "../train/vqvae.ts";
import { type Recipe, STAGES, type TrainOptions } from "./options.ts";

/** A recipe's settings where the command line has none. */
interface Defaults extends Pick<DiffusionRecipe, "accumulate" | "schedule" | "warmup"> {
  readonly batch: number;
  readonly lr: number;
}

/** What suits a preset: small networks take large steps. Diffusion at `paper` is as the paper and its authors' code have it. */
const DEFAULTS: Readonly<Record<Recipe, Readonly<Record<Preset, Defaults>>>> = {
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
    paper: { batch: 1, accumulate: 6, lr: 1e-5, schedule: "constant", warmup: 500 },
  },
  vqvae: {
    nano: { batch: 4, lr: 3e-3 },
    micro: { batch: 4, lr: 1e-3 },
    tiny: { batch: 4, lr: 3e-4 },
    small: { batch: 2, lr: 3e-4 },
    paper: { batch: 1, lr: 3e-4 },
  },
  prior: {
    nano: { batch: 4, lr: 3e-3 },
    micro: { batch: 4, lr: 1e-3 },
    tiny: { batch: 4, lr: 3e-4 },
    small: { batch: 2, lr: 3e-4 },
    paper: { batch: 1, lr: 3e-4 },
  },
};

/** Folder of a recipe's run inside the run folder that the user names. */
export function stageFolder(out: string, recipe: Recipe): string {
  return join(out, recipe);
}

/**
 * That folder, where there is a run in it.
 * @throws Error that says how to make one
 */
export function existingStage(out: string, recipe: Recipe): string {
  const dir = stageFolder(out, recipe);
  if (holdsRun(dir)) return dir;
  if (holdsRun(out) && STAGES.some((stage) => stage === basename(out)))
    throw new Error(`${out} is one stage of a run: give the run folder, ${dirname(out)}`);
  const held = STAGES.filter((stage) => holdsRun(stageFolder(out, stage)));
  const codes = recipe === "vqvae" || recipe === "prior";
  if (!codes && held.some((stage) => stage === "vqvae" || stage === "prior"))
    throw new Error(`${out} is a run of VideoGPT, which has no ${recipe}`);
  const options = `${codes ? "--system videogpt " : ""}--out ${out}${held.length > 0 ? " --resume" : ""}`;
  const lacks = existsSync(out) ? `${out} holds no ${recipe} yet` : `${out} does not exist, and so holds no ${recipe}`;
  throw new Error(`${lacks}: train one with gifgrad train <data> ${options}`);
}

/** One stage of one system, with its options. */
export type StageOptions = TrainOptions & { readonly recipe: Recipe; readonly start?: Start };

/**
 * Trains the stages of a system, or the one that is asked for. The exit code is that of an interrupted process when it was,
 * so that `&&` does not go on.
 */
export async function run(o: TrainOptions): Promise<void> {
  const stages = stagesOf(o);
  const image = o.init ? await openImageModel(o.init) : null;
  const config = image ? configFrom(image, configOf({ ...o, size: undefined }), o.size) : undefined;
  checkSize(o, config);
  checkFolders(o, stages);
  const warning = stages.includes("diffusion") ? untrained(o) : null;
  if (warning !== null) console.error(warning);
  const device = await openDevice();
  try {
    announce(device);
    const start = image && config ? await startFrom(image, config, o.out) : undefined;
    for (const [i, recipe] of stages.entries()) {
      const resume = o.resume && holdsRun(stageFolder(o.out, recipe));
      const { stopped, sha256 } = await trainStage({ ...o, recipe, resume, start });
      const finished = sha256 !== null && i === stages.length - 1;
      if (stopped && !finished) process.exitCode = exitCode(stopped);
      if (stopped) return;
    }
  } finally {
    device.close();
    await image?.close();
  }
}

/** The diffusion system that the options name. */
function configOf(o: TrainOptions & Pick<StageOptions, "start">): SystemConfig {
  const { system = "sti", preset, size, pictures = false, start } = o;
  if (system === "videogpt") throw new Error("videogpt is no diffusion system: its recipes are vqvae and prior");
  if (pictures && system !== "i2vgen-xl") throw new Error(`${system} is not guided by pictures: only i2vgen-xl is`);
  return start?.config ?? systemConfig(system, preset, { ...(size && { size }), ...(pictures && { pictures }) });
}

function videoGptOf({ preset, size, objective = "next" }: TrainOptions): VideoGptConfig {
  const { prior, ...config } = videoGptConfig(preset, size ? { size } : {});
  return { ...config, prior: { ...prior, objective } };
}

/** Recipes to run, in order. An autoencoder from elsewhere is not trained again. Throws for a recipe that the system lacks. */
function stagesOf({ system = "sti", recipe, autoencoder, init }: TrainOptions): Recipe[] {
  const { stages } = SYSTEMS.find(({ name }) => name === system) as (typeof SYSTEMS)[number];
  const known = STAGES.filter((name) => stages.includes(name));
  if (recipe && !known.includes(recipe))
    throw new Error(`${system} has no recipe ${recipe}: its stages are ${known.join(" and ")}`);
  return recipe ? [recipe] : known.filter((name) => !((autoencoder || init) && name === "autoencoder"));
}

/** Before the data is decoded, which can take hours: whether there is something to go on with, or to begin. */
function checkFolders(o: TrainOptions, stages: readonly Recipe[]): void {
  const begun = stages.filter((recipe) => holdsRun(stageFolder(o.out, recipe)));
  checkResume(stageFolder(o.out, begun[0] ?? stages[0]), o.resume);
  const before = { diffusion: o.autoencoder ?? o.out, prior: o.out }[stages[0] as "diffusion" | "prior"];
  if (before !== undefined && !o.init) existingStage(before, stages[0] === "prior" ? "vqvae" : "autoencoder");
}

/** A sentence where frozen layers would have the seed's random values, and keep them; null where none would. */
export function untrained({ trainable = "scratch", init }: Pick<TrainOptions, "trainable" | "init">): string | null {
  if (init || trainable === "scratch") return null;
  const rest = trainable === "all" ? "the text encoder is" : "all layers within frames and the text encoder are";
  return `--trainable ${trainable} without --init: ${rest} random and stay so: give --init, or leave --trainable out`;
}

/** Names the adapter, and says so when it is a software one: nobody should train on it by accident. */
export function announce(device: Device): void {
  const software = device.details().kind === "software";
  console.error(
    `adapter: ${device.name}${software ? " (software: slow; a GPU is used when its driver is installed)" : ""}`,
  );
}

/** What all recipes take. */
type Common = Pick<
  DiffusionRecipe,
  "data" | "out" | "steps" | "batch" | "lr" | "seed" | "resume" | "goOn" | "keepEvery"
>;

const RUN: Readonly<Record<Recipe, (o: StageOptions, common: Common) => Promise<StageResult>>> = {
  autoencoder: (o, common) => trainAutoencoder({ ...common, config: configOf(o) }),
  diffusion: (o, common) => {
    const { accumulate, schedule, warmup } = DEFAULTS.diffusion[o.preset];
    return trainDiffusion({
      ...common,
      config: configOf(o),
      autoencoder: stageFolder(o.autoencoder ?? o.out, "autoencoder"),
      tokenizer: o.start?.tokenizer ?? o.tokenizer,
      // On top of an image model its frozen layers stay as they are, unless more is asked for.
      trained: o.start && o.trainable === "scratch" ? "temporal" : o.trainable,
      init: o.start?.init,
      accumulate: o.accumulate ?? accumulate,
      schedule: o.schedule ?? schedule,
      warmup: o.warmup ?? warmup,
      drop: o.drop,
      precision: o.precision,
      cache: o.cache ?? join(o.data, ".gifgrad"),
    });
  },
  vqvae: (o, common) => trainVqVae({ ...common, config: videoGptOf(o) }),
  prior: (o, common) => trainPrior({ ...common, config: videoGptOf(o), vqvae: stageFolder(o.out, "vqvae") }),
};

/** Runs one recipe on the open device. `goOn` says how the user continues it after an interrupt, where not by --resume. */
export async function trainStage(o: StageOptions, goOn?: string): Promise<StageResult> {
  const { batch, lr } = DEFAULTS[o.recipe][o.preset];
  const data = await openStickers(o, o.system === "videogpt" ? videoGptOf(o) : configOf(o));
  const { steps, seed, resume, keepEvery } = o;
  const out = stageFolder(o.out, o.recipe);
  try {
    const common = { data, out, steps, batch: o.batch ?? batch, lr: o.lr ?? lr, seed, resume, goOn, keepEvery };
    return await RUN[o.recipe](o, common);
  } finally {
    data.close();
  }
}

type ClipShape = Pick<SystemConfig, "size" | "frames">;

/** Opens the data set with a progress line, where files have to be decoded, and a line on what was found. */
async function openStickers({ data: dir, domain }: TrainOptions, { size, frames }: ClipShape): Promise<Dataset> {
  let line: Progress | undefined;
  const onProgress = (done: number, total: number): void => {
    line ??= progress("decoding", total);
    line.update(done);
  };
  const all = await openDataset(dir, { size, frames, onProgress });
  line?.done();
  const rejected = all.rejected.length > 0 ? `, ${all.rejected.length} rejected (see rejected.jsonl)` : "";
  const only = DOMAINS.find((name) => name.toLowerCase() === domain);
  try {
    const data = only ? ofDomain(all, only) : all;
    const kept = only ? `, ${data.length} of them ${only}` : "";
    console.error(`${all.length} stickers in ${dir}${rejected}${kept}`);
    return data;
  } catch (error) {
    all.close();
    throw error;
  }
}

/** The UNet halves the latents once per level, and STI pools what is left; VideoGPT's strides halve the picture twice. */
function checkSize(o: TrainOptions & Pick<StageOptions, "start">, from?: SystemConfig): void {
  const diffusion = from ?? (o.system === "videogpt" ? null : configOf(o));
  const unit = diffusion ? 2 ** (diffusion.autoencoder.channels.length - 1 + diffusion.unet.channels.length) : 4;
  const { size } = diffusion ?? videoGptOf(o);
  if (size % unit !== 0) throw new Error(`--size ${size} does not suit preset ${o.preset}: give a multiple of ${unit}`);
}
