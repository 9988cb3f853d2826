// What an op of the golden kind "ops" is: torch's name -> a function of torch's arguments on torch's layout (channels
// second), written with the engine's public functions. The engine is channels last, so these permute in and out.

import type { Tensor } from "../../../engine/tensor.ts";
import type { Args } from "../args.ts";

/** Inputs of a case by name. Optional ones that a case does not have are undefined. */
export type Inputs = Readonly<Record<string, Tensor>>;

/** Results in the order of the case's outputs; results beyond those are ignored. */
export type OpFunction = (args: Args, inputs: Inputs) => Tensor | readonly Tensor[];

export type OpTable = Readonly<Record<string, OpFunction>>;

/** [b, c, ...spatial] -> [b, ...spatial, c] */
export function channelsLast(x: Tensor): Tensor {
  return x.permute([0, ...x.shape.slice(2).map((_, i) => i + 2), 1]);
}

/** [b, ...spatial, c] -> [b, c, ...spatial] */
export function channelsSecond(x: Tensor): Tensor {
  return x.permute([0, x.rank - 1, ...x.shape.slice(2).map((_, i) => i + 1)]);
}

/** f of x with a batch axis of one where x has none (rank one less than `rank`); the result then has none either. */
export function withBatch(x: Tensor, rank: number, f: (x: Tensor) => Tensor): Tensor {
  if (x.rank >= rank) return f(x);
  const y = f(x.reshape([1, ...x.shape]));
  return y.reshape(y.shape.slice(1));
}
