// The frozen half of diffusion training, done once: every clip of a data set through the autoencoder. What is kept is the
// posterior (mean and log-variance), so that training still draws a fresh latent each time a sticker is seen.

import type { Dataset } from "../data/store.ts";
import { compile, type Tensor, tensor } from "../engine/index.ts";
import type { Autoencoder } from "../models/autoencoder.ts";
import { downsampling, type SystemConfig } from "../models/config.ts";
import type { NoiseSchedule, Prediction } from "../models/diffusion.ts";
import { progress } from "./progress.ts";

export interface LatentSet {
  /** Posterior of records `indices`: mean and clamped log-variance, each [b, f, h, w, latent]. */
  batch(indices: readonly number[]): { mean: Tensor; logvar: Tensor };
  /** 1 / standard deviation of draws from all posteriors: what latents are multiplied by before diffusion. */
  readonly scale: number;
  /** Of scaled latents: the mean square, and the mean square of the mean latent (per frame, position and channel). */
  readonly square: number;
  readonly meanSquare: number;
}

/**
 * Loss of the best constant answer, what a network scores that has learned nothing but a mean. For epsilon that mean is
 * zero and the loss the noise's variance, 1. For v = signal eps - noise x0 it is the mean of -noise x0 over steps and data.
 */
export function constantLoss(
  prediction: Prediction,
  schedule: NoiseSchedule,
  { square, meanSquare }: LatentSet,
): number {
  if (prediction === "epsilon") return 1;
  const average = (f: (alphaBar: number) => number): number =>
    schedule.alphaBar.reduce((sum, a) => sum + f(a), 0) / schedule.steps;
  return average((a) => a) + average((a) => 1 - a) * square - average((a) => Math.sqrt(1 - a)) ** 2 * meanSquare;
}

/** Clips per call of the encoder. */
const CHUNK = 4;

/** Encodes all clips. Memory: 8 bytes per latent value of every clip, on the host. */
export async function encodeDataset(autoencoder: Autoencoder, data: Dataset, config: SystemConfig): Promise<LatentSet> {
  const { size, frames } = config;
  const side = size / downsampling(config.autoencoder);
  const shape = [frames, side, side, config.autoencoder.latent];
  const values = shape.reduce((a, b) => a * b, 1);
  const encode = compile(
    ({ clips }: { clips: Tensor }) => ({ ...autoencoder.encode(clips.reshape([-1, size, size, 3])) }),
    { name: "encode" },
  );
  const means = new Float32Array(data.length * values);
  const logvars = new Float32Array(data.length * values);
  const line = progress("encoding", data.length);
  for (let i = 0; i < data.length; i += CHUNK) {
    // The last chunk is filled up with earlier records, so that there is one shape and one program.
    const indices = Array.from({ length: CHUNK }, (_, j) => Math.min(i + j, data.length - 1));
    const { mean, logvar } = encode({ clips: tensor(data.batch(indices), [CHUNK, frames, size, size, 3]) });
    const count = Math.min(CHUNK, data.length - i) * values;
    means.set((await mean.data()).subarray(0, count), i * values);
    logvars.set((await logvar.data()).subarray(0, count), i * values);
    line.update(Math.min(i + CHUNK, data.length));
  }
  line.done();
  const take = (from: Float32Array, indices: readonly number[]): Tensor => {
    const out = new Float32Array(indices.length * values);
    indices.forEach((r, b) => {
      out.set(from.subarray(r * values, (r + 1) * values), b * values);
    });
    return tensor(out, [indices.length, ...shape]);
  };
  const scale = 1 / deviation(means, logvars);
  return {
    scale,
    ...squares(means, logvars, values, scale),
    batch: (indices) => ({ mean: take(means, indices), logvar: take(logvars, indices) }),
  };
}

function squares(
  means: Float32Array,
  logvars: Float32Array,
  values: number,
  scale: number,
): { square: number; meanSquare: number } {
  const sums = new Float64Array(values);
  let square = 0;
  for (let i = 0; i < means.length; i++) {
    sums[i % values] += means[i];
    square += means[i] ** 2 + Math.exp(logvars[i]);
  }
  const clips = means.length / values;
  const meanSquare = sums.reduce((sum, s) => sum + (s / clips) ** 2, 0) / values;
  return { square: (scale ** 2 * square) / means.length, meanSquare: scale ** 2 * meanSquare };
}

/**
 * Standard deviation of latents drawn from all posteriors (Rombach et al. 2022, appendix G), in float64: the variance of the
 * means and the mean of the variances. A young autoencoder's posteriors are wide, so the means alone would not do.
 */
function deviation(means: Float32Array, logvars: Float32Array): number {
  let sum = 0;
  let square = 0;
  for (let i = 0; i < means.length; i++) {
    sum += means[i];
    square += means[i] ** 2 + Math.exp(logvars[i]);
  }
  return Math.sqrt(Math.max(1e-12, square / means.length - (sum / means.length) ** 2));
}
