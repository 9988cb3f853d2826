// Max pooling in three steps that differentiate apart: which tap of each window is largest (whole numbers, no gradient),
// reading that tap, and its transpose. The last two are linear and each other's gradients. Always three spatial axes; the
// functions people call are in nn/pooling.ts, where averages are too.

import {
  drawPool,
  maxPoolTap as maxPoolTapFamily,
  type PoolSpec,
  poolSpread as poolSpreadFamily,
  poolTake as poolTakeFamily,
} from "../../kernels/pool.ts";
import type { DType } from "../dtype.ts";
import { DTypeError, ShapeError, show } from "../error.ts";
import { type Shape, sameShape } from "../shape.ts";
import type { Three } from "./conv.ts";
import { type Attrs, defineOp, familyReference, floats, type KernelLowering } from "./op.ts";

/** Windows over [b, d, h, w, c]; the fields are PoolSpec's. */
export interface WindowAttrs extends Attrs {
  readonly out: Three;
  readonly kernel: Three;
  readonly stride: Three;
  readonly padding: Three;
  readonly dilation: Three;
  readonly adaptive: boolean;
}
export interface SpreadAttrs extends WindowAttrs {
  readonly input: Three;
}

const spatial = (s: Shape): Three => [s[1], s[2], s[3]];

function specOf(x: Shape, { out, kernel, stride, padding, dilation, adaptive }: WindowAttrs): PoolSpec {
  return { batch: x[0], in: spatial(x), out, channels: x[4], kernel, stride, padding, dilation, adaptive };
}

function windowShape(op: string, x: Shape, a: WindowAttrs): Shape {
  if (x.length !== 5) throw new ShapeError(`${op}: expected "b d h w c", got ${show(x)}`);
  return [x[0], ...a.out, x[4]];
}

/** Shape of the windows, which the taps must have. */
function checkTaps(op: string, x: Shape, taps: Shape, a: WindowAttrs): Shape {
  const windows = windowShape(op, x, a);
  if (!sameShape(windows, taps))
    throw new ShapeError(`${op}: expected a tap per window ${show(windows)}, got ${show(taps)}`);
  return windows;
}

function checkTypes(op: string, [values, taps]: readonly DType[]): DType {
  if (taps !== "i32") throw new DTypeError(`${op}: taps must be i32, got ${taps}`);
  return floats(op)([values]);
}

const tapLower: KernelLowering<WindowAttrs> = {
  kind: "kernel",
  family: maxPoolTapFamily,
  spec: ([x], a) => specOf(x, a),
};
const takeLower: KernelLowering<WindowAttrs> = {
  kind: "kernel",
  family: poolTakeFamily,
  spec: ([x], a) => specOf(x, a),
};
const spreadShape = (g: Shape, a: SpreadAttrs): Shape => [g[0], ...a.input, g[4]];
const spreadLower: KernelLowering<SpreadAttrs> = {
  kind: "kernel",
  family: poolSpreadFamily,
  spec: ([g], a) => specOf(spreadShape(g, a), a),
};

/** x, windows and attributes of a random legal call. */
function geometry(d: Parameters<typeof drawPool>[0]) {
  const { batch, channels, in: input, ...attrs } = drawPool(d);
  const taps = { shape: [batch, ...attrs.out, channels], dtype: "i32" as const };
  const below = attrs.kernel[0] * attrs.kernel[1] * attrs.kernel[2];
  return { x: { shape: [batch, ...input, channels] }, taps: { ...taps, below }, attrs, input };
}

/** x [b, d, h, w, c] -> i32 [b, ...out, c]: the tap of each window where x is largest, the first of equals. */
export const maxPoolTap = defineOp<WindowAttrs>({
  name: "maxPoolTap",
  dtype: (ins) => {
    floats("maxPoolTap")(ins);
    return "i32";
  },
  shape: ([x], a) => windowShape("maxPoolTap", x, a),
  reference: familyReference(tapLower),
  vjp: "none",
  lower: tapLower,
  draw: (d) => {
    const { x, attrs } = geometry(d);
    return { inputs: [x], attrs };
  },
  rtol: 0,
});

/** (x, taps) -> x at the tap of each window, 0 where that stands on padding. */
export const poolTake = defineOp<WindowAttrs>({
  name: "poolTake",
  dtype: (ins) => checkTypes("poolTake", ins),
  shape: ([x, taps], a) => checkTaps("poolTake", x, taps, a),
  reference: familyReference(takeLower),
  vjp: (g, [x, taps], _, a) => [g.poolSpread(taps, { ...a, input: spatial(x.shape) }), null],
  lower: takeLower,
  draw: (d) => {
    const { x, taps, attrs } = geometry(d);
    return { inputs: [x, taps], attrs };
  },
  rtol: 0,
});

/** (gradient of the windows, taps) -> [b, ...input, c]: each position sums the windows that took it. */
export const poolSpread = defineOp<SpreadAttrs>({
  name: "poolSpread",
  dtype: (ins) => checkTypes("poolSpread", ins),
  shape: ([g, taps], a) => {
    checkTaps("poolSpread", spreadShape(g, a), taps, a);
    return spreadShape(g, a);
  },
  reference: familyReference(spreadLower),
  vjp: (gx, [, taps], _, { input, ...a }) => [gx.poolTake(taps, a), null],
  lower: spreadLower,
  draw: (d) => {
    const { taps, attrs, input } = geometry(d);
    return { inputs: [{ shape: taps.shape }, taps], attrs: { ...attrs, input } };
  },
  rtol: 1e-6,
  why: "sums of as many as windows overlap",
  sums: true,
});
