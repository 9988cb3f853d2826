// Reductions beyond sum, mean, max and min, which are methods: moments, norms, products, logarithms of sums, positions of
// extremes. `axis` is one axis, several, or all when absent; results drop the reduced axes unless `keepdims`. Gradients at
// ties and zeros are torch's.

import { ShapeError, show } from "../error.ts";
import { axesOf, axisOf } from "../shape.ts";
import type { ReduceOptions, Tensor } from "../tensor.ts";
import { gather } from "./indexing.ts";

export type Axis = number | readonly number[] | undefined;

export interface VarianceOptions extends ReduceOptions {
  /** Subtracted from the count: 1 gives the unbiased estimate, 0 the mean square deviation. */
  readonly correction?: number;
}

/** sum((x - mean)^2) / (n - correction), in two passes so that a large mean costs no digits. */
export function variance(x: Tensor, axis?: Axis, { correction = 1, keepdims }: VarianceOptions = {}): Tensor {
  const n = count(x, axis);
  const centred = x.sub(x.mean(axis, { keepdims: true }));
  return centred
    .square()
    .sum(axis, { keepdims })
    .mul(1 / Math.max(0, n - correction));
}

/** Square root of the variance; its gradient is 0 where the variance is 0. */
export function std(x: Tensor, axis?: Axis, o: VarianceOptions = {}): Tensor {
  return sqrtOrZero(variance(x, axis, o));
}

/** (sum |x|^p)^(1/p); p may be infinite, and 0 counts what is not zero. The gradient is 0 where the norm is 0. */
export function norm(x: Tensor, p = 2, axis?: Axis, o: ReduceOptions = {}): Tensor {
  if (p === 1) return x.abs().sum(axis, o);
  if (p === 2) return sqrtOrZero(x.square().sum(axis, o));
  if (p === Number.POSITIVE_INFINITY) return x.abs().max(axis, o);
  if (p === Number.NEGATIVE_INFINITY) return x.abs().min(axis, o);
  if (p === 0) return x.notEqual(0).cast("f32").sum(axis, o);
  const sum = power(x.abs(), p).sum(axis, o);
  return power(sum, 1 / p);
}

/** x^p for x >= 0 with slope 0 at 0, where that of roots is infinite. */
function power(x: Tensor, p: number): Tensor {
  const zero = x.equal(0);
  return zero.where(0, zero.where(1, x).pow(p));
}

/** sqrt(x) with slope 0 at 0. */
function sqrtOrZero(x: Tensor): Tensor {
  return power(x, 0.5);
}

/** log(sum(exp(x))), finite for x of any size. */
export function logsumexp(x: Tensor, axis?: Axis, { keepdims = false }: ReduceOptions = {}): Tensor {
  const top = x.max(axis, { keepdims: true }).detach();
  const sum = x.sub(top).exp().sum(axis, { keepdims: true }).log().add(top);
  return keepdims ? sum : drop(sum, x, axis);
}

/** x - logsumexp(x) along one axis. */
export function logSoftmax(x: Tensor, axis = -1): Tensor {
  const shifted = x.sub(x.max(axis, { keepdims: true }).detach());
  return shifted.sub(shifted.exp().sum(axis, { keepdims: true }).log());
}

/** Product along an axis (all elements when absent). The gradient is right where elements are 0: nothing is divided. */
export function prod(x: Tensor, axis?: number, { keepdims = false }: ReduceOptions = {}): Tensor {
  const [flat, along] = axis === undefined ? [x.reshape([-1]), 0] : [x, axisOf("prod", axis, x.rank)];
  const last = cumprod(flat, along).slice(along, flat.shape[along] - 1);
  if (axis === undefined) return last.reshape(keepdims ? x.shape.map(() => 1) : []);
  return keepdims ? last : drop(last, x, axis);
}

/** Running products along an axis: a scan whose first term is x_0 and whose factors are x. */
export function cumprod(x: Tensor, axis: number): Tensor {
  const a = axisOf("cumprod", axis, x.rank);
  const n = x.shape[a];
  const start = x.slice(a, 0, 1).pad(x.shape.map((_, i): [number, number] => [0, i === a ? n - 1 : 0]));
  return start.linearScan(x, a);
}

/** i32: where along an axis (in row-major order when absent) the largest element is; the first of several. */
export function argmax(x: Tensor, axis?: number, { keepdims = false }: ReduceOptions = {}): Tensor {
  if (axis === undefined) {
    const at = argmax(x.reshape([-1]), 0);
    return keepdims ? at.reshape(x.shape.map(() => 1)) : at;
  }
  const a = axisOf("argmax", axis, x.rank);
  const n = x.shape[a];
  if (n >= 2 ** 24) throw new ShapeError(`argmax: axis ${axis} of ${show(x.shape)} has more than 2^24 - 1 elements`);
  const at = x
    .arange(n)
    .cast("f32")
    .reshape(x.shape.map((_, i) => (i === a ? n : 1)));
  const hit = x.equal(x.max(a, { keepdims: true }));
  const first = hit.where(at.expand(x.shape), n).min(a, { keepdims: true }).cast("i32");
  return keepdims ? first : drop(first, x, axis);
}

/** i32: where the smallest element is; the first of several. */
export function argmin(x: Tensor, axis?: number, o: ReduceOptions = {}): Tensor {
  return argmax(x.neg(), axis, o);
}

/** Largest elements along an axis and where they are; the first of several gets the whole gradient, as in torch's max(dim). */
export function maxAlong(x: Tensor, axis: number, { keepdims = false }: ReduceOptions = {}): ValuesAt {
  const indices = argmax(x, axis, { keepdims: true });
  const values = gather(x, axis, indices);
  return keepdims ? { values, indices } : { values: drop(values, x, axis), indices: drop(indices, x, axis) };
}

/** Smallest elements along an axis and where they are; the first of several. */
export function minAlong(x: Tensor, axis: number, o: ReduceOptions = {}): ValuesAt {
  const { values, indices } = maxAlong(x.neg(), axis, o);
  return { values: values.neg(), indices };
}

export interface ValuesAt {
  readonly values: Tensor;
  /** i32 */
  readonly indices: Tensor;
}

/** bool: is any element true? */
export function any(x: Tensor, axis?: Axis, o: ReduceOptions = {}): Tensor {
  return x.cast("bool").cast("f32").max(axis, o).greater(0);
}

/** bool: are all elements true? */
export function all(x: Tensor, axis?: Axis, o: ReduceOptions = {}): Tensor {
  return x.cast("bool").cast("f32").min(axis, o).greater(0);
}

/** How many elements each result combines. */
function count(x: Tensor, axis: Axis): number {
  return axesOf("variance", axis, x.rank).reduce((n, a) => n * x.shape[a], 1);
}

/** Drops reduced axes, which `kept` has with size 1. */
function drop(kept: Tensor, x: Tensor, axis: Axis): Tensor {
  const axes = axesOf("reduction", axis, x.rank);
  return kept.reshape(x.shape.filter((_, i) => !axes.includes(i)));
}
