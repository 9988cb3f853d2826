// A trained VideoGPT run -> stickers: loads what train/prior.ts left, draws codes for tags, decodes them to frames.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { inSlots, type ReadTags, Tags } from "../data/tags.ts";
import { load } from "../engine/checkpoint.ts";
import { compile, joinState, Rng, type Tensor, tensor } from "../engine/index.ts";
import { type ChoiceOptions, MaskedSampler, NextSampler } from "../models/prior_sampling.ts";
import { VideoGpt, type VideoGptConfig } from "../models/videogpt.ts";
import { loadVqVae, TAGS_FILE } from "./prior.ts";
import { readRun } from "./run.ts";

export interface CodeSampleOptions {
  readonly seed: number;
  /** Which of a text's stickers, each with random numbers of its own. Default 0. */
  readonly index?: number;
  /** Logits are divided by this. Default 1. */
  readonly temperature?: number;
  /** Steps are tokens, or rounds of a masked prior. */
  readonly onStep?: (done: number, total: number) => void;
}

export interface CodeSamplerOptions extends ChoiceOptions {
  /** Rounds of a masked prior. Default 12. */
  readonly rounds?: number;
}

/** A model ready to sample. One compiled step serves all tokens and all stickers. */
export class VideoGptSampler {
  readonly config: VideoGptConfig;
  readonly #tags: Tags | null;
  readonly #sampler: NextSampler | MaskedSampler;
  readonly #length: number;
  readonly #decode;

  constructor(model: VideoGpt, tags: Tags | null, { rounds, ...o }: CodeSamplerOptions = {}) {
    this.config = model.config;
    this.#tags = tags;
    const { prior, vqvae } = model;
    const table = vqvae.codebook.embeddings;
    const masked = prior.config.objective === "masked";
    this.#sampler = masked ? new MaskedSampler(prior, table, rounds, o) : new NextSampler(prior, table, 1, o);
    this.#length = prior.length;
    this.#decode = compile(({ codes }: { codes: Tensor }) => ({ frames: model.decode(codes) }), { name: "decode" });
  }

  /** Steps of one sticker, as `onStep` counts them. */
  get steps(): number {
    return this.#sampler instanceof NextSampler ? this.#sampler.length : this.#sampler.rounds;
  }

  /** What the model makes of a text: see `Tags.read`. */
  read(text: string): ReadTags {
    return this.#tags?.read(text) ?? { tags: [], unknown: [] };
  }

  /**
   * One sticker for a text of tags: [frames, size, size, 3] in [-1, 1]. Its random numbers depend on seed and index and
   * nothing else, so tags give the same sticker whatever was sampled before it.
   */
  async sample(text: string, { seed, index = 0, temperature, onStep }: CodeSampleOptions): Promise<Float32Array> {
    const slots = this.config.prior.tags?.slots;
    const named = this.#tags && slots ? inSlots(this.read(text).tags, slots) : null;
    const tags = named ? tensor(named, [1, named.length]) : undefined;
    const rng = new Rng(seed).split(`sticker ${index}`);
    const codes = await this.#draw(rng, { temperature, tags }, onStep);
    return (await this.#decode({ codes }).frames.data()) as Float32Array;
  }

  async #draw(rng: Rng, o: { temperature?: number; tags?: Tensor }, onStep: CodeSampleOptions["onStep"]) {
    const sampler = this.#sampler;
    if (sampler instanceof NextSampler) {
      for await (const done of sampler.draw(rng.uniform([1, this.#length]), o)) onStep?.(done, sampler.length);
      return sampler.codes;
    }
    let [codes, done] = [tensor(new Int32Array(this.#length), [1, this.#length]), 0];
    for await (const now of sampler.draw(rng.uniform([sampler.rounds, 1, this.#length]), o)) {
      codes = now;
      onStep?.(++done, sampler.rounds);
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
  o: CodeSamplerOptions = {},
): Promise<VideoGptSampler> {
  const { config: record, checkpoint } = await readRun(dir);
  if (record.recipe !== "prior")
    throw new Error(`${dir} holds a run of recipe "${String(record.recipe)}", not of VideoGPT's prior`);
  const steps = Number(record.steps);
  if (checkpoint.step < steps) notice(`${dir} is not finished: sampling from step ${checkpoint.step} of ${steps}`);
  const model = new VideoGpt(record.config as unknown as VideoGptConfig);
  await loadVqVae(model, dir);
  const into = joinState({ model: model.prior.state() });
  await load(checkpoint.path, into, { rename: (name) => (name.startsWith("model.") ? name : null) });
  const tags = model.config.prior.tags ? new Tags(JSON.parse(await readFile(join(dir, TAGS_FILE), "utf8"))) : null;
  return new VideoGptSampler(model, tags, o);
}
