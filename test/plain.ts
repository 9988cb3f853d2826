// Plain definitions in float64 for tests of functions whose decomposition is long: loops over the points of a shape, laws
// over drawn calls on the reference, and comparison with its values.

import fc from "fast-check";
import { expect, test } from "vitest";
import { ShapeError } from "../engine/error.ts";
import type { Array64 } from "../engine/ops/op.ts";
import { numel, type Shape } from "../engine/shape.ts";
import type { Tensor } from "../engine/tensor.ts";
import { drawer } from "../engine/testing/draw.ts";
import { Inputs } from "../engine/testing/gradients.ts";
import type { Draw } from "../kernels/wgsl.ts";
import { difference } from "./close.ts";

const seeds = fc.integer({ min: 0, max: 2 ** 31 - 1 });

/** A property of drawn calls; `check` says what is wrong, or null. */
export function law(runs: number, check: (d: Draw, inputs: Inputs, seed: number) => string | null): void {
  const property = fc.property(fc.gen(), seeds, (g, seed) => {
    const problem = check(drawer(g), new Inputs(seed), seed);
    if (problem !== null) throw new Error(problem);
  });
  fc.assert(property, { seed: 1, numRuns: runs });
}

/** float64 sums in another order agree to this. */
const EXACT = 1e-12;

export function equal(inputs: Inputs, got: Tensor, want: Array64): string | null {
  if (got.shape.join() !== want.shape.join()) return `expected shape [${want.shape}], got [${got.shape}]`;
  return difference(inputs.evaluate([got])[0], want.data, { rtol: EXACT });
}

export const dataOf = (x: Tensor, inputs: Inputs): Float64Array => (inputs.values.get(x.node) as Array64).data;

// ---- plain definitions on any number of axes

/** Calls f with every point of a shape in row-major order. */
export function eachPoint(shape: Shape, f: (point: readonly number[], flat: number) => void): void {
  const point = shape.map(() => 0);
  for (let flat = 0; flat < numel(shape); flat++) {
    f([...point], flat);
    for (let axis = shape.length - 1; axis >= 0 && ++point[axis] === shape[axis]; axis--) point[axis] = 0;
  }
}

export const flatOf = (shape: Shape, point: readonly number[]): number =>
  point.reduce((sum, x, i) => sum * shape[i] + x, 0);
export const inside = (shape: Shape, point: readonly number[]): boolean =>
  point.every((x, i) => x >= 0 && x < shape[i]);

export function filled(shape: Shape, f: (point: readonly number[]) => number): Array64 {
  const data = new Float64Array(numel(shape));
  eachPoint(shape, (point, flat) => {
    data[flat] = f(point);
  });
  return { shape, data };
}

/** [b, ...spatial, c] of one to three small spatial axes. */
export function drawImages(d: Draw, most = 6): number[] {
  const axes = d.int(1, 3);
  return [d.int(1, 2), ...Array.from({ length: axes }, () => d.int(1, axes === 3 ? 4 : most)), d.int(1, 3)];
}

/** One test per call that must be refused, with what the ShapeError has to say. */
export function messages(calls: readonly (readonly [what: string, call: () => Tensor, message: string])[]): void {
  test.each(calls)("the message about %s", (_, call, message) => {
    expect(call).toThrow(ShapeError);
    expect(call).toThrow(message);
  });
}
