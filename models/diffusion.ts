// Gaussian diffusion (Ho et al. 2020): noise schedules in float64 on the host, training targets, what a network's answer says
// of the clean sample, and guidance. Nothing here knows a network: it is given as a function of (x, step). `step` counts
// from 0 (least noise). How samples are drawn is samplers.ts.

import { type Named, type Tensor, tensor } from "../engine/index.ts";
import { sort } from "../engine/nn/index.ts";

/** What the network predicts: the noise, the velocity of Salimans & Ho 2022, or the clean sample. */
export type Prediction = "epsilon" | "v" | "sample";

export interface NoiseScheduleOptions {
  readonly steps?: number;
  /**
   * scaled-linear: sqrt(beta) is linear (latent diffusion); cosine: Nichol & Dhariwal 2021, eq. 17, beta <= 0.999; or the
   * betas themselves, one per step.
   */
  readonly betas?: "scaled-linear" | "linear" | "cosine" | ArrayLike<number>;
  /** s of the cosine schedule. */
  readonly cosineShift?: number;
  /** First and last beta of the linear schedules. */
  readonly range?: readonly [first: number, last: number];
  /** Rescales so that the last step is pure noise (Lin et al. 2024, algorithm 1); needs velocity prediction. */
  readonly zeroTerminalSnr?: boolean;
}

function makeBetas(o: NoiseScheduleOptions, steps: number): Float64Array {
  const { betas = "scaled-linear", range = [0.00085, 0.012], cosineShift: s = 0.008 } = o;
  if (typeof betas !== "string") return Float64Array.from(betas);
  const [first, last] = range;
  const line = (i: number, a: number, b: number): number => a + (i / (steps - 1)) * (b - a);
  const f = (i: number): number => Math.cos(((i / steps + s) / (1 + s)) * (Math.PI / 2)) ** 2;
  const beta = {
    linear: (i: number) => line(i, first, last),
    "scaled-linear": (i: number) => line(i, Math.sqrt(first), Math.sqrt(last)) ** 2,
    cosine: (i: number) => Math.min(1 - f(i + 1) / f(i), 0.999),
  }[betas];
  return Float64Array.from({ length: steps }, (_, i) => beta(i));
}

/** alphaBar_t = prod_{s <= t} (1 - beta_s): Ho et al. 2020, eq. 4. */
function cumulative(betas: Float64Array): Float64Array {
  let product = 1;
  return betas.map((beta) => (product *= 1 - beta));
}

/** sqrt(alphaBar) shifted so that the last is 0 and stretched so that the first stays (Lin et al. 2024, algorithm 1). */
function zeroTerminal(alphaBar: Float64Array): Float64Array {
  const [first, last] = [Math.sqrt(alphaBar[0]), Math.sqrt(alphaBar[alphaBar.length - 1])];
  return alphaBar.map((a) => ((Math.sqrt(a) - last) * (first / (first - last))) ** 2);
}

/** How much signal and noise x_t = sqrt(alphaBar_t) x0 + sqrt(1 - alphaBar_t) eps holds, t = 0 ... steps - 1. */
export class NoiseSchedule {
  readonly steps: number;
  readonly alphaBar: Float64Array;
  // [steps, 2]: sqrt(alphaBar), sqrt(1 - alphaBar)
  readonly #table: Tensor;

  /** Stable Diffusion's schedule unless told otherwise. Throws RangeError for fewer than two steps. */
  constructor(o: NoiseScheduleOptions = {}) {
    this.steps = typeof o.betas === "object" ? o.betas.length : (o.steps ?? 1000);
    if (!Number.isInteger(this.steps) || this.steps < 2) {
      throw new RangeError(`noise schedule: steps must be a whole number from 2, got ${this.steps}`);
    }
    const alphaBar = cumulative(makeBetas(o, this.steps));
    this.alphaBar = o.zeroTerminalSnr ? zeroTerminal(alphaBar) : alphaBar;
    const rows = [...this.alphaBar].flatMap((a) => [Math.sqrt(a), Math.sqrt(1 - a)]);
    this.#table = tensor(Float32Array.from(rows), [this.steps, 2]);
  }

  /** sqrt(alphaBar) and sqrt(1 - alphaBar) at `step` i32 [b], shaped to scale tensors [b, ...] of `rank` axes. */
  at(step: Tensor, rank: number): { signal: Tensor; noise: Tensor } {
    const { b } = step.dims("b");
    const rows = this.#table.gatherRows(step);
    const column = (i: number): Tensor => rows.slice(1, i, i + 1).reshape([b, ...new Array<number>(rank - 1).fill(1)]);
    return { signal: column(0), noise: column(1) };
  }

