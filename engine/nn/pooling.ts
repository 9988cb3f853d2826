// Pooling over the one to three spatial axes of [b, ...spatial, c], with the semantics of torch's avg_pool, max_pool and
// their adaptive forms (which are channels second). Averages are products with constant matrices along each axis, or a mean
// where windows lie side by side; the maxima are ops/pool.ts.

import { ShapeError, show } from "../error.ts";
import { type Padding, perAxis, sidesOf, three, withoutUnits, withUnits } from "../ops/conv_options.ts";
import type { WindowAttrs } from "../ops/pool.ts";
import { numel, type Shape } from "../shape.ts";
import { type Tensor, tensor } from "../tensor.ts";
import { type AxisMap, alongAxis } from "./along.ts";

type Each = number | readonly number[];

export interface PoolOptions {
  /** The kernel's size when absent: windows side by side. */
  readonly stride?: Each;
  /** At most half of the kernel. Maxima see no padding; averages see zeros. */
  readonly padding?: Padding;
  /** Counts a last window that starts on the data or before it and ends behind the padding. */
  readonly ceilMode?: boolean;
}
export interface MaxPoolOptions extends PoolOptions {
  readonly dilation?: Each;
}
export interface AvgPoolOptions extends PoolOptions {
  /** Whether padding counts in the divisor; true when absent. What ceilMode adds behind the padding never does. */
  readonly countIncludePad?: boolean;
  /** Divides by this instead of by the window's size. */
  readonly divisor?: number;
}
/** Size of the result per spatial axis; null keeps the input's. */
export type AdaptiveSize = number | readonly (number | null)[];

export interface Pooled {
  readonly values: Tensor;
  /** i32, of the same shape: the flat index over the spatial axes of x that each value came from, as torch counts. */
  readonly indices: Tensor;
}

interface Windows {
  readonly kernel: readonly number[];
  readonly stride: readonly number[];
  readonly dilation: readonly number[];
  readonly sides: readonly (readonly [number, number])[];
  readonly out: readonly number[];
}

function spatialOf(op: string, x: Shape): Shape {
  if (x.length < 3 || x.length > 5)
    throw new ShapeError(`${op}: expected "b ...spatial c" of rank 3 to 5, got ${show(x)}`);
  return x.slice(1, -1);
}

/** (n + padding - dilation (k - 1) - 1) / stride + 1, rounded down, or up by windows that start before the end of the data. */
function windowsOf(op: string, x: Shape, size: Each, o: MaxPoolOptions): Windows {
  const input = spatialOf(op, x);
  const kernel = perAxis(op, "kernel", size, input.length, 1);
  const stride = perAxis(op, "stride", o.stride ?? size, input.length, 1);
  const dilation = perAxis(op, "dilation", o.dilation ?? 1, input.length, 1);
  const sides = sidesOf(op, o.padding ?? 0, input.length);
  const out = input.map((n, i) => {
    const reach = dilation[i] * (kernel[i] - 1) + 1;
    if (sides[i].some((p) => p > reach / 2))
      throw new ShapeError(`${op}: padding ${show(sides[i])} is more than half of a window of ${reach}`);
    const span = n + sides[i][0] + sides[i][1] - reach;
    const count = (o.ceilMode ? Math.ceil(span / stride[i]) : Math.floor(span / stride[i])) + 1;
    const last = o.ceilMode && (count - 1) * stride[i] >= n + sides[i][0] ? count - 1 : count;
    if (last < 1) throw new ShapeError(`${op}: a window of ${reach} does not fit into axis ${i + 1} of ${show(x)}`);
    return last;
  });
  return { kernel, stride, dilation, sides, out };
}

// ---- averages

/** Mean over windows: [b, ...spatial, c] -> [b, ...spatial', c]. Throws ShapeError where a window does not fit. */
export function avgPool(x: Tensor, kernel: Each, o: AvgPoolOptions = {}): Tensor {
  const w = windowsOf("avgPool", x.shape, kernel, o);
  const scale = o.divisor === undefined ? 1 : numel(w.kernel) / o.divisor;
  const y = sideBySide(x.shape, w) ? blockMean(x, w.kernel, w.out) : windowMean(x, w, o);
  return scale === 1 ? y : y.mul(scale);
}

