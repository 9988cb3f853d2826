// A training step of each recipe on random data, for commands that look at steps rather than train: plan, profile and tune.
// It keeps what the recipe keeps: weights, moments and averages.

import { full, grad, type Named, type Parameter, Rng, type Tensor, tensor } from "../engine/index.ts";
import { AdamW, clipGradNorm, Ema, inHalf, LossScaler } from "../engine/optim/index.ts";
import { Autoencoder } from "../models/autoencoder.ts";
import { downsampling, type SystemConfig } from "../models/config.ts";
import { LatentDiffusion, type Trained } from "../models/latent_diffusion.ts";
import { PIXELS, VideoGpt, type VideoGptConfig } from "../models/videogpt.ts";
import { VqVae } from "../models/vqvae.ts";
import type { RECIPES } from "./options.ts";

export interface SampleStep {
  readonly step: (inputs: Named) => { readonly loss: Tensor };
  readonly feed: Named;
  /** What outlives a step, by what it is. */
  readonly state: Readonly<Record<"model" | "moments" | "averages", ReadonlyMap<string, Parameter>>>;
}

export interface StepOptions {
  /** Stickers per step. */
  readonly batch: number;
  /** f16: mixed precision, on f16 casts of f32 weights, with a scaled loss. */
  readonly dtype?: "f32" | "f16";
  /** Of the diffusion recipe. */
  readonly trainable?: Trained;
}

export const STEPS: Readonly<Record<(typeof RECIPES)[number], (c: SystemConfig, o: StepOptions) => SampleStep>> = {
  autoencoder(config, o) {
    const model = new Autoencoder(config.autoencoder).seed(1);
    const rng = new Rng(1);
    return {
      ...training(model.state(), null, o, ({ frames }) => model.loss(frames, rng, { klWeight: 1e-6 }).loss),
      feed: { lr: NUMBERS.lr, frames: random([o.batch, config.size, config.size, 3]) },
    };
  },
  diffusion(config, o) {
    const model = new LatentDiffusion(config).seed(1).train(o.trainable ?? "scratch");
    const rng = new Rng(1);
    const side = config.size / downsampling(config.autoencoder);
    const { length, width } = config.text;
    // A frozen text encoder is run before, once per caption.
    const features = model.textEncoder.parameters().length === 0;
    const empty = features ? random([length, width]) : tensor(new Int32Array(length));
    const state = new Map([...model.state()].filter(([name]) => !name.startsWith("autoencoder.")));
    const trainable = new Map([...state].filter(([, p]) => p.trainable));
    return {
      ...training(state, new Ema(trainable, 0.999), o, ({ latents, captions }) =>
        model.loss({ latents, captions, empty }, rng),
      ),
      feed: {
        ...NUMBERS,
        latents: random([o.batch, config.frames, side, side, config.autoencoder.latent]),
        captions: features
          ? random([o.batch, length, width])
          : tensor(new Int32Array(o.batch * length), [o.batch, length]),
      },
    };
  },
};

/** The same for the stages of VideoGPT, which train in f32. */
export const VIDEOGPT_STEPS = {
  vqvae(config: VideoGptConfig, o: StepOptions): SampleStep {
    const model = new VqVae(config.vqvae).seed(1);
    const rng = new Rng(1);
    const loss = ({ clips }: Named): Tensor => model.forward(clips.mul(PIXELS), { init: rng, restart: rng }).loss;
    const { size, frames } = config;
    return {
      ...training(model.state(), null, o, loss),
      feed: { lr: NUMBERS.lr, clips: random([o.batch, frames, size, size, 3]) },
    };
  },
  prior(config: VideoGptConfig, o: StepOptions): SampleStep {
    const { prior, vqvae } = new VideoGpt(config).seed(1);
    const rng = new Rng(1);
    const loss = ({ z, tags }: Named): Tensor => prior.loss(z, vqvae.codebook.embeddings, rng, tags ? { tags } : {});
    const whole = (...shape: number[]): Tensor => tensor(new Int32Array(shape.reduce((a, b) => a * b, 1)), shape);
    const { tags } = config.prior;
    return {
      ...training(prior.state(), null, o, loss),
      feed: {
        lr: NUMBERS.lr,
        z: whole(o.batch, prior.length),
        ...(tags ? { tags: whole(o.batch, tags.slots) } : {}),
      },
    };
  },
};

/** What the recipes feed besides the batch. */
const NUMBERS: Named = { lr: full([], 1e-4), start: full([], 0) };

/** The recipes' update of a loss: clipped gradients, AdamW, averaged weights where `ema` is given. */
function training(
  model: ReadonlyMap<string, Parameter>,
  ema: Ema | null,
  { dtype = "f32" }: StepOptions,
  loss: (inputs: Named) => Tensor,
): Omit<SampleStep, "feed"> {
  const optimizer = new AdamW(model);
  const scaler = new LossScaler();
  const update = ({ lr, start }: Named, grads: readonly Tensor[], when?: Tensor): void => {
    optimizer.step(clipGradNorm(grads, 1).grads, { lr, when });
    ema?.update(start);
  };
  return {
    state: { model, moments: optimizer.state(), averages: ema?.state() ?? new Map() },
    step: (inputs) => {
      const value = dtype === "f16" ? inHalf(() => loss(inputs)) : loss(inputs);
      if (dtype === "f32") update(inputs, grad(value, optimizer.targets));
      else {
        const { grads, finite } = scaler.unscale(grad(scaler.scale(value), optimizer.targets));
        update(inputs, grads, finite);
      }
      return { loss: value };
    },
  };
}

/** Standard normal values, in a tensor with memory of its own. */
function random(shape: readonly number[]): Tensor {
  return new Rng(2).normal(shape).keep();
}
