// Golden ops of the group "pool": averages and maxima over windows of one to three spatial axes. Maxima give torch's flat
// indices as their second result.

import {
  type AdaptiveSize,
  adaptiveAvgPool,
  adaptiveMaxPoolWithIndices,
  avgPool,
  maxPoolWithIndices,
} from "../../../engine/nn/pooling.ts";
import type { Tensor } from "../../../engine/tensor.ts";
import type { Args } from "../args.ts";
import { channelsLast, channelsSecond, type OpFunction, type OpTable } from "./op.ts";

type Each = number | readonly number[];

const kernelOf = (args: Args): Each =>
  args.raw("kernel") === undefined ? args.each("kernel_size") : args.each("kernel");

/** What averages and maxima have in common; no stride, or an empty list, is the kernel's size. */
function windowOptions(args: Args): { stride?: Each; padding: Each; ceilMode: boolean } {
  const stride = args.raw("stride") === undefined ? undefined : args.each("stride");
  const given = typeof stride === "object" && stride.length === 0 ? undefined : stride;
  return { stride: given, padding: args.each("padding", 0), ceilMode: args.flag("ceil_mode") };
}

/** Over the `axes` spatial axes of a batch of images, or of one image. */
const pooling =
  (axes: number, f: (args: Args, x: Tensor) => readonly Tensor[]): OpFunction =>
  (args, { x }) => {
    const single = x.rank === axes + 1;
    const results = f(args, channelsLast(single ? x.reshape([1, ...x.shape]) : x)).map(channelsSecond);
    return single ? results.map((y) => y.reshape(y.shape.slice(1))) : results;
  };

const average = (axes: number): OpFunction =>
  pooling(axes, (args, x) => {
    const divisor = args.raw("divisor_override") === undefined ? undefined : args.number("divisor_override");
    const countIncludePad = args.flag("count_include_pad", true);
    return [avgPool(x, kernelOf(args), { ...windowOptions(args), countIncludePad, divisor })];
  });

const maximum = (axes: number): OpFunction =>
  pooling(axes, (args, x) => {
    args.raw("return_indices");
    const options = { ...windowOptions(args), dilation: args.each("dilation", 1) };
    const { values, indices } = maxPoolWithIndices(x, kernelOf(args), options);
    return [values, indices];
  });

/** Sizes may be null: the input's. */
function sizeOf(args: Args): AdaptiveSize {
  const size = args.raw("output") ?? args.raw("output_size");
  args.raw("output_size");
  return size as AdaptiveSize;
}

const adaptiveAverage = (axes: number): OpFunction => pooling(axes, (args, x) => [adaptiveAvgPool(x, sizeOf(args))]);
const adaptiveMaximum = (axes: number): OpFunction =>
  pooling(axes, (args, x) => {
    args.raw("return_indices");
    const { values, indices } = adaptiveMaxPoolWithIndices(x, sizeOf(args));
    return [values, indices];
  });

export const pool: OpTable = Object.fromEntries(
  [1, 2, 3].flatMap((axes) => [
    [`avg_pool${axes}d`, average(axes)],
    [`max_pool${axes}d`, maximum(axes)],
    [`adaptive_avg_pool${axes}d`, adaptiveAverage(axes)],
    [`adaptive_max_pool${axes}d`, adaptiveMaximum(axes)],
  ]),
);
