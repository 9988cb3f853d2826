// Padding of any axes, with the semantics of torch's F.pad (whose list starts at the last axis). Each mode is slices, flips
// and joins of x, so that kernels see an index map; zeros alone are Tensor.pad.

import { ShapeError, show } from "../error.ts";
import type { Shape } from "../shape.ts";
import { full, type Tensor } from "../tensor.ts";

/** What lies outside: a constant, the inside mirrored at its first and last element, those elements, or its other end. */
export type PadMode = "constant" | "reflect" | "replicate" | "circular";

type Side = readonly [before: number, after: number];

/**
 * Adds elements before and after each axis, one pair per axis of x; negative numbers take elements away. `value` is for
 * mode "constant" (the default, 0). Throws ShapeError where a mode has too few elements to draw from: reflect takes fewer
 * than there are, circular no more.
 */
export function pad(
  x: Tensor,
  sides: readonly Side[],
  o: { readonly mode?: PadMode; readonly value?: number } = {},
): Tensor {
  if (sides.length !== x.rank || sides.flat().some((n) => !Number.isInteger(n)))
    throw new ShapeError(
      `pad: expected ${x.rank} pairs of whole numbers for ${show(x.shape)}, got ${JSON.stringify(sides)}`,
    );
  checkSides(x.shape, sides);
  const mode = o.mode ?? "constant";
  if (mode === "constant") return constant(x, sides, o.value ?? 0);
  return sides.reduce((y, side, axis) => padAxis(y, axis, side, mode), x);
}

function checkSides(shape: Shape, sides: readonly Side[]): void {
  sides.forEach((side, axis) => {
    if (shape[axis] + Math.min(0, side[0]) + Math.min(0, side[1]) < 0 || shape[axis] + side[0] + side[1] < 0)
      throw new ShapeError(`pad: ${show(side)} takes more than axis ${axis} of ${show(shape)} has`);
  });
}

/** Removes what the negative numbers say. */
function crop(x: Tensor, axis: number, [before, after]: Side): Tensor {
  const n = x.shape[axis];
  return x.slice(axis, Math.max(0, -before), n - Math.max(0, -after));
}

const added = (sides: readonly Side[]): Side[] => sides.map(([a, b]) => [Math.max(0, a), Math.max(0, b)]);

function constant(x: Tensor, sides: readonly Side[], value: number): Tensor {
  const inside = sides.reduce((y, side, axis) => crop(y, axis, side), x);
  const padded = inside.pad(added(sides));
  if (value === 0 || padded === inside) return padded;
  return full(inside.shape, 1, "bool").pad(added(sides)).where(padded, value);
}

const join = (parts: readonly Tensor[], axis: number): Tensor => {
  const [first, ...rest] = parts.filter((p) => p.shape[axis] > 0);
  return rest.length === 0 ? first : first.concat(rest, axis);
};

/** The elements before and after x along an axis; low and high are not both zero. */
type Outside = (x: Tensor, axis: number, low: number, high: number) => readonly [Tensor, Tensor];

const OUTSIDE: Readonly<Record<Exclude<PadMode, "constant">, Outside>> = {
  reflect: (x, axis, low, high) => {
    const n = x.shape[axis];
    need(x.shape, axis, "reflect", Math.max(low, high) + 1);
    const mirror = (from: number, to: number): Tensor => x.slice(axis, from, to).flip([axis]);
    return [mirror(1, low + 1), mirror(n - 1 - high, n - 1)];
  },
  replicate: (x, axis, low, high) => {
    need(x.shape, axis, "replicate", 1);
    const repeat = (at: number, times: number): Tensor =>
      x.slice(axis, at, at + 1).expand(x.shape.map((m, i) => (i === axis ? times : m)));
    return [repeat(0, low), repeat(x.shape[axis] - 1, high)];
  },
  circular: (x, axis, low, high) => {
    const n = x.shape[axis];
    need(x.shape, axis, "circular", Math.max(low, high));
    return [x.slice(axis, n - low, n), x.slice(axis, 0, high)];
  },
};

function need(shape: Shape, axis: number, mode: PadMode, least: number): void {
  if (shape[axis] < least)
    throw new ShapeError(`pad: ${mode} needs at least ${least} elements of axis ${axis}, got ${show(shape)}`);
}

/** Negative numbers take away last, so that mirrors see all of x; but first where x wraps around. */
function padAxis(x: Tensor, axis: number, side: Side, mode: Exclude<PadMode, "constant">): Tensor {
  const [[low, high]] = added([side]);
  if (low + high === 0) return crop(x, axis, side);
  const from = mode === "circular" ? crop(x, axis, side) : x;
  const [before, after] = OUTSIDE[mode](from, axis, low, high);
  const y = join([before, from, after], axis);
  return mode === "circular" ? y : crop(y, axis, side);
}
