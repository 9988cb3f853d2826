// Golden ops of the group "index": reading, writing and moving elements by position.

import * as nn from "../../../engine/nn/index.ts";
import type { Tensor } from "../../../engine/tensor.ts";
import type { Args } from "../args.ts";
import { channelsLast, channelsSecond, type OpTable } from "./op.ts";

const axis = (args: Args, fallback?: number): number => args.number("dim", fallback);

/** Python's slices: [start, stop, step] per axis, null where Python leaves a part out; bounds beyond an axis are cut. */
function sliced(x: Tensor, slices: readonly (readonly (number | null)[])[]): Tensor {
  return slices.reduce((y, [start, stop, step], i) => {
    const n = y.shape[i];
    const bound = (v: number | null, absent: number): number =>
      v === null ? absent : Math.max(0, Math.min(n, v < 0 ? v + n : v));
    const from = bound(start, 0);
    return y.slice(i, from, Math.max(from, bound(stop, n)), step ?? 1);
  }, x);
}

function shift(args: Args, x: Tensor): Tensor {
  const shifts = args.numbers("shifts");
  if (args.raw("dims") !== undefined) return nn.roll(x, shifts, args.numbers("dims"));
  return nn.roll(x.reshape([-1]), shifts, [0]).reshape(x.shape); // without axes torch rolls the flat tensor
}

function modeOf<T extends string>(args: Args, name: string, fallback: T, known: readonly T[]): T {
  const found = known.find((mode) => mode === args.text(name, fallback));
  if (!found) throw new Error(`argument ${name}: expected ${known.join(" or ")}, got ${args.text(name)}`);
  return found;
}

export const indexing: OpTable = {
  index_select: (args, { x, i }) => nn.indexSelect(x, axis(args), i),
  gather: (args, { x, i }) => nn.gather(x, axis(args), i),
  take_along_dim: (args, { x, i }) => nn.gather(x, axis(args), i),
  scatter_add: (args, { x, i, src }) => nn.scatterAdd(x, axis(args), i, src),
  scatter: (args, { x, i, src }) => nn.scatter(x, axis(args), i, src ?? args.number("value")),
  index_add: (args, { x, i, src }) => nn.indexAdd(x, axis(args), i, src, args.number("alpha", 1)),
  embedding: (args, { i, weight }) => {
    const paddingIdx = args.raw("padding_idx") === undefined ? undefined : args.number("padding_idx");
    return nn.embedding(i, weight, { paddingIdx });
  },
  one_hot: (args, { i }) => nn.oneHot(i, args.number("classes")),
  slice: (args, { x }) => sliced(x, args.raw("slices") as (number | null)[][]),
  permute: (args, { x }) => x.permute(args.numbers("dims").map((d) => (d < 0 ? d + x.rank : d))),
  transpose: (args, { x }) => {
    const [a, b] = [args.number("dim0"), args.number("dim1")].map((d) => (d < 0 ? d + x.rank : d));
    return x.permute(x.shape.map((_, i) => (i === a ? b : i === b ? a : i)));
  },
  flip: (args, { x }) => x.flip(args.numbers("dims")),
  roll: (args, { x }) => shift(args, x),
  cat: (args, inputs) => {
    const [first, ...rest] = Object.values(inputs);
    return first.concat(rest, axis(args, 0));
  },
  stack: (args, inputs) => nn.stack(Object.values(inputs), axis(args, 0)),
  repeat_interleave: (args, { x }) =>
    args.raw("dim") === undefined
      ? nn.repeatInterleave(x.reshape([-1]), args.number("repeats"), 0)
      : nn.repeatInterleave(x, args.number("repeats"), axis(args)),
  repeat: (args, { x }) => nn.tile(x, args.numbers("repeats")),
  masked_fill: (args, { x, m }) => nn.maskedFill(x, m, args.number("value")),
  tril: (args, { x }) => nn.tril(x, args.number("diagonal", 0)),
  triu: (args, { x }) => nn.triu(x, args.number("diagonal", 0)),
  pixel_shuffle: (args, { x }) => channelsSecond(nn.pixelShuffle(channelsLast(x), args.number("r"))),
  pixel_unshuffle: (args, { x }) => channelsSecond(nn.pixelUnshuffle(channelsLast(x), args.number("r"))),
  unfold2d: (args, { x }) => {
    const pair = (name: string, fallback?: number) => args.each(name, fallback) as number | [number, number];
    const o = { stride: pair("stride", 1), padding: pair("padding", 0), dilation: pair("dilation", 1) };
    return nn.unfold(channelsLast(x), { kernel: pair("kernel"), ...o }).rearrange("b h w f -> b f (h w)");
  },
  grid_sample: (args, { x, g }) => {
    const mode = modeOf(args, "mode", "bilinear", ["bilinear", "nearest"]);
    const padding = modeOf(args, "padding_mode", "zeros", ["zeros", "border", "reflection"]);
    const alignCorners = args.flag("align_corners");
    return channelsSecond(nn.gridSample(channelsLast(x), g, { mode, padding, alignCorners }));
  },
};
