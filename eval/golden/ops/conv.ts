// Golden ops of the group "conv": convolutions and transposed ones over one to three spatial axes.

import type { Tensor } from "../../../engine/tensor.ts";
import type { Args } from "../args.ts";
import { channelsLast, channelsSecond, type OpFunction, type OpTable, withBatch } from "./op.ts";

/** [out, in / groups, ...kernel] -> [...kernel, in / groups, out]; of a transposed one [in, out / groups, ...kernel] likewise. */
const kernelFirst = (w: Tensor): Tensor => w.permute([...w.shape.slice(2).map((_, i) => i + 2), 1, 0]);

const common = (
  args: Args,
): { stride: number | readonly number[]; dilation: number | readonly number[]; groups: number } => ({
  stride: args.each("stride", 1),
  dilation: args.each("dilation", 1),
  groups: args.number("groups", 1),
});

/** "same", "valid" or zeros per axis. */
function paddingOf(args: Args): "same" | number | readonly number[] {
  const words = args.raw("padding");
  if (words === "same") return "same";
  return words === "valid" ? 0 : args.each("padding", 0);
}

const onImages = (f: (args: Args, x: Tensor, w: Tensor) => Tensor): OpFunction => {
  return (args, { x, weight, bias }) =>
    withBatch(x, weight.rank, (images) => {
      const y = f(args, channelsLast(images), kernelFirst(weight));
      return channelsSecond(bias ? y.add(bias) : y);
    });
};

const convolution = onImages((args, x, w) => x.conv(w, { ...common(args), padding: paddingOf(args) }));
const transposed = onImages((args, x, w) =>
  x.convTranspose(w, {
    ...common(args),
    padding: args.each("padding", 0),
    outputPadding: args.each("output_padding", 0),
  }),
);

export const conv: OpTable = {
  conv1d: convolution,
  conv2d: convolution,
  conv3d: convolution,
  conv_transpose1d: transposed,
  conv_transpose2d: transposed,
  conv_transpose3d: transposed,
};