  /** x_t = sqrt(alphaBar) x0 + sqrt(1 - alphaBar) noise, step i32 [b] (Ho et al. 2020, eq. 4). */
  addNoise(x0: Tensor, noise: Tensor, step: Tensor): Tensor {
    const k = this.at(step, x0.rank);
    return x0.mul(k.signal).add(noise.mul(k.noise));
  }

  /** v = sqrt(alphaBar) noise - sqrt(1 - alphaBar) x0 (Salimans & Ho 2022, appendix D). */
  velocity(x0: Tensor, noise: Tensor, step: Tensor): Tensor {
    const k = this.at(step, x0.rank);
    return noise.mul(k.signal).sub(x0.mul(k.noise));
  }

  /** What the network should answer for addNoise(x0, noise, step). Throws RangeError for epsilon with zero terminal SNR. */
  target(prediction: Prediction, x0: Tensor, noise: Tensor, step: Tensor): Tensor {
    if (prediction === "v") return this.velocity(x0, noise, step);
    if (prediction === "sample") return x0;
    if (this.alphaBar[this.steps - 1] > 0) return noise;
    throw new RangeError('a schedule with zero terminal SNR cannot be sampled from noise predictions: use "v"');
  }
}

/** How far a predicted clean sample may lie from zero, where the data's own range is known. */
export interface SampleLimit {
  /** Values are cut off at [-clip, clip]. */
  readonly clip?: number;
  /**
   * Dynamic thresholding (Saharia et al. 2022, section 2.3): values are cut off at s, the given quantile of their magnitudes
   * in the sample, but at least 1 and at most `max`, and divided by s.
   */
  readonly threshold?: { readonly quantile: number; readonly max?: number };
  /** Takes the noise anew from the limited sample, as VGen does; otherwise it stays what the network said (diffusers). */
  readonly fresh?: boolean;
}

/**
 * Clean sample and noise that the network's answer `out` at x_t implies: x_t = signal x0 + noise eps solved for x0, or for
 * both with v = signal eps - noise x0. `k` is signal = sqrt(alphaBar_t) and noise = sqrt(1 - alphaBar_t).
 */
export function denoise(
  prediction: Prediction,
  x: Tensor,
  out: Tensor,
  k: { signal: Tensor; noise: Tensor },
  limit: SampleLimit = {},
): { x0: Tensor; eps: Tensor } {
  const noiseIn = (x0: Tensor): Tensor => x.sub(x0.mul(k.signal)).div(k.noise);
  const implied = {
    epsilon: () => ({ x0: x.sub(out.mul(k.noise)).div(k.signal), eps: out }),
    v: () => ({ x0: x.mul(k.signal).sub(out.mul(k.noise)), eps: out.mul(k.signal).add(x.mul(k.noise)) }),
    sample: () => ({ x0: out, eps: noiseIn(out) }),
  }[prediction]();
  const x0 = limited(implied.x0, limit);
  return { x0, eps: limit.fresh ? noiseIn(x0) : implied.eps };
}

function limited(x0: Tensor, { clip, threshold }: SampleLimit): Tensor {
  if (threshold) {
    const magnitudes = sort(x0.abs().reshape([x0.shape[0], -1])).values; // [b, n] ascending
    const place = threshold.quantile * (magnitudes.shape[1] - 1);
    const below = Math.floor(place);
    const at = (i: number): Tensor => magnitudes.slice(1, i, i + 1);
    const quantile = at(below)
      .mul(1 - (place - below))
      .add(at(Math.ceil(place)).mul(place - below));
    const s = quantile.maximum(1).minimum(threshold.max ?? Number.MAX_VALUE);
    const bound = s.reshape([x0.shape[0], ...x0.shape.slice(1).map(() => 1)]);
    return x0.minimum(bound).maximum(bound.neg()).div(bound);
  }
  return clip === undefined ? x0 : x0.minimum(clip).maximum(-clip);
}

/** A network: noisy x [b, ...], step i32 [b] and whatever it is conditioned on -> noise or velocity, [b, ...]. */
export type Predict<C extends Named = Named> = (x: Tensor, step: Tensor, context: C) => Tensor;

/**
 * Classifier-free guidance: eps_u + scale (eps_c - eps_u) (Ho & Salimans 2022, eq. 6 with scale = w + 1). Both halves go
 * through `predict` as one batch. `off` and `on` are the context without and with the condition, each [b, ...].
 */
export function guide<C extends Named>(
  predict: Predict<C>,
  x: Tensor,
  step: Tensor,
  { off, on, scale }: { off: C; on: C; scale: Tensor | number },
): Tensor {
  const context = Object.fromEntries(Object.keys(on).map((name) => [name, off[name].concat([on[name]], 0)])) as C;
  const both = predict(x.concat([x], 0), step.concat([step], 0), context);
  const plain = both.slice(0, 0, x.shape[0]);
  const conditioned = both.slice(0, x.shape[0]);
  return plain.add(conditioned.sub(plain).mul(scale));
}
