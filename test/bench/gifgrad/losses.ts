// What classifiers end with. Called by mlp.ts, gpt.ts and vqvae.ts.

import type { Tensor } from "../../../engine/index.ts";

/** Mean over rows of log sum exp(logits) - logit of the label: logits [n, k], label i32 [n]. */
export function crossEntropy(logits: Tensor, label: Tensor): Tensor {
  const { n, k } = logits.dims("n k");
  const top = logits.max(-1, { keepdims: true }).detach();
  const shifted = logits.sub(top);
  const picked = label.reshape([n, 1]).equal(label.arange(k)).where(shifted, 0).sum(-1);
  return shifted.exp().sum(-1).log().sub(picked).mean();
}

/** Where the largest element of each row is, the first of equals: [n, k] -> i32 [n]. */
export function argmax(x: Tensor): Tensor {
  const { k } = x.dims("n k");
  const hit = x.equal(x.max(-1, { keepdims: true }));
  const last = k - 1;
  const fromEnd = x.arange(k).neg().add(last).cast("f32"); // k - 1, ..., 0
  return hit.where(fromEnd, 0).max(-1).neg().add(last).cast("i32");
}
