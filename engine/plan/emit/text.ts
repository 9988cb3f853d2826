// What every emitted kernel has around the statements of plan/writer.ts: the label that a profiler shows, and the split of a
// position into the variables of a space. Called by the emitters beside it.

import type { Space } from "../../ops/view.ts";
import { stridesOf } from "../../shape.ts";
import type { Expr } from "../expr.ts";
import type { Constants } from "../writer.ts";

/** Op names of the expressions, in order of evaluation: what a profiler shows. */
export function opNames(values: readonly Expr[]): string[] {
  const names: string[] = [];
  const seen = new Set<Expr>();
  const visit = (e: Expr): void => {
    if (seen.has(e)) return;
    seen.add(e);
    if (e.kind === "op") {
      e.args.forEach(visit);
      names.push(e.node.op.name);
    } else if (e.kind === "pick") for (const p of e.pieces) visit(p.value);
  };
  values.forEach(visit);
  return names;
}

/** The names with counts, as in `mul*2 add`. */
export function labelOf(values: readonly Expr[]): string {
  const counts = new Map<string, number>();
  for (const n of opNames(values)) counts.set(n, (counts.get(n) ?? 0) + 1);
  return [...counts].map(([n, c]) => (c > 1 ? `${n}*${c}` : n)).join(" ") || "copy";
}

/** Statements that split a flat position into the variables of a space. */
export function unravel(space: Space, flat: string, prefix: string, constants: Constants, first = 0): string[] {
  const strides = stridesOf(space);
  return space.map((n, i) => {
    const over = strides[i] === 1 ? flat : constants.quotient(flat, strides[i]);
    return `let ${prefix}${first + i} = ${i === 0 ? over : constants.remainder(over, n)};`;
  });
}
