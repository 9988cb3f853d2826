// A trained VideoGPT run -> stickers: loads what train/prior.ts left, draws codes for tags, decodes them to frames.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { inSlots, type ReadTags, Tags } from "../data/tags.ts";
import { load } from "../engine/checkpoint.ts";
import { compile, joinState, type Parameter, Rng, type Tensor, tensor } from "../engine/index.ts";
import { type ChoiceOptions, type DrawOptions, MaskedSampler, NextSampler } from "../models/prior_sampling.ts";
import { VideoGpt, type VideoGptConfig } from "../models/videogpt.ts";
import { loadVqVae, TAGS_FILE } from "./prior.ts";
import { readRun } from "./run.ts";
import type { LoadOptions, Sticker } from "./sample.ts";

export interface CodeSampleOptions {
  readonly seed: number;
  /** Logits are divided by this. Default 1. */
  readonly temperature?: number;
  /** Steps are tokens, or rounds of a masked prior. */
  readonly onStep?: (done: number, total: number) => void;
}

export interface CodeSamplerOptions extends ChoiceOptions {
  /** Rounds of a masked prior. Default 12. */
  readonly rounds?: number;
}

/** A model ready to sample. One compiled step serves all tokens and all stickers of a batch size. */
export class VideoGptSampler {
  readonly config: VideoGptConfig;
  readonly #model: VideoGpt;
  readonly #tags: Tags | null;
  readonly #length: number;
  readonly #masked: MaskedSampler | null;
  /** The sampler of a number of stickers: it remembers keys and values for as many. */
  readonly #next: (batch: number) => NextSampler;
  readonly #decode;

  constructor(model: VideoGpt, tags: Tags | null, { rounds, ...o }: CodeSamplerOptions = {}) {
    this.config = model.config;
    this.#model = model;
    this.#tags = tags;
    const { prior, vqvae } = model;
    const table = vqvae.codebook.embeddings;
    this.#length = prior.length;
    this.#masked = prior.config.objective === "masked" ? new MaskedSampler(prior, table, rounds, o) : null;
    let last: NextSampler | undefined;
    this.#next = (batch) => {
      if (last?.batch !== batch) last = new NextSampler(prior, table, batch, o);
      return last;
    };
    this.#decode = compile(({ codes }: { codes: Tensor }) => ({ frames: model.decode(codes) }), { name: "decode" });
  }

  /** Of a masked prior; null: codes are drawn one after another. */
  get rounds(): number | null {
    return this.#masked?.rounds ?? null;
  }

  /** Steps of a batch, as `onStep` counts them. */
  get steps(): number {
    return this.#masked?.rounds ?? (this.config.prior.tags?.slots ?? 0) + this.#length;
  }

  /** Parameters of the whole model. */
  state(): ReadonlyMap<string, Parameter> {
    return this.#model.state();
  }

  /** What the model makes of a text: see `Tags.read`. */
  read(text: string): ReadTags {
    return this.#tags?.read(text) ?? { tags: [], unknown: [] };
  }

  /**
   * Stickers of one batch for texts of tags, each [frames, size, size, 3] in [-1, 1]. A sticker's random numbers depend on the
   * seed and its index alone, so that tags give the same sticker whatever it is sampled with.
   */
  async sample(
    stickers: readonly Sticker[],
    { seed, temperature, onStep }: CodeSampleOptions,
  ): Promise<Float32Array[]> {
    const each = this.#masked ? [this.#masked.rounds, 1, this.#length] : [1, this.#length];
    const numbers = stickers.map(({ index }) => new Rng(seed).split(`sticker ${index}`).uniform(each));
    const uniform = numbers[0].concat(numbers.slice(1), each.length - 2).keep();
    const codes = await this.#draw(uniform, { temperature, tags: this.#named(stickers) }, onStep);
    const frames = (await this.#decode({ codes }).frames.data()) as Float32Array;
    const values = frames.length / stickers.length;
    return stickers.map((_, i) => frames.slice(i * values, (i + 1) * values));
  }

  /** Tags i32 [b, slots]. */
  #named(stickers: readonly Sticker[]): Tensor | undefined {
    const slots = this.config.prior.tags?.slots;
    if (!slots) return undefined;
    const rows = stickers.flatMap(({ caption }) => [...inSlots(this.read(caption).tags, slots)]);
    return tensor(Int32Array.from(rows), [stickers.length, slots]);
  }

  async #draw(uniform: Tensor, o: DrawOptions, onStep: CodeSampleOptions["onStep"]): Promise<Tensor> {
    if (!this.#masked) {
      const next = this.#next(uniform.shape[0]);
      for await (const done of next.draw(uniform, o)) onStep?.(done, next.length);
      return next.codes;
    }
    let [codes, done] = [uniform, 0];
    for await (const now of this.#masked.draw(uniform, o)) {
      codes = now;
      onStep?.(++done, this.#masked.rounds);
    }
    return codes;
  }
}

/**
 * Loads the run folder of a prior. One that is not finished will do: `notice` is told.
 * @throws Error when there is none, it is of another recipe, or it has no checkpoint yet
 */
export async function loadVideoGptSampler(
  dir: string,
  notice: (text: string) => void = () => {},
  { step, ...o }: CodeSamplerOptions & LoadOptions = {},
): Promise<VideoGptSampler> {
  const { config: record, checkpoint } = await readRun(dir, step);
  if (record.recipe !== "prior")
    throw new Error(`${dir} holds a run of recipe "${String(record.recipe)}", not of VideoGPT's prior`);
  const steps = Number(record.steps);
  if (step === undefined && checkpoint.step < steps)
    notice(`${dir} is not finished: sampling from step ${checkpoint.step} of ${steps}`);
  const model = new VideoGpt(record.config as unknown as VideoGptConfig);
  await loadVqVae(model, dir);
  const into = joinState({ model: model.prior.state() });
  await load(checkpoint.path, into, { rename: (name) => (name.startsWith("model.") ? name : null) });
  const tags = model.config.prior.tags ? new Tags(JSON.parse(await readFile(join(dir, TAGS_FILE), "utf8"))) : null;
  return new VideoGptSampler(model, tags, o);
}
