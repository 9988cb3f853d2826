// Convolution without a matrix product: grouped and depthwise ones, which have too few channels per output for tiles to
// pay, and kernels with more taps along an axis than the address tables of conv.ts count. The families at the end are what
// engine/ops uses: the tiles of conv.ts where they apply, these loops for the rest. WGSL in conv_direct_text.ts.

import { type ConvSpec, convForward, convInputGrad, convWeightGrad } from "./conv.ts";
import { forwardText, inputGradText, type Lanes, sumPartsText, weightGradText } from "./conv_direct_text.ts";
import { MAX_TAPS } from "./conv_table.ts";
import { map3, type Three, volume, windowFields } from "./three.ts";
import {
  type Caps,
  type Draw,
  type Family,
  type Field,
  foldGrid,
  type Lowered,
  type Pass,
  uniforms,
  type Variant,
} from "./wgsl.ts";

/**
 * As ConvSpec, with channels and filters in `groups` equal runs: a filter reads the channels of its own run only.
 * Weight [...kernel, channels / groups, filters].
 */
export interface GroupedConvSpec extends ConvSpec {
  readonly groups: number;
}

/** `n` is the filters: the epilogue's columns. */
function fields(s: GroupedConvSpec): Field[] {
  return [
    ["n", "u32", s.filters],
    ["batch", "u32", s.batch],
    ["channels", "u32", s.channels],
    ["group_channels", "u32", s.channels / s.groups],
    ["group_filters", "u32", s.filters / s.groups],
    ...windowFields(s),
  ];
}

/** Four channels of as many groups, four filters of one group, or one of each at a time. */
function lanesOf(s: GroupedConvSpec): Lanes {
  const depthwise = s.groups === s.channels && s.groups === s.filters;
  if (depthwise && s.channels % 4 === 0) return "depthwise";
  return (s.filters / s.groups) % 4 === 0 ? "filters" : "scalar";
}

const WORKGROUP = 64;

/** One thread per `count`; operands as in `Pass`. */
interface DirectPass extends Pick<Pass, "operands"> {
  readonly label: string;
  readonly count: number;
  readonly flops: number;
  readonly extra?: readonly Field[];
  readonly text: (uniforms: string) => string;
}

function pass(s: GroupedConvSpec, { label, count, operands, flops, extra = [], text }: DirectPass, caps: Caps): Pass {
  const u = uniforms(operands.length, [...fields(s), ["count", "u32", count], ...extra]);
  const workgroups = foldGrid(Math.max(1, Math.ceil(count / WORKGROUP)), caps);
  return { source: { label, wgsl: text(u.wgsl), workgroups, uniforms: u.words, flops }, operands };
}

/** Idea: a thread is one output, or four neighbouring filters of it. Traffic: a load of x and of w per multiply-add. */
function emitForward(s: GroupedConvSpec, caps: Caps): Lowered {
  const lanes = lanesOf(s);
  const extras = s.epilogue?.operands ?? 0;
  const operands = Array.from({ length: 3 + extras }, (_, i) => i);
  const count = outputSize(s) / (lanes === "scalar" ? 1 : 4);
  const label = `conv direct/${lanes}${s.epilogue ? ` + ${s.epilogue.label}` : ""}`;
  const text = (u: string): string => forwardText(lanes, u, s.epilogue);
  return { passes: [pass(s, { label, count, operands, flops: flopsOf(s), text }, caps)], scratch: [] };
}

/** Idea: a thread is one input (four channels when depthwise) and visits the outputs that read it, filters by fours. */
function emitInputGrad(s: GroupedConvSpec, caps: Caps): Lowered {
  const lanes = lanesOf(s);
  const count = inputSize(s) / (lanes === "depthwise" ? 4 : 1);
  const label = `conv direct input grad/${lanes}`;
  const text = (u: string): string => inputGradText(lanes, u);
  return { passes: [pass(s, { label, count, operands: [0, 1, 2], flops: flopsOf(s), text }, caps)], scratch: [] };
}

