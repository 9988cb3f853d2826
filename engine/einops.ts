// einops patterns: "b (h w) c -> b c h w" as reshape, permute, reshape. `rearrange` names the same axes on both sides,
// `repeat` adds axes on the right, `reduce` leaves some out there. "..." stands for any number of axes. Parsing only: the
// methods of Tensor carry it out.

import { ShapeError, show } from "./error.ts";
import { numel, type Shape } from "./shape.ts";

export type EinopsName = "rearrange" | "repeat" | "reduce";

/** What carries out a pattern: reshape, reduce, permute, reshape, expand, reshape. */
export interface Rearrangement {
  /** Sizes of the left side's axes, apart. */
  readonly split: number[];
  /** Which of them the right side leaves out. */
  readonly reduced: number[];
  /** Order of those that stay. */
  readonly order: number[];
  /** The right side's axes apart, new ones with size 1, and with their sizes. */
  readonly apart: number[];
  readonly grown: number[];
  readonly merge: number[];
}

interface Reader {
  readonly op: EinopsName;
  fail(what: string): never;
}

/** "b (h w) c" -> [["b"], ["h", "w"], ["c"]]; the digit 1, and (), is an axis of size one without a name. */
function groups(side: string, r: Reader): string[][] {
  const tokens = side.match(/\([^()]*\)|[A-Za-z_]\w*|1|\.\.\./g) ?? [];
  if (tokens.join("").replace(/\s/g, "") !== side.replace(/\s/g, "")) r.fail(`cannot read "${side.trim()}"`);
  return tokens.map((t) =>
    t
      .replace(/[()]/g, "")
      .split(/\s+/)
      .filter((n) => n !== "" && n !== "1"),
  );
}

/** Names for the axes that "..." stands for when the left side's other groups take up the rest of `rank`. */
function ellipsis(from: readonly string[][], rank: number, r: Reader): string[] {
  const others = from.filter((g) => !g.includes("...")).length;
  if (from.some((g) => g.includes("...") && g.length > 1)) r.fail('"..." on the left stands alone');
  if (others === from.length) return [];
  if (rank < others) r.fail(`the left side has ${others} axes beside "...", the tensor has ${rank}`);
  return Array.from({ length: rank - others }, (_, i) => `...${i}`);
}

/** Sizes of the names in `names`, whose product is `size`; at most one may be unknown. */
function solve(names: readonly string[], size: number, known: Map<string, number>, r: Reader): void {
  const unknown = names.filter((n) => !known.has(n));
  const product = names.reduce((p, n) => p * (known.get(n) ?? 1), 1);
  if (unknown.length > 1) r.fail(`give the size of ${unknown.slice(1).join(" or ")}`);
  if (unknown.length === 1) known.set(unknown[0], size / product);
  const complete = names.reduce((p, n) => p * (known.get(n) ?? 1), 1);
  if (complete !== size || names.some((n) => !Number.isInteger(known.get(n))))
    r.fail(`(${names.join(" ")}) does not divide an axis of size ${size}`);
}

/** Which names may differ between the sides depends on the function. */
function checkNames(from: readonly string[], to: readonly string[], known: Map<string, number>, r: Reader): void {
  const twice = [from, to].flatMap((side) => side.filter((n, i) => side.indexOf(n) !== i));
  if (twice.length > 0) r.fail(`both sides name each axis once, not ${twice[0]} twice`);
  const lost = from.filter((n) => !to.includes(n));
  const added = to.filter((n) => !from.includes(n));
  if (lost.length > 0 && r.op !== "reduce")
    r.fail(`${lost.join(" ")} is missing on the right (reduce takes axes away)`);
  if (added.length > 0 && r.op !== "repeat") r.fail(`${added.join(" ")} is new on the right (repeat adds axes)`);
  const sizeless = added.find((n) => !known.has(n));
  if (sizeless !== undefined) r.fail(`give the size of ${sizeless}`);
}

/** What carries out `pattern` on a tensor of `shape`. Throws ShapeError. */
export function parseEinops(
  op: EinopsName,
  pattern: string,
  shape: Shape,
  sizes: Readonly<Record<string, number>>,
): Rearrangement {
  const fail = (what: string): never => {
    throw new ShapeError(`${op}: "${pattern}" on ${show(shape)}: ${what}`);
  };
  const r: Reader = { op, fail };
  const [left, right, extra] = pattern.split("->");
  if (right === undefined || extra !== undefined) fail("a pattern needs one ->");
  const found = groups(left, r);
  const rest = ellipsis(found, shape.length, r);
  const from = found.flatMap((g) => (g.includes("...") ? rest.map((n) => [n]) : [g]));
  const to = groups(right, r).flatMap((g) =>
    g.length === 1 && g[0] === "..." ? rest.map((n) => [n]) : [g.flatMap((n) => (n === "..." ? rest : [n]))],
  );
  if (from.length !== shape.length) fail(`the left side has ${from.length} axes`);
  const known = new Map(Object.entries(sizes));
  from.forEach((names, i) => {
    solve(names, shape[i], known, r);
  });
  const [names, target] = [from.flat(), to.flat()];
  checkNames(names, target, known, r);
  const size = (n: string): number => known.get(n) as number;
  const kept = names.filter((n) => target.includes(n));
  return {
    split: names.map(size),
    reduced: names.flatMap((n, i) => (target.includes(n) ? [] : [i])),
    order: target.filter((n) => kept.includes(n)).map((n) => kept.indexOf(n)),
    apart: target.map((n) => (kept.includes(n) ? size(n) : 1)),
    grown: target.map(size),
    merge: to.map((g) => numel(g.map(size))),
  };
}
