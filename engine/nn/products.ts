// Matrix products with something added: the linear map of layers, and its batched cousin. Plain products are
// Tensor.matmul; sums over labelled axes are einsum.

import type { Tensor } from "../tensor.ts";

/** x W^T + bias: [..., in], [out, in] -> [..., out]. */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor | null): Tensor {
  const y = x.matmul(weight.transpose());
  return bias ? y.add(bias) : y;
}

/** beta c + alpha a @ b for batches of matrices: a [b, m, k], b [b, k, n], c broadcast to [b, m, n]. */
export function baddbmm(c: Tensor, a: Tensor, b: Tensor, { beta = 1, alpha = 1 } = {}): Tensor {
  const product = a.matmul(b).mul(alpha);
  return beta === 0 ? product : product.add(c.mul(beta)); // as in torch, a c that does not count may hold anything
}
