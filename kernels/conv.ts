// Convolution in up to three spatial dimensions, channels last, and its two gradients, all as implicit GEMM: the loops
// are in gemm_tiles.ts, the addresses in conv_address.ts. 1-D and 2-D convolutions come with unit dimensions; a 1x1
// convolution with stride 1 is a matmul and is better sent there. Called by engine/ops and engine/plan.

import { denseWalk, MAX_TAPS, stridedRows, stridedWalk, type Walk, walkFields } from "./conv_address.ts";
import { convReference, drawConv } from "./conv_reference.ts";
import { type Gemm, type Generator, type LoadA, lowerGemm, type Relayout } from "./gemm.ts";
import { tileVariants } from "./gemm_variants.ts";
import type { Caps, Epilogue, Family, Lowered, Operand } from "./wgsl.ts";

type Three = readonly [number, number, number];

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

const volume = (v: Three): number => v[0] * v[1] * v[2];
const map3 = (f: (i: 0 | 1 | 2) => number): Three => [f(0), f(1), f(2)];
const macs = (s: ConvSpec): number => s.batch * volume(s.out) * volume(s.kernel) * s.channels * s.filters;

/** Throws when the kernel exceeds what the address functions can count. */
function check(s: ConvSpec): void {
  if (s.kernel.some((k) => k > MAX_TAPS))
    throw new Error(`conv: kernel ${s.kernel.join("x")} has more than ${MAX_TAPS} taps along an axis; split it`);
  // conv_address.ts divides exactly up to 2^21 images.
  if (s.batch * volume(s.stride) >= 2 ** 21)
    throw new Error(`conv: batch ${s.batch} with stride ${s.stride.join("x")} is too large; split the batch`);
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

const POSITIONS_BY_TAPS = (load: LoadA): string => `
fn a_row(batch: u32, row: u32) -> vec2<u32> { return position(row); }
fn a_col(k: u32) -> vec2<u32> { return tap(k); }
fn a_at(r: vec2<u32>, c: vec2<u32>) -> ${load === "any" ? "f32" : "vec4<f32>"} { return fetch(r, c); }`;

const TAPS_BY_POSITIONS = (load: LoadA): string => `
fn a_row(batch: u32, row: u32) -> vec2<u32> { return tap(row); }
fn a_col(k: u32) -> vec2<u32> { return position(k); }
fn a_at(r: vec2<u32>, c: vec2<u32>) -> ${load === "any" ? "f32" : "vec4<f32>"} { return fetch(c, r); }`;

/** The walk of the forward convolution's taps over its input. */
const inputWalk = (s: ConvSpec): Walk => ({
  images: s.batch,
  source: s.in,
  channels: s.channels,
  grid: s.out,
  stride: s.stride,
  origin: map3((i) => -s.padding[i]),
  step: s.dilation,
  kernel: s.kernel,
});

/** y[position, filter] = sum over (tap, channel) of x[position at tap, channel] * w[tap, channel, filter]. */
function lowerForward(s: ConvSpec, generator: Generator, vectors: boolean, caps: Caps): Lowered {
  check(s);
  const load = vectors && s.channels % 4 === 0 ? "k4" : "any";
  const vec4 = s.filters % 4 === 0;
  const gemm: Gemm = {
    label: `conv ${load} ${vec4 ? "n4" : "any"}`,
    m: s.batch * volume(s.out),
    n: s.filters,
    k: volume(s.kernel) * s.channels,
    batch: 1,
    a: { load, wgsl: denseWalk(load) + POSITIONS_BY_TAPS(load) },
    b: { vec4, wgsl: matrixB(vec4) },
    fields: walkFields(inputWalk(s), load),
    epilogue: s.epilogue,
  };
  return lowerGemm(gemm, generator, caps);
}

/** gw[(tap, channel), filter] = sum over positions of x[position at tap, channel] * gy[position, filter]. */
function lowerWeightGrad(s: ConvSpec, generator: Generator, vectors: boolean, caps: Caps): Lowered {
  check(s);
  const load = vectors && s.channels % 4 === 0 ? "m4" : "any";
  const vec4 = s.filters % 4 === 0;
  const gemm: Gemm = {
    label: `conv weight grad ${load} ${vec4 ? "n4" : "any"}`,
    m: volume(s.kernel) * s.channels,
    n: s.filters,
    k: s.batch * volume(s.out),
    batch: 1,
    a: { load, wgsl: denseWalk(load) + TAPS_BY_POSITIONS(load) },
    b: { vec4, wgsl: matrixB(vec4) },
    fields: walkFields(inputWalk(s), load),
  };
  return lowerGemm(gemm, generator, caps);
}

/** Weights as [tap, filter, channel]: the B of the input gradient. */
const transposedWeights = (s: ConvSpec): Relayout => ({
  sizes: [1, volume(s.kernel), s.filters, s.channels],
  offset: 0,
  strides: [0, s.channels * s.filters, 1, s.filters],
});

/** gx[position, channel] = sum over (tap, filter) of gy[position seen from tap, filter] * w[tap, channel, filter]. */
function lowerInputGrad(s: ConvSpec, generator: Generator, vectors: boolean, caps: Caps): Lowered {
  check(s);
  const load = vectors && s.filters % 4 === 0 ? "k4" : "any";
  const vec4 = s.channels % 4 === 0;
  const dense = volume(s.stride) === 1;
  const common = { images: s.batch, source: s.out, channels: s.filters, origin: s.padding, kernel: s.kernel };
  const walk: Walk = dense
    ? { ...common, grid: s.in, stride: [1, 1, 1], step: map3((i) => -s.dilation[i]) }
    : { ...common, grid: map3((i) => Math.ceil(s.in[i] / s.stride[i])), stride: s.stride, step: s.dilation };
  const rows = stridedRows(s.in);
  const fields = walkFields(walk, load);
  const shape = {
    n: s.channels,
    k: volume(s.kernel) * s.filters,
    batch: 1,
    b: { vec4, wgsl: matrixB(vec4) },
  };
  const gemm: Gemm = dense
    ? {
        ...shape,
        // Same text as the forward convolution, hence the same pipeline.
        label: `conv ${load} ${vec4 ? "n4" : "any"}`,
        m: s.batch * volume(s.in),
        a: { load, wgsl: denseWalk(load) + POSITIONS_BY_TAPS(load) },
        fields,
      }
    : {
        ...shape,
        label: `conv strided input grad ${load} ${vec4 ? "n4" : "any"}`,
        m: volume(s.stride) * s.batch * volume(walk.grid),
        a: { load, wgsl: stridedWalk(load) + POSITIONS_BY_TAPS(load) },
        fields: [...fields, ...rows.fields],
        yRow: { wgsl: rows.wgsl, rowsOut: s.batch * volume(s.in) },
        sparse: true,
      };
  return lowerGemm(gemm, generator, caps, transposedWeights(s));
}

const f32s = (...sizes: number[]): readonly Operand[] => sizes.map((size) => ({ dtype: "f32", size }));
const inputSize = (s: ConvSpec): number => s.batch * volume(s.in) * s.channels;
const outputSize = (s: ConvSpec): number => s.batch * volume(s.out) * s.filters;
const weightSize = (s: ConvSpec): number => volume(s.kernel) * s.channels * s.filters;

// Sums of up to a few hundred products rounded to 6e-8 each, relative to the largest result.
const rtol = 1e-4;

/** Inputs x and weight, output y. */
export const convForward: Family<ConvSpec> = {
  name: "convForward",
  variants: tileVariants<ConvSpec>({ columns: (s) => s.filters, macs, lower: lowerForward }),
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
};

/** Inputs gy and weight, output gx. */
export const convInputGrad: Family<ConvSpec> = {
  name: "convInputGrad",
  variants: tileVariants<ConvSpec>({ columns: (s) => s.channels, macs, lower: lowerInputGrad }),
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
};

/** Inputs x and gy, output the gradient of the weight. Long sums are split and added in order: no atomics. */
export const convWeightGrad: Family<ConvSpec> = {
  name: "convWeightGrad",
  variants: tileVariants<ConvSpec>({ columns: (s) => s.filters, macs, lower: lowerWeightGrad }),
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
};
