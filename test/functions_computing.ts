// Definitions of the functions that compute: reductions, norms, attention, losses, einsum.

import { einsum } from "../engine/index.ts";
import * as nn from "../engine/nn/index.ts";
import { numel } from "../engine/shape.ts";
import { type At, type Cases, range, size, sizes, total } from "./function_case.ts";

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

export const computing: Cases = {
  variance: (d) => {
    const [n, m, k] = [size(d), d.int(2, 5), size(d)];
    const correction = d.pick([0, 1]);
    const mean = (x: At, i: number, l: number): number => total(m, (j) => x(i, j, l)) / m;
    return {
      inputs: [{ shape: [n, m, k] }],
      call: (x) => nn.variance(x, 1, { correction }),
      shape: [n, k],
      at: (x) => (i, l) => total(m, (j) => (x(i, j, l) - mean(x, i, l)) ** 2) / (m - correction),
    };
  },
  norm: (d) => {
    const [n, m] = [size(d), size(d)];
    const p = d.pick([0.5, 1, 2, 3]);
    return {
      inputs: [{ shape: [n, m] }],
      domain: [0.3, 2],
      call: (x) => nn.norm(x.neg(), p, 0),
      shape: [m],
      at: (x) => (j) => total(n, (i) => x(i, j) ** p) ** (1 / p),
    };
  },
  logsumexp: (d) => {
    const [n, m] = [size(d), size(d)];
    return {
      inputs: [{ shape: [n, m] }],
      call: (x) => nn.logsumexp(x.mul(30), 1).mul(1 / 30),
      shape: [n],
      at: (x) => (i) => Math.log(total(m, (j) => Math.exp(30 * x(i, j)))) / 30,
    };
  },
  prod: (d) => {
    const [n, m] = sizes(d, 2);
    return {
      inputs: [{ shape: [n, m] }],
      call: (x) => nn.prod(x, 1).mul(nn.prod(x)),
      shape: [n],
      at: (x) => (i) =>
        range(m).reduce((p, j) => p * x(i, j), 1) * range(n * m).reduce((p, k) => p * x(Math.floor(k / m), k % m), 1),
    };
  },
  cumprod: (d) => {
    const [n, m, k] = sizes(d, 3);
    return {
      inputs: [{ shape: [n, m, k] }],
      call: (x) => nn.cumprod(x, -2),
      shape: [n, m, k],
      at: (x) => (i, j, l) => range(j + 1).reduce((p, q) => p * x(i, q, l), 1),
    };
  },
  groupNorm: (d) => {
    const [b, n, groups, per] = [d.int(1, 2), size(d), d.int(1, 3), d.int(2, 3)];
    const c = groups * per;
    const stats = (x: At, i: number, g: number): [number, number] => {
      const all = range(n).flatMap((j) => range(per).map((k) => x(i, j, g * per + k)));
      const mean = total(all.length, (k) => all[k]) / all.length;
      return [mean, total(all.length, (k) => (all[k] - mean) ** 2) / all.length];
    };
    return {
      inputs: [{ shape: [b, n, c] }, { shape: [c] }, { shape: [c] }],
      call: (x, weight, bias) => nn.groupNorm(x, groups, { weight, bias, eps: 0.01 }),
      shape: [b, n, c],
      at: (x, weight, bias) => (i, j, k) => {
        const [mean, variance] = stats(x, i, Math.floor(k / per));
        return ((x(i, j, k) - mean) / Math.sqrt(variance + 0.01)) * weight(k) + bias(k);
      },
    };
  },
  "batchNorm, training": (d) => {
    const [n, c] = [d.int(2, 5), size(d)];
    const part = d.pick(["y", "mean", "variance"] as const);
    const mean = (x: At, k: number): number => total(n, (i) => x(i, k)) / n;
    const spread = (x: At, k: number): number => total(n, (i) => (x(i, k) - mean(x, k)) ** 2);
    return {
      inputs: [{ shape: [n, c] }, { shape: [c] }],
      call: (x, old) => {
        return nn.batchNorm(x, { mean: old, variance: old }, { training: true, momentum: 0.3, eps: 0.01 })[part];
      },
      constant: part !== "y", // running statistics pass no gradient to the batch
      shape: part === "y" ? [n, c] : [c],
      at: (x, old) => {
        if (part === "y") return (i, k) => (x(i, k) - mean(x, k)) / Math.sqrt(spread(x, k) / n + 0.01);
        if (part === "mean") return (k) => 0.7 * old(k) + 0.3 * mean(x, k);
        return (k) => 0.7 * old(k) + (0.3 * spread(x, k)) / (n - 1);
      },
    };
  },
  rmsNorm: (d) => {
    const [n, c] = [size(d), d.int(2, 4)];
    return {
      inputs: [{ shape: [n, c] }, { shape: [c] }],
      call: (x, weight) => nn.rmsNorm(x, { weight, eps: 0.01 }),
      shape: [n, c],
      at: (x, weight) => (i, k) => (x(i, k) * weight(k)) / Math.sqrt(total(c, (j) => x(i, j) ** 2) / c + 0.01),
    };
  },
  scaledDotProductAttention: (d) => {
    const [n, m, heads, e] = [d.int(1, 3), d.int(1, 4), d.int(1, 2), d.int(1, 3)];
    const causal = d.pick([false, true]);
    const seen = (mask: At, i: number, j: number): boolean => mask(i, j) !== 0 && (!causal || j <= i);
    return {
      inputs: [
        { shape: [1, n, heads, 2] },
        { shape: [1, m, heads, 2] },
        { shape: [1, m, heads, e] },
        { shape: [n, m], dtype: "bool" },
        { shape: [heads, n, m] },
      ],
      call: (q, k, v, mask, bias) => nn.scaledDotProductAttention(q, k, v, { mask, bias, causal, scale: 0.7 }),
      shape: [1, n, heads, e],
      at: (q, k, v, mask, bias) => (_, i, h, f) => {
        const weight = (j: number): number =>
          seen(mask, i, j) ? Math.exp(0.7 * total(2, (c) => q(0, i, h, c) * k(0, j, h, c)) + bias(h, i, j)) : 0;
        const sum = total(m, weight);
        return sum === 0 ? 0 : total(m, (j) => weight(j) * v(0, j, h, f)) / sum;
      },
    };
  },
  crossEntropy: (d) => {
    const [n, classes, l] = [size(d), d.int(2, 4), size(d)];
    const [labelSmoothing, weighted] = [d.pick([0, 0.2]), d.pick([false, true])];
    const log = (x: At, i: number, k: number, j: number): number =>
      x(i, k, j) - Math.log(total(classes, (q) => Math.exp(x(i, q, j))));
    return {
      inputs: [{ shape: [n, classes, l] }, { shape: [n, l], dtype: "i32", below: classes }, { shape: [classes] }],
      domain: [0.2, 2],
      // Class 0 counts for nothing; a first target of 1 keeps the mean defined.
      call: (x, t, w) => {
        const kept = t.maximum(
          t
            .arange(n * l)
            .reshape([n, l])
            .equal(0)
            .cast("i32"),
        );
        const o = { axis: 1, ignoreIndex: 0, labelSmoothing, weight: weighted ? w : undefined };
        return nn.crossEntropy(x, kept, o).reshape([1]);
      },
      shape: [1],
      at: (x, t, w) => () => {
        let [loss, factors] = [0, 0];
        for (const i of range(n)) {
          for (const j of range(l)) {
            const target = i + j === 0 ? Math.max(1, t(i, j)) : t(i, j);
            if (target === 0) continue;
            const factor = (k: number): number => (weighted ? w(k) : 1);
            factors += factor(target);
            loss -= (1 - labelSmoothing) * factor(target) * log(x, i, target, j);
            loss -= (labelSmoothing / classes) * total(classes, (k) => factor(k) * log(x, i, k, j));
          }
        }
        return loss / factors;
      },
    };
  },
  bceWithLogits: (d) => {
    const n = d.int(1, 6);
    return {
      inputs: [{ shape: [n] }, { shape: [n] }, { shape: [n] }],
      domain: [0.1, 0.9],
      call: (x, y, posWeight) => nn.bceWithLogits(x, y, { posWeight, reduction: "none" }),
      shape: [n],
      at: (x, y, w) => (i) => -(w(i) * y(i) * Math.log(sigmoid(x(i))) + (1 - y(i)) * Math.log(1 - sigmoid(x(i)))),
    };
  },
  smoothL1: (d) => {
    const n = d.int(1, 6);
    return {
      inputs: [{ shape: [n] }, { shape: [n] }],
      call: (x, y) => nn.smoothL1(x, y, { beta: 0.7, reduction: "none" }),
      shape: [n],
      at: (x, y) => (i) => {
        const distance = Math.abs(x(i) - y(i));
        return distance < 0.7 ? distance ** 2 / 1.4 : distance - 0.35;
      },
    };
  },
  "einsum, two operands": (d) => {
    // Each label is in the batch, summed over, or free; random letters of "abcd" per operand and result.
    const n = Object.fromEntries(["a", "b", "c", "d"].map((l) => [l, d.int(1, 3)]));
    const some = (least: number): string[] => {
      const picked = ["a", "b", "c", "d"].filter(() => d.pick([true, false]));
      return picked.length < least ? ["a"] : picked;
    };
    const [left, right] = [some(1), some(1)];
    if (d.pick([true, false])) left.push(left[0]); // a diagonal
    if (d.pick([true, false])) right.reverse();
    const both = [...new Set([...left, ...right])];
    const result = both.filter(() => d.pick([true, false]));
    const summed = both.filter((l) => !result.includes(l));
    const spans = summed.map((l) => n[l]);
    return {
      inputs: [{ shape: left.map((l) => n[l]) }, { shape: right.map((l) => n[l]) }],
      call: (x, y) => einsum(`${left.join("")}, ${right.join("")} -> ${result.join("")}`, x, y),
      shape: result.map((l) => n[l]),
      at:
        (x, y) =>
        (...index) =>
          total(numel(spans), (flat) => {
            const value: Record<string, number> = {};
            result.forEach((l, i) => {
              value[l] = index[i];
            });
            let rest = flat;
            summed.forEach((l, i) => {
              value[l] = rest % spans[i];
              rest = Math.floor(rest / spans[i]);
            });
            return x(...left.map((l) => value[l])) * y(...right.map((l) => value[l]));
          }),
    };
  },
  "einsum, three operands and an ellipsis": (d) => {
    const [b, i, j, k] = sizes(d, 4);
    return {
      inputs: [{ shape: [b, i, j] }, { shape: [j, k] }, { shape: [1, k] }],
      call: (x, y, z) => einsum("...ij,jk,...k->...ki", x, y, z),
      shape: [b, k, i],
      at: (x, y, z) => (p, r, q) => total(j, (s) => x(p, q, s) * y(s, r)) * z(0, r),
    };
  },
  "matmul with vectors": (d) => {
    const [b, n, k] = sizes(d, 3);
    return {
      inputs: [{ shape: [k] }, { shape: [b, k, n] }, { shape: [n] }],
      call: (v, m, w) => v.matmul(m).add(m.matmul(w).matmul(v).reshape([b, 1])),
      shape: [b, n],
      at: (v, m, w) => (i, j) => total(k, (q) => v(q) * (m(i, q, j) + total(n, (r) => m(i, q, r) * w(r)))),
    };
  },
  "einops reduce": (d) => {
    const [b, h, s, c] = sizes(d, 4);
    return {
      inputs: [{ shape: [b, h * s, c] }],
      call: (x) => x.reduce("... (h s) c -> c ... h", "mean", { s }),
      shape: [c, b, h],
      at: (x) => (k, i, j) => total(s, (q) => x(i, j * s + q, k)) / s,
    };
  },
};
