// W1 to W7 in TensorFlow.js. Called by tfjs.ts.

import * as tf from "@tensorflow/tfjs-core";
import { channelsFirst, kernelFirst, kernelLast, R } from "../data.ts";
import type { Subject } from "../subject.ts";
import { array, attention, groupNorm, image, input, settle, silu, type T } from "./tfjs_ops.ts";

type Back = (data: Float32Array, shape: readonly number[]) => Float32Array;

/** `layouts` brings results back into the workload's layout. */
function micro(f: () => T[], names: readonly string[], layouts: Readonly<Record<string, Back>> = {}): Subject {
  let last: T[] = [];
  return {
    run: async () => {
      tf.dispose(last);
      last = tf.tidy(f);
      await settle();
      return undefined;
    },
    outputs: async () => {
      const read = async (name: string, i: number): Promise<[string, Float32Array]> => {
        const data = (await last[i].data()) as Float32Array;
        return [name, layouts[name]?.(data, last[i].shape) ?? data];
      };
      return Object.fromEntries(await Promise.all(names.map(read)));
    },
  };
}

/** y, and the gradients of `f` at `xs` for cotangent r. */
function both(f: (...xs: T[]) => T, xs: readonly T[], r: T): () => T[] {
  const pull = tf.valueAndGrads(f as never);
  return () => {
    const { value, grads } = pull([...xs], r);
    return [value, ...grads];
  };
}

function convolution(backward: boolean): Subject {
  const [shape, kernel] = [
    [8, 64, 32, 32],
    [64, 64, 3, 3],
  ];
  const x = image(shape, 1);
  const w = array(kernelLast(R(kernel, 2, 1 / 24), kernel), [3, 3, 64, 64]);
  const f = (a: T, b: T): T => tf.conv2d(a as tf.Tensor4D, b as tf.Tensor4D, 1, "same");
  const layouts = { y: channelsFirst, dx: channelsFirst, dw: kernelFirst };
  return backward
    ? micro(both(f, [x, w], image(shape, 3)), ["y", "dx", "dw"], layouts)
    : micro(() => [f(x, w)], ["y"], layouts);
}

function attentions(tokens: number, backward: boolean): Subject {
  const shape = [16, tokens, 32];
  const [q, k, v] = [1, 2, 3].map((seed) => input(shape, seed, 2));
  const f = (a: T, b: T, c: T): T => attention(a, b, c);
  return backward
    ? micro(both(f, [q, k, v], input(shape, 4)), ["y", "dq", "dk", "dv"])
    : micro(() => [f(q, k, v)], ["y"]);
}

function product(a: readonly number[], b: readonly number[]): Subject {
  const [x, y] = [input(a, 1), input(b, 2)];
  return micro(() => [tf.matMul(x, y)], ["y"]);
}

function sums(shape: readonly number[]): Subject {
  const x = input(shape, 1);
  return micro(() => [shape.length === 1 ? tf.sum(x) : tf.sum(x, 1)], ["y"]);
}

export const micros: Readonly<Record<string, () => Subject>> = {
  "W1.512": () => product([512, 512], [512, 512]),
  "W1.1024": () => product([1024, 1024], [1024, 1024]),
  W1b: () => product([32, 256, 64], [32, 64, 256]),
  "W2.fwd": () => convolution(false),
  "W2.fb": () => convolution(true),
  "W3.fwd": () => attentions(256, false),
  "W3.fb": () => attentions(256, true),
  "W3b.fwd": () => attentions(1024, false),
  "W3b.fb": () => attentions(1024, true),
  W4: () => {
    const shape = [8, 64, 32, 32];
    const f = (x: T, g: T, b: T): T => silu(groupNorm(g, b, x));
    const run = both(f, [image(shape, 1), input([64], 2), input([64], 3)], image(shape, 4));
    return micro(run, ["y", "dx", "dg", "db"], { y: channelsFirst, dx: channelsFirst });
  },
  W5: () =>
    micro(
      both((x) => tf.softmax(x), [input([4096, 512], 1, 4)], input([4096, 512], 2)),
      ["y", "dx"],
    ),
  W6: () => {
    const x = input([4194304], 1);
    const gate = (): T => tf.sigmoid(tf.add(tf.mul(x, 1.1), 0.3));
    return micro(() => [tf.mul(tf.relu(tf.add(tf.exp(tf.mul(gate(), x)), x)), 0.5)], ["y"]);
  },
  "W7.full": () => sums([4194304]),
  "W7.row": () => sums([4096, 1024]),
};
