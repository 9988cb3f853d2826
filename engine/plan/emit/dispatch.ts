// What the emitters of this folder take and return: the dispatches of a group as kernel sources and the values that they
// bind. How they come about is in elementwise.ts, reduce.ts and kernel.ts; what is done to all of them is in emit.ts.

import type { Caps, KernelSource, Lowered } from "../../../kernels/wgsl.ts";
import type { Node } from "../../graph.ts";
import type { Boundary } from "../expr.ts";
import type { PlaceOf } from "../writer.ts";

/** A storage binding of a dispatch: the place of a node, or scratch of this group. */
export type Slot = { readonly place: string; readonly node: Node } | { readonly scratch: number };

export interface EmittedPass {
  readonly source: KernelSource;
  readonly slots: readonly Slot[];
}

export interface Emitted {
  readonly passes: readonly EmittedPass[];
  /** Elements of each scratch buffer. */
  readonly scratch: readonly number[];
}

export interface EmitContext {
  readonly boundary: Boundary;
  readonly caps: Caps;
  readonly place: PlaceOf;
}

/** A kernel numbers what it binds: first the values of `list`, then its scratch. */
export function resolveSlots(
  lowered: Lowered,
  list: readonly { readonly place: string; readonly node: Node }[],
): Emitted {
  const slot = (i: number): Slot =>
    i < list.length ? { place: list[i].place, node: list[i].node } : { scratch: i - list.length };
  return {
    passes: lowered.passes.map((p) => ({ source: p.source, slots: p.operands.map(slot) })),
    scratch: lowered.scratch,
  };
}
