// Scans along the middle axis of [outer, n, inner]: cumsum, and the linear recurrence h_i = a_i h_{i-1} + b_i that products
// and prefix computations follow from. The methods of Tensor bring any axis into this form.

import { cumsum as cumsumFamily, linearScan as linearFamily } from "../../kernels/scan.ts";
import type { Draw } from "../../kernels/wgsl.ts";
import { ShapeError, show } from "../error.ts";
import { type Shape, sameShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { type Attrs, defineOp, familyReference, floats, type KernelLowering } from "./op.ts";

export interface ScanAttrs extends Attrs {
  /** From the last element to the first. */
  readonly reverse: boolean;
}

function threeAxes(op: string, ins: readonly Shape[]): Shape {
  const odd = ins.find((s) => s.length !== 3 || !sameShape(s, ins[0]));
  if (odd)
    throw new ShapeError(`${op}: expected "outer n inner", the same for all, got ${ins.map(show).join(" and ")}`);
  return ins[0];
}

const lowering = (family: typeof cumsumFamily): KernelLowering<ScanAttrs> => ({
  kind: "kernel",
  family,
  spec: ([b], { reverse }) => ({ outer: b[0], length: b[1], inner: b[2], reverse }),
});

const drawShape = (d: Draw): number[] => [d.int(1, 3), d.int(1, 6), d.int(1, 3)];

/** h_i = h_{i-1} + b_i. */
export const cumsum = defineOp<ScanAttrs>({
  name: "cumsum",
  dtype: floats("cumsum"),
  shape: (ins) => threeAxes("cumsum", ins),
  reference: familyReference(lowering(cumsumFamily)),
  vjp: (g, _, __, { reverse }) => [g.cumsum(1, { reverse: !reverse })],
  lower: lowering(cumsumFamily),
  draw: (d) => ({ inputs: [{ shape: drawShape(d) }], attrs: { reverse: d.pick([false, true]) } }),
  rtol: 1e-5,
  why: "a handful of terms added one after another; long rows are tested in the kernel family",
});

/** The element before each one (after it where `back`), 0 where there is none. */
function shifted(x: Tensor, back: boolean): Tensor {
  const n = x.shape[1];
  const wider = x.pad([
    [0, 0],
    [Number(!back), Number(back)],
    [0, 0],
  ]);
  return wider.slice(1, Number(back), Number(back) + n);
}

/** h_i = a_i h_{i-1} + b_i for b, a; h before the first is 0, so a_0 does not matter. */
export const linearScan = defineOp<ScanAttrs>({
  name: "linearScan",
  dtype: floats("linearScan"),
  shape: (ins) => threeAxes("linearScan", ins),
  reference: familyReference(lowering(linearFamily)),
  // The adjoint runs the other way: l_i = g_i + a_{i+1} l_{i+1}; then db_i = l_i and da_i = l_i h_{i-1}.
  vjp: (g, [, a], h, { reverse }) => {
    const adjoint = g.linearScan(shifted(a, !reverse), 1, { reverse: !reverse });
    return [adjoint, adjoint.mul(shifted(h, reverse))];
  },
  lower: lowering(linearFamily),
  draw: (d) => {
    const shape = drawShape(d);
    return { inputs: [{ shape }, { shape }], attrs: { reverse: d.pick([false, true]) } };
  },
  rtol: 1e-5,
  why: "a handful of products added one after another; an error grows no faster than the result",
});
