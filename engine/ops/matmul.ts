// Matrix product over the last two axes. Operands may be transposed or broadcast views: the kernel reads them in place
// (engine/plan folds the views into strides), so neither a transpose nor a permute costs a dispatch.

import { matmul as family } from "../../kernels/matmul.ts";
import type { MatmulSpec } from "../../kernels/matmul_spec.ts";
import { ShapeError, show } from "../error.ts";
import { type Shape, sameShape } from "../shape.ts";
import { type Attrs, defineOp, floats, type KernelLowering, type Layout } from "./op.ts";

/** Strides of [batch0, batch1, row, col] for an operand of rank 2 to 4. */
function operand({ offset, strides }: Layout): MatmulSpec["a"] {
  const [row, col] = strides.slice(-2);
  const batch = [0, 0, ...strides.slice(0, -2)].slice(-2);
  return { offset, batch: [batch[0], batch[1]], row, col };
}

export interface MatmulAttrs extends Attrs {
  /** f16 holds every element of both operands exactly, and will hold those of the result's gradient. */
  readonly halves?: boolean;
}

const lower: KernelLowering<MatmulAttrs> = {
  kind: "kernel",
  family,
  epilogue: true,
  spec: ([a, b], { halves }, layouts): MatmulSpec => {
    const batch = [1, 1, ...a.slice(0, -2)].slice(-2);
    const [m, k] = a.slice(-2);
    const [left, right] = layouts.map(operand);
    return { m, n: b[b.length - 1], k, batch: [batch[0], batch[1]], a: left, b: right, halves };
  },
  // The fast kernels need unit stride along rows or columns and vec4 alignment of everything else.
  strided: ({ offset, strides }, shape) => {
    const [row, col] = strides.slice(-2);
    const [rows, cols] = shape.slice(-2);
    const unit = col === 1 || cols === 1 ? row : row === 1 || rows === 1 ? col : -1;
    return unit >= 0 && [offset, unit, ...strides.slice(0, -2)].every((s) => s % 4 === 0 && s >= 0);
  },
};

function check([a, b]: readonly Shape[]): Shape {
  const rank = a.length;
  if (rank < 2 || rank > 4 || b.length !== rank || !sameShape(a.slice(0, -2), b.slice(0, -2))) {
    throw new ShapeError(`matmul: batch dimensions differ or rank is not 2 to 4: ${show(a)} @ ${show(b)}`);
  }
  if (a[rank - 1] !== b[rank - 2]) {
    throw new ShapeError(`matmul: inner dimensions differ: ${show(a)} @ ${show(b)} (${a[rank - 1]} vs ${b[rank - 2]})`);
  }
  return [...a.slice(0, -1), b[rank - 1]];
}

export const matmul = defineOp<MatmulAttrs>({
  name: "matmul",
  dtype: floats("matmul"),
  shape: check,
  reference: ([a, b], out) => {
    const [m, k] = a.shape.slice(-2);
    const n = b.shape[b.shape.length - 1];
    for (let row = 0; row < out.data.length / n; row++) {
      const bBase = Math.floor(row / m) * k * n;
      for (let col = 0; col < n; col++) {
        let sum = 0;
        for (let i = 0; i < k; i++) sum += a.data[row * k + i] * b.data[bBase + i * n + col];
        out.data[row * n + col] = sum;
      }
    }
  },
  vjp: (g, [a, b], _, attrs) => [g.matmul(b.transpose(), attrs), a.transpose().matmul(g, attrs)],
  halves: true,
  lower,
  draw: (d) => {
    const batch = Array.from({ length: d.int(0, 2) }, () => d.int(1, 3));
    const [m, k, n] = [d.int(1, 6), d.int(1, 6), d.int(1, 6)];
    return { inputs: [{ shape: [...batch, m, k] }, { shape: [...batch, k, n] }], attrs: {} };
  },
  rtol: 1e-5,
  why: "dot products of a few terms; long ones are drawn by the kernel family",
  sums: true,
  laws: [
    { name: "permuted rows permute rows", of: ([a, b]) => ({ ins: [a.flip([-2]), b], after: (y) => y.flip([-2]) }) },
    {
      name: "permuted columns permute columns",
      of: ([a, b]) => ({ ins: [a, b.flip([-1])], after: (y) => y.flip([-1]) }),
    },
    {
      name: "the order of what is summed does not matter",
      of: ([a, b]) => ({ ins: [a.flip([-1]), b.flip([-2])], after: (y) => y }),
    },
  ],
});