/** Windows that share nothing, need no padding and are whole. */
function sideBySide(x: Shape, w: Windows): boolean {
  return w.kernel.every((k, i) => k === w.stride[i] && w.sides[i].every((p) => p === 0) && w.out[i] * k <= x[i + 1]);
}

function blockMean(x: Tensor, kernel: readonly number[], out: readonly number[]): Tensor {
  const whole = [x.shape[0], ...out.map((n, i) => n * kernel[i]), x.shape[x.rank - 1]];
  const blocks = x
    .sliceWith({ start: whole.map(() => 0), size: whole, step: whole.map(() => 1) })
    .reshape([whole[0], ...out.flatMap((n, i) => [n, kernel[i]]), whole[whole.length - 1]]);
  return blocks.mean(out.map((_, i) => 2 + 2 * i));
}

/** The divisor is a product over the axes, so that a mean over a window is one of rows of means. */
function windowMean(x: Tensor, w: Windows, o: AvgPoolOptions): Tensor {
  return w.kernel.reduce((y, k, i) => {
    if (k === 1 && w.stride[i] === 1) return y;
    const n = x.shape[i + 1];
    const [low, high] = w.sides[i];
    const map: AxisMap = {
      key: `window ${k} ${w.stride[i]} ${low} ${high} ${o.countIncludePad ?? true} ${o.divisor !== undefined}`,
      rows: w.out[i],
      columns: n,
      row: (at) => {
        const start = at * w.stride[i] - low;
        const end = Math.min(start + k, n + high);
        const [from, to] = [Math.max(start, 0), Math.min(end, n)];
        const count = o.divisor !== undefined ? k : o.countIncludePad === false ? to - from : end - start;
        return Array.from({ length: Math.max(0, to - from) }, (_, j) => [from + j, 1 / count] as const);
      },
    };
    return alongAxis(y, i + 1, map);
  }, x);
}

/** Mean over window i of `size` per axis, from floor(i n / size) to ceil((i + 1) n / size). */
export function adaptiveAvgPool(x: Tensor, size: AdaptiveSize): Tensor {
  const out = adaptiveSizes("adaptiveAvgPool", x.shape, size);
  const kernel = out.map((m, i) => x.shape[i + 1] / m);
  if (kernel.every(Number.isInteger)) return blockMean(x, kernel, out);
  return out.reduce((y, m, i) => {
    const n = x.shape[i + 1];
    if (m === n) return y;
    const map: AxisMap = {
      key: "adaptive",
      rows: m,
      columns: n,
      row: (at) => {
        const [from, to] = [Math.floor((at * n) / m), Math.ceil(((at + 1) * n) / m)];
        return Array.from({ length: to - from }, (_, j) => [from + j, 1 / (to - from)] as const);
      },
    };
    return alongAxis(y, i + 1, map);
  }, x);
}

function adaptiveSizes(op: string, x: Shape, size: AdaptiveSize): readonly number[] {
  const input = spatialOf(op, x);
  const wanted = typeof size === "number" ? size : size.map((n, i) => n ?? input[i] ?? 1);
  return perAxis(op, "size", wanted, input.length, 1);
}

// ---- maxima

/** Largest element of each window. Of equal ones the first receives the gradient, as in torch. */
export function maxPool(x: Tensor, kernel: Each, o: MaxPoolOptions = {}): Tensor {
  return largest(x, maxWindows("maxPool", x.shape, kernel, o)).values;
}

/** `maxPool` and where its values came from. */
export function maxPoolWithIndices(x: Tensor, kernel: Each, o: MaxPoolOptions = {}): Pooled {
  const attrs = maxWindows("maxPoolWithIndices", x.shape, kernel, o);
  const { values, taps } = largest(x, attrs);
  return { values, indices: indicesOf(x.shape, taps, attrs) };
}

