// Ops defined by their decomposition, with a kernel that must equal it. `grad` and the fuser expand them where they have
// no gradient or no kernel of their own, so a new one starts as a few lines and is made fast later.

import { attention as attentionFamily } from "../../kernels/attention.ts";
import { moments as momentsFamily } from "../../kernels/norm.ts";
import { softmaxRows } from "../../kernels/softmax.ts";
import { ShapeError, show } from "../error.ts";
import { numel } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { type MatmulAttrs, outside } from "./matmul.ts";
import { type Attrs, defineComposite, floats } from "./op.ts";

/** Score of what is not seen: so low that exp of it is zero, and finite in f32 (WGSL may not see infinities). */
export const MASKED = -1e30;

export interface SoftmaxAttrs extends Attrs {
  /** Row i of each matrix [rows, columns] is over the columns j <= i + past, and zero elsewhere. All columns when absent. */
  readonly past?: number;
}

/** exp(x - max) / sum over the last axis, or over what of it a row of causal attention sees. */
export const softmax = defineComposite<SoftmaxAttrs>({
  name: "softmax",
  dtype: floats("softmax"),
  shape: ([x], { past }) => {
    if (past !== undefined && x.length < 2)
      throw new ShapeError(`softmax: expected rows and columns for a \`past\`, got ${show(x)}`);
    return x;
  },
  decompose: ([x], { past }) => {
    if (past === undefined) {
      const e = x.sub(x.max(-1, { keepdims: true })).exp();
      return e.div(e.sum(-1, { keepdims: true }));
    }
    const future = futureOf(x, past);
    const seen = future.where(MASKED, x);
    const e = future.where(0, seen.sub(seen.max(-1, { keepdims: true })).exp());
    return e.div(e.sum(-1, { keepdims: true }).maximum(1e-30)); // a row that sees nothing is zero
  },
  vjp: (g, _, y) => [y.mul(g.sub(g.mul(y).sum(-1, { keepdims: true })))],
  lower: {
    kind: "kernel",
    family: softmaxRows,
    spec: ([x], { past }) => ({
      rows: numel(x) / x[x.length - 1],
      cols: x[x.length - 1],
      causal: past === undefined ? undefined : { queries: x[x.length - 2], past },
    }),
  },
  draw: (d) => {
    const outer = Array.from({ length: d.int(0, 2) }, () => d.int(1, 4));
    const past = outer.length > 0 && d.int(0, 2) === 0 ? { past: d.int(-2, 5) } : {};
    return { inputs: [{ shape: [...outer, d.int(1, 9)] }], attrs: past };
  },
  rtol: 1e-5,
  why: "exp of up to 3 + 2|x| ULP, and sums of a few terms",
  laws: [
    { name: "a shift of the scores changes nothing", of: ([x]) => ({ ins: [x.add(3)], after: (y) => y }) },
    {
      name: "permuted scores permute weights",
      of: ([x], { past }) => (past === undefined ? { ins: [x.flip([-1])], after: (y) => y.flip([-1]) } : null),
    },
    {
      name: "what a row does not see does not matter",
      of: ([x], { past }) => (past === undefined ? null : { ins: [futureOf(x, past).where(9, x)], after: (y) => y }),
    },
  ],
});

/** true where column j lies in the future of row i, j > i + past, in each matrix of x. */
const futureOf = (x: Tensor, past: number): Tensor => outside(x, { half: "lower", diagonal: past });

export interface MomentsAttrs extends Attrs {
  readonly eps: number;
}

/**
 * Statistics that normalisation layers share: x [outer, inner, groups, channels] -> [outer, groups, 2] holding the mean
 * over inner and channels and 1 / sqrt(variance + eps). The variance is the biased one, as in every norm layer.
 */
export const moments = defineComposite<MomentsAttrs>({
  name: "moments",
  dtype: floats("moments"),
  shape: ([x]) => {
    if (x.length !== 4) throw new ShapeError(`moments: expected "outer inner groups channels", got ${show(x)}`);
    return [x[0], x[2], 2];
  },
  decompose: ([x], { eps }) => {
    const { outer, groups } = x.dims("outer inner groups channels");
    const mean = x.mean([1, 3], { keepdims: true });
    const centred = x.sub(mean);
    const scale = centred.mul(centred).mean([1, 3], { keepdims: true }).add(eps).rsqrt();
    return mean.reshape([outer, groups, 1]).concat([scale.reshape([outer, groups, 1])], 2);
  },
  // d mean / dx = 1/n and d scale / dx = -scale^3 (x - mean) / n.
  vjp: (g, [x], y) => {
    const { outer, inner, groups, channels } = x.dims("outer inner groups channels");
    const part = (t: typeof g, i: number): typeof g => t.slice(2, i, i + 1).reshape([outer, 1, groups, 1]);
    const [mean, scale] = [part(y, 0), part(y, 1)];
    const slope = part(g, 1).mul(scale.mul(scale).mul(scale)).neg();
    return [
      x
        .sub(mean)
        .mul(slope)
        .add(part(g, 0))
        .mul(1 / (inner * channels)),
    ];
  },
  lower: {
    kind: "kernel",
    family: momentsFamily,
    spec: ([x], { eps }) => ({ outer: x[0], inner: x[1], groups: x[2], channels: x[3], eps }),
  },
  draw: (d) => ({ inputs: [{ shape: [d.int(1, 3), d.int(1, 4), d.int(1, 3), d.int(2, 5)] }], attrs: { eps: 1e-3 } }),
  rtol: 1e-5,
  why: "sums of up to a hundred f32, and what subtracting the mean cancels",
  laws: [
    { name: "order within a group does not matter", of: ([x]) => ({ ins: [x.flip([1, 3])], after: (y) => y }) },
    {
      name: "a shift moves the mean alone",
      of: ([x]) => ({ ins: [x.add(2)], after: (y) => y.arange(2).less(1).where(y.sub(2), y) }),
    },
  ],
});

