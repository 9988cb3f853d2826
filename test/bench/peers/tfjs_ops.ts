// The layers of the models in TensorFlow.js, channels last, on weights by name; and the waiting. Called by tfjs_micro.ts
// and tfjs_models.ts.

import * as tf from "@tensorflow/tfjs-core";
import { channelsLast, kernelLast, R } from "../data.ts";
import { type LoadedParam, loadParams, type ModelName } from "../params.ts";
import type { Subject } from "../subject.ts";

export type T = tf.Tensor;
export type Params = Readonly<Record<string, tf.Variable>>;

export const array = (data: Float32Array | Int32Array, shape: readonly number[]): T =>
  tf.tensor(data, [...shape], data instanceof Int32Array ? "int32" : "float32");
export const input = (shape: readonly number[], seed: number, scale = 1): T => array(R(shape, seed, scale), shape);

/** Seeded values of [b, c, ...spatial], as [b, ...spatial, c]. */
export function image(shape: readonly number[], seed: number, scale = 1): T {
  return array(channelsLast(R(shape, seed, scale), shape), [shape[0], ...shape.slice(2), shape[1]]);
}

/** What settling needs of the back end, part of which it declares private. */
interface Backend {
  readonly device: GPUDevice;
  readonly commandEncoder: GPUCommandEncoder | null;
  endComputePassEncoder(): void;
  submitQueue(): void;
}

/** Submits what the back end still gathers, and waits for the device. */
export async function settle(): Promise<void> {
  const backend = tf.backend() as unknown as Backend;
  if (backend.commandEncoder) {
    backend.endComputePassEncoder();
    backend.submitQueue();
  }
  await backend.device.queue.onSubmittedWorkDone();
}

function variable({ name, kind, shape, data }: LoadedParam): tf.Variable {
  const [values, dims] =
    kind === "conv" ? [kernelLast(data, shape), [...shape.slice(2), shape[1], shape[0]]] : [data, shape];
  return tf.variable(array(values, dims), true, name);
}

export function paramsOf(model: ModelName): Params {
  return Object.fromEntries(loadParams(model).map((p) => [p.name, variable(p)]));
}

/** AdamW as Adam behind the decay, on a fixed batch. */
export function training(model: ModelName, loss: (p: Params) => tf.Scalar, decay = 0.01): Subject {
  const lr = 1e-3;
  const p = paramsOf(model);
  const variables = Object.values(p);
  const adam = tf.train.adam(lr, 0.9, 0.999, 1e-8);
  return {
    run: async () => {
      const value = tf.tidy(() => {
        const { value: found, grads } = tf.variableGrads(() => loss(p), variables);
        if (decay !== 0) for (const v of variables) v.assign(tf.mul(v, 1 - lr * decay));
        adam.applyGradients(grads as Record<string, tf.Variable>);
        return found;
      });
      const [number] = await value.data();
      value.dispose();
      return number;
    },
  };
}

// ---- layers

export function linear(p: Params, name: string, x: T): T {
  const flat = x.rank > 2 ? tf.reshape(x, [-1, x.shape[x.rank - 1]]) : x;
  const product = tf.matMul(flat, p[`${name}.w`]);
  const y = p[`${name}.b`] ? tf.add(product, p[`${name}.b`]) : product;
  return x.rank > 2 ? tf.reshape(y, [...x.shape.slice(0, -1), -1]) : y;
}

export const silu = (x: T): T => tf.mul(x, tf.sigmoid(x));

export function conv(
  p: Params,
  name: string,
  x: T,
  pad: "same" | "valid" | [number, number][] = "same",
  stride = 1,
): T {
  return tf.add(tf.conv2d(x as tf.Tensor4D, p[`${name}.w`] as T as tf.Tensor4D, stride, pad as "same"), p[`${name}.b`]);
}

/** Eight groups of channels of x [b, h, w, c]. */
export function groupNorm(g: T, b: T, x: T): T {
  const [n, h, w, c] = x.shape;
  const blocks = tf.reshape(x, [n, h * w, 8, c / 8]);
  const { mean, variance } = tf.moments(blocks, [1, 3], true);
  const y = tf.mul(tf.sub(blocks, mean), tf.rsqrt(tf.add(variance, 1e-5)));
  return tf.add(tf.mul(tf.reshape(y, x.shape), g), b);
}

export const norm = (p: Params, name: string, x: T): T => groupNorm(p[`${name}.g`], p[`${name}.b`], x);

export function layerNorm(p: Params, name: string, x: T): T {
  const { mean, variance } = tf.moments(x, -1, true);
  const y = tf.mul(tf.sub(x, mean), tf.rsqrt(tf.add(variance, 1e-5)));
  return tf.add(tf.mul(y, p[`${name}.g`]), p[`${name}.b`]);
}

/** q k^T / sqrt(d) v over the last two axes; `mask` is added to the scores. */
export function attention(q: T, k: T, v: T, mask?: T): T {
  const scores = tf.mul(tf.matMul(q, k, false, true), q.shape[q.rank - 1] ** -0.5);
  return tf.matMul(tf.softmax(mask ? tf.add(scores, mask) : scores), v);
}

export function splitHeads(x: T): T {
  const [b, n, c] = x.shape as [number, number, number];
  return tf.transpose(tf.reshape(x, [b, n, 4, c / 4]), [0, 2, 1, 3]);
}

export function joinHeads(x: T): T {
  const [b, heads, n, d] = x.shape as [number, number, number, number];
  return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [b, n, heads * d]);
}

/** Four heads; x [b, n, c], context [b, m, c'] -> [b, n, c]. */
export function mha(p: Params, name: string, x: T, context: T, mask?: T): T {
  const [q, k, v] = [x, context, context].map((t, i) => splitHeads(linear(p, `${name}.${"qkv"[i]}`, t)));
  return linear(p, `${name}.o`, joinHeads(attention(q, k, v, mask)));
}

/** Mean cross entropy: logits [n, k], labels i32 [n]. */
export function crossEntropy(logits: T, labels: T): tf.Scalar {
  const hot = tf.oneHot(labels, logits.shape[1] as number);
  return tf.neg(tf.mean(tf.sum(tf.mul(tf.logSoftmax(logits), hot), -1)));
}

export const mse = (a: T, b: T): tf.Scalar => tf.mean(tf.square(tf.sub(a, b)));

/** No gradient flows through the result. */
export const stop = (x: T): T =>
  tf.customGrad((y) => ({ value: (y as T).clone(), gradFunc: (dy) => tf.zerosLike(dy as T) }))(x);
