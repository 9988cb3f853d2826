// Convolution in up to three spatial dimensions, channels last, and its two gradients, all as implicit GEMM: the loops
// are in gemm_tiles.ts, the addresses in conv_table.ts. 1-D and 2-D convolutions come with unit dimensions; a 1x1
// convolution with stride 1 is a matmul and is better sent there. Called by engine/ops and engine/plan.

import { fewForward, fewWeightGrad } from "./conv_few.ts";
import { convReference, drawConv } from "./conv_reference.ts";
import { addressA, MAX_TAPS, positionRows, ROW_OF_POSITION, tablePass, type Walk } from "./conv_table.ts";
import { type Gemm, type Generator, type LoadA, lowerGemm, type Relayout } from "./gemm.ts";
import { tileVariants } from "./gemm_variants.ts";
import { map3, type Three, volume } from "./three.ts";
import type { Caps, Epilogue, Family, Lowered, Operand, Variant } from "./wgsl.ts";
import { winogradForward, winogradInputGrad, winogradWeightGrad } from "./winograd.ts";

/**
 * x [batch, ...in, channels], weight [...kernel, channels, filters], y [batch, ...out, filters]; spatial order d, h, w.
 * `padding` is the zeros before the data; those behind it follow from `out`. The gradients take the spec of the
 * forward convolution; only that one applies the epilogue, whose row counts over [batch, ...out].
 */
export interface ConvSpec {
  readonly batch: number;
  readonly in: Three;
  readonly out: Three;
  readonly channels: number;
  readonly filters: number;
  readonly kernel: Three;
  readonly stride: Three;
  readonly padding: Three;
  readonly dilation: Three;
  readonly epilogue?: Epilogue;
}

const macs = (s: ConvSpec): number => s.batch * volume(s.out) * volume(s.kernel) * s.channels * s.filters;

/** Throws when the kernel exceeds what the address functions can count. */
function check(s: ConvSpec): void {
  if (s.kernel.some((k) => k > MAX_TAPS))
    throw new Error(`conv: kernel ${s.kernel.join("x")} has more than ${MAX_TAPS} taps along an axis; split it`);
}

/** B as a plain [k, n] matrix. */
function matrixB(vec4: boolean): string {
  if (vec4)
    return `
alias Column = u32;
fn b_column(batch: u32, col: u32) -> Column { return min(col, u.n - 4u) / 4u; }
fn b_at(c: Column, k: u32) -> vec4<f32> { return b[c + k * (u.n / 4u)]; }`;
  return `
alias Column = vec4<u32>;
fn b_column(batch: u32, col: u32) -> Column {
  return min(vec4<u32>(col, col + 1u, col + 2u, col + 3u), vec4<u32>(u.n - 1u));
}
fn b_at(c: Column, k: u32) -> vec4<f32> {
  let p = c + k * u.n;
  return vec4<f32>(b[p.x], b[p.y], b[p.z], b[p.w]);
}`;
}

const unitDivisor: Three = [1, 1, 1];

/** The walk of the forward convolution's taps over x. */
const walkOverX = (s: ConvSpec): Walk => ({
  images: s.batch,
  source: s.in,
  channels: s.channels,
  positions: s.out,
  kernel: s.kernel,
  stride: s.stride,
  origin: map3((i) => -s.padding[i]),
  step: s.dilation,
  divisor: unitDivisor,
});

/** The walk of the input gradient over gy: input position p was used by output (p + padding - t dilation) / stride. */
const walkOverGy = (s: ConvSpec): Walk => ({
  images: s.batch,
  source: s.out,
  channels: s.filters,
  positions: s.in,
  kernel: s.kernel,
  stride: [1, 1, 1],
  origin: s.padding,
  step: map3((i) => -s.dilation[i]),
  divisor: s.stride,
});

/** Rows are positions: the forward convolution and the input gradient, which share their text and so their pipeline. */
function positionsByTaps(walk: Walk, columns: number, vectors: boolean, caps: Caps, epilogue?: Epilogue): Gemm {
  const load: LoadA = vectors && walk.channels % 4 === 0 ? "k4" : "any";
  const vec4 = columns % 4 === 0;
  return {
    label: `conv ${load} ${vec4 ? "n4" : "any"}`,
    m: positionRows(walk),
    n: columns,
    k: volume(walk.kernel) * walk.channels,
    batch: 1,
    table: tablePass(walk, load, caps),
    a: { load, wgsl: addressA(load, "positions") },
    b: { load: vec4 ? "n4" : "any", wgsl: matrixB(vec4) },
    yRow: { wgsl: ROW_OF_POSITION, rowsOut: walk.images * volume(walk.positions) },
    sparse: true,
    fields: [["tap_base", "u32", positionRows(walk)]],
    epilogue,
  };
}

/** y[position, filter] = sum over (tap, channel) of x[position at tap, channel] * w[tap, channel, filter]. */
function lowerForward(s: ConvSpec, generator: Generator, vectors: boolean, caps: Caps): Lowered {
  check(s);
  return lowerGemm(positionsByTaps(walkOverX(s), s.filters, vectors, caps, s.epilogue), generator, caps);
}

