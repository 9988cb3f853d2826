// Average pooling and nearest-neighbour resizing of channels-last images, and their gradients. Each gradient gathers:
// an input pixel sums the outputs it went to, in order, so nothing is atomic. Called through engine/ops.

import {
  type Caps,
  type Draw,
  type Family,
  foldGrid,
  type Lowered,
  storage,
  uniforms,
  type Variant,
  wgsl,
} from "./wgsl.ts";

/** x [batch, height, width, channels]; windows of `window` x `window`, side by side; odd last rows and columns dropped. */
export interface PoolSpec {
  readonly batch: number;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly window: number;
}

/** Output row i shows input row floor(i * inHeight / outHeight), columns likewise: up or down, any ratio. */
export interface ResizeSpec {
  readonly batch: number;
  readonly inHeight: number;
  readonly inWidth: number;
  readonly outHeight: number;
  readonly outWidth: number;
  readonly channels: number;
}

interface Image {
  readonly height: number;
  readonly width: number;
}

/**
 * Idea, for all four: a thread is one channel vector of one pixel of the result, with `body` to compute `acc` from x at
 * (row, col). The grid is (64 vectors along the image row, image rows folded over y and z): only the column is divided
 * out per thread. Traffic: the result once, the source once (cached between neighbours). Nothing is shared between
 * threads, so this one variant serves every adapter; vec4 along channels when they divide.
 */
function emitPixels(
  name: string,
  from: Image,
  to: Image,
  batch: number,
  channels: number,
  window: number,
  body: string,
  caps: Caps,
): Lowered {
  const vector = channels % 4 === 0 ? 4 : 1;
  const type = vector === 4 ? "vec4<f32>" : "f32";
  const steps = channels / vector;
  const rows = batch * to.height;
  const u = uniforms(2, [
    ["rows", "u32", rows],
    ["from_height", "u32", from.height],
    ["from_width", "u32", from.width],
    ["to_height", "u32", to.height],
    ["to_width", "u32", to.width],
    ["steps", "u32", steps],
    ["window", "u32", window],
  ]);
  const text = wgsl`
    ${storage([
      ["x", type],
      ["y", type],
    ])}
    ${u.wgsl}
    @compute @workgroup_size(64)
    fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) local: u32) {
      let e = wg.x * 64u + local;
      let flat_row = wg.z * grid.y + wg.y;
      if (flat_row >= u.rows || e >= u.to_width * u.steps) { return; }
      let row = flat_row % u.to_height;
      let col = e / u.steps;
      let c = e % u.steps;
      let image = flat_row / u.to_height * u.from_height;
      var acc = ${type}(0.0);
      ${body}
      y[flat_row * u.to_width * u.steps + e] = acc;
    }
  `;
  const across = Math.ceil((to.width * steps) / 64);
  const [y, z] = foldGrid(rows, caps);
  const source = {
    label: `${name}/pixels_x${vector}`,
    wgsl: text,
    workgroups: [across, y, z] as const,
    uniforms: u.words,
  };
  return { passes: [{ source, operands: [0, 1] }], scratch: [] };
}

const pixels = <S>(emit: (spec: S, caps: Caps) => Lowered): readonly Variant<S>[] => [
  { name: "pixels", supports: () => true, emit },
];

const load = (row: string, col: string): string => `x[((image + ${row}) * u.from_width + ${col}) * u.steps + c]`;

const pooled = (s: PoolSpec): Image => ({
  height: Math.floor(s.height / s.window),
  width: Math.floor(s.width / s.window),
});
const source = (s: ResizeSpec): Image => ({ height: s.inHeight, width: s.inWidth });
const resized = (s: ResizeSpec): Image => ({ height: s.outHeight, width: s.outWidth });
const sizeOf = (i: Image, s: { batch: number; channels: number }): number => s.batch * i.height * i.width * s.channels;

/** Calls f(flat index in `to`, flat index in `from`) for every pair of elements that `pairs` of pixels says belong together. */
function eachPair(
  s: { readonly batch: number; readonly channels: number },
  big: Image,
  small: Image,
  of: (y: number, x: number) => readonly [y: number, x: number],
  f: (big: number, small: number) => void,
): void {
  for (let b = 0; b < s.batch; b++)
    for (let y = 0; y < big.height; y++)
      for (let x = 0; x < big.width; x++) {
        const [sy, sx] = of(y, x);
        if (sy >= small.height || sx >= small.width) continue;
        for (let c = 0; c < s.channels; c++)
          f(
            ((b * big.height + y) * big.width + x) * s.channels + c,
            ((b * small.height + sy) * small.width + sx) * s.channels + c,
          );
      }
}

const eachPooled = (s: PoolSpec, f: (full: number, out: number) => void): void =>
  eachPair(s, s, pooled(s), (y, x) => [Math.floor(y / s.window), Math.floor(x / s.window)], f);
const eachResized = (s: ResizeSpec, f: (out: number, from: number) => void): void =>
  eachPair(
    s,
    resized(s),
    source(s),
    (y, x) => [Math.floor((y * s.inHeight) / s.outHeight), Math.floor((x * s.inWidth) / s.outWidth)],
    f,
  );

const drawPool = (d: Draw): PoolSpec => {
  const window = d.pick([1, 2, 2, 3]);
  return {
    batch: d.int(1, 3),
    height: d.int(window, 17),
    width: d.int(window, 17),
    channels: d.pick([1, 3, 4, 8, 64, d.int(1, 20)]),
    window,
  };
};

