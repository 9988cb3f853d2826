// The functions of nn and einsum against plain loops in float64, at drawn sizes, and their gradients against central
// differences. What torch computes of the same functions is checked by golden.test.ts; here are the definitions.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { einsum, grad, ShapeError, type Tensor, tensor } from "../engine/index.ts";
import * as nn from "../engine/nn/index.ts";
import type { Array64 } from "../engine/ops/op.ts";
import { numel, type Shape } from "../engine/shape.ts";
import { drawer, type Wanted } from "../engine/testing/draw.ts";
import { gradientProblem, Inputs } from "../engine/testing/gradients.ts";
import type { Draw } from "../kernels/wgsl.ts";
import { difference, expectClose } from "./close.ts";
import { onEach } from "./device.ts";

/** One element of a row-major array. */
type At = (...index: number[]) => number;

const reader = ({ data, shape }: Array64): At => {
  return (...index) => data[index.reduce((flat, i, axis) => flat * shape[axis] + i, 0)];
};
const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const total = (n: number, f: (i: number) => number): number => range(n).reduce((sum, i) => sum + f(i), 0);
function filled(shape: Shape, f: At): number[] {
  return range(numel(shape)).map((flat) => {
    const index: number[] = [];
    for (let rest = flat, axis = shape.length - 1; axis >= 0; axis--) {
      index.unshift(rest % shape[axis]);
      rest = Math.floor(rest / shape[axis]);
    }
    return f(...index);
  });
}
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const argsortOf = (row: readonly number[], sign: number): number[] =>
  range(row.length).sort((i, j) => sign * (row[i] - row[j]) || i - j);

/** A call at drawn sizes: inputs, the function, and its definition as loops. */
interface Case {
  readonly inputs: readonly Wanted[];
  /** Interval of the f32 inputs where the function is smooth. */
  readonly domain?: readonly [number, number];
  readonly call: (...x: Tensor[]) => Tensor;
  /** The gradient is none on purpose, and so not that of the value. */
  readonly constant?: boolean;
  readonly shape: Shape;
  readonly at: (...x: At[]) => At;
}

const size = (d: Draw): number => d.int(1, 4);
const sizes = (d: Draw, n: number): number[] => range(n).map(() => size(d));

