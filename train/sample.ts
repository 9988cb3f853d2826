// A trained diffusion run -> stickers: loads what train/diffusion.ts left, samples captions in batches, gives back frames.

import { join } from "node:path";
import { loadTokenizer, type Tokenizer } from "../data/tokenizer.ts";
import { load } from "../engine/checkpoint.ts";
import { compile, type Parameter, Rng, type Tensor, tensor } from "../engine/index.ts";
import { downsampling, type SystemConfig } from "../models/config.ts";
import type { Picture } from "../models/i2vgen_xl.ts";
import { type Guidance, LatentDiffusion, type Trained } from "../models/latent_diffusion.ts";
import {
  type PlannedStep,
  type PlanOptions,
  SAMPLERS,
  type SamplerName,
  type SamplerStep,
  sample,
  samplerStep,
} from "../models/samplers.ts";
import { TOKENIZER_FILE } from "./diffusion.ts";
import { loadAutoencoder, loadFrozen, trainable } from "./frozen.ts";
import type { PictureInput } from "./pictures.ts";
import { readRun } from "./run.ts";

/** One sticker to make. */
export interface Sticker {
  /** "[Domain] \t [Description]" */
  readonly caption: string;
  /** Which of a caption's stickers: its noise depends on the seed and this number, and on nothing else. */
  readonly index: number;
}

export interface SampleOptions {
  readonly seed: number;
  /** Updates of the sampler. */
  readonly steps: number;
  /** Classifier-free guidance; 1: none. */
  readonly guidance: number;
  /** What guidance moves away from; the empty caption where absent. */
  readonly negative?: string;
  /** I2VGen-XL: what all the stickers show. */
  readonly picture?: PictureInput;
  readonly sampler?: SamplerName;
  /** 0: deterministic, 1: as noisy as ancestral sampling. Of ddim and euler. */
  readonly eta?: number;
  readonly onStep?: (done: number, total: number) => void;
}

/** What scheduler_config.json says of the steps. */
export type Visiting = Pick<PlanOptions, "spacing" | "offset" | "end" | "next">;

/** A model ready to sample. One compiled update serves all steps, captions and seeds of a batch size. */
export class Sampler {
  readonly config: SystemConfig;
  readonly #model: LatentDiffusion;
  readonly #tokenizer: Tokenizer;
  readonly #update: SamplerStep;
  readonly #embed;
  readonly #decode;
  readonly #guide;
  readonly #visiting: Visiting;

