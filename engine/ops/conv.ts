// Convolution, channels last, always with three spatial axes: 1-D and 2-D convolutions have unit ones. The two gradient
// ops are linear in both inputs and are each other's gradients, so second derivatives need nothing more. How the options
// that people write become attributes is in conv_options.ts.

import {
  anyConvForward,
  anyConvInputGrad,
  anyConvWeightGrad,
  type GroupedConvSpec,
} from "../../kernels/conv_direct.ts";
import { map3 } from "../../kernels/three.ts";
import type { Draw } from "../../kernels/wgsl.ts";
import { ShapeError, show } from "../error.ts";
import type { Shape } from "../shape.ts";
import { checkWeight } from "./conv_options.ts";
import { type Attrs, defineOp, familyReference, floats, type KernelLowering } from "./op.ts";

export type Three = readonly [number, number, number];

export interface ConvAttrs extends Attrs {
  readonly stride: Three;
  /** Zeros before and after the data, per spatial axis. */
  readonly low: Three;
  readonly high: Three;
  readonly dilation: Three;
  /** Channels and filters form this many runs; the weight has [..., channels / groups, filters]. */
  readonly groups: number;
}
export interface InputGradAttrs extends ConvAttrs {
  /** Spatial sizes of the input: a strided convolution does not determine them. */
  readonly input: Three;
}
export interface WeightGradAttrs extends ConvAttrs {
  readonly kernel: Three;
}

const spatial = (s: Shape): Three => [s[1], s[2], s[3]];

/** Spatial size of the result: floor((n + low + high - dilation (k - 1) - 1) / stride) + 1. */
function outputSize(input: Three, kernel: Three, a: ConvAttrs): Three {
  return map3(
    (i) => Math.floor((input[i] + a.low[i] + a.high[i] - a.dilation[i] * (kernel[i] - 1) - 1) / a.stride[i]) + 1,
  );
}

function specOf(x: Shape, w: Shape, y: Shape, a: ConvAttrs): GroupedConvSpec {
  const { stride, dilation, low, groups } = a;
  return {
    batch: x[0],
    in: spatial(x),
    out: spatial(y),
    channels: x[4],
    filters: w[4],
    groups,
    kernel: [w[0], w[1], w[2]],
    stride,
    padding: low,
    dilation,
  };
}

function forwardShape([x, w]: readonly Shape[], a: ConvAttrs): Shape {
  if (x.length !== 5 || w.length !== 5)
    throw new ShapeError(`conv: expected input "b d h w c" and weight "kd kh kw c o", got ${show(x)} and ${show(w)}`);
  checkWeight("conv", x, w, a.groups);
  const out = outputSize(spatial(x), [w[0], w[1], w[2]], a);
  if (out.some((n) => n < 1))
    throw new ShapeError(
      `conv: kernel ${show(w.slice(0, 3))} does not fit into ${show(x)} with padding ${show(a.low)}`,
    );
  return [x[0], ...out, w[4]];
}

const forward: KernelLowering<ConvAttrs> = {
  kind: "kernel",
  family: anyConvForward,
  epilogue: true,
  spec: ([x, w], a) => specOf(x, w, forwardShape([x, w], a), a),
};
function inputGradShape([g, w]: readonly Shape[], a: InputGradAttrs): Shape {
  if (g[4] !== w[4] || w[4] % a.groups !== 0)
    throw new ShapeError(
      `convInputGrad: expected "b d h w o" and a weight "kd kh kw c o" with o in ${a.groups} groups, got ${show(g)} and ${show(w)}`,
    );
  return [g[0], ...a.input, w[3] * a.groups];
}
const inputGrad: KernelLowering<InputGradAttrs> = {
  kind: "kernel",
  family: anyConvInputGrad,
  spec: ([g, w], a) => specOf(inputGradShape([g, w], a), w, g, a),
};
const weightGradShape = ([x, g]: readonly Shape[], a: WeightGradAttrs): Shape => [...a.kernel, x[4] / a.groups, g[4]];
const weightGrad: KernelLowering<WeightGradAttrs> = {
  kind: "kernel",
  family: anyConvWeightGrad,
  spec: ([x, g], a) => specOf(x, weightGradShape([x, g], a), g, a),
};

