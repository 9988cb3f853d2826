// The options of a convolution as people write them, and as attributes of the three-axis ops of conv.ts; and which
// convolutions are products of matrices already. Pure functions on shapes, called by tensor/product.ts and the nn layers.

import { ShapeError, show } from "../error.ts";
import { numel, type Shape } from "../shape.ts";
import type { ConvAttrs, InputGradAttrs, Three } from "./conv.ts";

/** Zeros around the data: the same on every side, per axis, or [before, after] per axis. */
export type Padding = number | readonly (number | readonly [before: number, after: number])[];

/** One number stands for every spatial axis. */
export interface ConvOptions {
  readonly stride?: number | readonly number[];
  /** "same" keeps the sizes; stride 1 only. An odd zero goes behind the data, as in torch. */
  readonly padding?: Padding | "same";
  readonly dilation?: number | readonly number[];
  /** Channels and filters form this many runs, each convolved for itself; as many as channels: depthwise. */
  readonly groups?: number;
}

export interface ConvTransposeOptions extends ConvOptions {
  readonly padding?: Padding;
  /** Sizes of results that the convolution would map to the same input differ by less than its stride: this many more. */
  readonly outputPadding?: number | readonly number[];
}

/** One value per spatial axis. Throws when there are more or fewer, or one is no whole number >= `least`. */
export function perAxis(
  op: string,
  name: string,
  value: number | readonly number[],
  axes: number,
  least: number,
): readonly number[] {
  const all = typeof value === "number" ? new Array<number>(axes).fill(value) : value;
  if (all.length !== axes) throw new ShapeError(`${op}: expected ${name} for ${axes} axes, got ${show(all)}`);
  if (all.some((v) => !Number.isInteger(v) || v < least))
    throw new ShapeError(`${op}: expected ${name} of whole numbers from ${least}, got ${show(all)}`);
  return all;
}

/** [before, after] per spatial axis. */
export function sidesOf(op: string, padding: Padding, axes: number): readonly (readonly [number, number])[] {
  const list = typeof padding === "number" ? new Array<number>(axes).fill(padding) : padding;
  const sides = list.map((p) => (typeof p === "number" ? ([p, p] as const) : p));
  for (const side of [0, 1])
    perAxis(
      op,
      "padding",
      sides.map((s) => s[side]),
      axes,
      0,
    );
  return sides;
}

/** Numbers per spatial axis for all three of them: `unit` for those that are not there. */
export function three(v: readonly number[], unit: number): Three {
  const [d, h, w] = [unit, unit, unit, ...v].slice(-3);
  return [d, h, w];
}

/** "same" as zeros per axis; an odd one goes behind. */
function sameSides(op: string, kernel: Shape, o: ConvOptions): readonly (readonly [number, number])[] {
  const dilation = perAxis(op, "dilation", o.dilation ?? 1, kernel.length, 1);
  if (perAxis(op, "stride", o.stride ?? 1, kernel.length, 1).some((s) => s !== 1))
    throw new ShapeError(`${op}: padding "same" needs stride 1, got ${show([o.stride ?? 1].flat())}`);
  return kernel.map((k, i) => {
    const all = dilation[i] * (k - 1);
    return [Math.floor(all / 2), Math.ceil(all / 2)];
  });
}

/** Throws unless a weight [...kernel, c / groups, o] fits x [b, ...spatial, c]. */
export function checkWeight(op: string, x: Shape, w: Shape, groups: number): void {
  const [channels, [c, o]] = [x[x.length - 1], w.slice(-2)];
  if (c * groups !== channels) {
    const share = groups === 1 ? "" : ` (${channels} in ${groups} groups)`;
    throw new ShapeError(
      `${op}: expected a weight [...kernel, ${channels / groups}, o]${share} for ${show(x)}, got ${show(w)}`,
    );
  }
  if (o % groups !== 0)
    throw new ShapeError(`${op}: the ${o} filters of ${show(w)} do not divide into ${groups} groups`);
}

/** Attributes for x [b, ...spatial, c] and w [...kernel, c / groups, o] of one rank from 3 to 5. */
export function convAttrs(op: string, x: Shape, w: Shape, o: ConvOptions): ConvAttrs {
  const attrs = commonAttrs(op, x, w, o);
  checkWeight(op, x, w, attrs.groups);
  return attrs;
}

function commonAttrs(op: string, x: Shape, w: Shape, o: ConvOptions): ConvAttrs {
  const axes = x.length - 2;
  if (axes < 1 || axes > 3 || w.length !== x.length) {
    throw new ShapeError(
      `${op}: expected "b ...spatial c" and "...kernel c o" of one rank from 3 to 5, got ${show(x)} and ${show(w)}`,
    );
  }
  const sides = o.padding === "same" ? sameSides(op, w.slice(0, axes), o) : sidesOf(op, o.padding ?? 0, axes);
  const lift = (name: string, value: number | readonly number[] | undefined): Three =>
    three(perAxis(op, name, value ?? 1, axes, 1), 1);
  const side = (i: 0 | 1): Three =>
    three(
      sides.map((s) => s[i]),
      0,
    );
  return {
    stride: lift("stride", o.stride),
    low: side(0),
    high: side(1),
    dilation: lift("dilation", o.dilation),
    groups: perAxis(op, "groups", o.groups ?? 1, 1, 1)[0],
  };
}

