// Matrix product over the last two axes. Operands may be transposed or broadcast views: the kernel reads them in place
// (engine/plan folds the views into strides), so neither a transpose nor a permute costs a dispatch.

import { matmul as family } from "../../kernels/matmul.ts";
import { counts, type MatmulSpec, type Triangle } from "../../kernels/matmul_spec.ts";
import { ShapeError, show } from "../error.ts";
import { type Shape, sameShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { type PermuteAttrs, permute } from "./movement.ts";
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
  /** Only this half of the left matrix, or of the result, counts; the rest is zero. */
  readonly triangle?: Triangle;
}

const lower: KernelLowering<MatmulAttrs> = {
  kind: "kernel",
  family,
  epilogue: true,
  spec: ([a, b], { halves, triangle }, layouts): MatmulSpec => {
    const batch = [1, 1, ...a.slice(0, -2)].slice(-2);
    const [m, k] = a.slice(-2);
    const [left, right] = layouts.map(operand);
    return { m, n: b[b.length - 1], k, batch: [batch[0], batch[1]], a: left, b: right, halves, triangle };
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

/** The same half of the transposed matrix, which stands on the left. */
function mirror({ half, diagonal }: Triangle): Triangle {
  return { of: "left", half: half === "lower" ? "upper" : "lower", diagonal: -diagonal };
}

/** true in the half of each matrix of `x` that does not count. */
export function outside(x: Tensor, { half, diagonal }: Omit<Triangle, "of">): Tensor {
  const [rows, columns] = x.shape.slice(-2);
  const edge = x.arange(rows).add(diagonal).reshape([rows, 1]).expand([rows, columns]);
  const column = x.arange(columns).reshape([1, columns]).expand([rows, columns]);
  const beyond = half === "lower" ? edge.less(column) : column.less(edge);
  return beyond.reshape([...x.shape.slice(0, -2).map(() => 1), rows, columns]).expand(x.shape);
}

/** Is it a matrix with its last two axes swapped? */
function isTransposed(b: Tensor): boolean {
  const { op, attrs } = b.node;
  const order = op === permute ? (attrs as PermuteAttrs).order : [];
  return order.length === b.rank && order.every((axis, i) => axis === (i < b.rank - 2 ? i : 2 * b.rank - 3 - i));
}

export const matmul = defineOp<MatmulAttrs>({
  name: "matmul",
  dtype: floats("matmul"),
  shape: check,
  reference: ([a, b], out, { triangle }) => {
    const [m, k] = a.shape.slice(-2);
    const n = b.shape[b.shape.length - 1];
    for (let row = 0; row < out.data.length / n; row++) {
      const bBase = Math.floor(row / m) * k * n;
      for (let col = 0; col < n; col++) {
        let sum = 0;
        for (let i = 0; i < k; i++)
          if (triangle?.of !== "left" || counts(triangle, row % m, i))
            sum += a.data[row * k + i] * b.data[bBase + i * n + col];
        out.data[row * n + col] = triangle?.of !== "result" || counts(triangle, row % m, col) ? sum : 0;
      }
    }
  },
  // A triangle of A is one of its gradient, g b^T; in a^T, or g^T, it is the mirrored one.
  vjp: (g, [a, b], _, { halves, triangle }) => {
    const other = triangle && ({ ...triangle, of: triangle.of === "left" ? "result" : "left" } as const);
    const mirrored = triangle && mirror(triangle);
    // A weight that is read transposed gets its gradient as it lies: (g^T a)^T, of which the caller takes the transpose.
    const turned = triangle ? triangle.of === "result" : isTransposed(b);
    const gb = turned
      ? g.transpose().matmul(a, { halves, triangle: mirrored }).transpose()
      : a.transpose().matmul(g, { halves, triangle: mirrored });
    return [g.matmul(b.transpose(), { halves, triangle: other }), gb];
  },
  halves: true,
  lower,
  draw: (d) => {
    const batch = Array.from({ length: d.int(0, 2) }, () => d.int(1, 3));
    const [m, k, n] = [d.int(1, 6), d.int(1, 6), d.int(1, 6)];
    const triangle = {
      of: d.pick(["left", "result"] as const),
      half: d.pick(["lower", "upper"] as const),
      diagonal: d.int(-2, 2),
    };
    const attrs = d.int(0, 2) > 0 ? {} : { triangle };
    return { inputs: [{ shape: [...batch, m, k] }, { shape: [...batch, k, n] }], attrs };
  },
  rtol: 1e-5,
  why: "dot products of a few terms; long ones are drawn by the kernel family",
  sums: true,
  laws: [
    {
      name: "permuted rows permute rows",
      of: ([a, b], { triangle }) => (triangle ? null : { ins: [a.flip([-2]), b], after: (y) => y.flip([-2]) }),
    },
    {
      name: "permuted columns permute columns",
      of: ([a, b], { triangle }) => (triangle ? null : { ins: [a, b.flip([-1])], after: (y) => y.flip([-1]) }),
    },
    {
      name: "the order of what is summed does not matter",
      of: ([a, b], { triangle }) => (triangle ? null : { ins: [a.flip([-1]), b.flip([-2])], after: (y) => y }),
    },
    {
      name: "what does not count might as well be zero",
      of: ([a, b], { triangle }) => {
        if (!triangle) return null;
        const erased = (x: Tensor): Tensor => outside(x, triangle).where(0, x);
        const left = triangle.of === "left";
        return { ins: [left ? erased(a) : a, b], attrs: {}, after: (y) => (left ? y : erased(y)) };
      },
    },
  ],
});