/** A random convolution: input and weight shapes and attributes under which the result has at least one element. */
function geometry(d: Draw): { x: number[]; w: number[]; y: Shape; attrs: ConvAttrs } {
  const used = d.int(1, 3);
  const per = (f: () => number, unit: number): Three => map3((i) => (i < 3 - used ? unit : f()));
  const kernel = per(() => d.int(1, 3), 1);
  const attrs: ConvAttrs = {
    stride: per(() => d.int(1, 2), 1),
    low: per(() => d.int(0, 2), 0),
    high: per(() => d.int(0, 2), 0),
    dilation: per(() => d.int(1, 2), 1),
    groups: d.pick([1, 1, 2, 3]),
  };
  const input = map3(
    (i) =>
      Math.max(1, attrs.dilation[i] * (kernel[i] - 1) + 1 - attrs.low[i] - attrs.high[i]) +
      (i < 3 - used ? 0 : d.int(0, 3)),
  );
  const [c, o] = [d.int(1, 4), d.int(1, 4)];
  const x = [d.int(1, 2), ...input, c * attrs.groups];
  const w = [...kernel, c, o * attrs.groups];
  return { x, w, y: forwardShape([x, w], attrs), attrs };
}

/** Why convolutions are as exact as they are. */
const SUMS = "sums of at most a few hundred products, rounded to 6e-8 each";

export const conv = defineOp<ConvAttrs>({
  name: "conv",
  dtype: floats("conv"),
  shape: forwardShape,
  reference: familyReference(forward),
  vjp: (g, [x, w], _, a) => [
    g.convInputGrad(w, { ...a, input: spatial(x.shape) }),
    x.convWeightGrad(g, { ...a, kernel: [w.shape[0], w.shape[1], w.shape[2]] }),
  ],
  lower: forward,
  draw: (d) => {
    const { x, w, attrs } = geometry(d);
    return { inputs: [{ shape: x }, { shape: w }], attrs };
  },
  rtol: 1e-5,
  why: SUMS,
  sums: true,
  laws: [
    {
      name: "a shift by a stride shifts the result by one",
      of: ([x, w], { stride }) => ({
        ins: [x.pad([[0, 0], ...stride.map((s): [number, number] => [s, 0]), [0, 0]]), w],
        after: (y) => y.slice(1, 1).slice(2, 1).slice(3, 1),
      }),
    },
    { name: "images do not see each other", of: ([x, w]) => ({ ins: [x.flip([0]), w], after: (y) => y.flip([0]) }) },
    {
      name: "the order of channels does not matter",
      of: ([x, w], { groups }) => (groups > 1 ? null : { ins: [x.flip([4]), w.flip([3])], after: (y) => y }),
    },
  ],
});

/** (gradient of the output, weight) -> gradient of the input: the transposed convolution. */
export const convInputGrad = defineOp<InputGradAttrs>({
  name: "convInputGrad",
  dtype: floats("convInputGrad"),
  shape: inputGradShape,
  reference: familyReference(inputGrad),
  vjp: (gx, [g, w], _, { input, ...a }) => [
    gx.convWith(w, a),
    gx.convWeightGrad(g, { ...a, kernel: [w.shape[0], w.shape[1], w.shape[2]] }),
  ],
  lower: inputGrad,
  draw: (d) => {
    const { x, w, y, attrs } = geometry(d);
    return { inputs: [{ shape: y }, { shape: w }], attrs: { ...attrs, input: spatial(x) } };
  },
  rtol: 1e-5,
  why: SUMS,
  sums: true,
});

/** (input, gradient of the output) -> gradient of the weight. */
export const convWeightGrad = defineOp<WeightGradAttrs>({
  name: "convWeightGrad",
  dtype: floats("convWeightGrad"),
  shape: weightGradShape,
  reference: familyReference(weightGrad),
  vjp: (gw, [x, g], _, { kernel, ...a }) => [g.convInputGrad(gw, { ...a, input: spatial(x.shape) }), x.convWith(gw, a)],
  lower: weightGrad,
  draw: (d) => {
    const { x, w, y, attrs } = geometry(d);
    return { inputs: [{ shape: x }, { shape: y }], attrs: { ...attrs, kernel: [w[0], w[1], w[2]] } };
  },
  rtol: 1e-5,
  why: SUMS,
  sums: true,
});
