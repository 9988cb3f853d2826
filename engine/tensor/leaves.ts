// Nodes that have a value from the start: a constant, which kernels inline, and what lies in memory. Called by the methods
// beside this file and by tensor.ts, whose `full` and `tensor` are for everybody else.

import { type DType, roundHalf } from "../dtype.ts";
import { intern, leaf, type Node } from "../graph.ts";
import * as leaves from "../ops/leaf.ts";
import type { Shape } from "../shape.ts";
import type { Storage } from "../storage.ts";
import { none } from "./apply.ts";

/** `value` everywhere, rounded to f16 where that is the dtype. */
export function filled(shape: Shape, value: number, dtype: DType): Node {
  return intern(leaves.constant, [], { value: dtype === "f16" ? roundHalf(value) : value }, shape, dtype);
}

/** Values that a device or the host holds. */
export function stored(storage: Storage): Node {
  return leaf(leaves.data, none, storage.shape, storage.dtype, storage);
}
