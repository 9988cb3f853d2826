// Golden ops of the group "norm". torch's images are channels second; layer and RMS norms work on last axes as they are.

import * as nn from "../../../engine/nn/index.ts";
import type { Tensor } from "../../../engine/tensor.ts";
import { channelsLast, channelsSecond, type OpTable } from "./op.ts";

/** A function of channels-last tensors on a channels-second one. */
const images = (x: Tensor, f: (x: Tensor) => Tensor): Tensor => channelsSecond(f(channelsLast(x)));

export const norm: OpTable = {
  group_norm: (args, { x, weight, bias }) => {
    const o = { weight, bias, eps: args.number("eps", 1e-5) };
    return images(x, (y) => nn.groupNorm(y, args.number("num_groups"), o));
  },
  instance_norm: (args, { x, weight, bias }) =>
    images(x, (y) => nn.instanceNorm(y, { weight, bias, eps: args.number("eps", 1e-5) })),
  layer_norm: (args, { x, weight, bias }) =>
    nn.layerNorm(x, { weight, bias, eps: args.number("eps", 1e-5), dims: args.number("normalized_dims", 1) }),
  rms_norm: (args, { x, weight }) =>
    nn.rmsNorm(x, { weight, eps: args.number("eps"), dims: args.number("normalized_dims", 1) }),
  batch_norm: (args, { x, weight, bias, running_mean, running_var }) => {
    const o = { weight, bias, eps: args.number("eps", 1e-5), training: args.flag("training") };
    const momentum = args.number("momentum", 0.1);
    const running = { mean: running_mean, variance: running_var };
    const { y, mean, variance } = nn.batchNorm(channelsLast(x), running, { ...o, momentum });
    return [channelsSecond(y), mean, variance];
  },
  l2_normalize: (args, { x }) =>
    nn.l2Normalize(x, args.number("dim", -1), { eps: args.number("eps", 1e-12), p: args.number("p", 2) }),
};