  /** `visiting`: how an imported model's own scheduler visits the steps. */
  constructor(model: LatentDiffusion, tokenizer: Tokenizer, visiting: Visiting = {}) {
    this.config = model.config;
    this.#model = model;
    this.#visiting = visiting;
    this.#tokenizer = tokenizer;
    const predict: Parameters<typeof samplerStep>[0] = (x, step, context) =>
      model.guided(x, step, context as unknown as Guidance);
    this.#update = samplerStep(predict, model.config.prediction);
    this.#embed = compile(({ ids }: { ids: Tensor }) => ({ text: model.embed(ids) }), { name: "embed" });
    this.#decode = compile(({ z }: { z: Tensor }) => ({ frames: model.decode(z) }), { name: "decode" });
    this.#guide = compile((picture: PictureInput) => model.picture(picture.image, picture.prepared), {
      name: "picture",
    });
  }

  /**
   * Stickers of one batch, each [frames, size, size, 3] in [-1, 1]. A sticker's noise does not depend on the others, so that
   * a caption gives the same sticker whatever it is sampled with.
   */
  async sample(stickers: readonly Sticker[], o: SampleOptions): Promise<Float32Array[]> {
    const plan = this.plan(o);
    const noisy = plan.some(({ numbers }) => numbers.sigma > 0);
    const shape = this.#shape();
    // Row 0 is where a sticker starts, and the same whether or not the rows after it are drawn.
    const noise = stickers.map(({ index }) =>
      new Rng(o.seed).split(`sticker ${index}`).normal([noisy ? 1 + plan.length : 1, 1, ...shape]),
    );
    const rows = noise[0].concat(noise.slice(1), 1).keep(); // [1 + steps, b, ...shape]
    const context = {
      text: this.#features(stickers.map(({ caption }) => caption)),
      plain: this.#features(stickers.map(() => o.negative ?? "")),
      scale: o.guidance,
      ...(o.picture && this.#picture(o.picture, stickers.length)),
    };
    let x = rows
      .slice(0, 0, 1)
      .reshape([stickers.length, ...shape])
      .keep();
    const fresh = noisy ? rows.slice(0, 1).keep() : undefined;
    for await (const progress of sample(this.#update, x, plan, { context, noise: fresh })) {
      x = progress.x;
      o.onStep?.(progress.i + 1, o.steps);
    }
    const frames = (await this.#decode({ z: x }).frames.data()) as Float32Array;
    const values = frames.length / stickers.length;
    return stickers.map((_, i) => frames.slice(i * values, (i + 1) * values));
  }

  /**
   * The updates that these options ask for. Where an import says how its steps are visited, all samplers take the spacing and
   * the offset, as far as the steps have room for it; where the last update goes to is what it says of DDIM alone.
   */
  plan({ steps, eta, sampler = "ddim" }: Pick<SampleOptions, "steps" | "eta" | "sampler">): PlannedStep[] {
    const { noiseSchedule } = this.#model;
    const { spacing, offset, ...ends } = this.#visiting;
    const room = noiseSchedule.steps - 1 - (steps - 1) * Math.floor(noiseSchedule.steps / steps);
    return SAMPLERS[sampler](noiseSchedule, {
      ...{ steps, eta, spacing },
      ...(offset === undefined ? {} : { offset: Math.min(offset, room) }),
      ...(sampler === "ddim" ? ends : {}),
    });
  }

  /** Text features [b, m, context]. */
  #features(captions: readonly string[]): Tensor {
    const { length } = this.config.text;
    const ids = Int32Array.from(captions.flatMap((c) => [...this.#tokenizer.encodePadded(c, length)]));
    return this.#embed({ ids: tensor(ids, [captions.length, length]) }).text.keep();
  }

  /** What guides by the picture, once for each sticker. */
  #picture(picture: PictureInput, count: number): Picture {
    const { latents, vector } = this.#guide(picture);
    const each = (t: Tensor): Tensor => t.expand([count, ...t.shape.slice(1)]).keep();
    return { latents: each(latents), vector: each(vector) };
  }

  /** Parameters of the whole model. */
  state(): ReadonlyMap<string, Parameter> {
    return this.#model.state();
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

export interface LoadOptions {
  /** Whose checkpoint; absent: the newest. */
  readonly step?: number;
}

/**
 * Loads a diffusion run folder (averaged weights). One that is not finished will do: `notice` is told.
 * @throws Error when there is none, it is of another recipe, or it has no checkpoint yet
 */
export async function loadSampler(dir: string, notice?: (text: string) => void, o: LoadOptions = {}): Promise<Sampler> {
  return new Sampler(await loadModel(dir, notice, o), await loadTokenizer(join(dir, TOKENIZER_FILE)));
}

/** The model of a diffusion run folder, as `loadSampler` takes it. */
export async function loadModel(
  dir: string,
  notice: (text: string) => void = () => {},
  { step }: LoadOptions = {},
): Promise<LatentDiffusion> {
  const { config: record, checkpoint } = await readRun(dir, step);
  if (record.recipe !== "diffusion")
    throw new Error(`${dir} holds a run of recipe "${String(record.recipe)}", not of a diffusion model`);
  const steps = Number(record.steps);
  if (step === undefined && checkpoint.step < steps)
    notice(`${dir} is not finished: sampling from step ${checkpoint.step} of ${steps}`);
  const model = new LatentDiffusion(record.config as unknown as SystemConfig).train(record.trained as Trained);
  await loadAutoencoder(model, dir);
  await loadFrozen(model, dir);
  const weights = new Map([...trainable(model)].map(([name, p]) => [`ema.${name}`, p]));
  await load(checkpoint.path, weights, { rename: (name) => (name.startsWith("ema.") ? name : null) });
  model.autoencoder.scale = (checkpoint.extra as { readonly scale: number }).scale;
  return model;
}
