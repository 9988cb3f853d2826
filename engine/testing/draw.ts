// Random cases: a Draw backed by fast-check, so that shapes and attributes shrink, and values made from one seed, because
// arrays of drawn values shrink for minutes and say less.

import fc from "fast-check";
import type { Draw } from "../../kernels/wgsl.ts";
import { type Data, type DType, emptyData } from "../dtype.ts";
import { numel, type Shape } from "../shape.ts";

/** Choices of `int` and `pick` that fast-check records and shrinks towards small numbers and early options. */
export function drawer(g: fc.GeneratorValue): Draw {
  return {
    int: (lo, hi) => g(fc.integer, { min: lo, max: hi }),
    pick: (choices) => choices[g(fc.nat, { max: choices.length - 1 })],
  };
}

/** What `draw` makes of random choices, as an arbitrary of fast-check that shrinks with them. */
export function drawn<T>(draw: (d: Draw) => T): fc.Arbitrary<T> {
  return fc.gen().map((g) => draw(drawer(g)));
}

/** Choices that follow from a seed: for what need not shrink. */
export function seededDraw(seed: number): Draw {
  const next = uniforms(seed);
  return {
    int: (lo, hi) => lo + Math.floor(next() * (hi - lo + 1)),
    pick: (choices) => choices[Math.floor(next() * choices.length)],
  };
}

/** Uniform numbers in [0, 1) from a 32-bit seed (mulberry32): independent of the generator under test. */
export function uniforms(seed: number): () => number {
  let s = seed >>> 0;
  return () => {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), 1 | s);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export interface Wanted {
  readonly shape: Shape;
  readonly dtype?: DType;
  readonly below?: number;
}

/** Values of one input: floats in `domain`, whole numbers in [0, below), bools 0 or 1. All are exact in float32. */
export function values(
  { shape, dtype = "f32", below = 8 }: Wanted,
  next: () => number,
  domain: readonly [number, number] = [-2, 2],
): Data {
  const out = emptyData(dtype, numel(shape));
  const [lo, hi] = domain;
  for (let i = 0; i < out.length; i++)
    out[i] = dtype === "f32" ? lo + (hi - lo) * next() : Math.floor(next() * (dtype === "bool" ? 2 : below));
  return out;
}
