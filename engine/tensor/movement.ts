// Methods that move elements and compute none: new shapes, orders, ranges, joins, einops. Shapes are checked and defaults
// filled in here; the op records are in ops/movement.ts.

import { type EinopsName, parseEinops } from "../einops.ts";
import { ShapeError, show } from "../error.ts";
import * as movement from "../ops/movement.ts";
import { axesOf, axisOf, checkShape, numel, type Shape, sameShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { Value } from "./value.ts";

/** Most operands of one concat node: within the five tensors that a kernel can read on the weakest adapter. */
const CONCAT = 4;

export abstract class Movement extends Value {
  /** One size may be -1: it follows from the others. */
  reshape(shape: Shape): Tensor {
    const known = shape.reduce((p, n) => (n === -1 ? p : p * n), 1);
    const to = shape.map((n) => (n === -1 ? numel(this.shape) / known : n));
    checkShape("reshape", to);
    return sameShape(to, this.shape) ? this.self() : this.apply(movement.reshape, [this], { to });
  }
  /** Axes in another order: axis i of the result is axis order[i] of this. */
  permute(order: readonly number[]): Tensor {
    const moved = this.apply(movement.permute, [this], { order });
    const long = order.filter((axis) => this.shape[axis] !== 1);
    // Moving axes of size 1 moves no element: a reshape, which needs no copy.
    return long.every((axis, i) => i === 0 || axis > long[i - 1]) ? this.reshape(moved.shape) : moved;
  }
  /** Swaps the last two axes. */
  transpose(): Tensor {
    const order = this.shape.map((_, i) => i);
    return this.permute([...order.slice(0, -2), this.rank - 1, this.rank - 2]);
  }
  /** Broadcasts to `shape`, adding leading axes as NumPy does. */
  expand(shape: Shape): Tensor {
    if (sameShape(shape, this.shape)) return this.self();
    const lead = shape.length - this.rank;
    if (lead < 0) throw new ShapeError(`expand: ${show(this.shape)} has more axes than ${show(shape)}`);
    return this.apply(movement.expand, [this.reshape([...new Array<number>(lead).fill(1), ...this.shape])], {
      to: shape,
    });
  }
  /** Elements start, start + step, ... before end of one axis; negative bounds count from the end. */
  slice(axis: number, start: number, end: number = this.shape[axisOf("slice", axis, this.rank)], step = 1): Tensor {
    const a = axisOf("slice", axis, this.rank);
    const n = this.shape[a];
    const from = start < 0 ? start + n : start;
    const to = end < 0 ? end + n : end;
    if (from < 0 || to > n || from > to)
      throw new ShapeError(`slice: ${start} to ${end} of axis ${axis} of ${show(this.shape)}`);
    if (!(Number.isInteger(step) && step > 0)) throw new ShapeError(`slice: step ${step} (flip reverses an axis)`);
    return this.sliceWith({
      start: this.shape.map((_, i) => (i === a ? from : 0)),
      size: this.shape.map((m, i) => (i === a ? Math.ceil((to - from) / step) : m)),
      step: this.shape.map((_, i) => (i === a ? step : 1)),
    });
  }
  /** A slice of every axis at once, as the op has it; steps may be negative. */
  sliceWith(attrs: movement.SliceAttrs): Tensor {
    return sameShape(attrs.size, this.shape) && attrs.step.every((s) => s === 1)
      ? this.self()
      : this.apply(movement.slice, [this], attrs);
  }
  /** Reverses the order along axes. */
  flip(axes: readonly number[]): Tensor {
    if (axes.length === 0) return this.self();
    const flipped = axesOf("flip", axes, this.rank);
    return this.sliceWith({
      start: this.shape.map((n, i) => (flipped.includes(i) ? n - 1 : 0)),
      size: this.shape,
      step: this.shape.map((_, i) => (flipped.includes(i) ? -1 : 1)),
    });
  }
  /** Zeros before and after each axis: one [before, after] pair per axis. */
  pad(sides: readonly (readonly [before: number, after: number])[]): Tensor {
    if (sides.length !== this.rank) throw new ShapeError(`pad: ${sides.length} pairs for ${show(this.shape)}`);
    return this.padWith({ low: sides.map((s) => s[0]), high: sides.map((s) => s[1]), holes: sides.map(() => 0) });
  }
  /** Zeros before, after and between the elements of every axis, as the op has it. */
  padWith(attrs: movement.PadAttrs): Tensor {
    const nothing = [...attrs.low, ...attrs.high, ...attrs.holes].every((n) => n === 0);
    return nothing ? this.self() : this.apply(movement.pad, [this], attrs);
  }
  /** This and `others`, one after another along an axis. */
  concat(others: readonly Tensor[], axis: number): Tensor {
    const attrs = { axis: axisOf("concat", axis, this.rank) };
    let parts: readonly Value[] = [this, ...others];
    // Nested, few at a time: a kernel can bind only so many tensors, and between nested ones the fuser can cut.
    while (parts.length > CONCAT) {
      const all = parts;
      parts = all.flatMap((_, i) =>
        i % CONCAT === 0 ? [this.apply(movement.concat, all.slice(i, i + CONCAT), attrs)] : [],
      );
    }
    return this.apply(movement.concat, parts, attrs);
  }
  /** einops: `x.rearrange("b (h w) c -> b c h w", { h: 8 })`. */
  rearrange(pattern: string, sizes: Readonly<Record<string, number>> = {}): Tensor {
    return this.rearranged("rearrange", pattern, sizes);
  }
  /** einops: new axes repeat the value: `x.repeat("h w -> (h r) w", { r: 2 })`. */
  repeat(pattern: string, sizes: Readonly<Record<string, number>> = {}): Tensor {
    return this.rearranged("repeat", pattern, sizes);
  }
  /** einops: axes that the right side lacks are reduced: `x.reduce("b (h s) c -> b h c", "mean", { s: 2 })`. */
  reduce(pattern: string, how: "sum" | "mean" | "max" | "min", sizes: Readonly<Record<string, number>> = {}): Tensor {
    return this.rearranged("reduce", pattern, sizes, (x, axes) => x[how](axes));
  }

  /** Carries out an einops pattern. */
  private rearranged(
    op: EinopsName,
    pattern: string,
    sizes: Readonly<Record<string, number>>,
    reduceOver: (x: Tensor, axes: number[]) => Tensor = (y) => y,
  ): Tensor {
    const { split, reduced, order, apart, grown, merge } = parseEinops(op, pattern, this.shape, sizes);
    const parts = this.reshape(split);
    const kept = reduced.length > 0 ? reduceOver(parts, reduced) : parts;
    return kept.permute(order).reshape(apart).expand(grown).reshape(merge);
  }
}
