// argsort: the one sorting op. Sorted values, top k and their gradients are gathers by it (nn/sorting.ts).

import { argsort as argsortFamily } from "../../kernels/sort.ts";
import { DTypeError, ShapeError, show } from "../error.ts";
import { type Attrs, defineOp, familyReference, type KernelLowering } from "./op.ts";

export interface ArgsortAttrs extends Attrs {
  readonly descending: boolean;
  /** dtype of the keys. */
  readonly of: "f32" | "i32";
}

const lower: KernelLowering<ArgsortAttrs> = {
  kind: "kernel",
  family: argsortFamily,
  spec: ([x], { descending, of }) => ({ rows: x[0], length: x[1], descending, dtype: of }),
};

/** [rows, n] -> i32 [rows, n]: positions in order of their values; those of equal values in increasing order. */
export const argsort = defineOp<ArgsortAttrs>({
  name: "argsort",
  shape: ([x]) => {
    if (x.length !== 2) throw new ShapeError(`argsort: expected "rows n", got ${show(x)}`);
    return x;
  },
  dtype: ([x], { of }) => {
    if (x !== of) throw new DTypeError(`argsort: expected f32 or i32, got ${x} (cast it)`);
    return "i32";
  },
  reference: familyReference(lower),
  vjp: "none",
  lower,
  draw: (d) => {
    const of = d.pick(["f32", "i32"] as const);
    const shape = [d.int(1, 3), d.int(1, 40)];
    return { inputs: [{ shape, dtype: of, below: 9 }], attrs: { descending: d.pick([false, true]), of } };
  },
  rtol: 0,
});
