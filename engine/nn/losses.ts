// Losses that several models share; those of one paper live in that model's file.

import type { Tensor } from "../tensor.ts";

/** mean((a - b)^2) */
export function mse(a: Tensor, b: Tensor): Tensor {
  return a.sub(b).square().mean();
}

/** mean(|a - b|) */
export function l1(a: Tensor, b: Tensor): Tensor {
  return a.sub(b).abs().mean();
}