/** gx[position, channel] = sum over (tap, filter) of gy[position seen from tap, filter] * w[tap, channel, filter]. */
function lowerInputGrad(s: ConvSpec, generator: Generator, vectors: boolean, caps: Caps): Lowered {
  check(s);
  const weights: Relayout = {
    sizes: [1, volume(s.kernel), s.filters, s.channels],
    offset: 0,
    strides: [0, s.channels * s.filters, 1, s.filters],
  };
  return lowerGemm(positionsByTaps(walkOverGy(s), s.channels, vectors, caps), generator, caps, weights);
}

/** gw[(tap, channel), filter] = sum over positions of x[position at tap, channel] * gy[position, filter]. */
function lowerWeightGrad(s: ConvSpec, generator: Generator, vectors: boolean, caps: Caps): Lowered {
  check(s);
  const walk = { ...walkOverX(s), keepOrder: true };
  const load: LoadA = vectors && s.channels % 4 === 0 ? "m4" : "any";
  const vec4 = s.filters % 4 === 0;
  const gemm: Gemm = {
    label: `conv weight grad ${load} ${vec4 ? "n4" : "any"}`,
    m: volume(s.kernel) * s.channels,
    n: s.filters,
    k: positionRows(walk),
    batch: 1,
    table: tablePass(walk, load, caps),
    a: { load, wgsl: addressA(load, "taps") },
    b: { load: vec4 ? "n4" : "any", wgsl: matrixB(vec4) },
    fields: [["tap_base", "u32", positionRows(walk)]],
  };
  return lowerGemm(gemm, generator, caps);
}

const f32s = (...sizes: number[]): readonly Operand[] => sizes.map((size) => ({ dtype: "f32", size }));
const inputSize = (s: ConvSpec): number => s.batch * volume(s.in) * s.channels;
const outputSize = (s: ConvSpec): number => s.batch * volume(s.out) * s.filters;
const weightSize = (s: ConvSpec): number => volume(s.kernel) * s.channels * s.filters;

interface Special {
  /** Where it pays, and wherever it is possible, for tuning. */
  readonly where: Variant<ConvSpec>;
  readonly anywhere: Variant<ConvSpec>;
}

/** Variants for special cases before the tiles, where they pay; anywhere else only tuning chooses them. */
const specialised = (
  special: readonly Special[],
  { variants, candidates = [] }: Pick<Family<ConvSpec>, "variants" | "candidates">,
): Pick<Family<ConvSpec>, "variants" | "candidates"> => ({
  variants: [...special.map((s) => s.where), ...variants],
  candidates: [...candidates, ...special.map((s) => s.anywhere)],
});

const rtol = 2e-5;
const why = "sums of up to a few hundred products rounded to 6e-8 each";

/** Inputs x and weight, output y. */
export const convForward: Family<ConvSpec> = {
  name: "convForward",
  ...specialised(
    [fewForward, winogradForward],
    tileVariants<ConvSpec>({ columns: (s) => s.filters, macs, lower: lowerForward }),
  ),
  inputs: (s) => f32s(inputSize(s), weightSize(s)),
  outputs: (s) => f32s(outputSize(s)),
  reference: (s, [x, w]) => {
    const y = new Float64Array(outputSize(s));
    convReference(s, (ix, iw, iy) => {
      y[iy] += x[ix] * w[iw];
    });
    return [y];
  },
  draw: drawConv,
  rtol,
  why,
  sums: true,
};

/** Inputs gy and weight, output gx. */
export const convInputGrad: Family<ConvSpec> = {
  name: "convInputGrad",
  ...specialised(
    [winogradInputGrad],
    tileVariants<ConvSpec>({ columns: (s) => s.channels, macs, lower: lowerInputGrad }),
  ),
  inputs: (s) => f32s(outputSize(s), weightSize(s)),
  outputs: (s) => f32s(inputSize(s)),
  reference: (s, [gy, w]) => {
    const gx = new Float64Array(inputSize(s));
    convReference(s, (ix, iw, iy) => {
      gx[ix] += gy[iy] * w[iw];
    });
    return [gx];
  },
  draw: drawConv,
  rtol,
  why,
  sums: true,
};

/** Inputs x and gy, output the gradient of the weight. Long sums are split and added in order: no atomics. */
export const convWeightGrad: Family<ConvSpec> = {
  name: "convWeightGrad",
  ...specialised(
    [fewWeightGrad, winogradWeightGrad],
    tileVariants<ConvSpec>({ columns: (s) => s.filters, macs, lower: lowerWeightGrad }),
  ),
  inputs: (s) => f32s(inputSize(s), outputSize(s)),
  outputs: (s) => f32s(weightSize(s)),
  reference: (s, [x, gy]) => {
    const gw = new Float64Array(weightSize(s));
    convReference(s, (ix, iw, iy) => {
      gw[iw] += x[ix] * gy[iy];
    });
    return [gw];
  },
  draw: drawConv,
  rtol,
  why,
  sums: true,
};
