// Sorted values: gathers by the one sorting op, argsort, so that gradients go where the values came from. Equal values keep
// their order.

import { ShapeError, show } from "../error.ts";
import { axisOf } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { gather } from "./indexing.ts";
import type { ValuesAt } from "./reductions.ts";

export interface SortOptions {
  readonly descending?: boolean;
}

/** Values along an axis in order, and where they were. */
export function sort(x: Tensor, axis = -1, o: SortOptions = {}): ValuesAt {
  const indices = x.argsort(axis, o);
  return { values: gather(x, axis, indices), indices };
}

export interface TopkOptions {
  /** Smallest ones instead. */
  readonly smallest?: boolean;
}

/** The k largest values along an axis, largest first, and where they were; the first of equal ones first. */
export function topk(x: Tensor, k: number, axis = -1, { smallest = false }: TopkOptions = {}): ValuesAt {
  const n = x.shape[axisOf("topk", axis, x.rank)];
  if (!(k >= 0 && k <= n))
    throw new ShapeError(`topk: ${k} of the ${n} elements along axis ${axis} of ${show(x.shape)}`);
  const indices = x.argsort(axis, { descending: !smallest }).slice(axis, 0, k);
  return { values: gather(x, axis, indices), indices };
}
