// Elementwise kernels in which some operands are broadcast, such as a norm's statistics and gains: one thread computes several
// elements that share them, and loads them once. Here: along which variable, how often, and what is shared. Called by
// emit/elementwise.ts.

import type { Caps } from "../../kernels/wgsl.ts";
import type { Index, Space } from "../ops/view.ts";
import { numel } from "../shape.ts";
import { type Expr, loadsOf } from "./expr.ts";

export interface Repeat {
  /** Variable that the elements of one thread differ in: they lie `space[axis] / times` apart. */
  readonly axis: number;
  readonly times: number;
}

/** Fewest threads that keep a machine busy. */
const ENOUGH_THREADS = 1024;

/**
 * The repetition that saves most loads; null where none does. For software adapters, whose loads cost what they cost and are
 * most of such a kernel; a GPU has caches for this and needs the threads.
 */
export function repeatOf(
  space: Space,
  values: readonly Expr[],
  along: number,
  width: 1 | 4,
  caps: Caps,
): Repeat | null {
  if (caps.adapter !== "cpu" || space.length < 2) return null;
  const loads = loadsOf(values);
  const threads = numel(space) / width;
  const found = space.flatMap((size, axis) => {
    const unit = axis === along ? width : 1;
    const times = [8, 4].find((n) => size % (n * unit) === 0 && threads / n >= ENOUGH_THREADS);
    const shared = loads.filter((l) => !l.index.uses(axis));
    const saved = shared.reduce((sum, l) => sum + (along >= 0 && l.index.uses(along) ? width : 1), 0);
    return times && saved > 0 ? [{ axis, times, saved }] : [];
  });
  return found.reduce<(Repeat & { saved: number }) | null>((a, b) => (a && a.saved >= b.saved ? a : b), null);
}

/** The largest parts of the expressions that are the same for all values of variable `axis`, and read memory. */
export function sharedParts(values: readonly Expr[], axis: number): Expr[] {
  const known = new Map<Expr, boolean>();
  const depends = (e: Expr): boolean => {
    const before = known.get(e);
    if (before !== undefined) return before;
    const uses = (i: Index): boolean => i.uses(axis);
    const found =
      e.kind === "load"
        ? uses(e.index)
        : e.kind === "op"
          ? e.args.some(depends)
          : e.kind === "pick" && e.pieces.some((p) => p.when.some((c) => uses(c.index)) || depends(p.value));
    known.set(e, found);
    return found;
  };
  const parts = new Set<Expr>();
  const seen = new Set<Expr>();
  const visit = (e: Expr): void => {
    if (seen.has(e)) return;
    seen.add(e);
    if (!depends(e)) {
      if (loadsOf([e]).length > 0) parts.add(e);
    } else if (e.kind === "op") e.args.forEach(visit); // a pick reads only the piece that applies, so its pieces stay in it
  };
  values.forEach(visit);
  return [...parts];
}
