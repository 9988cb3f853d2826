// The last decision of fusion: a group that feeds exactly one other, element for element, is computed inside it, and stored from
// there if it is wanted (this is what makes an optimiser update one kernel). Called by fuse.ts; plan.ts asks `readsInPlace`.

import type { Node } from "../../graph.ts";
import { sameShape } from "../../shape.ts";
import type { Boundary } from "../expr.ts";
import type { Draft, Group, Size } from "./draft.ts";
import { countLoads, KERNEL_LOADS, KERNEL_OPS } from "./sizes.ts";

export function mergeReaders(groups: readonly Group[], draft: Draft): Group[] {
  const { sizes } = draft;
  const readers = new Map<Node, Set<Group>>();
  for (const g of groups) for (const n of draft.reads(g)) readers.set(n, (readers.get(n) ?? new Set()).add(g));
  const gone = new Set<Group>();
  for (const g of [...groups].reverse()) {
    const root = g.roots[0];
    const [reader, ...others] = readers.get(root) ?? [];
    if (g.core || !reader || others.length > 0 || reader.core || gone.has(reader)) continue;
    if (root.op.lower.kind !== "elementwise" || !sameShape(root.shape, reader.roots[0].shape)) continue;
    if (!readsInPlace(reader.roots, root, draft) || !fits(reader, g, draft)) continue;
    // Only a result is wanted in memory as well; anything else has this one reader.
    if (draft.wanted.has(root)) reader.roots.unshift(root);
    else {
      const last = reader.roots[reader.roots.length - 1];
      sizes.set(last, sizeOf([root, last], draft));
      draft.unstore(root);
    }
    gone.add(g);
    for (const n of draft.reads(g)) {
      const set = readers.get(n);
      set?.delete(g);
      set?.add(reader);
    }
  }
  return groups.filter((g) => !gone.has(g));
}

/** Size of a kernel that computes all of `roots`; what one of them reads of another it does not load. */
function sizeOf(roots: readonly Node[], { sizes }: Draft): Size {
  const known = roots.flatMap((n) => sizes.get(n) ?? []);
  const reads = new Map(known.flatMap((s) => [...s.reads]));
  for (const n of roots) reads.delete(n);
  return { ops: known.reduce((sum, s) => sum + s.ops, 0), reads };
}

function fits(reader: Group, g: Group, draft: Draft): boolean {
  const bound = new Set([...draft.reads(reader), ...draft.reads(g)]);
  const { ops, reads } = sizeOf([...reader.roots, ...g.roots], draft);
  const small = ops <= KERNEL_OPS && countLoads(reads) <= KERNEL_LOADS;
  return small && bound.size + reader.roots.length + 1 <= draft.options.maxBindings - 1;
}

/** Do `roots`, computed in one kernel, use `value` only through elementwise ops, so at the very element they compute? */
export function readsInPlace(roots: readonly Node[], value: Node, { sources, stored }: Boundary): boolean {
  let only = true;
  const seen = { elsewhere: new Set<Node>(), here: new Set<Node>() };
  const visit = (n: Node, here: boolean): void => {
    if (n === value) only &&= here;
    const before = here ? seen.here : seen.elsewhere;
    if (n === value || before.has(n) || n.op.lower.kind === "leaf") return;
    before.add(n);
    if (stored(n) && !roots.includes(n)) return;
    for (const s of sources(n)) visit(s, here && n.op.lower.kind === "elementwise");
  };
  for (const r of roots) visit(r, true);
  return only;
}
