// The seeded numbers that every framework computes with: a hash of (index, seed), so that inputs, labels and weights are
// the same everywhere without a file. Called by the workloads; knows no framework.

/** Uniform in [-1, 1), a multiple of 2^-23: murmur3's finalizer of (i, seed). */
export function u(i: number, seed: number): number {
  let h = (Math.imul(i, 0x9e3779b1) + Math.imul(seed, 0x85ebca77) + 0x165667b1) | 0;
  h ^= h >>> 16;
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  h ^= h >>> 16;
  return (h >>> 8) / 2 ** 23 - 1;
}

export function numel(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

/** Row-major values of a tensor. */
export function R(shape: readonly number[], seed: number, scale = 1): Float32Array {
  return Float32Array.from({ length: numel(shape) }, (_, i) => u(i, seed) * scale);
}

/** `n` whole numbers 0 <= k < mod. */
export function I(n: number, mod: number, seed: number): Int32Array {
  return Int32Array.from({ length: n }, (_, i) => Math.floor(((u(i, seed) + 1) / 2) * mod) % mod);
}

/** Reorders axes of row-major values: result axis i is source axis order[i]. */
export function permute<T extends Float32Array | Int32Array>(
  data: T,
  shape: readonly number[],
  order: readonly number[],
): T {
  const strides = shape.map((_, i) => numel(shape.slice(i + 1)));
  const to = order.map((o) => shape[o]);
  const step = order.map((o) => strides[o]);
  const out = data.slice() as T;
  const point = to.map(() => 0);
  let from = 0;
  for (let i = 0; i < out.length; i++) {
    out[i] = data[from];
    for (let axis = to.length - 1; axis >= 0; axis--) {
      from += step[axis];
      if (++point[axis] < to[axis]) break;
      from -= step[axis] * to[axis];
      point[axis] = 0;
    }
  }
  return out;
}

/** [n, c, ...spatial] -> [n, ...spatial, c] */
export function channelsLast(data: Float32Array, shape: readonly number[]): Float32Array {
  const axes = shape.map((_, i) => i);
  return permute(data, shape, [0, ...axes.slice(2), 1]);
}

/** [n, ...spatial, c] -> [n, c, ...spatial] */
export function channelsFirst(data: Float32Array, shape: readonly number[]): Float32Array {
  const axes = shape.map((_, i) => i);
  return permute(data, shape, [0, shape.length - 1, ...axes.slice(1, -1)]);
}

/** Weights [o, i, ...kernel] -> [...kernel, i, o] */
export function kernelLast(data: Float32Array, shape: readonly number[]): Float32Array {
  const axes = shape.map((_, i) => i);
  return permute(data, shape, [...axes.slice(2), 1, 0]);
}

/** Weights [...kernel, i, o] -> [o, i, ...kernel] */
export function kernelFirst(data: Float32Array, shape: readonly number[]): Float32Array {
  const n = shape.length;
  return permute(data, shape, [n - 1, n - 2, ...shape.map((_, i) => i).slice(0, -2)]);
}
