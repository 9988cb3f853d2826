// A trained diffusion run -> stickers: loads what train/diffusion.ts left, samples captions with DDIM, gives back frames.

import { join } from "node:path";
import { loadTokenizer, type Tokenizer } from "../data/tokenizer.ts";
import { load } from "../engine/checkpoint.ts";
import { compile, Rng, type Tensor, tensor } from "../engine/index.ts";
import { downsampling, type SystemConfig } from "../models/config.ts";
import { type DdimStep, ddim, ddimStep } from "../models/diffusion.ts";
import { type Guidance, LatentDiffusion } from "../models/latent_diffusion.ts";
import { loadAutoencoder, TOKENIZER_FILE, trainable } from "./diffusion.ts";
import { readRun } from "./run.ts";

export interface SampleOptions {
  readonly seed: number;
  /** DDIM steps. */
  readonly steps: number;
  /** Classifier-free guidance; 1: none. */
  readonly guidance: number;
  readonly onStep?: (done: number, total: number) => void;
}

/** A model ready to sample. One compiled update serves all steps and all captions. */
export class Sampler {
  readonly config: SystemConfig;
  readonly #model: LatentDiffusion;
  readonly #tokenizer: Tokenizer;
  readonly #update: DdimStep;
  readonly #embed;
  readonly #decode;

  constructor(model: LatentDiffusion, tokenizer: Tokenizer) {
    this.config = model.config;
    this.#model = model;
    this.#tokenizer = tokenizer;
    this.#update = ddimStep((x, step, context) => model.guided(x, step, context as Guidance), model.config.prediction);
    this.#embed = compile(({ ids }: { ids: Tensor }) => ({ text: model.embed(ids) }), { name: "embed" });
    this.#decode = compile(({ z }: { z: Tensor }) => ({ frames: model.decode(z) }), { name: "decode" });
  }

  /**
   * One sticker: [frames, size, size, 3] in [-1, 1]. Its noise depends on the seed and nothing else, so a caption gives the
   * same sticker whatever was sampled before it.
   */
  async sample(caption: string, o: SampleOptions): Promise<Float32Array> {
    const { text: width, latents } = { text: this.config.text.length, latents: this.#shape() };
    const embed = (c: string): Tensor =>
      this.#embed({ ids: tensor(this.#tokenizer.encodePadded(c, width), [1, width]) }).text.keep();
    const context = { text: embed(caption), plain: embed(""), scale: o.guidance };
    let x = new Rng(o.seed).split("sample").normal([1, ...latents]);
    for await (const progress of ddim(this.#update, x, this.#model.noiseSchedule, { steps: o.steps, context })) {
      x = progress.x;
      o.onStep?.(progress.i + 1, o.steps);
    }
    return (await this.#decode({ z: x }).frames.data()) as Float32Array;
  }

  /** The part of a caption that fits into the text encoder's context; null when all of it does. */
  cut(caption: string): string | null {
    const { length } = this.config.text;
    if (this.#tokenizer.fits(caption, length)) return null;
    return this.#tokenizer.decode(this.#tokenizer.encodePadded(caption, length));
  }

  #shape(): number[] {
    const { size, frames, autoencoder } = this.config;
    const side = size / downsampling(autoencoder);
    return [frames, side, side, autoencoder.latent];
  }
}

/**
 * Loads a diffusion run folder (averaged weights). One that is not finished will do: `notice` is told.
 * @throws Error when there is none, it is of another recipe, or it has no checkpoint yet
 */
export async function loadSampler(dir: string, notice?: (text: string) => void): Promise<Sampler> {
  return new Sampler(await loadModel(dir, notice), await loadTokenizer(join(dir, TOKENIZER_FILE)));
}

/** The model of a diffusion run folder, as `loadSampler` takes it. */
export async function loadModel(dir: string, notice: (text: string) => void = () => {}): Promise<LatentDiffusion> {
  const { config: record, checkpoint } = await readRun(dir);
  if (record.recipe !== "diffusion")
    throw new Error(`${dir} holds a run of recipe "${String(record.recipe)}", not of a diffusion model`);
  const steps = Number(record.steps);
  if (checkpoint.step < steps) notice(`${dir} is not finished: sampling from step ${checkpoint.step} of ${steps}`);
  const model = new LatentDiffusion(record.config as unknown as SystemConfig);
  await loadAutoencoder(model, dir);
  const weights = new Map([...trainable(model)].map(([name, p]) => [`ema.${name}`, p]));
  await load(checkpoint.path, weights, { rename: (name) => (name.startsWith("ema.") ? name : null) });
  model.autoencoder.scale = (checkpoint.extra as { readonly scale: number }).scale;
  return model;
}
