// A function of nn at drawn sizes beside its definition as plain loops: what the tables of functions_moving.ts and
// functions_computing.ts hold and functions.test.ts checks.

import type { Tensor } from "../engine/index.ts";
import type { Array64 } from "../engine/ops/op.ts";
import { numel, type Shape } from "../engine/shape.ts";
import type { Wanted } from "../engine/testing/draw.ts";
import type { Draw } from "../kernels/wgsl.ts";

/** One element of a row-major array. */
export type At = (...index: number[]) => number;

export const reader = ({ data, shape }: Array64): At => {
  return (...index) => data[index.reduce((flat, i, axis) => flat * shape[axis] + i, 0)];
};
export const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
export const total = (n: number, f: (i: number) => number): number => range(n).reduce((sum, i) => sum + f(i), 0);
export function filled(shape: Shape, f: At): number[] {
  return range(numel(shape)).map((flat) => {
    const index: number[] = [];
    for (let rest = flat, axis = shape.length - 1; axis >= 0; axis--) {
      index.unshift(rest % shape[axis]);
      rest = Math.floor(rest / shape[axis]);
    }
    return f(...index);
  });
}
export const argsortOf = (row: readonly number[], sign: number): number[] =>
  range(row.length).sort((i, j) => sign * (row[i] - row[j]) || i - j);

/** A call at drawn sizes: inputs, the function, and its definition as loops. */
export interface Case {
  readonly inputs: readonly Wanted[];
  /** Interval of the f32 inputs where the function is smooth. */
  readonly domain?: readonly [number, number];
  readonly call: (...x: Tensor[]) => Tensor;
  /** The gradient is none on purpose, and so not that of the value. */
  readonly constant?: boolean;
  readonly shape: Shape;
  readonly at: (...x: At[]) => At;
}

export const size = (d: Draw): number => d.int(1, 4);
export const sizes = (d: Draw, n: number): number[] => range(n).map(() => size(d));

/** A table of functions: their names, and how calls are drawn. */
export type Cases = Readonly<Record<string, (d: Draw) => Case>>;
