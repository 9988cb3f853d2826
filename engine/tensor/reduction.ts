// Methods that combine elements along axes: sums and extremes, running ones, sorting, softmax, moments. Axes are resolved
// here, and moved where an op knows only the last one; the op records are in ops/reduce.ts, scan.ts, sort.ts, composite.ts.

import { isFloat } from "../dtype.ts";
import { DTypeError, ShapeError, show } from "../error.ts";
import * as composite from "../ops/composite.ts";
import type { AnyOp } from "../ops/op.ts";
import * as reduce from "../ops/reduce.ts";
import * as scans from "../ops/scan.ts";
import { argsort as argsortOp } from "../ops/sort.ts";
import { axesOf, axisOf, numel } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { none } from "./apply.ts";
import { Elementwise } from "./elementwise.ts";
import { filled } from "./leaves.ts";

export interface ReduceOptions {
  /** Reduced axes stay, with size 1. */
  readonly keepdims?: boolean;
}

export interface ScanOptions {
  /** From the last element to the first. */
  readonly reverse?: boolean;
}

export abstract class Reduction extends Elementwise {
  /** Sums along an axis, several, or all (the default); 0 of none. */
  sum(axis?: number | readonly number[], o: ReduceOptions = {}): Tensor {
    return this.reduced(reduce.sum, axis, o);
  }
  /** Means along an axis, several, or all; 0 of none. Throws DTypeError for whole numbers. */
  mean(axis?: number | readonly number[], o: ReduceOptions = {}): Tensor {
    if (this.dtype === "f16") return this.cast("f32").mean(axis, o).cast("f16"); // the sum alone may be more than f16 holds
    if (!isFloat(this.dtype))
      throw new DTypeError(`mean: expected f32 or f16, got ${this.dtype} (cast it: x.cast("f32"))`);
    const total = this.sum(axis, o);
    return total.mul(numel(total.shape) / numel(this.shape));
  }
  /** Largest along an axis, several, or all; 0 of none. At ties the gradient is shared equally. */
  max(axis?: number | readonly number[], o: ReduceOptions = {}): Tensor {
    return this.reduced(reduce.max, axis, o);
  }
  /** Smallest; otherwise as `max`. */
  min(axis?: number | readonly number[], o: ReduceOptions = {}): Tensor {
    // Whole numbers are turned around by ~x, which unlike -x has no exceptions.
    const turned = (t: Reduction): Tensor => this.of(filled([], t.dtype === "u32" ? 0xffffffff : -1, t.dtype)).sub(t);
    if (!isFloat(this.dtype)) return turned(turned(this).max(axis, o));
    return this.neg().max(axis, o).neg();
  }
  /** Running sums along an axis; `reverse` runs from the last element to the first. */
  cumsum(axis: number, o: ScanOptions = {}): Tensor {
    return this.alongAxis(scans.cumsum, [], axis, o);
  }
  /** h_i = a_i h_{i-1} + b_i along an axis, with b = this and h = 0 before the first. */
  linearScan(a: Tensor, axis: number, o: ScanOptions = {}): Tensor {
    return this.alongAxis(scans.linearScan, [a.expand(this.shape)], axis, o);
  }
  /** i32: positions along an axis in the order of their values, equal ones in increasing order. No gradient. */
  argsort(axis = -1, o: { descending?: boolean } = {}): Tensor {
    const swap = swapLast("argsort", axis, this.rank);
    const x = this.permute(swap);
    const attrs = { descending: o.descending ?? false, of: this.dtype === "i32" ? "i32" : "f32" };
    const rows = x.reshape([numel(x.shape.slice(0, -1)), x.shape[this.rank - 1]]);
    return this.apply(argsortOp, [rows], attrs).reshape(x.shape).permute(swap);
  }
  /**
   * exp(x) / sum(exp(x)) along an axis. `past`, for the last axis: row i of [..., rows, columns] is over the columns
   * j <= i + past alone, and zero elsewhere. Throws ShapeError when given for another axis.
   */
  softmax(axis = -1, { past }: composite.SoftmaxAttrs = {}): Tensor {
    const swap = swapLast("softmax", axis, this.rank);
    if (past !== undefined && swap.some((a, i) => a !== i))
      throw new ShapeError(`softmax: a \`past\` is for the last axis, not axis ${axis} of ${show(this.shape)}`);
    return this.apply(composite.softmax, [this.permute(swap)], past === undefined ? none : { past }).permute(swap);
  }
  /** [outer, inner, groups, channels] -> [outer, groups, 2]: mean and 1 / sqrt(variance + eps). */
  moments(eps: number): Tensor {
    return this.apply(composite.moments, [this], { eps });
  }

  private reduced(op: AnyOp, axis: number | readonly number[] | undefined, o: ReduceOptions): Tensor {
    const axes = axesOf(op.name, axis, this.rank);
    if (axes.length === 0) return this.self();
    const ones = (): number[] => this.shape.map((n, i) => (axes.includes(i) ? 1 : n));
    const kept = numel(this.shape) === 0 ? this.of(filled(ones(), 0, this.dtype)) : this.apply(op, [this], { axes });
    return o.keepdims ? kept : kept.reshape(this.shape.filter((_, i) => !axes.includes(i)));
  }

  /** An op on [outer, n, inner], applied along any axis of this and of tensors of this shape. */
  private alongAxis(op: AnyOp, others: readonly Tensor[], axis: number, o: ScanOptions): Tensor {
    const a = axisOf(op.name, axis, this.rank);
    const folded = [numel(this.shape.slice(0, a)), this.shape[a], numel(this.shape.slice(a + 1))];
    const rows = [this, ...others].map((x) => x.reshape(folded));
    return this.apply(op, rows, { reverse: o.reverse ?? false }).reshape(this.shape);
  }
}

/** Order of the axes that brings one to the end; the same order brings it back. */
function swapLast(op: string, axis: number, rank: number): number[] {
  const [a, last] = [axisOf(op, axis, rank), rank - 1];
  return Array.from({ length: rank }, (_, i) => (i === a ? last : i === last ? a : i));
}
