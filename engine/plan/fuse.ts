// Which nodes share a kernel. A program becomes groups, one dispatch each (or the few passes of one kernel family): a group
// stores one value (or several of one shape), computes everything elementwise and every movement on the way in registers,
// and may contain one `core`, a reduction or a hand-written kernel, whose epilogue the elementwise part is.
//
// Decisions, in order, a file of fuse/ each: (1) composites whose parts are needed anyway are replaced by their decomposition;
// (2) results, kernel operands and kernel results are stored; (3) each kernel and reduction takes along the elementwise ops
// that only it feeds; (4) values used more than once and what would make a kernel too large are stored; (5) values whose only
// reader is one elementwise group are computed in that group.

import type { Program } from "../device.ts";
import type { Node } from "../graph.ts";
import type { Boundary } from "./expr.ts";
import { isCore } from "./fuse/composites.ts";
import { CutRequest, Draft, type FuseOptions, type Group } from "./fuse/draft.ts";
import { takeEpilogues } from "./fuse/epilogues.ts";
import { mergeReaders } from "./fuse/merge.ts";
import { storeForced } from "./fuse/operands.ts";
import { storeShared } from "./fuse/sizes.ts";

export type { FuseOptions, Group, Operand } from "./fuse/draft.ts";
export { readsInPlace } from "./fuse/merge.ts";

export interface Fusion extends Boundary {
  /** In no particular order: plan.ts orders them. */
  readonly groups: readonly Group[];
  /** Results and new state values, after replacement of composites. */
  resolve(n: Node): Node;
  /** Stored nodes and leaves that a group reads. */
  reads(g: Group): Set<Node>;
}

export function fuse(program: Program, options: FuseOptions): Fusion {
  const straight = new Set<Node>();
  const tried: Draft[] = []; // keeps the nodes that it made, so that the next attempt finds the same ones
  for (;;) {
    const draft = new Draft(program, options, straight); // (1)
    tried.push(draft);
    try {
      return decide(draft);
    } catch (e) {
      if (!(e instanceof CutRequest)) throw e;
      straight.add(e.core);
    }
  }
}

function decide(draft: Draft): Fusion {
  const { fuse } = draft.options;
  storeForced(draft); // (2)
  if (fuse) takeEpilogues(draft); // (3)
  for (const n of draft.order) if (isCore(n) && !draft.absorbed.has(n)) draft.store(n);
  storeShared(draft); // (4)
  const groups = fuse ? mergeReaders(draft.groups(), draft) : draft.groups(); // (5)
  const { resolve, sources, stored, reads } = draft;
  return { groups, resolve, sources, stored, reads };
}
