// Resizing of the one to three spatial axes of [b, ...spatial, c] with the semantics of torch's F.interpolate (which is
// channels second). Every mode is separable: one map per axis, whose source positions and weights follow ATen's
// UpSample.h and cpu/UpSampleKernel.cpp, in float64 on the host.
//
// Output i of m reads near source position s(i), with r = 1 / scaleFactor where one is given and n / m otherwise:
//   nearest        floor(i r)
//   nearest-exact  floor((i + 1/2) r)
//   linear, cubic  (i + 1/2) r - 1/2, linear not below 0; with alignCorners i (n - 1) / (m - 1)
//   area           the mean over [floor(i n / m), ceil((i + 1) n / m)): adaptive pooling
//   antialias      a triangle or cubic filter around (i + 1/2) r, stretched by r where that shrinks; weights sum to one

import { got, ShapeError, show } from "../error.ts";
import type { Row } from "../ops/resample.ts";
import type { Shape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { type AxisMap, alongAxis } from "./along.ts";
import { adaptiveAvgPool } from "./pooling.ts";

/** "linear" is torch's linear, bilinear or trilinear by the number of axes; "cubic" its bicubic. */
export type InterpolateMode = (typeof MODES)[number];
const MODES = ["nearest", "nearest-exact", "linear", "cubic", "area"] as const;

type AxisMode = Exclude<InterpolateMode, "area">;

export interface InterpolateOptions {
  /** Result sizes, one for all spatial axes or one each; this or `scaleFactor`. */
  readonly size?: number | readonly number[];
  /** Sizes are floor(n scaleFactor), and positions step by 1 / scaleFactor, even where the size was rounded. */
  readonly scaleFactor?: number | readonly number[];
  /** Positions step by n / size also where `scaleFactor` gave the size. */
  readonly recomputeScaleFactor?: boolean;
  /** "nearest" when absent. */
  readonly mode?: InterpolateMode;
  /** The centres of the corner elements coincide, instead of the corners of the areas. Linear and cubic only. */
  readonly alignCorners?: boolean;
  /** Filters over all source elements that an output covers when shrinking. Linear and cubic only. */
  readonly antialias?: boolean;
}

/** Resizes: [b, ...spatial, c] -> [b, ...size, c]. Throws ShapeError where options disagree with the shape or each other. */
export function interpolate(x: Tensor, o: InterpolateOptions): Tensor {
  const mode = o.mode ?? "nearest";
  const axes = axesOf(x.shape, mode, o);
  if (mode === "area")
    return adaptiveAvgPool(
      x,
      axes.map((a) => a.to),
    );
  if (mode !== "linear" && mode !== "cubic" && axes.every(repeats)) return repeatEach(x, axes);
  return axes.reduce((y, axis, i) => resizeAxis(y, i + 1, axis, mode, o), x);
}

/** One axis: its sizes, and source elements per output element. */
interface Axis {
  readonly from: number;
  readonly to: number;
  readonly ratio: number;
}

function axesOf(x: Shape, mode: InterpolateMode, o: InterpolateOptions): Axis[] {
  if (!MODES.includes(mode))
    throw new TypeError(
      `interpolate: no mode ${got(mode)}: one of ${MODES.join(", ")} (linear and cubic are those of all spatial axes)`,
    );
  if (x.length < 3 || x.length > 5)
    throw new ShapeError(`interpolate: expected "b ...spatial c" of rank 3 to 5, got ${show(x)}`);
  if ((o.size === undefined) === (o.scaleFactor === undefined))
    throw new ShapeError("interpolate: give one of size and scaleFactor");
  if ((o.alignCorners || o.antialias) && mode !== "linear" && mode !== "cubic")
    throw new ShapeError(`interpolate: alignCorners and antialias are for linear and cubic, not ${mode}`);
  const from = x.slice(1, -1);
  const given = o.size ?? o.scaleFactor ?? 1;
  const each = typeof given === "number" ? from.map(() => given) : given;
  if (each.length !== from.length)
    throw new ShapeError(`interpolate: ${show(each)} for the ${from.length} spatial axes of ${show(x)}`);
  return from.map((n, i) => {
    const to = o.size === undefined ? Math.floor(n * each[i]) : each[i];
    if (!Number.isInteger(to) || to < 1 || n < 1)
      throw new ShapeError(`interpolate: axis ${i + 1} of ${show(x)} cannot have size ${to}`);
    return { from: n, to, ratio: o.size === undefined && !o.recomputeScaleFactor ? 1 / each[i] : n / to };
  });
}

function resizeAxis(x: Tensor, at: number, axis: Axis, mode: AxisMode, o: InterpolateOptions): Tensor {
  const { from, to, ratio } = axis;
  // Source positions are the output's own. Unfiltered linear copies between equal sizes whatever factor led to them (ATen).
  if (from === to && (ratio === 1 || o.alignCorners || (mode === "linear" && !o.antialias))) return x;
  const map: AxisMap = {
    key: `${mode} ${ratio} ${o.alignCorners ?? false} ${o.antialias ?? false}`,
    rows: to,
    columns: from,
    row: o.antialias ? filtered(axis, mode, o) : ROWS[mode](axis, o),
  };
  return alongAxis(x, at, map);
}

/** Nearest neighbours of a whole multiple: each element several times. */
const repeats = ({ from, to, ratio }: Axis): boolean => to % from === 0 && ratio === from / to;

/** All axes in one view. */
function repeatEach(x: Tensor, axes: readonly Axis[]): Tensor {
  const [b, c] = [x.shape[0], x.shape[x.rank - 1]];
  return x
    .reshape([b, ...axes.flatMap(({ from }) => [from, 1]), c])
    .expand([b, ...axes.flatMap(({ from, to }) => [from, to / from]), c])
    .reshape([b, ...axes.map(({ to }) => to), c]);
}

// ---- rows of the matrices

type RowsOf = (axis: Axis, o: InterpolateOptions) => (i: number) => Row;

/** Source elements per output element, by corners or by areas. */
function stepOf({ from, to, ratio }: Axis, o: InterpolateOptions): number {
  if (!o.alignCorners) return ratio;
  return to > 1 ? (from - 1) / (to - 1) : 0;
}

/** ATen rounds positions to float32 before it takes the floor, which lifts those that fell just below a whole number. */
const floorOf = (position: number): number => Math.floor(Math.fround(position));

const clamp = (i: number, n: number): number => Math.max(0, Math.min(i, n - 1));
const copyOf = (i: number, n: number): Row => [[clamp(i, n), 1]];

/** Element left of a position, and how far the position is from it towards the next. */
function split(position: number, n: number): [left: number, past: number] {
  const left = Math.min(floorOf(position), n - 1);
  return [left, Math.max(0, Math.min(position - left, 1))];
}

const ROWS: Readonly<Record<AxisMode, RowsOf>> = {
  nearest:
    ({ from, ratio }) =>
    (i) =>
      copyOf(floorOf(i * ratio), from),
  "nearest-exact":
    ({ from, ratio }) =>
    (i) =>
      copyOf(floorOf(Math.max(0, (i + 0.5) * ratio - 0.5) + 0.5), from),
  linear: (axis, o) => (i) => {
    const step = stepOf(axis, o);
    const [left, past] = split(o.alignCorners ? i * step : Math.max(0, (i + 0.5) * step - 0.5), axis.from);
    return [
      [left, 1 - past],
      [clamp(left + 1, axis.from), past],
    ];
  },
  cubic: (axis, o) => (i) => {
    const step = stepOf(axis, o);
    const [left, past] = split(o.alignCorners ? i * step : (i + 0.5) * step - 0.5, axis.from);
    return [-1, 0, 1, 2].map((j) => [clamp(left + j, axis.from), keys(past - j, -0.75)] as const);
  },
};

/** Cubic convolution kernel (Keys 1981) with slope `a` at 1. */
function keys(x: number, a: number): number {
  const d = Math.abs(x);
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

/** Half width of a filter, and its value; the cubic one is Pillow's, with another slope than that of plain cubic. */
const FILTERS: Partial<Readonly<Record<AxisMode, readonly [number, (x: number) => number]>>> = {
  linear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  cubic: [2, (x) => keys(x, -0.5)],
};

/** Weights of the elements whose centres lie under the filter, which is stretched where an output covers several. */
function filtered(axis: Axis, mode: AxisMode, o: InterpolateOptions): (i: number) => Row {
  const [half, filter] = FILTERS[mode] ?? [1, () => 1];
  const step = stepOf(axis, o);
  const stretch = Math.max(1, step);
  return (i) => {
    const centre = step * (i + 0.5);
    const first = Math.max(0, Math.trunc(centre - half * stretch + 0.5));
    const end = Math.min(axis.from, Math.trunc(centre + half * stretch + 0.5));
    const weights = Array.from({ length: Math.max(0, end - first) }, (_, j) =>
      filter((j + first - centre + 0.5) / stretch),
    );
    const total = weights.reduce((a, b) => a + b, 0);
    return weights.map((w, j) => [first + j, total === 0 ? 0 : w / total] as const);
  };
}
