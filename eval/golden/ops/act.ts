// Golden ops of the group "act": activations and elementwise functions, one or two inputs.

import * as nn from "../../../engine/nn/index.ts";
import type { Tensor } from "../../../engine/tensor.ts";
import type { Args } from "../args.ts";
import type { OpFunction, OpTable } from "./op.ts";

const unary =
  (f: (x: Tensor) => Tensor): OpFunction =>
  (_, { x }) =>
    f(x);
const binary =
  (f: (x: Tensor, y: Tensor) => Tensor): OpFunction =>
  (_, { x, y }) =>
    f(x, y);

/** A bound that may be absent. */
const bound = (args: Args, name: string): number | undefined =>
  args.raw(name) === undefined ? undefined : args.number(name);

export const act: OpTable = {
  gelu: (args, { x }) => (args.text("approximate", "none") === "tanh" ? nn.geluTanh(x) : x.gelu()),
  gelu_tanh: unary(nn.geluTanh),
  quick_gelu: unary(nn.quickGelu),
  softplus: (args, { x }) => {
    const beta = args.number("beta", 1);
    const threshold = args.number("threshold", 20); // beyond it torch returns x, as softplus does to the last digit
    return x.mul(beta).greater(threshold).where(x, x.mul(beta).softplus().div(beta));
  },
  mish: unary(nn.mish),
  // Cases that name no slope were made with 0.2, not with torch's default of 0.01.
  leaky_relu: (args, { x }) => nn.leakyRelu(x, args.number("negative_slope", 0.2)),
  elu: (args, { x }) => nn.elu(x, args.number("alpha", 1)),
  selu: unary(nn.selu),
  relu6: unary(nn.relu6),
  hardswish: unary(nn.hardswish),
  hardsigmoid: unary(nn.hardsigmoid),
  hardtanh: (args, { x }) => nn.hardtanh(x, args.number("min_val", -1), args.number("max_val", 1)),
  logsigmoid: unary(nn.logSigmoid),
  log_sigmoid: unary(nn.logSigmoid),
  softsign: unary(nn.softsign),
  geglu: unary(nn.geglu),
  glu: (args, { x }) => nn.glu(x, args.number("dim", -1)),
  clamp: (args, { x }) => x.clamp(bound(args, "min"), bound(args, "max")),
  silu: unary((x) => x.silu()),
  relu: unary((x) => x.relu()),
  sigmoid: unary((x) => x.sigmoid()),
  tanh: unary((x) => x.tanh()),
  erf: unary((x) => x.erf()),
  exp: unary((x) => x.exp()),
  sin: unary((x) => x.sin()),
  cos: unary((x) => x.cos()),
  square: unary((x) => x.square()),
  abs: unary((x) => x.abs()),
  neg: unary((x) => x.neg()),
  log: unary((x) => x.log()),
  sqrt: unary((x) => x.sqrt()),
  rsqrt: unary((x) => x.rsqrt()),
  reciprocal: unary((x) => x.reciprocal()),
  sign: unary((x) => x.sign()),
  floor: unary((x) => x.floor()),
  ceil: unary((x) => x.ceil()),
  round: unary((x) => x.round()),
  pow: (args, { x, y }) => x.pow(y ?? args.number("exponent")),
  where: (_, { x, y, m }) => m.cast("bool").where(x, y),
  add: binary((x, y) => x.add(y)),
  sub: binary((x, y) => x.sub(y)),
  mul: binary((x, y) => x.mul(y)),
  div: binary((x, y) => x.div(y)),
  maximum: binary((x, y) => x.maximum(y)),
  minimum: binary((x, y) => x.minimum(y)),
};
