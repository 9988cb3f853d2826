// What makes stickers of a run, behind one face: a diffusion system's sampler, that of an imported checkpoint, or VideoGPT's.
// Called by generate.ts, start.ts, systems.ts and eval_cost.ts.

import { basename } from "node:path";
import type { Parameter } from "../engine/index.ts";
import type { SystemConfig, SystemName } from "../models/config.ts";
import type { VideoGptConfig } from "../models/videogpt.ts";
import { loadSystem, openImported, tokenizerOf } from "../train/foreign/imported.ts";
import { holdsImport } from "../train/foreign/record.ts";
import { type PictureInput, readPicture } from "../train/pictures.ts";
import { holdsRun } from "../train/run.ts";
import { type LoadOptions, loadSampler, type SampleOptions, Sampler, type Sticker } from "../train/sample.ts";
import { type CodeSamplerOptions, loadVideoGptSampler, type VideoGptSampler } from "../train/sample_videogpt.ts";
import type { Recipe } from "./options.ts";
import { existingStage, stageFolder } from "./train.ts";

export interface MakeOptions extends SampleOptions {
  /** VideoGPT: logits are divided by this. */
  readonly temperature?: number;
  /** The file that `picture` is from. */
  readonly image?: string;
}

export interface Maker {
  /** Which of the six systems the model is one of. */
  readonly system: SystemName;
  readonly config: SystemConfig | VideoGptConfig;
  /** Parameters of the whole model. */
  state(): ReadonlyMap<string, Parameter>;
  /** Pixels a side. */
  readonly size: number;
  /** Stickers of one batch, each [frames, size, size, 3] in [-1, 1]. */
  make(stickers: readonly Sticker[], o: MakeOptions): Promise<Float32Array[]>;
  /** Steps of a batch, as `onStep` counts them. */
  steps(stickers: number, o: MakeOptions): number;
  /** Options of `generate` that it does not read, and for whom they are. */
  readonly unused: { readonly options: readonly string[]; readonly whom: string };
  /** Whether captions begin with a domain; lists of tags need not, those of other programs' models do not. */
  readonly domains: boolean;
  /** A picture for `MakeOptions.picture`, from a file. Throws in one line when the model takes none. */
  picture(path: string): Promise<PictureInput>;
  /** What the model does not read of a caption, in a sentence; null where it reads all of it. */
  unread(caption: string): string | null;
  /** The options that made a difference, by name: for the comment in a file, and its line in metadata.jsonl. */
  settings(o: MakeOptions): Readonly<Record<string, string | number | undefined>>;
}

/** A caption in, noise removed step by step. */
export function diffusionMaker(sampler: Sampler, { domains = true } = {}): Maker {
  return {
    system: sampler.config.system,
    config: sampler.config,
    state: () => sampler.state(),
    size: sampler.config.size,
    unused: { options: ["temperature", "topK"], whom: "runs of VideoGPT" },
    domains,
    picture: async (path) => {
      const picture = await readPicture(path, sampler.config);
      if (!sampler.config.pictures)
        console.error("the model was trained on captions alone: what a picture does to its stickers is left to chance");
      return picture;
    },
    make: (stickers, o) => sampler.sample(stickers, o),
    steps: (_, o) => o.steps,
    unread: (caption) => {
      const read = sampler.cut(caption);
      return read === null ? null : `this caption is too long for the model, which reads only: ${read}`;
    },
    settings: ({ steps, guidance, sampler, eta, negative, image }) => ({
      steps,
      guidance,
      sampler: sampler === "ddim" ? undefined : sampler,
      eta: eta || undefined,
      negative,
      image: image === undefined ? undefined : basename(image),
    }),
  };
}

/** Tags in, codes one after another. */
export function videoGptMaker(sampler: VideoGptSampler): Maker {
  return {
    system: "videogpt",
    config: sampler.config,
    state: () => sampler.state(),
    size: sampler.config.size,
    unused: {
      options: ["guidance", "sampler", "eta", "negative", ...(sampler.rounds === null ? ["steps"] : [])],
      whom: "runs of diffusion systems, not of VideoGPT",
    },
    domains: false,
    picture: async () => {
      throw new Error("videogpt is not guided by pictures: that takes a run of i2vgen-xl");
    },
    make: (stickers, o) => sampler.sample(stickers, o),
    steps: () => sampler.steps,
    unread: (caption) => {
      const { unknown } = sampler.read(caption);
      return unknown.length === 0 ? null : `no tags, and so not read: ${unknown.join(", ")}`;
    },
    settings: ({ temperature }) => ({ temperature, steps: sampler.rounds ?? undefined }),
  };
}

/** The model of an imported checkpoint. */
export async function importedSampler(dir: string): Promise<Sampler> {
  const checkpoint = await openImported(dir);
  try {
    return new Sampler(await loadSystem(checkpoint), await tokenizerOf(checkpoint), checkpoint.scheduler?.plan);
  } finally {
    await checkpoint.close();
  }
}

/**
 * The maker of the run folder `out`, by the stages that it holds.
 * @throws Error when it holds no model that can be sampled
 */
export async function openMaker(out: string, o: CodeSamplerOptions & LoadOptions = {}): Promise<Maker> {
  if (holdsImport(out)) return diffusionMaker(await importedSampler(out), { domains: false });
  if (["vqvae", "prior"].some((stage) => holdsRun(stageFolder(out, stage as Recipe))))
    return videoGptMaker(await loadVideoGptSampler(existingStage(out, "prior"), console.error, o));
  return diffusionMaker(await loadSampler(existingStage(out, "diffusion"), console.error, o));
}
