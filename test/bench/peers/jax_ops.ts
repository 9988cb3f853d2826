// jax-js with borrowed instead of consumed arguments: every helper takes a reference of its own, so that the workloads read
// like mathematics. All of it is called inside `jit`, where arrays are tracers and references cost nothing. And the layers
// of the models, on parameters by name. Called by jax_micro.ts and jax_models.ts.

import { lax, nn, numpy as np } from "@jax-js/jax";
import type { LoadedParam } from "../params.ts";

export type A = np.Array;
export type Params = Record<string, A>;
type Arg = A | number;

const own = <T extends Arg>(x: T): T => (typeof x === "number" ? x : (x.ref as T));

export const add = (a: A, b: Arg): A => np.add(a.ref, own(b));
export const sub = (a: A, b: Arg): A => np.subtract(a.ref, own(b));
export const mul = (a: A, b: Arg): A => np.multiply(a.ref, own(b));
export const div = (a: A, b: Arg): A => np.trueDivide(a.ref, own(b));
export const sqrt = (a: A): A => np.sqrt(a.ref);
export const square = (a: A): A => np.multiply(a.ref, a.ref);
export const silu = (a: A): A => nn.silu(a.ref);
export const matmul = (a: A, b: A): A => np.matmul(a.ref, b.ref);
export const reshape = (a: A, shape: number[]): A => np.reshape(a.ref, shape);
export const transpose = (a: A, order: number[]): A => np.transpose(a.ref, order);
export const mean = (a: A, axis: number | number[] | null = null, keepdims = false): A =>
  np.mean(a.ref, axis, { keepdims });
export const sum = (a: A, axis: number | number[] | null = null, keepdims = false): A =>
  np.sum(a.ref, axis, { keepdims });
export const stop = (a: A): A => lax.stopGradient(a.ref);
export const concat = (xs: A[], axis: number): A =>
  np.concatenate(
    xs.map((x) => x.ref),
    axis,
  );
export const array = (data: Float32Array | Int32Array, shape: readonly number[]): A =>
  np.array(data, { shape: [...shape], dtype: data instanceof Int32Array ? np.int32 : np.float32 });

export function paramsOf(list: readonly LoadedParam[]): Params {
  return Object.fromEntries(list.map(({ name, data, shape }) => [name, array(data, shape)]));
}

// ---- layers, batch and channels first

export function linear(p: Params, name: string, x: A): A {
  const y = matmul(x, p[`${name}.w`]);
  return p[`${name}.b`] ? add(y, p[`${name}.b`]) : y;
}

/** Convolution over any number of axes, with its bias. */
export function conv(p: Params, name: string, x: A, padding: readonly number[], stride = 1): A {
  const sides = padding.map((n): [number, number] => [n, n]);
  const strides = padding.map(() => stride);
  const y = lax.convGeneralDilated(x.ref, p[`${name}.w`].ref, strides, sides);
  return add(y, reshape(p[`${name}.b`], [1, -1, ...padding.map(() => 1)]));
}

/** (x - mean) / sqrt(variance + 1e-5) over the last axis. */
function standardize(x: A): A {
  const centred = sub(x, mean(x, -1, true));
  return div(centred, sqrt(add(mean(square(centred), -1, true), 1e-5)));
}

/** Eight groups of channels of x [b, c, ...]. */
export function groupNorm(g: A, b: A, x: A): A {
  const affine = [1, -1, ...x.shape.slice(2).map(() => 1)];
  const y = reshape(standardize(reshape(x, [x.shape[0], 8, -1])), x.shape);
  return add(mul(y, reshape(g, affine)), reshape(b, affine));
}

export const norm = (p: Params, name: string, x: A): A => groupNorm(p[`${name}.g`], p[`${name}.b`], x);

export function layerNorm(p: Params, name: string, x: A): A {
  return add(mul(standardize(x), p[`${name}.g`]), p[`${name}.b`]);
}

/** q k^T / sqrt(d) v over the last two axes; `mask` is added to the scores. */
export function attention(q: A, k: A, v: A, mask?: A): A {
  const axes = k.shape.map((_, i) => i);
  const kt = transpose(k, [...axes.slice(0, -2), axes.length - 1, axes.length - 2]);
  const scores = mul(matmul(q, kt), q.shape[q.shape.length - 1] ** -0.5);
  return matmul(nn.softmax(mask ? add(scores, mask) : scores, -1), v);
}

/** Four heads; x [b, n, c], context [b, m, c'] -> [b, n, c]. */
export function mha(p: Params, name: string, x: A, context: A, mask?: A): A {
  const split = (t: A): A => transpose(reshape(t, [t.shape[0], t.shape[1], 4, -1]), [0, 2, 1, 3]);
  const [q, k, v] = [x, context, context].map((t, i) => split(linear(p, `${name}.${"qkv"[i]}`, t)));
  return linear(
    p,
    `${name}.o`,
    reshape(transpose(attention(q, k, v, mask), [0, 2, 1, 3]), x.shape.slice(0, 2).concat(-1)),
  );
}

/** Mean cross entropy: logits [n, k], labels one-hot [n, k]. */
export function crossEntropy(logits: A, labels: A): A {
  return np.negative(mean(sum(mul(nn.logSoftmax(logits.ref, -1), labels), -1)));
}

export function mse(a: A, b: A): A {
  return mean(square(sub(a, b)));
}

/** Nearest neighbour, twice the size along every axis from the third on. */
export function double(x: A): A {
  const axes = x.shape.map((_, i) => i).slice(2);
  return axes.reduce((y, axis) => np.repeat(y.ref, 2, axis), x);
}