/** Threads that should be busy at least, and rows of outputs that one of them should sum at least. */
const BUSY = 4096;
const ROWS = 8;

/**
 * Idea: a thread is one weight, or four of neighbouring filters, summed over every output; with few weights (depthwise)
 * the rows of outputs are split into parts, which a second pass adds in order.
 */
function emitWeightGrad(s: GroupedConvSpec, caps: Caps): Lowered {
  const lanes = lanesOf(s);
  const weights = weightSize(s) / (lanes === "scalar" ? 1 : 4);
  const rows = s.batch * s.out[0] * s.out[1];
  const parts = Math.max(1, Math.min(Math.ceil(BUSY / weights), Math.floor(rows / ROWS)));
  const share: Field[] = [
    ["rows", "u32", rows],
    ["part_rows", "u32", Math.ceil(rows / parts)],
    ["weights", "u32", weights],
  ];
  const text = (u: string): string => weightGradText(lanes, u);
  const all = { label: `conv direct weight grad/${lanes}`, flops: flopsOf(s), extra: share, text };
  if (parts === 1) return { passes: [pass(s, { ...all, count: weights, operands: [0, 1, 2] }, caps)], scratch: [] };
  const sum: DirectPass = {
    label: "conv direct sum parts",
    count: weightSize(s),
    operands: [3, 2],
    flops: weightSize(s) * parts,
    extra: [["parts", "u32", parts]],
    text: sumPartsText,
  };
  return {
    passes: [pass(s, { ...all, count: weights * parts, operands: [0, 1, 3] }, caps), pass(s, sum, caps)],
    scratch: [weightSize(s) * parts],
  };
}

const inputSize = (s: GroupedConvSpec): number => s.batch * volume(s.in) * s.channels;
const outputSize = (s: GroupedConvSpec): number => s.batch * volume(s.out) * s.filters;
const weightSize = (s: GroupedConvSpec): number => (volume(s.kernel) * s.channels * s.filters) / s.groups;
/** Of the convolution and of either gradient, with the taps that stand on padding. */
const flopsOf = (s: GroupedConvSpec): number => 2 * s.batch * volume(s.out) * weightSize(s);

/** Calls `visit` with the flat indices of x, weight and y of every multiply-add that does not fall on padding. */
function eachProduct(s: GroupedConvSpec, visit: (x: number, w: number, y: number) => void): void {
  const unravel = (i: number, [, b, c]: Three): Three => [Math.floor(i / (b * c)), Math.floor(i / c) % b, i % c];
  const [perGroup, filtersPerGroup] = [s.channels / s.groups, s.filters / s.groups];
  for (let p = 0; p < s.batch * volume(s.out); p++) {
    const image = Math.floor(p / volume(s.out));
    const at = unravel(p % volume(s.out), s.out);
    for (let t = 0; t < volume(s.kernel); t++) {
      const tap = unravel(t, s.kernel);
      const [z, y, x] = map3((i) => at[i] * s.stride[i] - s.padding[i] + tap[i] * s.dilation[i]);
      if (z < 0 || y < 0 || x < 0 || z >= s.in[0] || y >= s.in[1] || x >= s.in[2]) continue;
      const pixel = ((image * s.in[0] + z) * s.in[1] + y) * s.in[2] + x;
      for (let f = 0; f < s.filters; f++) {
        const first = Math.floor(f / filtersPerGroup) * perGroup;
        for (let c = 0; c < perGroup; c++)
          visit(pixel * s.channels + first + c, (t * perGroup + c) * s.filters + f, p * s.filters + f);
      }
    }
  }
}

