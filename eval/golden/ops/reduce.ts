// Golden ops of the group "reduce": reductions, scans, sorting, and losses, whose classes are in axis 1.

import * as nn from "../../../engine/nn/index.ts";
import type { Args } from "../args.ts";
import type { OpFunction, OpTable } from "./op.ts";

/** torch writes the axis or axes of a reduction as dim or dims. */
function axes(args: Args): readonly number[] | undefined {
  const name = args.raw("dims") === undefined ? "dim" : "dims";
  return args.raw(name) === undefined ? undefined : args.numbers(name);
}
const axis = (args: Args, fallback?: number): number => args.number("dim", fallback);
const keep = (args: Args): { keepdims: boolean } => ({ keepdims: args.flag("keepdim") });

function reduction(args: Args): nn.Reduction {
  const name = args.text("reduction", "mean");
  if (name !== "mean" && name !== "sum" && name !== "none") throw new Error(`unknown reduction ${name}`);
  return name;
}

/** With one axis as `dim`: values and indices. With `dims`, or none: values, gradients shared among equal ones. */
const extreme =
  (which: "max" | "min"): OpFunction =>
  (args, { x }) => {
    if (typeof args.raw("dim") !== "number") return x[which](axes(args), keep(args));
    const { values, indices } = (which === "max" ? nn.maxAlong : nn.minAlong)(x, axis(args), keep(args));
    return [values, indices];
  };

const position =
  (find: typeof nn.argmax): OpFunction =>
  (args, { x }) =>
    find(x, args.raw("dim") === undefined ? undefined : axis(args), keep(args));

const spread = (args: Args): nn.VarianceOptions => ({ ...keep(args), correction: args.number("correction", 1) });

const crossEntropy: OpFunction = (args, { x, t, w }) =>
  nn.crossEntropy(x, t, {
    axis: x.rank > 1 ? 1 : 0,
    weight: w,
    ignoreIndex: args.number("ignore_index", -100),
    labelSmoothing: args.number("label_smoothing", 0),
    reduction: reduction(args),
  });

const smoothL1: OpFunction = (args, { x, y }) =>
  nn.smoothL1(x, y, { beta: args.number("beta", 1), reduction: reduction(args) });

const bceWithLogits: OpFunction = (args, { x, y, weight, pos_weight }) =>
  nn.bceWithLogits(x, y, { weight, posWeight: pos_weight, reduction: reduction(args) });

export const reduce: OpTable = {
  softmax: (args, { x }) => x.softmax(axis(args, -1)),
  log_softmax: (args, { x }) => nn.logSoftmax(x, axis(args, -1)),
  logsumexp: (args, { x }) => nn.logsumexp(x, axes(args), keep(args)),
  sum: (args, { x }) => x.sum(axes(args), keep(args)),
  mean: (args, { x }) => x.mean(axes(args), keep(args)),
  var: (args, { x }) => nn.variance(x, axes(args), spread(args)),
  std: (args, { x }) => nn.std(x, axes(args), spread(args)),
  norm: (args, { x }) => {
    const named = args.raw("p"); // JSON has no infinity, so that comes as a word
    const p = typeof named === "string" ? Number(named.replace("inf", "Infinity")) : args.number("p", 2);
    return nn.norm(x, p, axes(args), keep(args));
  },
  max: extreme("max"),
  min: extreme("min"),
  amax: (args, { x }) => x.max(axes(args), keep(args)),
  amin: (args, { x }) => x.min(axes(args), keep(args)),
  argmax: position(nn.argmax),
  argmin: position(nn.argmin),
  any: (args, { x }) => nn.any(x, axes(args), keep(args)),
  all: (args, { x }) => nn.all(x, axes(args), keep(args)),
  prod: (args, { x }) => nn.prod(x, args.raw("dim") === undefined ? undefined : axis(args), keep(args)),
  cumsum: (args, { x }) => x.cumsum(axis(args)),
  cumprod: (args, { x }) => nn.cumprod(x, axis(args)),
  topk: (args, { x }) => {
    const smallest = !args.flag("largest", true);
    args.flag("sorted", true); // sorted is one of the orders that false allows
    const { values, indices } = nn.topk(x, args.number("k"), axis(args, -1), { smallest });
    return [values, indices];
  },
  sort: (args, { x }) => {
    args.flag("stable"); // always
    const { values, indices } = nn.sort(x, axis(args, -1), { descending: args.flag("descending") });
    return [values, indices];
  },
  argsort: (args, { x }) => {
    args.flag("stable");
    return x.argsort(axis(args, -1), { descending: args.flag("descending") });
  },
  cross_entropy: crossEntropy,
  nll_loss: (args, { x, t, w }) =>
    nn.nll(x, t, {
      axis: x.rank > 1 ? 1 : 0,
      weight: w,
      ignoreIndex: args.number("ignore_index", -100),
      reduction: reduction(args),
    }),
  mse_loss: (args, { x, y }) => nn.mse(x, y, { reduction: reduction(args) }),
  l1_loss: (args, { x, y }) => nn.l1(x, y, { reduction: reduction(args) }),
  smooth_l1: smoothL1,
  smooth_l1_loss: smoothL1,
  huber_loss: (args, { x, y }) => nn.huber(x, y, { delta: args.number("delta", 1), reduction: reduction(args) }),
  bce_with_logits: bceWithLogits,
  binary_cross_entropy_with_logits: bceWithLogits,
  kl_div: (args, { x, y }) => {
    const way = args.text("reduction", "mean");
    const logTarget = args.flag("log_target");
    return nn.kl(x, y, { logTarget, reduction: way === "batchmean" ? way : reduction(args) });
  },
};
