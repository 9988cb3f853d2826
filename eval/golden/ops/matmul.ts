// Golden ops of the group "matmul": products of matrices and einsum.

import { einsum } from "../../../engine/einsum.ts";
import * as nn from "../../../engine/nn/index.ts";
import type { OpTable } from "./op.ts";

export const matmul: OpTable = {
  linear: (_, { x, weight, bias }) => nn.linear(x, weight, bias),
  matmul: (_, { input, other }) => input.matmul(other),
  mm: (_, { input, mat2 }) => input.matmul(mat2),
  mv: (_, { input, vec }) => input.matmul(vec),
  bmm: (_, { input, mat2 }) => input.matmul(mat2),
  baddbmm: (args, { c0, x, y }) =>
    nn.baddbmm(c0, x, y, { beta: args.number("beta", 1), alpha: args.number("alpha", 1) }),
  einsum: (args, inputs) => einsum(args.text("equation"), ...Object.values(inputs)),
};
