// The third decision of fusion: which ops a kernel or reduction takes along, and computes where its result is. Those that only
// it feeds, however they branch and join, up to the last one through which every use of the result goes. Called by fuse.ts.

import { isFloat } from "../../dtype.ts";
import type { Node } from "../../graph.ts";
import { numel } from "../../shape.ts";
import { isCore } from "./composites.ts";
import type { Draft } from "./draft.ts";
import { KERNEL_OPS } from "./sizes.ts";

/** Later kernels first: of two kernels feeding one sum, the one computed last can add the other's stored result. */
export function takeEpilogues(draft: Draft): void {
  const claimed = new Set<Node>();
  for (let i = draft.order.length - 1; i >= 0; i--) {
    const core = draft.order[i];
    const lower = core.op.lower;
    if (!(lower.kind === "reduce" || (lower.kind === "kernel" && lower.epilogue))) continue;
    const path = pathBehind(core, claimed, draft);
    const end = path.pop();
    if (!end) continue;
    for (const n of path) draft.inside.add(n);
    for (const n of [...path, end]) claimed.add(n);
    if ([core, ...path].some((n) => draft.usersOf(n).length > 1)) draft.branching.add(core);
    draft.coreOf.set(end, core);
    draft.absorbed.add(core);
    draft.store(end);
  }
}

/** The epilogue's nodes in order; empty when there is none. */
function pathBehind(core: Node, claimed: ReadonlySet<Node>, draft: Draft): Node[] {
  const path: Node[] = [];
  let length = 0;
  const taken = new Set<Node>([core]);
  const open = new Set<Node>(draft.stored(core) ? [] : draft.usersOf(core));
  while (open.size > 0 && path.length < KERNEL_OPS) {
    const user = [...open].reduce((a, b) => (draft.place(a) < draft.place(b) ? a : b));
    if (claimed.has(user) || !maySit(core, user, taken, draft)) break;
    open.delete(user);
    taken.add(user);
    path.push(user);
    if (open.size === 0 && user.op.lower.kind === "elementwise") length = path.length;
    if (draft.stored(user) || (draft.straight.has(core) && draft.usersOf(user).length > 1)) break;
    for (const next of draft.usersOf(user)) open.add(next);
  }
  return path.slice(0, length);
}

/** Can `user` be part of the epilogue of `core`, of which `taken` is computed already? */
function maySit(core: Node, user: Node, taken: ReadonlySet<Node>, draft: Draft): boolean {
  const lower = user.op.lower;
  const passes = lower.kind === "elementwise" ? isFloat(user.dtype) : lower.kind === "view" && lower.linear === true;
  if (!passes || numel(user.shape) !== numel(core.shape)) return false;
  if (draft.straight.has(core) && draft.usersOf(core).length > 1) return false;
  if (lower.kind === "elementwise" && !mayFollow(core, user, taken, draft)) return false;
  // One buffer cannot be bound twice in a dispatch, so an epilogue does not read what the kernel itself reads.
  const operands = new Set(draft.operands.get(core)?.map((o) => o.node));
  return operands.size === 0 || !draft.sources(user).some((s) => !taken.has(s) && reaches(s, operands, draft));
}

/** Kernels that take nothing but a bias take the first op behind them, if that adds a vector. */
function mayFollow(core: Node, user: Node, taken: ReadonlySet<Node>, draft: Draft): boolean {
  const operands = draft.operands.get(core);
  if (!operands || (draft.options.epilogues?.(core, operands) ?? "any") === "any") return true;
  const lower = user.op.lower;
  if ([...taken].some((n) => n !== core && n.op.lower.kind === "elementwise")) return false;
  let vector = draft.sources(user).find((s) => !taken.has(s));
  if (!vector || lower.kind !== "elementwise" || !lower.adds) return false;
  while (vector.op.lower.kind === "view" && vector.src.length === 1) vector = draft.sources(vector)[0];
  return numel(vector.shape) === core.shape[core.shape.length - 1];
}

/** Would computing `start` in place read one of `targets`? */
function reaches(start: Node, targets: ReadonlySet<Node>, draft: Draft): boolean {
  const seen = new Set<Node>();
  const stack = [start];
  while (stack.length > 0) {
    const n = stack.pop() as Node;
    if (targets.has(n)) return true;
    if (seen.has(n) || draft.stored(n) || isCore(n)) continue;
    seen.add(n);
    stack.push(...draft.sources(n));
  }
  return false;
}
