// Movement ops: reshape, permute, expand, slice, pad, concatenate. In kernels they are index maps (`read`); the
// references move the data with plain loops, so that the two can be held against each other.

import type { Draw } from "../../kernels/wgsl.ts";
import { DTypeError, ShapeError, show } from "../error.ts";
import { checkShape, numel, type Shape, stridesOf } from "../shape.ts";
import { type Array64, type Attrs, defineOp, type Sample } from "./op.ts";
import { Index, reshapeIndex } from "./view.ts";

export interface ReshapeAttrs extends Attrs {
  readonly to: readonly number[];
}
export interface PermuteAttrs extends Attrs {
  readonly order: readonly number[];
}
export interface SliceAttrs extends Attrs {
  readonly start: readonly number[];
  /** Sizes of the result. */
  readonly size: readonly number[];
  /** May be negative: a flip. */
  readonly step: readonly number[];
}
export interface PadAttrs extends Attrs {
  readonly low: readonly number[];
  readonly high: readonly number[];
  /** Zeros put between neighbouring elements. */
  readonly holes: readonly number[];
}
export interface ConcatAttrs extends Attrs {
  readonly axis: number;
}

function shapeOf(d: Draw, least = 1): number[] {
  return Array.from({ length: d.int(least, 4) }, () => d.int(1, 4));
}

/** out[f(point)] = in[point] for every point of `shape`; points mapped to null are skipped. */
function scatterLoop(
  shape: Shape,
  from: Array64,
  to: Array64,
  f: (point: readonly number[]) => readonly number[],
): void {
  const point = shape.map(() => 0);
  const strides = stridesOf(to.shape);
  for (let i = 0; i < from.data.length; i++) {
    const target = f(point).reduce((sum, x, axis) => sum + x * strides[axis], 0);
    to.data[target] = from.data[i];
    for (let axis = shape.length - 1; axis >= 0 && ++point[axis] === shape[axis]; axis--) point[axis] = 0;
  }
}

/** out[point] = in[f(point)] for every point of the output. */
function gatherLoop(from: Array64, to: Array64, f: (point: readonly number[]) => readonly number[]): void {
  const point = to.shape.map(() => 0);
  const strides = stridesOf(from.shape);
  for (let i = 0; i < to.data.length; i++) {
    to.data[i] = from.data[f(point).reduce((sum, x, axis) => sum + x * strides[axis], 0)];
    for (let axis = to.shape.length - 1; axis >= 0 && ++point[axis] === to.shape[axis]; axis--) point[axis] = 0;
  }
}

export const reshape = defineOp<ReshapeAttrs>({
  name: "reshape",
  shape: ([a], { to }) => {
    checkShape("reshape", to);
    if (numel(a) !== numel(to)) {
      throw new ShapeError(`reshape: ${show(a)} has ${numel(a)} elements, ${show(to)} has ${numel(to)}`);
    }
    return to;
  },
  reference: ([a], out) => out.data.set(a.data),
  vjp: (g, [x]) => [g.reshape(x.shape)],
  lower: {
    kind: "view",
    linear: true,
    read: ({ to }, node, at, space) => [{ src: 0, at: reshapeIndex(space, at, to, node.src[0].shape), when: [] }],
  },
  draw: (d) => {
    const shape = shapeOf(d);
    const flat = numel(shape);
    const cut = d.pick(Array.from({ length: flat }, (_, i) => i + 1).filter((n) => flat % n === 0));
    return {
      inputs: [{ shape }],
      attrs: { to: d.pick([[flat], [cut, flat / cut], [1, flat / cut, cut], [...shape].reverse()]) },
    };
  },
  rtol: 0,
});

export const permute = defineOp<PermuteAttrs>({
  name: "permute",
  shape: ([a], { order }) => {
    if (order.length !== a.length || [...order].sort((x, y) => x - y).some((o, i) => o !== i)) {
      throw new ShapeError(`permute: ${show(order)} is not an order of the axes of ${show(a)}`);
    }
    return order.map((o) => a[o]);
  },
  reference: ([a], out, { order }) => scatterLoop(a.shape, a, out, (p) => order.map((o) => p[o])),
  vjp: (g, _, __, { order }) => [g.permute(order.map((_, i) => order.indexOf(i)))],
  lower: {
    kind: "view",
    read: ({ order }, _, at) => [{ src: 0, at: order.map((_, i) => at[order.indexOf(i)]), when: [] }],
  },
  draw: (d) => {
    const shape = shapeOf(d);
    const order: number[] = [];
    for (const axis of shape.keys()) order.splice(d.int(0, order.length), 0, axis);
    return { inputs: [{ shape }], attrs: { order } };
  },
  rtol: 0,
});

/** Repeats dimensions of size 1. Ranks are equal: broadcasting adds leading ones with a reshape first. */
export const expand = defineOp<ReshapeAttrs>({
  name: "expand",
  shape: ([a], { to }) => {
    if (a.length !== to.length || a.some((n, i) => n !== 1 && n !== to[i])) {
      throw new ShapeError(`expand: cannot expand ${show(a)} to ${show(to)} (only dimensions of size 1 grow)`);
    }
    return to;
  },
  reference: ([a], out) => gatherLoop(a, out, (p) => p.map((x, i) => (a.shape[i] === 1 ? 0 : x))),
  vjp: (g, [x], _, { to }) => {
    const grown = to.flatMap((n, i) => (x.shape[i] !== n ? [i] : []));
    return [grown.length === 0 ? g : g.sum(grown, { keepdims: true })];
  },
  lower: {
    kind: "view",
    read: (_, node, at) => [
      { src: 0, at: at.map((x, i) => (node.src[0].shape[i] === 1 ? Index.constant(x.space, 0) : x)), when: [] },
    ],
  },
  draw: (d) => {
    const to = shapeOf(d);
    return { inputs: [{ shape: to.map((n) => d.pick([n, 1])) }], attrs: { to } };
  },
  rtol: 0,
});

