// The frozen half of diffusion training, done once: every clip of a data set through the autoencoder. What is kept, on disk, is
// the posterior (mean and log-variance), so that training still draws a fresh latent each time a sticker is seen.

import type { Dataset } from "../data/store.ts";
import { compile, device, type Tensor, tensor } from "../engine/index.ts";
import type { Autoencoder } from "../models/autoencoder.ts";
import { downsampling, type SystemConfig } from "../models/config.ts";
import type { NoiseSchedule, Prediction } from "../models/diffusion.ts";
import { openFeatures } from "./features.ts";
import { chunksOf } from "./loader.ts";
import { progress } from "./progress.ts";

/** What is known of all latents together. A type, not an interface, so that it can be stored as JSON. */
type Statistics = {
  /** 1 / standard deviation of draws from all posteriors: what latents are multiplied by before diffusion. */
  readonly scale: number;
  /** Of scaled latents: the mean square, and the mean square of the mean latent (per frame, position and channel). */
  readonly square: number;
  readonly meanSquare: number;
};

export interface LatentSet extends Statistics {
  /** Posterior of records `indices`: mean and clamped log-variance, each [b, f, h, w, latent]. */
  batch(indices: readonly number[]): Promise<{ mean: Tensor; logvar: Tensor }>;
  close(): void;
}

/**
 * Loss of the best constant answer, what a network scores that has learned nothing but a mean. For epsilon that mean is
 * zero and the loss the noise's variance, 1. For v = signal eps - noise x0 it is the mean of -noise x0 over steps and data,
 * for x0 that of the data.
 */
export function constantLoss(
  prediction: Prediction,
  schedule: NoiseSchedule,
  { square, meanSquare }: Statistics,
): number {
  if (prediction === "epsilon") return 1;
  if (prediction === "sample") return square - meanSquare;
  const average = (f: (alphaBar: number) => number): number =>
    schedule.alphaBar.reduce((sum, a) => sum + f(a), 0) / schedule.steps;
  return average((a) => a) + average((a) => 1 - a) * square - average((a) => Math.sqrt(1 - a)) ** 2 * meanSquare;
}

/** The same latents under the scale that a loaded model was trained with; undefined: as they are. */
export function rescaled(set: LatentSet, scale = set.scale): LatentSet {
  const factor = (scale / set.scale) ** 2;
  return { ...set, scale, square: set.square * factor, meanSquare: set.meanSquare * factor };
}

/** Clips per call of the encoder. */
const CHUNK = 4;

export interface EncodeOptions {
  readonly config: SystemConfig;
  /** Hash of the autoencoder's weights. */
  readonly weights: string;
  /** Folder of the file. */
  readonly cache: string;
}

/** Latents of all clips, encoded or found on disk. Memory: a few clips, and 8 bytes per value of one of them. */
export async function encodeDataset(autoencoder: Autoencoder, data: Dataset, o: EncodeOptions): Promise<LatentSet> {
  const { size, frames, autoencoder: sizes } = o.config;
  const side = size / downsampling(sizes);
  const shape = [frames, side, side, sizes.latent];
  const values = shape.reduce((a, b) => a * b, 1);
  const features = await openFeatures<Statistics>({
    dir: o.cache,
    name: "latents",
    key: { data: data.fingerprint, weights: o.weights, sizes: { ...sizes }, size, frames, adapter: device().name },
    count: data.length,
    values: 2 * values, // mean, then log-variance
    produce: async (write) => {
      const sums = new Sums(values);
      for await (const clip of posteriors(autoencoder, data, o.config)) {
        sums.add(clip);
        await write(clip);
      }
      return sums.statistics();
    },
  });
  return {
    ...features.summary,
    batch: async (indices) => {
      const both = await features.read(indices);
      const part = (which: 0 | 1): Tensor => {
        const out = new Float32Array(indices.length * values);
        indices.forEach((_, b) => {
          out.set(both.subarray((2 * b + which) * values, (2 * b + which + 1) * values), b * values);
        });
        return tensor(out, [indices.length, ...shape]);
      };
      return { mean: part(0), logvar: part(1) };
    },
    close: features.close,
  };
}

/** Mean and log-variance of each clip, one behind the other in one array. */
async function* posteriors(
  autoencoder: Autoencoder,
  data: Dataset,
  { size, frames }: SystemConfig,
): AsyncGenerator<Float32Array> {
  const encode = compile(
    ({ clips }: { clips: Tensor }) => {
      const { mean, logvar } = autoencoder.encode(clips.reshape([-1, size, size, 3]));
      return { both: mean.reshape([CHUNK, 1, -1]).concat([logvar.reshape([CHUNK, 1, -1])], 1) };
    },
    { name: "encode" },
  );
  const line = progress("encoding", data.length);
  const chunks = chunksOf(data, CHUNK);
  try {
    for (let i = 0; i < data.length; i += CHUNK) {
      const { both } = encode({ clips: tensor(await chunks.next(), [CHUNK, frames, size, size, 3]) });
      const clips = (await both.data()) as Float32Array;
      const values = clips.length / CHUNK;
      const count = Math.min(CHUNK, data.length - i);
      for (let j = 0; j < count; j++) yield clips.subarray(j * values, (j + 1) * values);
      line.update(i + count);
    }
  } finally {
    await chunks.close();
  }
  line.done();
}

/** Running sums over clips, in float64. */
class Sums {
  readonly #means: Float64Array;
  #clips = 0;
  #sum = 0;
  #square = 0;

  constructor(values: number) {
    this.#means = new Float64Array(values);
  }

  /** A clip's means, then its log-variances. */
  add(clip: Float32Array): void {
    const n = this.#means.length;
    for (let i = 0; i < n; i++) {
      this.#means[i] += clip[i];
      this.#sum += clip[i];
      this.#square += clip[i] ** 2 + Math.exp(clip[n + i]);
    }
    this.#clips++;
  }

  /**
   * The scale is 1 over the standard deviation of latents drawn from all posteriors (Rombach et al. 2022, appendix G): the
   * variance of the means and the mean of the variances. A young autoencoder's posteriors are wide, so the means alone
   * would not do.
   */
  statistics(): Statistics {
    const count = this.#clips * this.#means.length;
    const variance = this.#square / count - (this.#sum / count) ** 2;
    const scale = 1 / Math.sqrt(Math.max(1e-12, variance));
    const meanSquare = this.#means.reduce((sum, s) => sum + (s / this.#clips) ** 2, 0) / this.#means.length;
    return { scale, square: (scale ** 2 * this.#square) / count, meanSquare: scale ** 2 * meanSquare };
  }
}