export interface AttentionAttrs extends Attrs {
  readonly scale: number;
  readonly causal: boolean;
}

/** [b, n, heads, d] to [b, heads, n, d] and back. */
const byHead = (x: Tensor): Tensor => x.permute([0, 2, 1, 3]);

/** What of the left matrix, or of the result, counts where query i sees the keys up to i + past; all of it when not causal. */
function seenBy(q: Tensor, k: Tensor, causal: boolean): { past?: number; scores: Half; weights: Half; turned: Half } {
  const past = k.shape[1] - q.shape[1];
  if (!causal) return { scores: {}, weights: {}, turned: {} };
  return {
    past,
    scores: { triangle: { of: "result", half: "lower", diagonal: past } },
    weights: { triangle: { of: "left", half: "lower", diagonal: past } },
    turned: { triangle: { of: "left", half: "upper", diagonal: -past } },
  };
}
type Half = Pick<MatmulAttrs, "triangle">;

/** softmax(scale q k^T): [b, heads, n, m]. The scale goes to q, which is smaller than the scores. */
function attentionWeights(q: Tensor, k: Tensor, { scale, causal }: AttentionAttrs): Tensor {
  const seen = seenBy(q, k, causal);
  return byHead(q.mul(scale)).matmul(byHead(k).transpose(), seen.scores).softmax(-1, seen);
}

/**
 * softmax(scale q k^T) v per head: q [b, n, heads, d], k and v [b, m, heads, d] -> [b, n, heads, d]. Causal: query i sees
 * keys up to i + (m - n). Vaswani et al. 2017, eq. 1.
 */
export const attention = defineComposite<AttentionAttrs>({
  name: "attention",
  dtype: floats("attention"),
  shape: ([q, k, v]) => {
    const fits =
      q.length === 4 &&
      k.length === 4 &&
      k.every((n, i) => n === v[i]) &&
      q[0] === k[0] &&
      q[2] === k[2] &&
      q[3] === k[3];
    if (!fits)
      throw new ShapeError(
        `attention: expected q "b n heads d" and k, v "b m heads d", got ${show(q)}, ${show(k)}, ${show(v)}`,
      );
    return q;
  },
  decompose: ([q, k, v], attrs) =>
    byHead(attentionWeights(q, k, attrs).matmul(byHead(v), seenBy(q, k, attrs.causal).weights)),
  // The softmax's sum(gp * p) is sum(g * out) (Dao et al. 2022, appendix B.2), which needs no n x m matrix: so the
  // gradient of the scores is the epilogue of a matmul.
  vjp: (g, [q, k, v], out, attrs) => {
    const p = attentionWeights(q, k, attrs); // [b, heads, n, m], the very nodes of the decomposition
    const gy = byHead(g);
    const dot = byHead(g.mul(out).sum(-1, { keepdims: true })); // [b, heads, n, 1]
    const seen = seenBy(q, k, attrs.causal);
    const gs = p.mul(gy.matmul(byHead(v).transpose(), seen.scores).sub(dot)); // of the scaled scores
    const gq = gs.matmul(byHead(k), seen.weights);
    const gk = gs.transpose().matmul(byHead(q.mul(attrs.scale)), seen.turned);
    const gv = p.transpose().matmul(gy, seen.turned);
    return [byHead(gq).mul(attrs.scale), byHead(gk), byHead(gv)];
  },
  lower: {
    kind: "kernel",
    family: attentionFamily,
    spec: ([q, k], { scale, causal }) => ({
      batch: q[0],
      queries: q[1],
      keys: k[1],
      heads: q[2],
      dim: q[3],
      scale,
      causal,
    }),
  },
  draw: (d) => {
    const [b, n, m, heads, dim] = [d.int(1, 2), d.int(1, 5), d.int(1, 5), d.int(1, 2), d.pick([4, 5, 8])];
    const causal = d.pick([false, true]);
    return {
      inputs: [{ shape: [b, n, heads, dim] }, { shape: [b, m, heads, dim] }, { shape: [b, m, heads, dim] }],
      attrs: { scale: dim ** -0.5, causal },
    };
  },
  rtol: 1e-5,
  why: "exp of up to 3 + 2|x| ULP, and sums of a few dozen products",
  laws: [
    {
      name: "the order of keys does not matter",
      of: ([q, k, v], { causal }) => (causal ? null : { ins: [q, k.flip([1]), v.flip([1])], after: (y) => y }),
    },
    {
      name: "heads do not see each other",
      of: (ins) => ({ ins: ins.map((x) => x.flip([0, 2])), after: (y) => y.flip([0, 2]) }),
    },
    {
      name: "a causal query does not see later keys",
      of: ([q, k, v], { causal }) => {
        if (!causal || k.shape[1] < 2 || q.shape[1] < 2) return null;
        const [n, m] = [q.shape[1], k.shape[1]];
        const last = k
          .arange(m)
          .less(m - 1)
          .reshape([1, m, 1, 1]);
        const early = (y: typeof q): typeof q => y.slice(1, 0, n - 1);
        return { ins: [q, last.where(k, 7), last.where(v, 7)], after: early, seen: early };
      },
    },
  ],
});