/** Largest element of window i of `size` per axis, from floor(i n / size) to ceil((i + 1) n / size). */
export function adaptiveMaxPool(x: Tensor, size: AdaptiveSize): Tensor {
  return largest(x, adaptiveWindows("adaptiveMaxPool", x.shape, size)).values;
}

/** `adaptiveMaxPool` and where its values came from. */
export function adaptiveMaxPoolWithIndices(x: Tensor, size: AdaptiveSize): Pooled {
  const attrs = adaptiveWindows("adaptiveMaxPoolWithIndices", x.shape, size);
  const { values, taps } = largest(x, attrs);
  return { values, indices: indicesOf(x.shape, taps, attrs) };
}

function maxWindows(op: string, x: Shape, size: Each, o: MaxPoolOptions): WindowAttrs {
  const { kernel, stride, dilation, sides, out } = windowsOf(op, x, size, o);
  out.forEach((count, i) => {
    for (let at = 0; at < count; at++) {
      const start = at * stride[i] - sides[i][0];
      const first = start < 0 ? start + Math.ceil(-start / dilation[i]) * dilation[i] : start;
      if (first < x[i + 1] && first <= start + dilation[i] * (kernel[i] - 1)) continue;
      throw new ShapeError(`${op}: window ${at} of axis ${i + 1} of ${show(x)} sees only padding (make it smaller)`);
    }
  });
  const low = sides.map((s) => s[0]);
  return {
    out: three(out, 1),
    kernel: three(kernel, 1),
    stride: three(stride, 1),
    padding: three(low, 0),
    dilation: three(dilation, 1),
    adaptive: false,
  };
}

function adaptiveWindows(op: string, x: Shape, size: AdaptiveSize): WindowAttrs {
  const out = adaptiveSizes(op, x, size);
  const taps = out.map((m, i) => {
    const n = x[i + 1];
    const sizes = Array.from({ length: m }, (_, at) => Math.ceil(((at + 1) * n) / m) - Math.floor((at * n) / m));
    return Math.max(...sizes);
  });
  return {
    out: three(out, 1),
    kernel: three(taps, 1),
    stride: [1, 1, 1],
    padding: [0, 0, 0],
    dilation: [1, 1, 1],
    adaptive: true,
  };
}

function largest(x: Tensor, attrs: WindowAttrs): { values: Tensor; taps: Tensor } {
  const lifted = x.reshape(withUnits(x.shape, 1));
  const taps = lifted.detach().maxPoolTap(attrs);
  const y = lifted.poolTake(taps, attrs);
  return { values: y.reshape(withoutUnits(y.shape, x.rank)), taps };
}

/** Positions are computed in f32, which holds every whole number up to this. */
const MOST_POSITIONS = 2 ** 24;

/** Flat index over the spatial axes from the taps: start of the window, plus dilation times the place in the kernel. */
function indicesOf(x: Shape, taps: Tensor, { out, kernel, stride, padding, dilation, adaptive }: WindowAttrs): Tensor {
  const input = three(x.slice(1, -1), 1);
  if (numel(input) > MOST_POSITIONS)
    throw new ShapeError(`maxPool: indices of ${show(x)}: more than ${MOST_POSITIONS} positions`);
  const [, kh, kw] = kernel;
  let rest = taps.cast("f32");
  const parts = [kh * kw, kw, 1].map((size, i) => {
    const place = rest.add(0.5).div(size).floor(); // the half keeps a rounded quotient on its side of a whole number
    rest = rest.sub(place.mul(size));
    const start = (at: number): number =>
      adaptive ? Math.floor((at * input[i]) / out[i]) : at * stride[i] - padding[i];
    const starts = tensor(Float32Array.from({ length: out[i] }, (_, at) => start(at)));
    const pitch = numel(input.slice(i + 1));
    const shape = [1, 1, 1, 1, 1];
    shape[i + 1] = out[i];
    return place.mul(dilation[i]).add(starts.reshape(shape)).mul(pitch);
  });
  const flat = parts[0].add(parts[1]).add(parts[2]).cast("i32");
  return flat.reshape(withoutUnits(flat.shape, x.length));
}
