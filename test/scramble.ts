// Random values for every parameter of a module, zeros and ones of its start included: gradients of a layer that starts as
// the identity would otherwise be checked where most of them vanish. And inputs that gradients can be taken of.

import { type Tensor, tensor } from "../engine/index.ts";
import type { Module } from "../engine/nn/index.ts";
import { uniforms } from "../engine/testing/draw.ts";

/** Uniform in [-0.8, 0.8], the same for the same seed. */
export function scramble<M extends Module>(module: M, seed: number): M {
  const next = uniforms(seed);
  for (const p of new Set(module.state().values())) {
    const size = p.shape.reduce((a, b) => a * b, 1);
    p.write(Float32Array.from({ length: size }, () => 1.6 * next() - 0.8));
  }
  return module;
}

/** A tensor of values in [-1.5, 1.5]: a leaf, which draws of an Rng are not. */
export function drawnInput(shape: readonly number[], seed: number): Tensor {
  const next = uniforms(seed);
  const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => 3 * next() - 1.5);
  return tensor(values, shape);
}
