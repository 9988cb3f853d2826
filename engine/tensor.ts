// Tensor: a description of a value, with one fluent method per op. Nothing is computed until `data()` or `item()`, or until
// a compiled step runs. Broadcasting and number operands are resolved here, so op records see equal shapes only.

import { bindingLimit, device, type Program, selfContained } from "./device.ts";
import { checkDType, type Data, type DType, dtypeOf, elementBytes, isFloat, roundHalf, toData } from "./dtype.ts";
import { type EinopsName, parseEinops } from "./einops.ts";
import { DTypeError, got, ShapeError, SMALLER, show, tooLargeError } from "./error.ts";
import { intern, leaf, type Node } from "./graph.ts";
import * as composite from "./ops/composite.ts";
import * as convolution from "./ops/conv.ts";
import type { ConvOptions, ConvTransposeOptions } from "./ops/conv_options.ts";
import * as convolve from "./ops/conv_options.ts";
import { convolveBack, convolve as convolveParts } from "./ops/conv_parts.ts";
import * as elementwise from "./ops/elementwise.ts";
import * as gathers from "./ops/gather.ts";
import * as leaves from "./ops/leaf.ts";
import { type MatmulAttrs, matmul as matmulOp } from "./ops/matmul.ts";
import * as movement from "./ops/movement.ts";
import { type AnyOp, type Attrs, floats, isComposite } from "./ops/op.ts";
import * as pools from "./ops/pool.ts";
import { type RandomAttrs, random as randomOp } from "./ops/random.ts";
import * as reduce from "./ops/reduce.ts";
import { type Band, resample as resampleOp } from "./ops/resample.ts";
import * as scans from "./ops/scan.ts";
import { argsort as argsortOp } from "./ops/sort.ts";
import { axesOf, axisOf, broadcast, checkShape, type Dims, dims, numel, type Shape, sameShape } from "./shape.ts";
import { Storage } from "./storage.ts";
import { currentTrace } from "./trace.ts";

export type { ConvOptions, ConvTransposeOptions, Padding } from "./ops/conv_options.ts";

/** A number stands for a tensor of the other operand's dtype that holds it everywhere. */
export type Operand = Tensor | number;

export interface ReduceOptions {
  readonly keepdims?: boolean;
}

export interface ScanOptions {
  readonly reverse?: boolean;
}

const none: Attrs = {};
/** Most operands of one concat node: within the five tensors that a kernel can read on the weakest adapter. */
const CONCAT = 4;

/**
 * Applies an op of the table to tensors: shape and dtype rules run here, where the line was written. Throws DeviceError where
 * the open device could not bind what must lie in memory.
 */
export function apply(op: AnyOp, ins: readonly Tensor[], attrs: Attrs = none): Tensor {
  const result =
    ins.some((t) => t.dtype === "f16") && !takesHalves(op) ? inSingle(op, ins, attrs) : make(op, ins, attrs);
  checkBindings(op, ins, result);
  return result;
}

function make(op: AnyOp, ins: readonly Tensor[], attrs: Attrs): Tensor {
  const src = ins.map((t) => t.node);
  const shape = op.shape(
    src.map((n) => n.shape),
    attrs,
  );
  const types = src.map((n) => n.dtype);
  return new Tensor(intern(op, src, attrs, shape, dtypeRule(op)(types, attrs)));
}

/** Its own; kernels are written for f32 unless they say otherwise; what only moves or picks values keeps their dtype. */
function dtypeRule(op: AnyOp): NonNullable<AnyOp["dtype"]> {
  if (op.dtype) return op.dtype;
  return op.lower.kind === "kernel" ? floats(op.name) : ([first]) => first;
}

function takesHalves(op: AnyOp): boolean {
  return op.lower.kind === "view" || ("half" in op && op.half === true);
}

/** Operands of f16 are computed with as f32, sums and products too; a float result is rounded to f16 once. */
function inSingle(op: AnyOp, ins: readonly Tensor[], attrs: Attrs): Tensor {
  if (ins.some((t) => t.dtype === "f32"))
    throw new DTypeError(`${op.name}: dtypes differ: ${ins.map((t) => t.dtype).join(" and ")} (cast one of them)`);
  const result = make(
    op,
    ins.map((t) => (t.dtype === "f16" ? t.cast("f32") : t)),
    "halves" in op && op.halves === true ? { ...attrs, halves: true } : attrs,
  );
  return result.dtype === "f32" ? result.cast("f16") : result;
}

