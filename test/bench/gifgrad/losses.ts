// The loss of the classifiers. Called by mlp.ts and gpt.ts.

import type { Tensor } from "../../../engine/index.ts";

/** Mean over rows of log sum exp(logits) - logit of the label: logits [n, k], label i32 [n]. */
export function crossEntropy(logits: Tensor, label: Tensor): Tensor {
  const { n, k } = logits.dims("n k");
  const top = logits.max(-1, { keepdims: true }).detach();
  const shifted = logits.sub(top);
  const picked = label.reshape([n, 1]).equal(label.arange(k)).where(shifted, 0).sum(-1);
  return shifted.exp().sum(-1).log().sub(picked).mean();
}
