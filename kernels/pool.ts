// Max pooling of channels-last data in up to three spatial dimensions: which tap of its window is the largest, reading
// that tap, and the gradient of reading, which gathers: a position visits the windows over it in order, so nothing is
// atomic. Kernels and not fused views, because one text serves every window and a view per tap would be 27 loads and a
// pipeline per geometry. Called through engine/ops/pool.ts.

import { axes, POSITIONS, type Three, vec3, volume } from "./three.ts";
import {
  type Caps,
  type Draw,
  type Family,
  type Field,
  foldGrid,
  type Lowered,
  storage,
  uniforms,
  type Variant,
  wgsl,
} from "./wgsl.ts";

/**
 * x [batch, ...in, channels], windows [batch, ...out, channels]. Window o of an axis starts at o * stride - padding and
 * has `kernel` taps, `dilation` apart. When adaptive, it goes from floor(o in / out) to ceil((o + 1) in / out) instead, and
 * `kernel` is the most taps that any window has. A tap is a number: its place in the kernel, row by row.
 */
export interface PoolSpec {
  readonly batch: number;
  readonly in: Three;
  readonly out: Three;
  readonly channels: number;
  readonly kernel: Three;
  readonly stride: Three;
  readonly padding: Three;
  readonly dilation: Three;
  readonly adaptive: boolean;
}

/** Of adaptive windows the stride is a fraction: window o starts at floor(o * stride / divisor). */
function fields(s: PoolSpec, count: number, steps: number): Field[] {
  return [
    ["count", "u32", count],
    ["steps", "u32", steps],
    ...axes("in", s.in),
    ...axes("out", s.out),
    ...axes("kernel", s.kernel),
    ...axes("stride", s.adaptive ? s.in : s.stride),
    ...axes("divisor", s.adaptive ? s.out : [1, 1, 1]),
    ...axes("padding", s.padding),
    ...axes("dilation", s.dilation),
  ];
}

/** Where windows start and end. Adaptive ones divide, which software adapters do a lane at a time: so a text of their own. */
const edges = (adaptive: boolean): string =>
  adaptive
    ? wgsl`
  fn start_of(window: vec3<i32>) -> vec3<i32> { return window * ${vec3("stride")} / ${vec3("divisor")}; }
  fn end_of(window: vec3<i32>) -> vec3<i32> {
    return ((window + 1) * ${vec3("stride")} + ${vec3("divisor")} - 1) / ${vec3("divisor")};
  }`
    : wgsl`
  fn start_of(window: vec3<i32>) -> vec3<i32> { return window * ${vec3("stride")} - ${vec3("padding")}; }
  fn end_of(window: vec3<i32>) -> vec3<i32> { return ${vec3("in")}; }`;

/** A thread per element (or vector of channels) of a grid of `positions`; the body has image, place and channel c. */
function emitPool(
  s: PoolSpec,
  o: {
    label: string;
    positions: "in" | "out";
    vector: 1 | 4;
    /** Operations per number of the grid. */
    each: number;
    bindings: [string, string][];
    body: string;
    functions?: string;
  },
  caps: Caps,
): Lowered {
  const steps = s.channels / o.vector;
  const count = s.batch * volume(s[o.positions]) * steps;
  const u = uniforms(o.bindings.length, fields(s, count, steps));
  const text = wgsl`
    ${storage(o.bindings)}
    ${u.wgsl}
    ${POSITIONS}
    ${edges(s.adaptive)}
    ${o.functions ?? ""}
    @compute @workgroup_size(64)
    fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) local: u32) {
      let e = (wg.y * grid.x + wg.x) * 64u + local;
      if (e >= u.count) { return; }
      let position = e / u.steps;
      let c = e - position * u.steps;
      let positions = volume(${vec3(o.positions)});
      let image = position / positions;
      let place = unravel(position - image * positions, ${vec3(o.positions)});
      ${o.body}
    }
  `;
  const workgroups = foldGrid(Math.max(1, Math.ceil(count / 64)), caps);
  const source = {
    label: `${o.label}${s.adaptive ? "/adaptive" : "/windows"}_x${o.vector}`,
    wgsl: text,
    workgroups,
    uniforms: u.words,
    flops: count * o.vector * o.each,
  };
  return { passes: [{ source, operands: o.bindings.map((_, i) => i) }], scratch: [] };
}