const drawResize = (d: Draw): ResizeSpec => {
  const [inHeight, inWidth] = [d.int(1, 12), d.int(1, 12)];
  const twice = d.pick([true, false]);
  return {
    batch: d.int(1, 3),
    inHeight,
    inWidth,
    outHeight: twice ? 2 * inHeight : d.int(1, 17),
    outWidth: twice ? 2 * inWidth : d.int(1, 17),
    channels: d.pick([1, 3, 4, 8, 64, d.int(1, 20)]),
  };
};

const AVERAGE = wgsl`
  for (var dy = 0u; dy < u.window; dy++) {
    for (var dx = 0u; dx < u.window; dx++) { acc += ${load("row * u.window + dy", "col * u.window + dx")}; }
  }
  acc *= 1.0f / f32(u.window * u.window);
`;

/** x [batch, height, width, channels] -> means of the windows, [batch, height / window, width / window, channels]. */
export const averagePool: Family<PoolSpec> = {
  name: "averagePool",
  variants: pixels((s, caps) => emitPixels("averagePool", s, pooled(s), s.batch, s.channels, s.window, AVERAGE, caps)),
  inputs: (s) => [{ dtype: "f32", size: sizeOf(s, s) }],
  outputs: (s) => [{ dtype: "f32", size: sizeOf(pooled(s), s) }],
  reference(s, [x]) {
    const y = new Float64Array(sizeOf(pooled(s), s));
    eachPooled(s, (full, out) => {
      y[out] += x[full] / s.window ** 2;
    });
    return [y];
  },
  draw: drawPool,
  rtol: 1e-6,
  sums: true,
  why: "a handful of roundings",
};

const SPREAD = wgsl`
  let from_row = row / u.window;
  let from_col = col / u.window;
  if (from_row < u.from_height && from_col < u.from_width) {
    acc = ${load("from_row", "from_col")} * (1.0f / f32(u.window * u.window));
  }
`;

/** g [batch, height / window, width / window, channels] -> gradient of x [batch, height, width, channels]. */
export const averagePoolGrad: Family<PoolSpec> = {
  name: "averagePoolGrad",
  variants: pixels((s, caps) =>
    emitPixels("averagePoolGrad", pooled(s), s, s.batch, s.channels, s.window, SPREAD, caps),
  ),
  inputs: (s) => [{ dtype: "f32", size: sizeOf(pooled(s), s) }],
  outputs: (s) => [{ dtype: "f32", size: sizeOf(s, s) }],
  reference(s, [g]) {
    const gx = new Float64Array(sizeOf(s, s));
    eachPooled(s, (full, out) => {
      gx[full] = g[out] / s.window ** 2;
    });
    return [gx];
  },
  draw: drawPool,
  rtol: 1e-6,
  why: "two roundings",
};

const NEAREST = `acc = ${load("row * u.from_height / u.to_height", "col * u.from_width / u.to_width")};`;

/** x [batch, inHeight, inWidth, channels] -> [batch, outHeight, outWidth, channels]. */
export const resizeNearest: Family<ResizeSpec> = {
  name: "resizeNearest",
  variants: pixels((s, caps) =>
    emitPixels("resizeNearest", source(s), resized(s), s.batch, s.channels, 1, NEAREST, caps),
  ),
  inputs: (s) => [{ dtype: "f32", size: sizeOf(source(s), s) }],
  outputs: (s) => [{ dtype: "f32", size: sizeOf(resized(s), s) }],
  reference(s, [x]) {
    const y = new Float64Array(sizeOf(resized(s), s));
    eachResized(s, (out, from) => {
      y[out] = x[from];
    });
    return [y];
  },
  draw: drawResize,
  rtol: 0, // a copy
};

// Input row y is shown by the output rows from ceil(y * out / in) up to, not including, ceil((y + 1) * out / in).
const GATHER = wgsl`
  let row_end = ((row + 1u) * u.from_height + u.to_height - 1u) / u.to_height;
  let col_begin = (col * u.from_width + u.to_width - 1u) / u.to_width;
  let col_end = ((col + 1u) * u.from_width + u.to_width - 1u) / u.to_width;
  for (var i = (row * u.from_height + u.to_height - 1u) / u.to_height; i < row_end; i++) {
    for (var j = col_begin; j < col_end; j++) { acc += ${load("i", "j")}; }
  }
`;

/** g [batch, outHeight, outWidth, channels] -> gradient of x [batch, inHeight, inWidth, channels]. */
export const resizeNearestGrad: Family<ResizeSpec> = {
  name: "resizeNearestGrad",
  variants: pixels((s, caps) =>
    emitPixels("resizeNearestGrad", resized(s), source(s), s.batch, s.channels, 1, GATHER, caps),
  ),
  inputs: (s) => [{ dtype: "f32", size: sizeOf(resized(s), s) }],
  outputs: (s) => [{ dtype: "f32", size: sizeOf(source(s), s) }],
  reference(s, [g]) {
    const gx = new Float64Array(sizeOf(source(s), s));
    eachResized(s, (out, from) => {
      gx[from] += g[out];
    });
    return [gx];
  },
  draw: drawResize,
  rtol: 2e-6,
  sums: true,
  why: "up to a few hundred f32 into one pixel",
};

export const families: readonly Family<unknown>[] = [averagePool, averagePoolGrad, resizeNearest, resizeNearestGrad];
