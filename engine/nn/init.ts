// Initial values. Each parameter draws from a stream of its own, keyed by the model's seed and the parameter's name, so that
// values depend neither on the order of construction nor on what else the model contains.

import { normalAt, threefry2x32, uniformAt } from "../../kernels/random.ts";
import { numel, type Shape } from "../shape.ts";
import { hashName } from "../state.ts";

/** Makes the values of a parameter of `shape` from a stream key. */
export type Initializer = (shape: Shape, key: readonly [number, number]) => Float32Array;

export const zerosInit: Initializer = (shape) => new Float32Array(numel(shape));
export const onesInit: Initializer = (shape) => new Float32Array(numel(shape)).fill(1);

export function constantInit(value: number): Initializer {
  return (shape) => new Float32Array(numel(shape)).fill(value);
}

/** N(0, std^2) */
export function normalInit(std: number): Initializer {
  return (shape, [a, b]) => Float32Array.from({ length: numel(shape) }, (_, i) => std * normalAt([a, b, 0], 0, i));
}

/** U(-bound, bound) with bound = 1 / sqrt(fanIn): what PyTorch gives Linear and Conv weights and biases. */
export function fanInInit(fanIn: number): Initializer {
  const bound = 1 / Math.sqrt(fanIn);
  return (shape, [a, b]) =>
    Float32Array.from({ length: numel(shape) }, (_, i) => bound * (2 * uniformAt([a, b, 0], 0, i) - 1));
}

/** Stream key of a named parameter. */
export function keyFor(seed: number, name: string): [number, number] {
  return threefry2x32(seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0, hashName(name), 1);
}