/**
 * Leaves, and what kernels and reductions compute, have memory in any plan, and so a limit; values between may pass through
 * registers, and are checked when there is a plan (plan/limits.ts). Composites too: they may be taken apart.
 */
function checkBindings(op: AnyOp, ins: readonly Tensor[], result: Tensor): void {
  const { maxBinding, f16 } = bindingLimit();
  if (maxBinding === Number.POSITIVE_INFINITY) return;
  const stored = !isComposite(op) && (op.lower.kind === "kernel" || op.lower.kind === "reduce");
  const given = ins.filter(({ node: { op: leafOp } }) => leafOp.lower.kind === "leaf" && !leafOp.lower.value);
  for (const t of stored ? [...given, result] : given) {
    const bytes = numel(t.shape) * elementBytes(t.dtype, f16);
    if (bytes <= maxBinding) continue;
    const what = t === result ? `${op.name}: the result` : `${op.name}: the operand`;
    throw tooLargeError(
      `${what} ${t.dtype}${show(t.shape)}`,
      bytes,
      maxBinding,
      t === result ? SMALLER.computed : SMALLER.leaf,
    );
  }
}

/** Results of `arange` by length, those asked for last: equal ones are one tensor, so that expressions of them are one too. */
const ranges = new Map<number, Tensor>();
const RANGES = 64;

export class Tensor {
  readonly #node: Node;
  /** The value in memory, once it has been asked for. */
  #read: Node | null = null;

  /** Use `tensor(...)`, `zeros(...)` or methods; a node is the engine's own currency. */
  constructor(node: Node) {
    this.#node = node;
  }

  /** What ops on this tensor take: the value in memory where there is one. */
  get node(): Node {
    return this.#read ?? this.#node;
  }
  /** How the value came about, also after it has been read: what gradients follow. */
  get history(): Node {
    return this.#node;
  }
  get shape(): Shape {
    return this.#node.shape;
  }
  get dtype(): DType {
    return this.node.dtype;
  }
  get rank(): number {
    return this.shape.length;
  }

  /** This value, from now on: what methods return that have nothing to do. A Parameter's own value changes with `assign`. */
  protected self(): Tensor {
    return this;
  }

  /** Sizes by name; throws when the rank differs: `const { b, c } = x.dims("b c")`. */
  dims<S extends string>(spec: S): Dims<S> {
    return dims(this.shape, spec);
  }

  // ---- values ------------------------------------------------------------------------------------------------------

  /** Values in row-major order. Waits for the device. */
  async data(): Promise<Data> {
    return device().read(this.realise());
  }

  /** The value of a tensor with one element. Waits for the device. */
  async item(): Promise<number> {
    if (numel(this.shape) !== 1)
      throw new ShapeError(`item: ${show(this.shape)} has ${numel(this.shape)} elements, not one`);
    return (await this.data())[0];
  }

  /** Computes now (without waiting) and stays: results of a compiled step otherwise last until its second next call. */
  keep(): Tensor {
    return fromStorage(evaluate(this.node));
  }

  /** Memory that holds the value, computing it if need be. For devices and `compile`. */
  realise(): Storage {
    if (currentTrace())
      throw new Error("a value was asked for inside a compiled step: return the tensor from the step instead");
    if (!this.node.storage) this.#read = leaf(leaves.data, { read: true }, this.shape, this.dtype, evaluate(this.node));
    return this.node.storage as Storage;
  }