/** Groups, depthwise and dense; unit, ordinary and many taps; padding on either side; every lane layout. */
function drawDirect(d: Draw): GroupedConvSpec {
  const used = d.int(1, 3);
  const per = (f: () => number, unit: number): Three => map3((i) => (i < 3 - used ? unit : f()));
  const kernel = per(() => d.pick([1, 2, 3, used === 1 ? 12 : 4]), 1);
  const stride = per(() => d.int(1, 3), 1);
  const dilation = per(() => d.int(1, 2), 1);
  const padding = per(() => d.int(0, 2), 0);
  const reach = map3((i) => dilation[i] * (kernel[i] - 1) + 1);
  const out = per(() => d.int(1, 4), 1);
  const input = map3((i) =>
    Math.max(1, (out[i] - 1) * stride[i] + reach[i] - padding[i] - (i < 3 - used ? 0 : d.int(0, 2))),
  );
  const groups = d.pick([1, 2, 3, 4, 8]);
  const [channels, filters] = d.pick([
    [1, 1],
    [1, 2],
    [3, 1],
    [2, 4],
    [5, 8],
  ]);
  return {
    batch: d.int(1, 3),
    in: input,
    out,
    channels: groups * channels,
    filters: groups * filters,
    groups,
    kernel,
    stride,
    padding,
    dilation,
  };
}

type Emit = (s: GroupedConvSpec, caps: Caps) => Lowered;

/** The three families that differ in which of x, weight and y is the result: `sizes` of the two inputs and the result. */
function family(
  name: string,
  emit: Emit,
  sizes: readonly ((s: GroupedConvSpec) => number)[],
  product: (x: number, w: number, y: number) => readonly [a: number, b: number, into: number],
): Family<GroupedConvSpec> {
  return {
    name,
    variants: [{ name: "direct", supports: () => true, emit }],
    inputs: (s) => sizes.slice(0, 2).map((size) => ({ dtype: "f32", size: size(s) })),
    outputs: (s) => [{ dtype: "f32", size: sizes[2](s) }],
    reference(s, [a, b]) {
      const out = new Float64Array(sizes[2](s));
      eachProduct(s, (...at) => {
        const [i, j, into] = product(...at);
        out[into] += a[i] * b[j];
      });
      return [out];
    },
    draw: drawDirect,
    rtol: 1e-5,
    why: "sums of a few hundred products, each rounded to 6e-8 of it",
    sums: true,
  };
}

/** Inputs x and weight, output y. */
export const directForward: Family<GroupedConvSpec> = family(
  "convDirect",
  emitForward,
  [inputSize, weightSize, outputSize],
  (x, w, y) => [x, w, y],
);
/** Inputs gy and weight, output gx. */
export const directInputGrad: Family<GroupedConvSpec> = family(
  "convDirectInputGrad",
  emitInputGrad,
  [outputSize, weightSize, inputSize],
  (x, w, y) => [y, w, x],
);
/** Inputs x and gy, output the gradient of the weight. */
export const directWeightGrad: Family<GroupedConvSpec> = family(
  "convDirectWeightGrad",
  emitWeightGrad,
  [inputSize, outputSize, weightSize],
  (x, w, y) => [x, y, w],
);

export const families: readonly Family<GroupedConvSpec>[] = [directForward, directInputGrad, directWeightGrad];

/** The tiles of a family of conv.ts where they apply, the direct loops everywhere else. */
function anyConv(tiles: Family<ConvSpec>, direct: Family<GroupedConvSpec>): Family<GroupedConvSpec> {
  const applies = (s: GroupedConvSpec): boolean => s.groups === 1 && s.kernel.every((k) => k <= MAX_TAPS);
  const where = (v: Variant<ConvSpec>): Variant<GroupedConvSpec> => ({
    ...v,
    supports: (s, caps) => applies(s) && v.supports(s, caps),
  });
  const variants = [...tiles.variants.map(where), ...direct.variants];
  return { ...direct, name: tiles.name, variants, candidates: tiles.candidates?.map(where) };
}

export const anyConvForward: Family<GroupedConvSpec> = anyConv(convForward, directForward);
export const anyConvInputGrad: Family<GroupedConvSpec> = anyConv(convInputGrad, directInputGrad);
export const anyConvWeightGrad: Family<GroupedConvSpec> = anyConv(convWeightGrad, directWeightGrad);
