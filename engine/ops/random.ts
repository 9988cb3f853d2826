// Random numbers as a pure function of (key, counter, element): the same on every adapter and in the reference, because
// the generator and the normal quantile use integer arithmetic only (kernels/random.ts).

import { random as family } from "../../kernels/random.ts";
import type { DType } from "../dtype.ts";
import { numel } from "../shape.ts";
import { type Attrs, defineOp, familyReference, type KernelLowering } from "./op.ts";

export interface RandomAttrs extends Attrs {
  readonly kind: "bits" | "uniform" | "normal";
  readonly shape: readonly number[];
  /** Position of this draw among the draws of one program: added to the state's counter. */
  readonly draw: number;
}

const lower: KernelLowering<RandomAttrs> = {
  kind: "kernel",
  family,
  spec: (_, { kind, shape, draw }) => ({ kind, count: numel(shape), draw }),
};

/** state u32[4] = (key0, key1, counter, 0); for normals also the quantile table i32. */
export const random = defineOp<RandomAttrs>({
  name: "random",
  shape: (_, { shape }) => shape,
  dtype: (_, { kind }): DType => (kind === "bits" ? "u32" : "f32"),
  reference: familyReference(lower),
  vjp: "none",
  lower,
  draw: (d) => ({
    inputs: [{ shape: [4], dtype: "u32", below: 2 ** 31 }],
    attrs: { kind: d.pick(["bits", "uniform"] as const), shape: [d.int(1, 9), d.int(1, 9)], draw: d.int(0, 3) },
  }),
  rtol: 0, // bit for bit
});
