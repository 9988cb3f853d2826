// Golden ops of the group "act": activations and elementwise functions, one or two inputs.

import type { Tensor } from "../../../engine/tensor.ts";
import type { OpFunction, OpTable } from "./op.ts";

const unary =
  (f: (x: Tensor) => Tensor): OpFunction =>
  (_, { x }) =>
    f(x);
const binary =
  (f: (x: Tensor, y: Tensor) => Tensor): OpFunction =>
  (_, { x, y }) =>
    f(x, y);

export const act: OpTable = {
  gelu: unary((x) => x.gelu()),
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
  pow: binary((x, y) => x.pow(y)),
  where: (_, { x, y, m }) => m.cast("bool").where(x, y),
  add: binary((x, y) => x.add(y)),
  sub: binary((x, y) => x.sub(y)),
  mul: binary((x, y) => x.mul(y)),
  div: binary((x, y) => x.div(y)),
  maximum: binary((x, y) => x.maximum(y)),
  minimum: binary((x, y) => x.minimum(y)),
};
