// Normalisation as functions: channels last, statistics over everything but what is named. All of them see x as
// [outer, inner, groups, channels] and share one op for the statistics, `moments`, which subtracts before it squares, so that
// a large mean costs no digits. The layers that own weights are in layers.ts.

import { ShapeError, show } from "../error.ts";
import { numel } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { norm } from "./reductions.ts";

export interface NormOptions {
  /** Scale and shift of the normalised values; none when absent. */
  readonly weight?: Tensor | null;
  readonly bias?: Tensor | null;
  /** Added to the variance. */
  readonly eps?: number;
}

/** Group normalisation (Wu & He 2018): x [b, ..., channels], statistics per b and group of channels. */
export function groupNorm(x: Tensor, groups: number, o: NormOptions = {}): Tensor {
  const channels = x.shape[x.rank - 1];
  if (x.rank < 2 || channels % groups !== 0)
    throw new ShapeError(`groupNorm: the last axis of ${show(x.shape)} does not divide into ${groups} groups`);
  checkAffine("groupNorm", x, 1, o);
  return normalize(x, [x.shape[0], -1, groups, channels / groups], o);
}

/** Instance normalisation (Ulyanov et al. 2016): a group per channel. */
export function instanceNorm(x: Tensor, o: NormOptions = {}): Tensor {
  return groupNorm(x, x.shape[x.rank - 1], o);
}

/** Layer normalisation (Ba et al. 2016) over the last `dims` axes, the shape of weight and bias. */
export function layerNorm(x: Tensor, { dims = 1, ...o }: NormOptions & { readonly dims?: number } = {}): Tensor {
  const features = lastAxes("layerNorm", x, dims);
  checkAffine("layerNorm", x, dims, o);
  return normalize(x, [numel(x.shape) / features, 1, 1, features], o);
}

/** x / sqrt(mean(x^2) + eps) * weight over the last `dims` axes (Zhang & Sennrich 2019). */
export function rmsNorm(x: Tensor, o: { weight?: Tensor | null; eps?: number; dims?: number } = {}): Tensor {
  const dims = o.dims ?? 1;
  lastAxes("rmsNorm", x, dims);
  checkAffine("rmsNorm", x, dims, o);
  const axes = Array.from({ length: dims }, (_, i) => x.rank - dims + i);
  const scaled = x.mul(
    x
      .square()
      .mean(axes, { keepdims: true })
      .add(o.eps ?? 1e-6)
      .rsqrt(),
  );
  return o.weight ? scaled.mul(o.weight) : scaled;
}

/** x / max(|x|_p, eps) along an axis: torch's normalize. */
export function l2Normalize(x: Tensor, axis = -1, { eps = 1e-12, p = 2 }: { eps?: number; p?: number } = {}): Tensor {
  return x.div(norm(x, p, axis, { keepdims: true }).clamp(eps));
}

/** Running statistics of batch normalisation: [channels] each. */
export interface RunningStatistics {
  readonly mean: Tensor;
  readonly variance: Tensor;
}

export interface BatchNormOptions extends NormOptions {
  /** Statistics of this batch, and running ones moved towards them; else the running ones as they are. */
  readonly training?: boolean;
  /** Share of the batch in the new running statistics. */
  readonly momentum?: number;
}

/**
 * Batch normalisation (Ioffe & Szegedy 2015): x [b, ..., channels]. In training it normalises with the batch's mean and biased
 * variance and returns running statistics that moved by `momentum` towards its mean and unbiased variance: values, which
 * the caller assigns to its state. Running statistics are f32; on an f16 x all is computed in f32, and y rounded to f16 once.
 */
export function batchNorm(
  x: Tensor,
  running: RunningStatistics,
  o: BatchNormOptions = {},
): RunningStatistics & { readonly y: Tensor } {
  if (x.dtype !== "f16") return inSingle(x, running, o);
  const [weight, bias] = [o.weight?.cast("f32"), o.bias?.cast("f32")];
  const { y, ...statistics } = inSingle(x.cast("f32"), running, { ...o, weight, bias });
  return { y: y.cast("f16"), ...statistics };
}

function inSingle(
  x: Tensor,
  running: RunningStatistics,
  { training = false, momentum = 0.1, eps = 1e-5, ...o }: BatchNormOptions,
): RunningStatistics & { readonly y: Tensor } {
  checkAffine("batchNorm", x, 1, o);
  if (!training) {
    const y = x.sub(running.mean).mul(running.variance.add(eps).rsqrt());
    return { ...running, y: affine(y, o) };
  }
  const channels = x.shape[x.rank - 1];
  const n = numel(x.shape) / channels;
  const blocks = x.reshape([1, n, channels, 1]);
  const stats = blocks.moments(eps);
  const [mean, scale] = [statistic(stats, 0), statistic(stats, 1)];
  const y = affine(blocks.sub(mean).mul(scale).reshape(x.shape), o);
  // Two passes: eps is not taken off 1 / scale^2 again, which would lose the variance of nearly constant channels.
  const centre = mean.reshape([channels]).detach();
  const deviations = x.detach().reshape([n, channels]).sub(centre).square().sum(0);
  const towards = (old: Tensor, value: Tensor): Tensor => old.mul(1 - momentum).add(value.mul(momentum));
  return {
    y,
    mean: towards(running.mean, centre),
    variance: towards(running.variance, deviations.mul(1 / Math.max(1, n - 1))),
  };
}

/** (x - mean) / sqrt(var + eps) * weight + bias, with x seen as [outer, inner, groups, channels]. */
function normalize(x: Tensor, blocks: readonly number[], o: NormOptions): Tensor {
  const parts = x.reshape(blocks);
  const stats = parts.moments(o.eps ?? 1e-5);
  return affine(parts.sub(statistic(stats, 0)).mul(statistic(stats, 1)).reshape(x.shape), o);
}

/** Mean (0) or scale (1) of [outer, groups, 2], to broadcast over [outer, inner, groups, channels]. */
function statistic(stats: Tensor, which: 0 | 1): Tensor {
  const [outer, groups] = stats.shape;
  return stats.slice(2, which, which + 1).reshape([outer, 1, groups, 1]);
}

function affine(y: Tensor, { weight, bias }: NormOptions): Tensor {
  const scaled = weight ? y.mul(weight) : y;
  return bias ? scaled.add(bias) : scaled;
}

/** Elements of the last `dims` axes. */
function lastAxes(op: string, x: Tensor, dims: number): number {
  if (!(dims >= 1 && dims <= x.rank)) throw new ShapeError(`${op}: ${dims} axes of ${show(x.shape)}`);
  return numel(x.shape.slice(x.rank - dims));
}

/** Weight and bias have the shape of the last `dims` axes: broadcasting would hide a mistake. */
function checkAffine(op: string, x: Tensor, dims: number, { weight, bias }: NormOptions): void {
  const want = show(x.shape.slice(x.rank - dims));
  const odd = [weight, bias].find((p) => p && show(p.shape) !== want);
  if (odd)
    throw new ShapeError(`${op}: expected weight and bias ${want} for x ${show(x.shape)}, got ${show(odd.shape)}`);
}
