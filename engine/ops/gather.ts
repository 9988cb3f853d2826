// Row lookup (embedding) and its gradient, which adds rows in a fixed order so that the same seed gives the same bits.

import { gatherRows as gatherFamily, gatherRowsGrad as gatherGradFamily } from "../../kernels/gather.ts";
import type { DType } from "../dtype.ts";
import { DTypeError, ShapeError, show } from "../error.ts";
import type { Shape } from "../shape.ts";
import { type Attrs, defineOp, familyReference, floats, type KernelLowering } from "./op.ts";

function checkGather([table, index]: readonly Shape[]): Shape {
  if (table.length !== 2 || index.length !== 1) {
    throw new ShapeError(`gatherRows: expected a table "n d" and an index "k", got ${show(table)} and ${show(index)}`);
  }
  return [index[0], table[1]];
}

/** Rows are counted in i32: a float index would be read as a very large number. */
function checkIndex(op: string, [values, index]: readonly DType[]): DType {
  if (index !== "i32") throw new DTypeError(`${op}: the index must be i32, got ${index} (use cast("i32"))`);
  return values;
}

const gather: KernelLowering<Attrs> = {
  kind: "kernel",
  family: gatherFamily,
  spec: ([table, index]) => ({ rows: table[0], dim: table[1], count: index[0] }),
};

/** table [n, d], index i32 [k] (values outside 0..n-1 are clamped) -> [k, d]. */
export const gatherRows = defineOp<Attrs>({
  name: "gatherRows",
  shape: checkGather,
  dtype: (ins) => checkIndex("gatherRows", ins),
  reference: familyReference(gather),
  vjp: (g, [table, index]) => [g.gatherRowsGrad(index, table.shape[0]), null],
  lower: gather,
  draw: (d) => {
    const [n, dim, k] = [d.int(1, 6), d.int(1, 5), d.int(1, 7)];
    return { inputs: [{ shape: [n, dim] }, { shape: [k], dtype: "i32", below: n }], attrs: {} };
  },
  rtol: 0,
  laws: [
    { name: "permuted indices permute rows", of: ([t, i]) => ({ ins: [t, i.flip([0])], after: (y) => y.flip([0]) }) },
    {
      name: "a permuted table and the indices into it",
      of: ([t, i]) => ({ ins: [t.flip([0]), i.neg().add(t.shape[0] - 1)], after: (y) => y }),
    },
  ],
});

export interface GatherGradAttrs extends Attrs {
  readonly rows: number;
}

const gatherGrad: KernelLowering<GatherGradAttrs> = {
  kind: "kernel",
  family: gatherGradFamily,
  spec: ([g], { rows }) => ({ rows, dim: g[1], count: g[0] }),
};

/** g [k, d], index i32 [k] -> [rows, d]: the sum of the rows of g that each table row was read into. */
export const gatherRowsGrad = defineOp<GatherGradAttrs>({
  name: "gatherRowsGrad",
  shape: ([g], { rows }) => [rows, g[1]],
  dtype: (ins) => floats("gatherRowsGrad")([checkIndex("gatherRowsGrad", ins)]),
  reference: familyReference(gatherGrad),
  vjp: (gt, [, index]) => [gt.gatherRows(index), null],
  lower: gatherGrad,
  draw: (d) => {
    const [rows, dim, k] = [d.int(1, 6), d.int(1, 5), d.int(1, 7)];
    return { inputs: [{ shape: [k, dim] }, { shape: [k], dtype: "i32", below: rows }], attrs: { rows } };
  },
  rtol: 1e-6,
  why: "sums of a few rows",
  sums: true,
});