const vectorOf = (s: PoolSpec): 1 | 4 => (s.channels % 4 === 0 ? 4 : 1);
const type = (scalar: string, vector: 1 | 4): string => (vector === 4 ? `vec4<${scalar}>` : scalar);

/** Idea: a thread walks its window and keeps the first of the largest. Traffic: x once per window that covers it. */
function emitTap(s: PoolSpec, caps: Caps): Lowered {
  const vector = vectorOf(s);
  const [T, I] = [type("f32", vector), type("i32", vector)];
  const body = `
    let start = start_of(place);
    let end = end_of(place);
    var best = ${T}();
    var found = ${I}(-1);
    var t = 0;
    for (var i = 0; i < u.kernel_d; i++) {
      for (var j = 0; j < u.kernel_h; j++) {
        for (var k = 0; k < u.kernel_w; k++) {
          let at = start + vec3<i32>(i, j, k) * ${vec3("dilation")};
          if (all(at >= vec3<i32>()) && all(at < end)) {
            let value = x[flatten(image, at, ${vec3("in")}) * u.steps + c];
            let better = (value > best) | (found < ${I}());
            best = select(best, value, better);
            found = select(found, ${I}(t), better);
          }
          t++;
        }
      }
    }
    taps[e] = max(found, ${I}());`;
  const bindings: [string, string][] = [
    ["x", T],
    ["taps", I],
  ];
  return emitPool(s, { label: "maxPoolTap", positions: "out", vector, each: volume(s.kernel), bindings, body }, caps);
}

/** Idea: a thread is one window of one or four channels, which may read different taps, so these are scalar loads. */
function emitTake(s: PoolSpec, caps: Caps): Lowered {
  const vector = vectorOf(s);
  const lane = (j: number): string => (vector === 4 ? `[${j}]` : "");
  const lines = Array.from(
    { length: vector },
    (_, j) => `result${lane(j)} = read(image, start, tap${lane(j)}, c * ${vector}u + ${j}u);`,
  );
  const body = `
    let start = start_of(place);
    let tap = taps[e];
    var result = ${type("f32", vector)}();
    ${lines.join("\n    ")}
    y[e] = result;`;
  const read = wgsl`
    fn read(image: u32, start: vec3<i32>, tap: i32, channel: u32) -> f32 {
      let at = start + unravel(u32(tap), ${vec3("kernel")}) * ${vec3("dilation")};
      let inside = all(at >= vec3<i32>()) && all(at < ${vec3("in")});
      return select(0f, x[select(0u, flatten(image, at, ${vec3("in")}) * u.steps * ${vector}u + channel, inside)], inside);
    }
  `;
  const bindings: [string, string][] = [
    ["x", "f32"],
    ["taps", type("i32", vector)],
    ["y", type("f32", vector)],
  ];
  return emitPool(s, { label: "poolTake", positions: "out", vector, each: 0, bindings, body, functions: read }, caps);
}

/**
 * Idea: a thread is a position of x and adds the gradients of the windows over it that took it, in order. The first and
 * last such window follow from start_of. Traffic: g and taps once per position that a window covers.
 */
