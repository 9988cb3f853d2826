// Attention as functions on [b, n, heads, d] (heads beside features, as channels last has them). Without mask or bias it is
// the one op with a kernel that never holds the scores; with them the scores are written out. The layer is in layers.ts.

import { ShapeError, show } from "../error.ts";
import { MASKED } from "../ops/composite.ts";
import type { Tensor } from "../tensor.ts";
import { linear } from "./products.ts";
import { any } from "./reductions.ts";

export interface AttentionOptions {
  /** bool, broadcast to [b, heads, n, m]: true where a query sees a key. A query that sees none gives zeros. */
  readonly mask?: Tensor;
  /** f32, broadcast to [b, heads, n, m]: added to the scaled scores. */
  readonly bias?: Tensor;
  /** Query i sees keys 0 to i, also where there are more keys than queries (torch's is_causal). */
  readonly causal?: boolean;
  /** Factor of the scores; 1 / sqrt(d) when absent. */
  readonly scale?: number;
}

/** softmax(scale q k^T + bias) v per head: q [b, n, heads, d], k [b, m, heads, d], v [b, m, heads, e] -> [b, n, heads, e]. */
export function scaledDotProductAttention(q: Tensor, k: Tensor, v: Tensor, o: AttentionOptions = {}): Tensor {
  const { n, d } = q.dims("b n heads d");
  const { m } = k.dims("b m heads d");
  const scale = o.scale ?? d ** -0.5;
  const causal = o.causal ?? false;
  if (!o.mask && !o.bias && v.shape[3] === d && (!causal || n === m)) return q.attention(k, v, { scale, causal });
  const byHead = (x: Tensor): Tensor => x.permute([0, 2, 1, 3]);
  const products = byHead(q).matmul(byHead(k).transpose()).mul(scale);
  const scores = o.bias ? products.add(o.bias) : products;
  const mask = visible(q, [n, m], o);
  const weights = mask ? mask.where(scores, MASKED).softmax() : scores.softmax();
  // Where nothing is seen, softmax of equal scores is uniform, and torch's answer is zero.
  const seen = o.mask && mask ? any(mask, -1, { keepdims: true }).where(weights, 0) : weights;
  return byHead(seen.matmul(byHead(v)));
}

/** Mask and causality together. */
function visible(q: Tensor, [n, m]: readonly [number, number], { mask, causal }: AttentionOptions): Tensor | undefined {
  const past = causal ? q.arange(m).lessEqual(q.arange(n).reshape([n, 1])) : undefined;
  const given = mask?.cast("bool");
  return past && given ? past.and(given) : (past ?? given);
}

/** Weights of multi-head attention as torch's nn.MultiheadAttention packs them. */
export interface PackedWeights {
  /** [3 d, d]: those of queries, keys and values, one after another. */
  readonly inWeight: Tensor;
  /** [3 d] */
  readonly inBias?: Tensor | null;
  /** [d, d] */
  readonly outWeight: Tensor;
  /** [d] */
  readonly outBias?: Tensor | null;
}

/** Multi-head attention (Vaswani et al. 2017): x [b, n, d] with keys and values from `context` [b, m, d] (x when absent). */
export function multiHeadAttention(
  x: Tensor,
  w: PackedWeights,
  heads: number,
  { context = x, ...o }: AttentionOptions & { readonly context?: Tensor } = {},
): Tensor {
  const { b, n, d } = x.dims("b n d");
  if (d % heads !== 0) throw new ShapeError(`multiHeadAttention: ${d} features of ${show(x.shape)} for ${heads} heads`);
  const project = (of: Tensor, from: number, to: number): Tensor => {
    const bias = w.inBias?.slice(0, from * d, to * d);
    return linear(of, w.inWeight.slice(0, from * d, to * d), bias);
  };
  const split = (y: Tensor): Tensor => y.reshape([b, y.shape[1], heads, d / heads]);
  const [q, k, v] =
    context === x ? thirds(project(x, 0, 3), d) : [project(x, 0, 1), project(context, 1, 2), project(context, 2, 3)];
  const y = scaledDotProductAttention(split(q), split(k), split(v), o);
  return linear(y.reshape([b, n, d]), w.outWeight, w.outBias);
}

function thirds(x: Tensor, d: number): Tensor[] {
  return [0, 1, 2].map((i) => x.slice(-1, i * d, (i + 1) * d));
}
