// Gradient clipping: functions from gradients to gradients, used between `grad` and an optimiser's `step`.

import type { Tensor } from "../tensor.ts";

/** L2 norm of all values of all tensors together: []. */
export function globalNorm(tensors: readonly Tensor[]): Tensor {
  return tensors
    .map((t) => t.square().sum())
    .reduce((a, b) => a.add(b))
    .sqrt();
}

/**
 * Scales gradients by min(1, max / (norm + 1e-6)), so that their joint L2 norm is at most `max` (Pascanu et al. 2013; the
 * small term is torch's). Also returns the norm before.
 */
export function clipGradNorm(grads: readonly Tensor[], max: number): { grads: Tensor[]; norm: Tensor } {
  const norm = globalNorm(grads);
  const scale = norm.add(1e-6).reciprocal().mul(max).minimum(1);
  return { grads: grads.map((g) => g.mul(scale)), norm };
}

/** Every value of every gradient, limited to [-max, max]. */
export function clipGradValue(grads: readonly Tensor[], max: number): Tensor[] {
  return grads.map((g) => g.maximum(-max).minimum(max));
}