export const slice = defineOp<SliceAttrs>({
  name: "slice",
  shape: ([a], { start, size, step }) => {
    checkShape("slice", size);
    a.forEach((n, i) => {
      const last = start[i] + (size[i] - 1) * step[i];
      if (size[i] > 0 && (start[i] < 0 || start[i] >= n || last < 0 || last >= n)) {
        throw new ShapeError(
          `slice: axis ${i} of ${show(a)}: elements ${start[i]} to ${last} do not lie in 0 to ${n - 1}`,
        );
      }
    });
    return size;
  },
  reference: ([a], out, { start, step }) => gatherLoop(a, out, (p) => p.map((x, i) => start[i] + x * step[i])),
  vjp: (g, [x], _, { start, size, step }) => {
    const flipped = g.flip(step.flatMap((s, i) => (s < 0 ? [i] : [])));
    const low = start.map((s, i) => (step[i] < 0 ? s + (size[i] - 1) * step[i] : s));
    const holes = step.map((s) => Math.abs(s) - 1);
    const high = x.shape.map((n, i) => n - low[i] - ((size[i] - 1) * (holes[i] + 1) + 1));
    return [flipped.padWith({ low, high, holes })];
  },
  lower: {
    kind: "view",
    read: ({ start, step }, _, at) => [{ src: 0, at: at.map((x, i) => x.times(step[i]).plus(start[i])), when: [] }],
  },
  draw: (d) => {
    const shape = shapeOf(d);
    const size = shape.map((n) => d.int(1, n));
    const step = shape.map(
      (n, i) => d.int(1, size[i] === 1 ? 1 : Math.floor((n - 1) / (size[i] - 1))) * d.pick([1, 1, -1]),
    );
    const start = shape.map((n, i) => {
      const span = (size[i] - 1) * Math.abs(step[i]);
      const first = d.int(0, n - 1 - span);
      return step[i] > 0 ? first : first + span;
    });
    return { inputs: [{ shape }], attrs: { start, size, step } };
  },
  rtol: 0,
});

export const pad = defineOp<PadAttrs>({
  name: "pad",
  shape: ([a], { low, high, holes }) => {
    const out = a.map((n, i) => low[i] + high[i] + n + Math.max(0, n - 1) * holes[i]);
    if ([...low, ...high, ...holes].some((n) => n < 0))
      throw new ShapeError(`pad: negative padding of ${show(a)} (use slice)`);
    return out;
  },
  reference: ([a], out, { low, holes }) => {
    out.data.fill(0);
    scatterLoop(a.shape, a, out, (p) => p.map((x, i) => low[i] + x * (holes[i] + 1)));
  },
  vjp: (g, [x], _, { low, holes }) => [g.sliceWith({ start: low, size: x.shape, step: holes.map((h) => h + 1) })],
  lower: {
    kind: "view",
    read: ({ low, holes }, node, at) => {
      const inner = node.src[0].shape;
      const shifted = at.map((x, i) => x.plus(-low[i]));
      const when = shifted.map((index, i) => ({
        index,
        lo: 0,
        hi: (inner[i] - 1) * (holes[i] + 1) + 1,
        step: holes[i] + 1,
      }));
      return [{ src: 0, at: shifted.map((x, i) => x.over(holes[i] + 1)), when }];
    },
  },
  draw: (d) => {
    const shape = shapeOf(d);
    const sizes = (): number[] => shape.map(() => d.int(0, 2));
    return { inputs: [{ shape }], attrs: { low: sizes(), high: sizes(), holes: sizes() } };
  },
  rtol: 0,
});

export const concat = defineOp<ConcatAttrs>({
  name: "concat",
  shape: (ins, { axis }) => {
    for (const s of ins) {
      if (s.length !== ins[0].length || s.some((n, i) => i !== axis && n !== ins[0][i])) {
        throw new ShapeError(`concat: ${show(ins[0])} and ${show(s)} differ outside axis ${axis}`);
      }
    }
    return ins[0].map((n, i) => (i === axis ? ins.reduce((sum, s) => sum + s[axis], 0) : n));
  },
  dtype: (types) => {
    const odd = types.find((t) => t !== types[0]);
    if (odd) throw new DTypeError(`concat: dtypes differ: ${types[0]} and ${odd} (cast one of them)`);
    return types[0];
  },
  reference: (ins, out, { axis }) => {
    let offset = 0;
    for (const a of ins) {
      const from = offset;
      scatterLoop(a.shape, a, out, (p) => p.map((x, i) => (i === axis ? x + from : x)));
      offset += a.shape[axis];
    }
  },
  vjp: (g, ins, _, { axis }) => {
    let offset = 0;
    return ins.map((x) => {
      const part = g.slice(axis, offset, offset + x.shape[axis]);
      offset += x.shape[axis];
      return part;
    });
  },
  lower: {
    kind: "view",
    read: ({ axis }, node, at) => {
      let offset = 0;
      return node.src.map((s, src) => {
        const index = at[axis].plus(-offset);
        offset += s.shape[axis];
        const moved = at.map((x, i) => (i === axis ? index : x));
        return { src, at: moved, when: [{ index, lo: 0, hi: s.shape[axis], step: 1 }] };
      });
    },
  },
  draw: (d): Sample<ConcatAttrs> => {
    const shape = shapeOf(d);
    const axis = d.int(0, shape.length - 1);
    const part = (): { shape: number[] } => ({ shape: shape.map((n, i) => (i === axis ? d.int(1, 4) : n)) });
    return { inputs: [part(), part(), part()], attrs: { axis } };
  },
  rtol: 0,
});
