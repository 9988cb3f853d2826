// Reductions over a set of axes (kept as size 1; the Tensor methods drop them). `mean` is a sum times a constant. Of whole
// numbers too, exactly; their sums wrap.

import type { Draw } from "../../kernels/wgsl.ts";
import { numel, type Shape, stridesOf } from "../shape.ts";
import { type Array64, type Attrs, defineOp, type Law, numbers, type Sample } from "./op.ts";

export interface ReduceAttrs extends Attrs {
  readonly axes: readonly number[];
}

const keptShape = ([a]: readonly Shape[], { axes }: ReduceAttrs): Shape => a.map((n, i) => (axes.includes(i) ? 1 : n));

/** Calls `visit(element, index of its result)` for every element of `a`, in order. */
function eachInto(a: Array64, axes: readonly number[], visit: (x: number, into: number) => void): void {
  const out = a.shape.map((n, i) => (axes.includes(i) ? 1 : n));
  const strides = stridesOf(out);
  const point = a.shape.map(() => 0);
  for (let i = 0; i < a.data.length; i++) {
    let into = 0;
    for (let axis = 0; axis < point.length; axis++) if (!axes.includes(axis)) into += point[axis] * strides[axis];
    visit(a.data[i], into);
    for (let axis = point.length - 1; axis >= 0 && ++point[axis] === a.shape[axis]; axis--) point[axis] = 0;
  }
}

function draw(d: Draw): Sample<ReduceAttrs> {
  const shape = Array.from({ length: d.int(1, 4) }, () => d.int(1, 6));
  const axes = shape.flatMap((_, i) => (d.pick([true, false]) ? [i] : []));
  return { inputs: [{ shape }], attrs: { axes: axes.length > 0 ? axes : [d.int(0, shape.length - 1)] } };
}

/** Which of the reduced elements comes first does not matter. */
const anyOrder: Law<ReduceAttrs> = {
  name: "the order of what is reduced does not matter",
  of: ([x], { axes }) => ({ ins: [x.flip(axes)], after: (y) => y }),
};

export const sum = defineOp<ReduceAttrs>({
  name: "sum",
  dtype: numbers("sum"),
  shape: keptShape,
  reference: ([a], out, { axes }) => {
    out.data.fill(0);
    eachInto(a, axes, (x, i) => {
      out.data[i] += x;
    });
  },
  vjp: (g, [x]) => [g.expand(x.shape)],
  lower: { kind: "reduce", combine: "sum" },
  draw,
  rtol: 1e-5,
  why: "grows with the number of terms, of which samples have at most 1,296",
  sums: true,
  laws: [anyOrder],
});

/** Largest element; the gradient is shared equally among ties. */
export const max = defineOp<ReduceAttrs>({
  name: "max",
  dtype: numbers("max"),
  shape: keptShape,
  reference: ([a], out, { axes }) => {
    out.data.fill(numel(a.shape) === 0 ? 0 : Number.NEGATIVE_INFINITY);
    eachInto(a, axes, (x, i) => {
      out.data[i] = Math.max(out.data[i], x);
    });
  },
  vjp: (g, [x], y, { axes }) => {
    const hit = x.equal(y.expand(x.shape)).cast("f32");
    return [hit.mul(g.div(hit.sum(axes, { keepdims: true })).expand(x.shape))];
  },
  lower: { kind: "reduce", combine: "max" },
  draw,
  rtol: 0,
  laws: [anyOrder],
});
