// A training step of each recipe on random data, for commands that look at steps rather than train: profile and tune.

import { grad, type Named, Rng, type Tensor, tensor } from "../engine/index.ts";
import { AdamW, clipGradNorm } from "../engine/optim/index.ts";
import { Autoencoder } from "../models/autoencoder.ts";
import type { SystemConfig } from "../models/config.ts";
import { LatentDiffusion } from "../models/latent_diffusion.ts";
import type { RECIPES } from "./options.ts";

export interface SampleStep {
  readonly step: (inputs: Named) => { readonly loss: Tensor };
  readonly feed: Named;
}

const lr = 1e-4;

export const STEPS: Readonly<Record<(typeof RECIPES)[number], (c: SystemConfig, batch: number) => SampleStep>> = {
  autoencoder(config, batch) {
    const model = new Autoencoder(config.autoencoder).seed(1);
    const rng = new Rng(1);
    const optimizer = new AdamW(model.state());
    return {
      feed: { frames: random([batch, config.size, config.size, 3]) },
      step: ({ frames }) => {
        const { loss } = model.loss(frames, rng, { klWeight: 1e-6 });
        optimizer.step(clipGradNorm(grad(loss, optimizer.targets), 1).grads, { lr });
        return { loss };
      },
    };
  },
  diffusion(config, batch) {
    const model = new LatentDiffusion(config).seed(1);
    const rng = new Rng(1);
    const side = config.size / 2 ** (config.autoencoder.channels.length - 1);
    const { length } = config.text;
    const empty = tensor(new Int32Array(length));
    const optimizer = new AdamW(new Map([...model.state()].filter(([name]) => !name.startsWith("autoencoder."))));
    return {
      feed: {
        latents: random([batch, config.frames, side, side, config.autoencoder.latent]),
        captions: tensor(new Int32Array(batch * length), [batch, length]),
      },
      step: ({ latents, captions }) => {
        const loss = model.loss({ latents, captions, empty }, rng);
        optimizer.step(clipGradNorm(grad(loss, optimizer.targets), 1).grads, { lr });
        return { loss };
      },
    };
  },
};

/** Standard normal values, in a tensor with memory of its own. */
function random(shape: readonly number[]): Tensor {
  return new Rng(2).normal(shape).keep();
}