const cases: Readonly<Record<string, (d: Draw) => Case>> = {
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
  sort: (d) => {
    const [n, m] = [size(d), d.int(1, 6)];
    const descending = d.pick([false, true]);
    const axis = d.pick([0, 1]);
    const sorted = (x: At, i: number, j: number): number => {
      const row = axis === 1 ? range(m).map((k) => x(i, k)) : range(n).map((k) => x(k, j));
      return row[argsortOf(row, descending ? -1 : 1)[axis === 1 ? j : i]];
    };
    return {
      inputs: [{ shape: [n, m] }],
      call: (x) => nn.sort(x, axis, { descending }).values,
      shape: [n, m],
      at: (x) => (i, j) => sorted(x, i, j),
    };
  },
  topk: (d) => {
    const [n, m] = [size(d), d.int(1, 6)];
    const k = d.int(1, m);
    const smallest = d.pick([false, true]);
    return {
      inputs: [{ shape: [n, m] }],
      call: (x) => nn.topk(x, k, -1, { smallest }).values,
      shape: [n, k],
      at: (x) => (i, j) => {
        const row = range(m).map((q) => x(i, q));
        return row[argsortOf(row, smallest ? 1 : -1)[j]];
      },
    };
  },
  gather: (d) => {
    const [n, m, k, rows] = [size(d), size(d), size(d), d.int(1, 6)];
    const fewer = d.int(1, n);
    return {
      inputs: [{ shape: [n, m, k] }, { shape: [fewer, rows, k], dtype: "i32", below: m }],
      call: (x, index) => nn.gather(x, 1, index),
      shape: [fewer, rows, k],
      at: (x, index) => (i, j, l) => x(i, index(i, j, l), l),
    };
  },
  indexSelect: (d) => {
    const [n, m, k, rows] = [size(d), size(d), size(d), d.int(1, 6)];
    return {
      inputs: [{ shape: [n, m, k] }, { shape: [rows], dtype: "i32", below: m }],
      call: (x, index) => nn.indexSelect(x, -2, index),
      shape: [n, rows, k],
      at: (x, index) => (i, j, l) => x(i, index(j), l),
    };
  },
  scatterAdd: (d) => {
    const [n, m, rows] = [size(d), size(d), d.int(1, 6)];
    return {
      inputs: [{ shape: [m, n] }, { shape: [rows, n], dtype: "i32", below: m }, { shape: [rows + 1, n] }],
      call: (x, index, src) => nn.scatterAdd(x, 0, index, src),
      shape: [m, n],
      at: (x, index, src) => (i, j) => x(i, j) + total(rows, (r) => (index(r, j) === i ? src(r, j) : 0)),
    };
  },
  scatter: (d) => {
    const [n, m, rows] = [size(d), size(d), d.int(1, 6)];
    return {
      inputs: [{ shape: [n, m] }, { shape: [n, rows], dtype: "i32", below: m }, { shape: [n, rows] }],
      call: (x, index, src) => nn.scatter(x, 1, index, src),
      shape: [n, m],
      // The last of several wins.
      at: (x, index, src) => (i, j) => range(rows).reduce((v, r) => (index(i, r) === j ? src(i, r) : v), x(i, j)),
    };
  },
  indexAdd: (d) => {
    const [n, m, rows] = [size(d), size(d), d.int(1, 6)];
    return {
      inputs: [{ shape: [n, m] }, { shape: [rows], dtype: "i32", below: m }, { shape: [n, rows] }],
      call: (x, index, src) => nn.indexAdd(x, 1, index, src, 0.5),
      shape: [n, m],
      at: (x, index, src) => (i, j) => x(i, j) + 0.5 * total(rows, (r) => (index(r) === j ? src(i, r) : 0)),
    };
  },
  roll: (d) => {
    const [n, m] = sizes(d, 2);
    const [a, b] = [d.int(-6, 6), d.int(-6, 6)];
    return {
      inputs: [{ shape: [n, m] }],
      call: (x) => nn.roll(x, [a, b], [0, -1]),
      shape: [n, m],
      at: (x) => (i, j) => x((((i - a) % n) + n) % n, (((j - b) % m) + m) % m),
    };
  },
  tile: (d) => {
    const [n, m] = sizes(d, 2);
    const times = [d.int(1, 3), d.int(1, 3), d.int(1, 3)];
    return {
      inputs: [{ shape: [n, m] }],
      call: (x) => nn.tile(x, times),
      shape: [times[0], n * times[1], m * times[2]],
      at: (x) => (_, i, j) => x(i % n, j % m),
    };
  },
  repeatInterleave: (d) => {
    const [n, m, times] = [size(d), size(d), d.int(1, 3)];
    return {
      inputs: [{ shape: [n, m] }],
      call: (x) => nn.repeatInterleave(x, times, 0),
      shape: [n * times, m],
      at: (x) => (i, j) => x(Math.floor(i / times), j),
    };
  },
  triangles: (d) => {
    const [n, m] = sizes(d, 2);
    const k = d.int(-3, 3);
    return {
      inputs: [{ shape: [2, n, m] }],
      call: (x) => nn.tril(x, k).sub(nn.triu(x, k).mul(0.5)),
      shape: [2, n, m],
      at: (x) => (b, i, j) => (j <= i + k ? x(b, i, j) : 0) - (j >= i + k ? 0.5 * x(b, i, j) : 0),
    };
  },
  unfold: (d) => {
    const [c, kh, kw, stride, padding, dilation] = [
      d.int(1, 2),
      d.int(1, 3),
      d.int(1, 2),
      d.int(1, 2),
      d.int(0, 1),
      d.int(1, 2),
    ];
    const [h, w] = [dilation * (kh - 1) + d.int(1, 3), dilation * (kw - 1) + d.int(1, 3)];
    const [rows, columns] = [
      Math.floor((h + 2 * padding - dilation * (kh - 1) - 1) / stride) + 1,
      Math.floor((w + 2 * padding - dilation * (kw - 1) - 1) / stride) + 1,
    ];
    return {
      inputs: [{ shape: [1, h, w, c] }],
      call: (x) => nn.unfold(x, { kernel: [kh, kw], stride, padding, dilation }),
      shape: [1, rows, columns, c * kh * kw],
      at: (x) => (_, r, q, f) => {
        const y = r * stride - padding + (Math.floor(f / kw) % kh) * dilation;
        const z = q * stride - padding + (f % kw) * dilation;
        return y >= 0 && y < h && z >= 0 && z < w ? x(0, y, z, Math.floor(f / (kh * kw))) : 0;
      },
    };
  },
  "pixelShuffle and back": (d) => {
    const [h, w, c, r] = [size(d), size(d), d.int(1, 2), d.int(1, 3)];
    return {
      inputs: [{ shape: [1, h, w, c * r * r] }],
      call: (x) => nn.pixelUnshuffle(nn.pixelShuffle(x, r).square(), r).reshape([1, h, w, c * r * r]),
      shape: [1, h, w, c * r * r],
      at: (x) => (b, i, j, f) => x(b, i, j, f) ** 2,
    };
  },
  gridSample: (d) => {
    const [h, w, n] = [d.int(1, 4), d.int(1, 4), d.int(1, 3)];
    const padding = d.pick(["zeros", "border", "reflection"] as const);
    const [alignCorners, mode] = [d.pick([false, true]), d.pick(["bilinear", "nearest"] as const)];
    const pixel = (g: number, size: number): number => {
      const p = alignCorners ? ((g + 1) * (size - 1)) / 2 : ((g + 1) * size - 1) / 2;
      if (padding === "zeros") return p;
      const [low, high] = alignCorners ? [0, size - 1] : [-0.5, size - 0.5];
      let q = p;
      if (padding === "reflection") {
        if (low === high) q = 0;
        else while (q < low || q > high) q = q < low ? 2 * low - q : 2 * high - q;
      }
      return Math.max(0, Math.min(size - 1, q));
    };
    const whole = (y: number): number => (Math.abs(y % 1) === 0.5 ? 2 * Math.round(y / 2) : Math.round(y));
    return {
      inputs: [{ shape: [1, h, w, 2] }, { shape: [1, n, 2, 2] }],
      call: (x, grid) => nn.gridSample(x, grid, { padding, alignCorners, mode }),
      shape: [1, n, 2, 2],
      at: (x, grid) => (b, i, j, c) => {
        const [px, py] = [pixel(grid(b, i, j, 0), w), pixel(grid(b, i, j, 1), h)];
        const read = (r: number, q: number): number => (r >= 0 && r < h && q >= 0 && q < w ? x(b, r, q, c) : 0);
        if (mode === "nearest") return read(whole(py), whole(px));
        const [r, q] = [Math.floor(py), Math.floor(px)];
        const [t, s] = [py - r, px - q];
        return (
          (1 - t) * ((1 - s) * read(r, q) + s * read(r, q + 1)) +
          t * ((1 - s) * read(r + 1, q) + s * read(r + 1, q + 1))
        );
      },
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
  "einops repeat": (d) => {
    const [h, w, r] = sizes(d, 3);
    return {
      inputs: [{ shape: [h, w] }],
      call: (x) => x.repeat("h w -> 1 w (h r)", { r }),
      shape: [1, w, h * r],
      at: (x) => (_, j, i) => x(Math.floor(i / r), j),
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

function problemOf(one: Case, seed: number): string | null {
  const inputs = new Inputs(seed);
  const ins = one.inputs.map((wanted) => inputs.make(wanted, one.domain));
  const out = one.call(...ins);
  if (out.shape.join() !== one.shape.join()) return `shape [${out.shape}], expected [${one.shape}]`;
  const want = filled(one.shape, one.at(...ins.map((t) => reader(inputs.values.get(t.node) as Array64))));
  const [got] = inputs.evaluate([out]);
  const floats = ins.filter((t) => t.dtype === "f32");
  const problem = difference(got, want, { rtol: 1e-12, scale: 1 });
  return problem ?? (one.constant ? null : gradientProblem(out, floats, inputs, seed));
}

test.each(Object.entries(cases))("%s: loops and central differences", (_, draw) => {
  let last = "";
  const result = fc.check(
    fc.property(fc.gen(), fc.integer({ min: 0, max: 2 ** 31 - 1 }), (g, seed) => {
      const one = draw(drawer(g));
      const problem = problemOf(one, seed);
      last = `${one.inputs.map((i) => `[${i.shape}]`).join(" ")}: ${problem}`;
      return problem === null;
    }),
    { seed: 1, numRuns: 60 },
  );
  expect(result.failed ? last : "").toBe("");
});

describe("planted bugs are found:", () => {
  test.each<[string, string, (...x: Tensor[]) => Tensor]>([
    ["the first of several wins", "scatter", (x, i, src) => nn.scatter(x, 1, i.flip([1]), src.flip([1]))],
    ["sorted by values without their gradient", "sort", (x) => nn.sort(x).values.detach()],
    ["a product that divides by its factors", "cumprod", (x) => x.abs().log().cumsum(-2).exp()],
  ])("%s", (_, name, call) => {
    const property = fc.property(fc.gen(), fc.nat(), (g, seed) => {
      expect(problemOf({ ...cases[name](drawer(g)), call }, seed)).toBeNull();
    });
    expect(fc.check(property, { seed: 1, numRuns: 60 }).failed).toBe(true);
  });
});

const f = (...values: number[]): Tensor => tensor(values);

onEach("positions of extremes: the first of several, and their gradient", async () => {
  const x = tensor([3, 1, 3, 2, 0, 0], [2, 3]);
  expect([...(await nn.argmax(x, 1).data())]).toEqual([0, 0]);
  expect([...(await nn.argmin(x, -1).data())]).toEqual([1, 1]);
  expect(await nn.argmax(x).item()).toBe(0);
  const { values, indices } = nn.maxAlong(x, 0, { keepdims: true });
  expect([...(await values.data()), ...(await indices.data())]).toEqual([3, 1, 3, 0, 0, 0]);
});

onEach("gradients of products with zeros: nothing is divided", async () => {
  const slope = async (values: number[], of: (x: Tensor) => Tensor): Promise<number[]> => {
    const x = f(...values);
    return [...(await grad(of(x), [x])[0].data())].map((v) => v + 0);
  };
  expect(await slope([2, 0, 3], (x) => nn.prod(x))).toEqual([0, 6, 0]);
  expect(await slope([2, 0, 0], (x) => nn.prod(x))).toEqual([0, 0, 0]);
  expect(await slope([2, 0, 3], (x) => nn.cumprod(x, 0).sum())).toEqual([1, 8, 0]);
  expect(await slope([0, 0], (x) => nn.norm(x).add(nn.std(x)))).toEqual([0, 0]);
});

onEach("long rows, which kernels cut into parts", async () => {
  const [rows, n] = [2, 700];
  const values = Float32Array.from({ length: rows * n }, (_, i) => Math.sin(i * i));
  const x = tensor(values, [rows, n]);
  const running = (start: number, step: (h: number, v: number) => number, reverse = false): number[] =>
    range(rows).flatMap((r) => {
      const out: number[] = [];
      for (let i = 0, h = start; i < n; i++) {
        const at = reverse ? n - 1 - i : i;
        h = step(h, values[r * n + at]);
        out[at] = h;
      }
      return out;
    });
  const plus = (h: number, v: number): number => h + v;
  // Seven hundred f32 added one after another.
  expectClose(await x.cumsum(1).data(), running(0, plus), "cumsum", { rtol: 1e-5 });
  expectClose(await x.cumsum(1, { reverse: true }).data(), running(0, plus, true), "reverse", { rtol: 1e-5 });
  const product = running(1, (h, v) => h * (1 + v / 9));
  // Every one of the roundings, 6e-8 each, is a share of the product.
  expectClose(await nn.cumprod(x.mul(1 / 9).add(1), 1).data(), product, "cumprod", { rtol: 1e-4 });
  const order = range(rows).flatMap((r) => argsortOf([...values.subarray(r * n, (r + 1) * n)], -1));
  expect([...(await x.argsort(1, { descending: true }).data())]).toEqual(order);
});

onEach("order of equal values, zeros of both signs and large ones", async () => {
  const x = f(2, -0, 0, -1e30, 2, 1e30, -3);
  expect([...(await x.argsort().data())]).toEqual([3, 6, 1, 2, 0, 4, 5]);
  expect([...(await x.argsort(0, { descending: true }).data())]).toEqual([5, 0, 4, 1, 2, 6, 3]);
});

onEach("functions stay finite where the plain formulas overflow", async () => {
  const x = f(-200, -30, 0, 30, 200);
  expect([...(await x.softplus().data())].map((v) => Math.round(v * 1e4) / 1e4)).toEqual([
    0,
    0,
    Math.round(Math.LN2 * 1e4) / 1e4,
    30,
    200,
  ]);
  expect(await nn.logsumexp(f(1000, 1000)).item()).toBeCloseTo(1000 + Math.LN2, 3);
  expect(await nn.bceWithLogits(x, f(0, 0, 1, 1, 1), { reduction: "sum" }).item()).toBeCloseTo(Math.LN2, 5);
  expect(await nn.variance(f(1e4 + 1, 1e4 + 2, 1e4 + 3)).item()).toBeCloseTo(1, 5);
});

onEach("comparisons, logic and rounding", async () => {
  const [x, y] = [f(1, 2, 3, -2.5), f(2, 2, 2, -2.5)];
  const bits = async (t: Tensor): Promise<string> => [...(await t.data())].join("");
  expect(await bits(x.greater(y))).toBe("0010");
  expect(await bits(x.lessEqual(y).and(x.notEqual(y)))).toBe("1000");
  expect(await bits(x.greaterEqual(2).xor(x.less(0)).not())).toBe("1000");
  expect([...(await f(0.5, 1.5, 2.5, -0.5, -1.2).round().data())].map((v) => v + 0)).toEqual([0, 2, 2, 0, -1]);
  expect([...(await f(0.5, -0.5, 2).ceil().data())].map((v) => v + 0)).toEqual([1, 0, 2]);
  expect([...(await f(-2, 0.5, 3).clamp(-1, 1).data())]).toEqual([-1, 0.5, 1]);
  expect(
    [
      ...(await f(-2, 2, -2)
        .pow(f(3, -1, 2))
        .data()),
    ].map((v) => Math.round(v * 1e5) / 1e5),
  ).toEqual([-8, 0.5, 4]);
});

describe("a call that makes no sense says so:", () => {
  const x = (...shape: number[]): Tensor => tensor(new Float32Array(numel(shape)), shape);
  const i = (...shape: number[]): Tensor => tensor(new Int32Array(numel(shape)), shape);
  test.each<[string, () => unknown, RegExp]>([
    ["gather", () => nn.gather(x(2, 3), 1, i(3, 3)), /^gather: an index \[3, 3\] does not fit \[2, 3\] along axis 1/],
    ["scatter", () => nn.scatter(x(2, 3), 1, i(2, 2), x(2, 1)), /^scatter: .* src at least as large, got \[2, 1\]/],
    ["topk", () => nn.topk(x(2, 3), 4), /^topk: 4 of the 3 elements/],
    ["einsum", () => einsum("ij,jk->ik", x(2, 3), x(2, 3)), /^einsum: "ij,jk->ik": label j is 3 and 2/],
    ["einsum, a label from nowhere", () => einsum("ij->ik", x(2, 3)), /label k is not in the operands/],
    ["einsum, too few operands", () => einsum("ij,jk", x(2, 3)), /2 operands are named, 1 given/],
    ["rearrange", () => x(2, 3).rearrange("a b -> a"), /^rearrange: "a b -> a" on \[2, 3\]: b is missing on the right/],
    ["repeat", () => x(2, 3).repeat("a b -> a b c"), /^repeat: .*give the size of c/],
    ["reduce", () => x(2, 3).reduce("a b -> a c", "sum"), /^reduce: .*c is new on the right/],
    ["layerNorm", () => nn.layerNorm(x(2, 3), { weight: x(2) }), /^layerNorm: expected weight and bias \[3\]/],
    ["crossEntropy", () => nn.crossEntropy(x(2, 3), i(3)), /^crossEntropy: expected a target \[2\] .* got \[3\]/],
    ["gridSample", () => nn.gridSample(x(1, 2, 2, 1), x(1, 2, 2, 3)), /^gridSample: expected a grid/],
    ["unfold", () => nn.unfold(x(1, 2, 2, 1), { kernel: 3 }), /^unfold: a 3 x 3 patch does not fit/],
  ])("%s", (_, call, message) => {
    expect(call).toThrow(ShapeError);
    expect(call).toThrow(message);
  });
});