  toString(): string {
    return `Tensor ${this.dtype}${show(this.shape)}`;
  }
  /** What console.log prints in Node. */
  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return this.toString();
  }
  /** There is no synchronous value: `a < b` and `if (a)` on tensors are mistakes that tsc lets through. */
  valueOf(): never {
    throw new TypeError(`a ${this} has no value yet: use less(), where(), or await item()`);
  }

  // ---- elementwise -------------------------------------------------------------------------------------------------

  add(y: Operand): Tensor {
    return binary(elementwise.add, this, y);
  }
  sub(y: Operand): Tensor {
    return binary(elementwise.sub, this, y);
  }
  mul(y: Operand): Tensor {
    return binary(elementwise.mul, this, y);
  }
  div(y: Operand): Tensor {
    // A product is faster, and exact where the reciprocal is; k / k must be 1 for every k.
    const exact = typeof y === "number" && this.dtype === "f32" && Number.isInteger(Math.log2(Math.abs(y)));
    return exact ? this.mul(1 / y) : binary(elementwise.div, this, y);
  }
  pow(y: Operand): Tensor {
    // Products and roots are more accurate than exp2(y log2(x)).
    if (y === 1) return this.self();
    if (y === 2 || y === 3) return y === 2 ? this.square() : this.square().mul(this);
    if (y === 0.5 || y === -0.5) return y > 0 ? this.sqrt() : this.rsqrt();
    if (y === -1) return this.reciprocal();
    return binary(elementwise.pow, this, y);
  }
  maximum(y: Operand): Tensor {
    return binary(elementwise.maximum, this, y);
  }
  minimum(y: Operand): Tensor {
    return binary(elementwise.minimum, this, y);
  }
  /** bool: this < y */
  less(y: Operand): Tensor {
    return binary(elementwise.less, this, y);
  }
  /** bool: this == y */
  equal(y: Operand): Tensor {
    return binary(elementwise.equal, this, y);
  }
  /** bool: this > y */
  greater(y: Operand): Tensor {
    return operand("greater", y, this).less(this);
  }
  /** bool: this <= y */
  lessEqual(y: Operand): Tensor {
    return this.greater(y).not();
  }
  /** bool: this >= y */
  greaterEqual(y: Operand): Tensor {
    return this.less(y).not();
  }
  /** bool: this != y */
  notEqual(y: Operand): Tensor {
    return this.equal(y).not();
  }
  /** Of bool tensors. */
  not(): Tensor {
    return this.equal(full([], 0, "bool"));
  }
  and(y: Tensor): Tensor {
    return this.where(y, 0);
  }
  or(y: Tensor): Tensor {
    return this.where(1, y);
  }
  xor(y: Tensor): Tensor {
    return this.notEqual(y);
  }
  /** bool: neither NaN nor infinite */
  isFinite(): Tensor {
    return apply(elementwise.finite, [this]);
  }
  /** this ? a : b, for a bool tensor; at least one of a and b is a tensor. */
  where(a: Operand, b: Operand): Tensor {
    const like = typeof a === "number" ? b : a;
    if (typeof like === "number") throw new TypeError("where: one of the two values must be a tensor");
    if (!(like instanceof Tensor)) throw new TypeError(`where: expected a tensor or a number, got ${got(like)}`);
    const [x, y] = [operand("where", a, like), operand("where", b, like)];
    const shape = broadcast("where", this.shape, broadcast("where", x.shape, y.shape));
    return apply(elementwise.where, [this.expand(shape), x.expand(shape), y.expand(shape)]);
  }
  neg(): Tensor {
    return apply(elementwise.neg, [this]);
  }
  exp(): Tensor {
    return apply(elementwise.exp, [this]);
  }
  log(): Tensor {
    return apply(elementwise.log, [this]);
  }
  sqrt(): Tensor {
    return apply(elementwise.sqrt, [this]);
  }
  rsqrt(): Tensor {
    return apply(elementwise.rsqrt, [this]);
  }
  reciprocal(): Tensor {
    return apply(elementwise.reciprocal, [this]);
  }
  sin(): Tensor {
    return apply(elementwise.sin, [this]);
  }
  cos(): Tensor {
    return apply(elementwise.cos, [this]);
  }
  tanh(): Tensor {
    return apply(elementwise.tanh, [this]);
  }
  sigmoid(): Tensor {
    return apply(elementwise.sigmoid, [this]);
  }
  erf(): Tensor {
    return apply(elementwise.erf, [this]);
  }
  abs(): Tensor {
    return apply(elementwise.abs, [this]);
  }
  sign(): Tensor {
    return apply(elementwise.sign, [this]);
  }
  floor(): Tensor {
    return apply(elementwise.floor, [this]);
  }
  ceil(): Tensor {
    return this.neg().floor().neg();
  }
  /** To the nearest whole number, halves to the even one. */
  round(): Tensor {
    return apply(elementwise.round, [this]);
  }
  /** Into [low, high]; one of them may be absent. The gradient passes where the value is kept, bounds included. */
  clamp(low?: number, high?: number): Tensor {
    const raised = low === undefined ? this.self() : this.less(low).where(low, this);
    return high === undefined ? raised : this.greater(high).where(high, raised);
  }
  square(): Tensor {
    return this.mul(this);
  }
  /** max(x, 0), with slope 0 at 0. */
  relu(): Tensor {
    return apply(elementwise.relu, [this]);
  }
  /** log(1 + exp(x)), for x of any size. */
  softplus(): Tensor {
    return apply(elementwise.softplus, [this]);
  }
  /** x sigmoid(x) */
  silu(): Tensor {
    return this.mul(this.sigmoid());
  }
  /** The exact one: x (1 + erf(x / sqrt 2)) / 2 */
  gelu(): Tensor {
    return this.mul(this.mul(Math.SQRT1_2).erf().add(1)).mul(0.5);
  }
  /** Float to integer rounds towards zero, f32 to f16 to the nearest; what f16 cannot hold becomes infinite. */
  cast(to: DType): Tensor {
    if (to === this.dtype) return this.self();
    checkDType("cast", to);
    if (to === "f16" && this.node.op === leaves.constant) return full(this.shape, this.node.attrs.value as number, to);
    const direct = to === "f32" || this.dtype === "f32" || (to !== "f16" && this.dtype !== "f16");
    return direct ? apply(elementwise.cast, [this], { to }) : this.cast("f32").cast(to);
  }
  /** The same value, through which no gradient flows. */
  detach(): Tensor {
    return apply(elementwise.detach, [this]);
  }

  // ---- movement ----------------------------------------------------------------------------------------------------

  /** One size may be -1: it follows from the others. */
  reshape(shape: Shape): Tensor {
    const known = shape.reduce((p, n) => (n === -1 ? p : p * n), 1);
    const to = shape.map((n) => (n === -1 ? numel(this.shape) / known : n));
    checkShape("reshape", to);
    return sameShape(to, this.shape) ? this.self() : apply(movement.reshape, [this], { to });
  }
  permute(order: readonly number[]): Tensor {
    const moved = apply(movement.permute, [this], { order });
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
    return apply(movement.expand, [this.reshape([...new Array<number>(lead).fill(1), ...this.shape])], { to: shape });
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
  sliceWith(attrs: movement.SliceAttrs): Tensor {
    return sameShape(attrs.size, this.shape) && attrs.step.every((s) => s === 1)
      ? this.self()
      : apply(movement.slice, [this], attrs);
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
  padWith(attrs: movement.PadAttrs): Tensor {
    const nothing = [...attrs.low, ...attrs.high, ...attrs.holes].every((n) => n === 0);
    return nothing ? this.self() : apply(movement.pad, [this], attrs);
  }
  /** This and `others`, one after another along an axis. */
  concat(others: readonly Tensor[], axis: number): Tensor {
    const attrs = { axis: axisOf("concat", axis, this.rank) };
    let parts: Tensor[] = [this, ...others];
    // Nested, few at a time: a kernel can bind only so many tensors, and between nested ones the fuser can cut.
    while (parts.length > CONCAT) {
      const all = parts;
      parts = all.flatMap((_, i) =>
        i % CONCAT === 0 ? [apply(movement.concat, all.slice(i, i + CONCAT), attrs)] : [],
      );
    }
    return apply(movement.concat, parts, attrs);
  }
  /** einops: `x.rearrange("b (h w) c -> b c h w", { h: 8 })`. */
  rearrange(pattern: string, sizes: Readonly<Record<string, number>> = {}): Tensor {
    return rearranged("rearrange", this, pattern, sizes);
  }
  /** einops: new axes repeat the value: `x.repeat("h w -> (h r) w", { r: 2 })`. */
  repeat(pattern: string, sizes: Readonly<Record<string, number>> = {}): Tensor {
    return rearranged("repeat", this, pattern, sizes);
  }
  /** einops: axes that the right side lacks are reduced: `x.reduce("b (h s) c -> b h c", "mean", { s: 2 })`. */
  reduce(pattern: string, how: "sum" | "mean" | "max" | "min", sizes: Readonly<Record<string, number>> = {}): Tensor {
    return rearranged("reduce", this, pattern, sizes, (x, axes) => x[how](axes));
  }
  /** i32 [n] = 0, 1, ..., n - 1. A method, so that op records can make one without importing this module. */
  arange(n: number): Tensor {
    const known = ranges.get(n) ?? tensor(Int32Array.from({ length: n }, (_, i) => i));
    ranges.delete(n);
    ranges.set(n, known);
    for (const length of ranges.keys()) if (ranges.size > RANGES) ranges.delete(length);
    return known;
  }

  // ---- reductions --------------------------------------------------------------------------------------------------

  sum(axis?: number | readonly number[], o: ReduceOptions = {}): Tensor {
    return reduction(reduce.sum, this, axis, o);
  }
  mean(axis?: number | readonly number[], o: ReduceOptions = {}): Tensor {
    if (this.dtype === "f16") return this.cast("f32").mean(axis, o).cast("f16"); // the sum alone may be more than f16 holds
    if (!isFloat(this.dtype))
      throw new DTypeError(`mean: expected f32 or f16, got ${this.dtype} (cast it: x.cast("f32"))`);
    const total = this.sum(axis, o);
    return total.mul(numel(total.shape) / numel(this.shape));
  }
  max(axis?: number | readonly number[], o: ReduceOptions = {}): Tensor {
    return reduction(reduce.max, this, axis, o);
  }
  min(axis?: number | readonly number[], o: ReduceOptions = {}): Tensor {
    // Whole numbers are turned around by ~x, which unlike -x has no exceptions.
    const turned = (t: Tensor): Tensor =>
      full([], t.dtype === "u32" ? 0xffffffff : -1, t.dtype)
        .expand(t.shape)
        .sub(t);
    if (!isFloat(this.dtype)) return turned(turned(this).max(axis, o));
    return this.neg().max(axis, o).neg();
  }

  // ---- scans and sorting -------------------------------------------------------------------------------------------

  /** Running sums along an axis; `reverse` runs from the last element to the first. */
  cumsum(axis: number, o: ScanOptions = {}): Tensor {
    return alongAxis("cumsum", scans.cumsum, [this], axis, o);
  }
  /** h_i = a_i h_{i-1} + b_i along an axis, with b = this and h = 0 before the first. */
  linearScan(a: Tensor, axis: number, o: ScanOptions = {}): Tensor {
    return alongAxis("linearScan", scans.linearScan, [this, a.expand(this.shape)], axis, o);
  }
  /** i32: positions along an axis in the order of their values, equal ones in increasing order. No gradient. */
  argsort(axis = -1, o: { descending?: boolean } = {}): Tensor {
    const swap = swapLast("argsort", axis, this.rank);
    const x = this.permute(swap);
    const attrs = { descending: o.descending ?? false, of: this.dtype === "i32" ? "i32" : "f32" };
    const rows = x.reshape([numel(x.shape.slice(0, -1)), x.shape[this.rank - 1]]);
    return apply(argsortOp, [rows], attrs).reshape(x.shape).permute(swap);
  }

  /**
   * exp(x) / sum(exp(x)) along an axis. `past`, for the last axis: row i of [..., rows, columns] is over the columns
   * j <= i + past alone, and zero elsewhere. Throws ShapeError when given for another axis.
   */
  softmax(axis = -1, { past }: composite.SoftmaxAttrs = {}): Tensor {
    const swap = swapLast("softmax", axis, this.rank);
    if (past !== undefined && swap.some((a, i) => a !== i))
      throw new ShapeError(`softmax: a \`past\` is for the last axis, not axis ${axis} of ${show(this.shape)}`);
    return apply(composite.softmax, [this.permute(swap)], past === undefined ? none : { past }).permute(swap);
  }
  /** [outer, inner, groups, channels] -> [outer, groups, 2]: mean and 1 / sqrt(variance + eps). */
  moments(eps: number): Tensor {
    return apply(composite.moments, [this], { eps });
  }

  // ---- products ----------------------------------------------------------------------------------------------------

  /**
   * [..., m, k] @ [..., k, n]; leading axes broadcast, and a vector is a row on the left, a column on the right. `halves`:
   * f16 holds every element of both exactly, so that f16 matrix units may multiply them (f16 tensors say so themselves).
   * `triangle`: which half of the left matrices, or of the result, counts; what lies in the other is taken for, or made, zero.
   */
  matmul(y: Tensor, o: MatmulAttrs = none): Tensor {
    if (!(y instanceof Tensor)) throw new TypeError(`matmul: expected a tensor, got ${got(y)}`);
    if (this.rank === 1 && y.rank > 0) return dropAxis(this.reshape([1, -1]).matmul(y, o), y.rank === 1 ? -1 : -2);
    if (y.rank === 1 && this.rank > 0) return dropAxis(this.matmul(y.reshape([-1, 1]), o), -1);
    const [m, k] = this.shape.slice(-2);
    const n = y.shape[y.rank - 1];
    if (this.rank < 2 || y.rank < 2 || k !== y.shape[y.rank - 2]) {
      throw new ShapeError(
        `matmul: inner dimensions differ: ${show(this.shape)} @ ${show(y.shape)} (${k} vs ${y.shape[y.rank - 2]})`,
      );
    }
    if (y.rank === 2 && !(o.triangle && this.rank > 2))
      return apply(matmulOp, [this.reshape([numel(this.shape.slice(0, -1)), k]), y], o).reshape([
        ...this.shape.slice(0, -1),
        n,
      ]);
    const batch = broadcast("matmul", this.shape.slice(0, -2), y.shape.slice(0, -2));
    const folded = batch.length <= 2 ? batch : [numel(batch.slice(0, -1)), batch[batch.length - 1]];
    const a = this.expand([...batch, m, k]).reshape([...folded, m, k]);
    const b = y.expand([...batch, k, n]).reshape([...folded, k, n]);
    return apply(matmulOp, [a, b], o).reshape([...batch, m, n]);
  }
  /**
   * Channels-last convolution: x [b, ...spatial, c], w [...kernel, c / groups, o] -> [b, ...spatial', o], with one to three
   * spatial axes. Throws ShapeError where shapes or options disagree.
   */
  conv(w: Tensor, o: ConvOptions = {}): Tensor {
    const attrs = convolve.convAttrs("conv", this.shape, w.shape, o);
    if (convolve.isPointwise(w.shape, attrs)) return this.matmul(w.reshape(w.shape.slice(-2)));
    if (convolve.isPatches(w.shape, attrs)) {
      const { keep, split, order, merge } = convolve.patches(this.shape, w.shape);
      const cut = this.sliceWith({ start: keep.map(() => 0), size: keep, step: keep.map(() => 1) });
      const blocks = cut.reshape(split).permute(order).reshape(merge);
      return blocks.matmul(w.reshape([-1, w.shape[w.rank - 1]]));
    }
    const lifted = this.reshape(convolve.withUnits(this.shape, 1));
    const y = convolveParts(lifted, w.reshape(convolve.withUnits(w.shape, 0)), attrs);
    return y.reshape(convolve.withoutUnits(y.shape, this.rank));
  }
  /**
   * Transposed convolution (torch's conv_transpose1d to 3d): x [b, ...spatial, c], w [...kernel, o / groups, c] ->
   * [b, ...spatial', o] with sizes (n - 1) stride - padding + dilation (kernel - 1) + outputPadding + 1. It is the gradient
   * of the convolution of that weight and these options with respect to its input.
   */
  convTranspose(w: Tensor, o: ConvTransposeOptions = {}): Tensor {
    const attrs = convolve.transposeAttrs("convTranspose", this.shape, w.shape, o);
    const lifted = this.reshape(convolve.withUnits(this.shape, 1));
    const y = convolveBack(lifted, w.reshape(convolve.withUnits(w.shape, 0)), attrs);
    return y.reshape(convolve.withoutUnits(y.shape, this.rank));
  }
  convWith(w: Tensor, attrs: convolution.ConvAttrs): Tensor {
    return apply(convolution.conv, [this, w], attrs);
  }
  /** this = gradient of a convolution's output. */
  convInputGrad(w: Tensor, attrs: convolution.InputGradAttrs): Tensor {
    return apply(convolution.convInputGrad, [this, w], attrs);
  }
  /** this = input of a convolution, g = gradient of its output. */
  convWeightGrad(g: Tensor, attrs: convolution.WeightGradAttrs): Tensor {
    return apply(convolution.convWeightGrad, [this, g], attrs);
  }
  /** For nn/along.ts: this = [outer, columns, inner] -> [outer, rows, inner]. */
  resample(band: Band): Tensor {
    return apply(resampleOp, [this], { band });
  }
  /** For nn/pooling.ts: this = [b, d, h, w, c]; the tap of each window where it is largest. */
  maxPoolTap(attrs: pools.WindowAttrs): Tensor {
    return apply(pools.maxPoolTap, [this], attrs);
  }
  poolTake(taps: Tensor, attrs: pools.WindowAttrs): Tensor {
    return apply(pools.poolTake, [this, taps], attrs);
  }
  poolSpread(taps: Tensor, attrs: pools.SpreadAttrs): Tensor {
    return apply(pools.poolSpread, [this, taps], attrs);
  }
  /** softmax(scale q k^T) v per head; q [b, n, heads, d], k and v [b, m, heads, d]. */
  attention(k: Tensor, v: Tensor, o: { scale?: number; causal?: boolean } = {}): Tensor {
    return apply(composite.attention, [this, k, v], {
      scale: o.scale ?? this.shape[3] ** -0.5,
      causal: o.causal ?? false,
    });
  }

  // ---- lookups ----------------------------------------------------------------------------------------------------

  /** Rows of a table [n, d] by an i32 index of any shape: [...index, d]. Indices outside the table are clamped. */
  gatherRows(index: Tensor): Tensor {
    return apply(gathers.gatherRows, [this, index.reshape([-1])]).reshape([...index.shape, this.shape[1]]);
  }
  gatherRowsGrad(index: Tensor, rows: number): Tensor {
    return apply(gathers.gatherRowsGrad, [this, index], { rows });
  }
  /** For Rng: this = generator state u32[4]. */
  random(attrs: RandomAttrs, ...table: Tensor[]): Tensor {
    return apply(randomOp, [this, ...table], attrs);
  }
}

function operand(op: string, y: Operand, like: Tensor): Tensor {
  if (y instanceof Tensor) return y;
  if (typeof y !== "number") throw new TypeError(`${op}: expected a tensor or a number, got ${got(y)}`);
  if (!isFloat(like.dtype) && !Number.isInteger(y))
    throw new DTypeError(`${y} is not a whole number: cast the ${like} to f32 first`);
  return full([], y, like.dtype);
}

function binary(op: AnyOp, x: Tensor, y: Operand): Tensor {
  if (x.dtype === "f16" && typeof y === "number") {
    const result = binary(op, x.cast("f32"), y); // the number is not rounded to f16, the result is
    return result.dtype === "f32" ? result.cast("f16") : result;
  }
  const other = operand(op.name, y, x);
  const shape = broadcast(op.name, x.shape, other.shape);
  return apply(op, [x.expand(shape), other.expand(shape)]);
}

/** Without an axis of size 1. */
function dropAxis(x: Tensor, axis: number): Tensor {
  return x.reshape(x.shape.filter((_, i) => i !== axis + x.rank));
}

/** Order of the axes that brings one to the end; the same order brings it back. */
function swapLast(op: string, axis: number, rank: number): number[] {
  const [a, last] = [axisOf(op, axis, rank), rank - 1];
  return Array.from({ length: rank }, (_, i) => (i === a ? last : i === last ? a : i));
}

/** Carries out an einops pattern. */
function rearranged(
  op: EinopsName,
  x: Tensor,
  pattern: string,
  sizes: Readonly<Record<string, number>>,
  reduceOver: (x: Tensor, axes: number[]) => Tensor = (y) => y,
): Tensor {
  const { split, reduced, order, apart, grown, merge } = parseEinops(op, pattern, x.shape, sizes);
  const parts = x.reshape(split);
  const kept = reduced.length > 0 ? reduceOver(parts, reduced) : parts;
  return kept.permute(order).reshape(apart).expand(grown).reshape(merge);
}

/** An op on [outer, n, inner], applied along any axis. */
function alongAxis(name: string, op: AnyOp, ins: readonly Tensor[], axis: number, o: ScanOptions): Tensor {
  const { shape } = ins[0];
  const a = axisOf(name, axis, shape.length);
  const folded = [numel(shape.slice(0, a)), shape[a], numel(shape.slice(a + 1))];
  const rows = ins.map((x) => x.reshape(folded));
  return apply(op, rows, { reverse: o.reverse ?? false }).reshape(shape);
}

function reduction(op: AnyOp, x: Tensor, axis: number | readonly number[] | undefined, o: ReduceOptions): Tensor {
  const axes = axesOf(op.name, axis, x.rank);
  const empty = (): Tensor =>
    full(
      x.shape.map((n, i) => (axes.includes(i) ? 1 : n)),
      0,
      x.dtype,
    );
  const kept = axes.length === 0 ? x : numel(x.shape) === 0 ? empty() : apply(op, [x], { axes });
  return o.keepdims ? kept : kept.reshape(x.shape.filter((_, i) => !axes.includes(i)));
}

/** Runs a program with one output and returns where the value is. */
function evaluate(node: Node): Storage {
  const program: Program = { name: "eager", inputs: {}, outputs: { value: node }, assigns: [], reused: false };
  return device().run(selfContained(program), {}).value;
}

/** Tensor over values that a device or the host holds. */
export function fromStorage(storage: Storage): Tensor {
  return new Tensor(leaf(leaves.data, none, storage.shape, storage.dtype, storage));
}

/** Values one after another, as they were given. Throws where they are nested, or no numbers. */
function flatten(values: Data | number | readonly number[], dtype: DType | undefined): Data | readonly number[] {
  if (typeof values === "number") return [values];
  if (Array.isArray(values)) {
    const odd = values.find((v) => typeof v !== "number" && typeof v !== "boolean");
    if (odd?.length !== undefined && typeof odd !== "string")
      throw new ShapeError("tensor: nested arrays: give flat values and a shape, tensor([1, 2, 3, 4], [2, 2])");
    if (odd !== undefined) throw new TypeError(`tensor: expected numbers, got ${got(odd)} among them`);
    return values;
  }
  const host = [Float32Array, Int32Array, Uint32Array].some((type) => values instanceof type);
  if (!host && !(dtype && ArrayBuffer.isView(values)))
    throw new TypeError(
      `tensor: expected a number, an array of numbers or a Float32Array, Int32Array or Uint32Array, got ${got(values)}`,
    );
  return values as Data;
}

/** Tensor of host values: a typed array or flat numbers (as f32) with a shape; without one, a vector. */
export function tensor(values: Data | number | readonly number[], shape?: Shape, dtype?: DType): Tensor {
  if (dtype) checkDType("tensor", dtype);
  const flat = flatten(values, dtype);
  const to = shape ?? (typeof values === "number" ? [] : [flat.length]);
  checkShape("tensor", to);
  if (numel(to) !== flat.length) throw new ShapeError(`tensor: ${flat.length} values for shape ${show(to)}`);
  const type = dtype ?? (Array.isArray(flat) ? "f32" : dtypeOf(flat as Data));
  return fromStorage(new Storage(to, type, toData(type, flat)));
}

/** A constant tensor: costs nothing, kernels inline the value. */
export function full(shape: Shape, value: number, dtype: DType = "f32"): Tensor {
  checkShape("full", shape);
  checkDType("full", dtype);
  const held = dtype === "f16" ? roundHalf(value) : value;
  return new Tensor(intern(leaves.constant, [], { value: held }, shape, dtype));
}

export function zeros(shape: Shape): Tensor {
  checkShape("zeros", shape);
  return full(shape, 0);
}

export function ones(shape: Shape): Tensor {
  checkShape("ones", shape);
  return full(shape, 1);
}
