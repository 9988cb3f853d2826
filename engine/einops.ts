// einops patterns: "b (h w) c -> b c h w" as reshape, permute, reshape. Only rearrangement: every name occurs once on each
// side, so a pattern never repeats or reduces.

import { ShapeError, show } from "./error.ts";
import { numel, type Shape } from "./shape.ts";

/** "b (h w) c" -> [["b"], ["h", "w"], ["c"]]; the digit 1 is an axis of size one without a name. */
function groups(side: string, pattern: string): string[][] {
  const tokens = side.match(/\([^()]*\)|[A-Za-z_]\w*|1/g) ?? [];
  if (tokens.join("").replace(/\s/g, "") !== side.replace(/\s/g, ""))
    throw new ShapeError(`rearrange: cannot read "${side.trim()}" in "${pattern}"`);
  return tokens.map((t) =>
    t
      .replace(/[()]/g, "")
      .split(/\s+/)
      .filter((n) => n !== "" && n !== "1"),
  );
}

/** Sizes of the names in `names`, whose product is `size`; at most one may be unknown. */
function solve(names: readonly string[], size: number, known: Map<string, number>, pattern: string): void {
  const unknown = names.filter((n) => !known.has(n));
  const product = names.reduce((p, n) => p * (known.get(n) ?? 1), 1);
  if (unknown.length > 1)
    throw new ShapeError(`rearrange "${pattern}": give the size of ${unknown.slice(1).join(" or ")}`);
  if (unknown.length === 1) known.set(unknown[0], size / product);
  const complete = names.reduce((p, n) => p * (known.get(n) ?? 1), 1);
  if (complete !== size || names.some((n) => !Number.isInteger(known.get(n)))) {
    throw new ShapeError(`rearrange "${pattern}": (${names.join(" ")}) does not divide an axis of size ${size}`);
  }
}

export interface Rearrangement {
  readonly split: number[];
  readonly order: number[];
  readonly merge: number[];
}

/** Shapes and order that carry out `pattern` on a tensor of `shape`. Throws ShapeError. */
export function parseRearrange(pattern: string, shape: Shape, sizes: Readonly<Record<string, number>>): Rearrangement {
  const [left, right, extra] = pattern.split("->");
  if (right === undefined || extra !== undefined) throw new ShapeError(`rearrange: "${pattern}" needs one ->`);
  const from = groups(left, pattern);
  const to = groups(right, pattern);
  if (from.length !== shape.length)
    throw new ShapeError(`rearrange "${pattern}": the left side has ${from.length} axes, the tensor is ${show(shape)}`);
  const known = new Map(Object.entries(sizes));
  from.forEach((names, i) => {
    solve(names, shape[i], known, pattern);
  });
  const names = from.flat();
  const target = to.flat();
  if (new Set(names).size !== names.length || [...names].sort().join() !== [...target].sort().join()) {
    throw new ShapeError(`rearrange "${pattern}": both sides must name the same axes, each once`);
  }
  const size = (n: string): number => known.get(n) as number;
  return {
    split: names.map(size),
    order: target.map((n) => names.indexOf(n)),
    merge: to.map((g) => numel(g.map(size))),
  };
}