function emitSpread(s: PoolSpec, caps: Caps): Lowered {
  const vector = vectorOf(s);
  const [T, I] = [type("f32", vector), type("i32", vector)];
  const body = `
    let stride = ${vec3("stride")};
    let divisor = ${vec3("divisor")};
    let kernel = ${vec3("kernel")};
    let dilation = ${vec3("dilation")};
    let shifted = place + ${vec3("padding")};
    let first = (max(vec3<i32>(), shifted - (kernel - 1) * dilation) * divisor + stride - 1) / stride;
    let last = min(${vec3("out")} - 1, ((shifted + 1) * divisor - 1) / stride);
    var acc = ${T}();
    for (var z = first.x; z <= last.x; z++) {
      for (var y = first.y; y <= last.y; y++) {
        for (var x = first.z; x <= last.z; x++) {
          let window = vec3<i32>(z, y, x);
          let step = place - start_of(window);
          let tap = step / dilation;
          if (any(step < vec3<i32>()) || any(tap * dilation != step) || any(tap >= kernel)) { continue; }
          let at = flatten(image, window, ${vec3("out")}) * u.steps + c;
          let t = ${I}((tap.x * kernel.y + tap.y) * kernel.z + tap.z);
          acc += select(${T}(), g[at], taps[at] == t);
        }
      }
    }
    gx[e] = acc;`;
  const bindings: [string, string][] = [
    ["g", T],
    ["taps", I],
    ["gx", T],
  ];
  const each = 2 * volume(map3((i) => Math.ceil(s.kernel[i] / s.stride[i]))); // windows over a position, at most
  return emitPool(s, { label: "poolSpread", positions: "in", vector, each, bindings, body }, caps);
}

// ---- definitions

const map3 = (f: (i: 0 | 1 | 2) => number): Three => [f(0), f(1), f(2)];
const unravel = (i: number, [, b, c]: Three): Three => [Math.floor(i / (b * c)), Math.floor(i / c) % b, i % c];
const flatten = (image: number, at: Three, size: Three): number =>
  ((image * size[0] + at[0]) * size[1] + at[1]) * size[2] + at[2];

/** Where window `o` of an axis starts and ends. */
const startOf = (s: PoolSpec, i: 0 | 1 | 2, o: number): number =>
  s.adaptive ? Math.floor((o * s.in[i]) / s.out[i]) : o * s.stride[i] - s.padding[i];
const endOf = (s: PoolSpec, i: 0 | 1 | 2, o: number): number =>
  s.adaptive ? Math.ceil(((o + 1) * s.in[i]) / s.out[i]) : s.in[i];

/** Calls `visit` with flat indices of x and of the window for every tap, within its window unless `whole`, on the data. */
function eachTap(s: PoolSpec, whole: boolean, visit: (x: number, window: number, tap: number) => void): void {
  for (let p = 0; p < s.batch * volume(s.out); p++) {
    const image = Math.floor(p / volume(s.out));
    const place = unravel(p % volume(s.out), s.out);
    for (let tap = 0; tap < volume(s.kernel); tap++) {
      const step = unravel(tap, s.kernel);
      const at = map3((i) => startOf(s, i, place[i]) + step[i] * s.dilation[i]);
      const end = map3((i) => (whole ? s.in[i] : endOf(s, i, place[i])));
      if (at.some((a, i) => a < 0 || a >= end[i])) continue;
      for (let c = 0; c < s.channels; c++) visit(flatten(image, at, s.in) * s.channels + c, p * s.channels + c, tap);
    }
  }
}

const inputSize = (s: PoolSpec): number => s.batch * volume(s.in) * s.channels;
const windowCount = (s: PoolSpec): number => s.batch * volume(s.out) * s.channels;

/** Most taps of an adaptive window of an axis. */
function adaptiveTaps(input: number, output: number): number {
  const sizes = Array.from(
    { length: output },
    (_, o) => Math.ceil(((o + 1) * input) / output) - Math.floor((o * input) / output),
  );
  return Math.max(1, ...sizes);
}

