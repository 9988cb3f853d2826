// Shape arithmetic: sizes, strides, axes, broadcasting, and named dimensions (`dims`). Pure functions on number arrays.

import { got, ShapeError, show } from "./error.ts";

export type Shape = readonly number[];

/** Number of elements. */
export function numel(shape: Shape): number {
  return shape.reduce((a, b) => a * b, 1);
}

/** Row-major strides in elements. */
export function stridesOf(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step;
    step *= shape[i];
  }
  return strides;
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((n, i) => n === b[i]);
}

/** Throws unless every size is a whole number >= 0. */
export function checkShape(op: string, shape: Shape): void {
  if (!Array.isArray(shape)) throw new ShapeError(`${op}: expected a shape such as [2, 3], got ${got(shape)}`);
  const bad = shape.find((n) => !Number.isInteger(n) || n < 0);
  if (bad !== undefined)
    throw new ShapeError(`${op}: ${show(shape)} is not a shape: ${bad} is not a whole number >= 0`);
}

/** Axis in [0, rank), counting negative ones from the end. */
export function axisOf(op: string, axis: number, rank: number): number {
  const a = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(a) || a < 0 || a >= rank) throw new ShapeError(`${op}: axis ${axis} of a rank ${rank} tensor`);
  return a;
}

/** Sorted distinct axes; all of them when `axis` is undefined. */
export function axesOf(op: string, axis: number | readonly number[] | undefined, rank: number): number[] {
  if (axis === undefined) return Array.from({ length: rank }, (_, i) => i);
  const axes = (typeof axis === "number" ? [axis] : axis).map((a) => axisOf(op, a, rank)).sort((a, b) => a - b);
  if (new Set(axes).size !== axes.length)
    throw new ShapeError(`${op}: an axis is named twice in ${show([axis].flat())}`);
  return axes;
}

/** NumPy broadcasting of two shapes. Throws a ShapeError that names the dimension that disagrees. */
export function broadcast(op: string, a: Shape, b: Shape): number[] {
  const rank = Math.max(a.length, b.length);
  const out = new Array<number>(rank);
  for (let i = 1; i <= rank; i++) {
    const m = a[a.length - i] ?? 1;
    const n = b[b.length - i] ?? 1;
    if (m !== n && m !== 1 && n !== 1) {
      throw new ShapeError(`${op}: cannot broadcast ${show(a)} with ${show(b)} (${m} vs ${n}, dimension -${i})`);
    }
    out[rank - i] = m === 1 ? n : m;
  }
  return out;
}

type Words<S extends string> = S extends `${infer A} ${infer B}` ? A | Words<B> : S;
/** Sizes by name: `Dims<"b c">` is `{ b: number, c: number }`. */
export type Dims<S extends string> = { readonly [K in Exclude<Words<S>, "">]: number };

/** Names the dimensions of a shape: `dims([2, 3], "b c")` is `{ b: 2, c: 3 }`. Throws when the rank differs. */
export function dims<S extends string>(shape: Shape, spec: S): Dims<S> {
  const names = spec.split(" ").filter((n) => n !== "");
  if (names.length !== shape.length) {
    throw new ShapeError(`expected shape "${spec}" (rank ${names.length}), got ${show(shape)} (rank ${shape.length})`);
  }
  return Object.fromEntries(names.map((n, i) => [n, shape[i]])) as Dims<S>;
}
