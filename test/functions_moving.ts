// Definitions of the functions that move, pick and add up elements by position: sorting, indexing, pixels.

import * as nn from "../engine/nn/index.ts";
import { type At, argsortOf, type Cases, range, size, sizes, total } from "./function_case.ts";

export const moving: Cases = {
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
  "einops repeat": (d) => {
    const [h, w, r] = sizes(d, 3);
    return {
      inputs: [{ shape: [h, w] }],
      call: (x) => x.repeat("h w -> 1 w (h r)", { r }),
      shape: [1, w, h * r],
      at: (x) => (_, j, i) => x(Math.floor(i / r), j),
    };
  },
};
