// Golden ops of the group "attention". torch has [b, heads, n, d], the engine [b, n, heads, d].

import * as nn from "../../../engine/nn/index.ts";
import type { Tensor } from "../../../engine/tensor.ts";
import type { OpTable } from "./op.ts";

const swapHeads = (x: Tensor): Tensor => x.permute([0, 2, 1, 3]);

export const attention: OpTable = {
  sdpa: (args, { q, k, v, mask, bias }) => {
    const scale = args.raw("scale") === undefined ? undefined : args.number("scale");
    const o = { mask: mask?.cast("bool"), bias, scale, causal: args.flag("is_causal") };
    return swapHeads(nn.scaledDotProductAttention(swapHeads(q), swapHeads(k), swapHeads(v), o));
  },
  multi_head_attention: (args, { x, in_w, in_b, out_w, out_b, context, mask, bias }) => {
    const weights = { inWeight: in_w, inBias: in_b, outWeight: out_w, outBias: out_b };
    const o = { mask: mask?.cast("bool"), bias, causal: args.flag("is_causal"), context: context ?? x };
    return nn.multiHeadAttention(x, weights, args.number("heads"), o);
  },
};