/** Windows of every kind, each with at least one tap on the data. */
export function drawPool(d: Draw): PoolSpec {
  const used = d.int(1, 3);
  const per = (f: (i: 0 | 1 | 2) => number, unit: number): Three => map3((i) => (i < 3 - used ? unit : f(i)));
  const batch = d.int(1, 2);
  const channels = d.pick([1, 3, 4, 8]);
  if (d.pick([false, false, true])) {
    const input = per(() => d.int(1, 7), 1);
    const out = per(() => d.int(1, 4), 1);
    const kernel = map3((i) => adaptiveTaps(input[i], out[i]));
    return {
      batch,
      channels,
      in: input,
      out,
      kernel,
      stride: [1, 1, 1],
      padding: [0, 0, 0],
      dilation: [1, 1, 1],
      adaptive: true,
    };
  }
  const kernel = per(() => d.int(1, 3), 1);
  const dilation = per(() => d.int(1, 2), 1);
  const stride = per(() => d.int(1, 3), 1);
  const padding = per((i) => d.int(0, Math.floor(kernel[i] / 2)), 0);
  const out = per(() => d.int(1, 3), 1);
  // At least the start of the last window lies on the data, and behind the first tap that does not stand on padding.
  const input = map3((i) => Math.max((out[i] - 1) * stride[i] - padding[i] + 1, dilation[i]) + d.int(0, 3));
  return { batch, channels, in: input, out, kernel, stride, padding, dilation, adaptive: false };
}

const one = <S>(emit: (s: S, caps: Caps) => Lowered): readonly Variant<S>[] => [
  { name: "windows", supports: () => true, emit },
];

/** x -> the tap of each window where x is largest, the first of equals. */
export const maxPoolTap: Family<PoolSpec> = {
  name: "maxPoolTap",
  variants: one(emitTap),
  inputs: (s) => [{ dtype: "f32", size: inputSize(s) }],
  outputs: (s) => [{ dtype: "i32", size: windowCount(s) }],
  reference(s, [x]) {
    const best = new Float64Array(windowCount(s)).fill(Number.NEGATIVE_INFINITY);
    const taps = new Float64Array(windowCount(s));
    eachTap(s, false, (at, window, tap) => {
      if (x[at] <= best[window]) return;
      best[window] = x[at];
      taps[window] = tap;
    });
    return [taps];
  },
  draw: drawPool,
  rtol: 0, // comparisons
};

/** x and taps -> x at the tap of each window; 0 where that stands on padding. */
export const poolTake: Family<PoolSpec> = {
  name: "poolTake",
  variants: one(emitTake),
  inputs: (s) => [
    { dtype: "f32", size: inputSize(s) },
    { dtype: "i32", size: windowCount(s), below: volume(s.kernel) },
  ],
  outputs: (s) => [{ dtype: "f32", size: windowCount(s) }],
  reference(s, [x, taps]) {
    const y = new Float64Array(windowCount(s));
    eachTap(s, true, (at, window, tap) => {
      if (taps[window] === tap) y[window] = x[at];
    });
    return [y];
  },
  draw: drawPool,
  rtol: 0, // a copy
};

/** Gradient of the windows and taps -> gradient of x: the transpose of `poolTake`. */
export const poolSpread: Family<PoolSpec> = {
  name: "poolSpread",
  variants: one(emitSpread),
  inputs: (s) => [
    { dtype: "f32", size: windowCount(s) },
    { dtype: "i32", size: windowCount(s), below: volume(s.kernel) },
  ],
  outputs: (s) => [{ dtype: "f32", size: inputSize(s) }],
  reference(s, [g, taps]) {
    const gx = new Float64Array(inputSize(s));
    eachTap(s, true, (at, window, tap) => {
      if (taps[window] === tap) gx[at] += g[window];
    });
    return [gx];
  },
  draw: drawPool,
  rtol: 1e-6,
  why: "a sum of as many as windows overlap",
  sums: true,
};

export const families: readonly Family<PoolSpec>[] = [maxPoolTap, poolTake, poolSpread];
