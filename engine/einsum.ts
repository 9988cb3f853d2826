// einsum: sums of products by labelled axes, as matrix products where there is something to contract. Called by users and
// the golden runner; the patterns of rearrange are in einops.ts.

import { ShapeError, show } from "./error.ts";
import { numel } from "./shape.ts";
import type { Tensor } from "./tensor.ts";

/** A tensor and the label of each of its axes. */
interface Term {
  readonly x: Tensor;
  readonly labels: readonly string[];
}

/**
 * `einsum("b i d, b j d -> b i j", q, k)`, spaces optional: labels that the result lacks are summed over. A label twice in one
 * operand is its diagonal; "..." stands for leading axes, which broadcast; without "->" the result has the labels that occur
 * once, in alphabetical order. Three or more operands are multiplied from the left.
 * @throws ShapeError when the equation does not fit the operands
 */
export function einsum(equation: string, ...operands: readonly Tensor[]): Tensor {
  const { terms, result } = parse(equation, operands);
  const sizes = sizesOf(equation, terms);
  let total = prepare(terms[0], sizes);
  for (let i = 1; i < terms.length; i++) {
    const later = new Set([...result, ...terms.slice(i + 1).flatMap((t) => t.labels)]);
    total = contract(total, prepare(terms[i], sizes), later);
  }
  const summed = sumOut(total, new Set(result));
  return arrange(summed, result);
}

function parse(equation: string, operands: readonly Tensor[]): { terms: Term[]; result: string[] } {
  const fail = (what: string): never => {
    throw new ShapeError(`einsum: "${equation}" on ${operands.map((x) => show(x.shape)).join(", ")}: ${what}`);
  };
  const [left, right, extra] = equation.replace(/\s/g, "").split("->");
  const sides = left.split(",");
  if (extra !== undefined) fail("an equation has one ->");
  if (sides.length !== operands.length) fail(`${sides.length} operands are named, ${operands.length} given`);
  if (/[^A-Za-z.,]/.test(left + (right ?? ""))) fail("labels are letters");
  const rests = operands.map((x, i) => x.rank - sides[i].replace("...", "").length);
  const widest = Math.max(0, ...rests);
  // Digits cannot be labels, so they name the axes of "...", counted from the last.
  const expand = (side: string, rest: number): string[] => {
    const [before, after, more] = side.split("...");
    if (more !== undefined || (before + (after ?? "")).includes(".")) fail(`cannot read "${side}"`);
    const middle = after === undefined ? [] : Array.from({ length: rest }, (_, i) => String(rest - 1 - i));
    return [...before, ...middle, ...(after ?? "")];
  };
  const terms = operands.map((x, i) => ({ x, labels: expand(sides[i], rests[i]) }));
  terms.forEach(({ x, labels }, i) => {
    if (labels.length !== x.rank) fail(`"${sides[i]}" has ${labels.length} axes, operand ${i} is ${show(x.shape)}`);
  });
  const result = right === undefined ? implicit(terms, widest) : expand(right, widest);
  const unknown = result.find((l, i) => !terms.some((t) => t.labels.includes(l)) || result.indexOf(l) !== i);
  if (unknown !== undefined) fail(`the result's label ${unknown} is not in the operands, or there twice`);
  return { terms, result };
}

/** The axes of "..." and the labels that occur once, in alphabetical order. */
function implicit(terms: readonly Term[], widest: number): string[] {
  const all = terms.flatMap((t) => t.labels);
  const rest = Array.from({ length: widest }, (_, i) => String(widest - 1 - i)).filter((l) => all.includes(l));
  const letters = [...new Set(all)].filter((l) => /[A-Za-z]/.test(l)).sort();
  return [...rest, ...letters.filter((l) => all.filter((m) => m === l).length === 1)];
}

function sizesOf(equation: string, terms: readonly Term[]): Map<string, number> {
  const sizes = new Map<string, number>();
  for (const { x, labels } of terms) {
    labels.forEach((l, i) => {
      const [size, other] = [x.shape[i], sizes.get(l) ?? 1];
      if (size !== other && size !== 1 && other !== 1)
        throw new ShapeError(`einsum: "${equation}": label ${l} is ${other} and ${size}`);
      sizes.set(l, other === 1 ? size : other);
    });
  }
  return sizes;
}

/** Axes of size 1 broadcast to their label's size; a label that occurs twice becomes one axis, the diagonal. */
function prepare({ x, labels }: Term, sizes: ReadonlyMap<string, number>): Term {
  const whole = { x: x.expand(labels.map((l) => sizes.get(l) as number)), labels };
  const twice = labels.find((l, i) => labels.indexOf(l) !== i);
  return twice === undefined ? whole : prepare(diagonal(whole, twice), sizes);
}

/** The first two axes labelled `label` become one: every (n + 1)th element of the two laid flat. */
function diagonal({ x, labels }: Term, label: string): Term {
  const first = labels.indexOf(label);
  const second = labels.indexOf(label, first + 1);
  const others = labels.flatMap((_, i) => (i === first || i === second ? [] : [i]));
  const n = x.shape[first];
  const rest = others.map((i) => x.shape[i]);
  const flat = x.permute([...others, first, second]).reshape([...rest, n * n]);
  const picked = flat.slice(-1, 0, n * n, n + 1);
  return { x: picked, labels: [...others.map((i) => labels[i]), label] };
}

/** Sums over the labels that are not in `keep`. */
function sumOut({ x, labels }: Term, keep: ReadonlySet<string>): Term {
  const axes = labels.flatMap((l, i) => (keep.has(l) ? [] : [i]));
  return axes.length === 0 ? { x, labels } : { x: x.sum(axes), labels: labels.filter((l) => keep.has(l)) };
}

/** The axes in the order of `labels`; those that the term lacks get size 1. */
function arrange(term: Term, labels: readonly string[]): Tensor {
  const present = labels.filter((l) => term.labels.includes(l));
  const x = term.x.permute(present.map((l) => term.labels.indexOf(l)));
  return x.reshape(labels.map((l) => (present.includes(l) ? x.shape[present.indexOf(l)] : 1)));
}

/** Product of two terms, summed over the labels that both have and nobody needs later. */
function contract(a: Term, b: Term, later: ReadonlySet<string>): Term {
  const left = sumOut(a, new Set([...b.labels, ...later]));
  const right = sumOut(b, new Set([...a.labels, ...later]));
  const shared = left.labels.filter((l) => right.labels.includes(l));
  const [batch, inner] = [shared.filter((l) => later.has(l)), shared.filter((l) => !later.has(l))];
  const rows = left.labels.filter((l) => !shared.includes(l));
  const columns = right.labels.filter((l) => !shared.includes(l));
  const labels = [...batch, ...rows, ...columns];
  if (inner.length === 0 || rows.length + columns.length === 0) {
    // Nothing to contract, or only numbers come out: a product, and a sum of it.
    const all = [...labels, ...inner];
    return sumOut({ x: arrange(left, all).mul(arrange(right, all)), labels: all }, later);
  }
  const shape = (t: Term, of: readonly string[]): number[] => of.map((l) => t.x.shape[t.labels.indexOf(l)]);
  const [b0, m, n, k] = [shape(left, batch), shape(left, rows), shape(right, columns), shape(left, inner)];
  const p = arrange(left, [...batch, ...rows, ...inner]).reshape([...b0, numel(m), numel(k)]);
  const q = arrange(right, [...batch, ...inner, ...columns]).reshape([...b0, numel(k), numel(n)]);
  return { x: p.matmul(q).reshape([...b0, ...m, ...n]), labels };
}