/**
 * Attributes of the input gradient that is this transposed convolution: x [b, ...spatial, c], w [...kernel, o / groups, c].
 * Sizes are (n - 1) stride - padding + dilation (kernel - 1) + outputPadding + 1 (torch's ConvTranspose).
 */
export function transposeAttrs(op: string, x: Shape, w: Shape, o: ConvTransposeOptions): InputGradAttrs {
  const a = commonAttrs(op, x, w, o);
  const channels = x[x.length - 1];
  if (w[w.length - 1] !== channels || channels % a.groups !== 0)
    throw new ShapeError(
      `${op}: expected a weight [...kernel, o / groups, ${channels}] and groups that divide ${channels} for ${show(x)}, got ${show(w)} and ${a.groups}`,
    );
  const axes = x.length - 2;
  const extra = three(perAxis(op, "outputPadding", o.outputPadding ?? 0, axes, 0), 0);
  const [from, kernel] = [three(x.slice(1, -1), 1), three(w.slice(0, axes), 1)];
  if (extra.some((e, i) => e > 0 && e >= Math.max(a.stride[i], a.dilation[i])))
    throw new ShapeError(
      `${op}: outputPadding ${show(extra.slice(-axes))} must be smaller than the stride ${show(a.stride.slice(-axes))} or the dilation`,
    );
  const size = (i: 0 | 1 | 2): number =>
    (from[i] - 1) * a.stride[i] - a.low[i] - a.high[i] + a.dilation[i] * (kernel[i] - 1) + extra[i] + 1;
  const input: Three = [size(0), size(1), size(2)];
  if (input.some((n) => n < 1))
    throw new ShapeError(`${op}: padding leaves nothing of ${show(x)}: sizes ${show(input.slice(-axes))}`);
  // What outputPadding adds lies behind the zeros there, so that the convolution back has the sizes of x.
  const high: Three = [a.high[0] - extra[0], a.high[1] - extra[1], a.high[2] - extra[2]];
  return { ...a, high, input };
}

/** Unit axes put in before axis `at`, up to rank 5. */
export function withUnits(shape: Shape, at: number): Shape {
  return [...shape.slice(0, at), ...new Array<number>(5 - shape.length).fill(1), ...shape.slice(at)];
}

/** [b, d, h, w, c] without the unit axes that `withUnits(shape, 1)` put in. */
export function withoutUnits(shape: Shape, rank: number): Shape {
  return [shape[0], ...shape.slice(6 - rank)];
}

const unpadded = (a: ConvAttrs): boolean => [...a.low, ...a.high].every((p) => p === 0);

/** A matrix product of channels at every position. */
export function isPointwise(w: Shape, a: ConvAttrs): boolean {
  return a.groups === 1 && numel(w.slice(0, -2)) === 1 && a.stride.every((s) => s === 1) && unpadded(a);
}

/**
 * Blocks side by side (patch embeddings), larger than 2 x 2 x 2: unfolding copies each element once, so that one plain
 * matrix product does the rest, and its gradients are two more, without the gaps that a stride leaves in the implicit one.
 */
export function isPatches(w: Shape, a: ConvAttrs): boolean {
  const kernel = three(w.slice(0, -2), 1);
  const tiled = kernel.every((k, i) => k === a.stride[i] && a.dilation[i] === 1);
  return a.groups === 1 && tiled && unpadded(a) && numel(kernel) > 8;
}

/** How x [b, ...spatial, c] becomes rows of blocks [b, ...spatial', kernel * c]: sizes kept, split, order, merged. */
export function patches(x: Shape, w: Shape): { keep: Shape; split: Shape; order: readonly number[]; merge: Shape } {
  const kernel = w.slice(0, -2);
  const counts = kernel.map((k, i) => Math.floor(x[i + 1] / k));
  if (counts.some((n) => n < 1)) throw new ShapeError(`conv: kernel ${show(kernel)} does not fit into ${show(x)}`);
  const [b, c] = [x[0], x[x.length - 1]];
  const axes = kernel.map((_, i) => i);
  return {
    keep: [b, ...counts.map((n, i) => n * kernel[i]), c],
    split: [b, ...counts.flatMap((n, i) => [n, kernel[i]]), c],
    order: [0, ...axes.map((i) => 1 + 2 * i), ...axes.map((i) => 2 + 2 * i), 1 + 2 * axes.length],
    merge: [b, ...counts, numel(kernel) * c],
  };
}
