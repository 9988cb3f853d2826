// The body of one kernel as an expression: loads at affine indices, ops, and picks between pieces. Built from graph nodes by
// pushing indices through movement ops; pure, so that fusion and indexing are testable without a device.

import type { DType } from "../dtype.ts";
import type { Node } from "../graph.ts";
import { literalOf } from "../ops/op.ts";
import { type Condition, flatten, Index, type Space, SplitRequest, unflatten } from "../ops/view.ts";
import { numel, type Shape, stridesOf } from "../shape.ts";

export type Expr =
  | { readonly kind: "load"; readonly node: Node; readonly index: Index }
  | { readonly kind: "const"; readonly value: number; readonly dtype: DType }
  /** The result of the kernel that this expression is an epilogue of. */
  | { readonly kind: "core"; readonly dtype: DType }
  | { readonly kind: "op"; readonly node: Node; readonly args: readonly Expr[] }
  | {
      readonly kind: "pick";
      readonly dtype: DType;
      readonly pieces: readonly { readonly when: readonly Condition[]; readonly value: Expr }[];
    };

/** What the builder needs to know of the fusion's decisions. */
export interface Boundary {
  /** Sources of a node after composites have been replaced by what they lower to. */
  sources(n: Node): readonly Node[];
  /** True when the node's value is read from memory rather than computed in place. */
  stored(n: Node): boolean;
}

/** An expression and the space it is evaluated over. */
export interface Body {
  readonly space: Space;
  /** Values of the roots at each point, and the row-major position each is stored at. */
  readonly values: readonly Expr[];
  /** For each variable of the space, which of the starting variables it was split from. */
  readonly origin: readonly number[];
}

/**
 * Expressions of `roots` (equal shapes) over `space`, whose row-major order is the roots' own. Variables are split as
 * reshapes demand. `core` stands for itself, and nodes of `inline` are computed even where `stored` says that others read
 * them: they are what the kernel stores.
 */
export function buildBody(
  roots: readonly Node[],
  space: Space,
  boundary: Boundary,
  core: Node | null,
  inline: ReadonlySet<Node>,
): Body {
  let sizes = space;
  let origin = space.map((_, i) => i);
  for (;;) {
    try {
      const builder = new Builder(sizes, boundary, inline, core);
      return { space: sizes, values: roots.map((r) => builder.root(r)), origin };
    } catch (e) {
      if (!(e instanceof SplitRequest)) throw e;
      const { dim, inner } = e;
      sizes = [...sizes.slice(0, dim), sizes[dim] / inner, inner, ...sizes.slice(dim + 1)];
      origin = [...origin.slice(0, dim + 1), origin[dim], ...origin.slice(dim + 1)];
    }
  }
}

/** The index of a point in the space itself, row-major. */
export function identity(space: Space): Index {
  return new Index(space, 0, stridesOf(space));
}

/** One index per dimension of `shape`, for a space with the same number of points in the same order. */
function pointOf(space: Space, shape: Shape): Index[] {
  if (space.length === shape.length && space.every((n, i) => n === shape[i])) {
    return shape.map(
      (_, i) =>
        new Index(
          space,
          0,
          space.map((_, j) => Number(i === j)),
        ),
    );
  }
  return unflatten(identity(space), shape);
}

class Builder {
  readonly #space: Space;
  readonly #boundary: Boundary;
  readonly #inline: ReadonlySet<Node>;
  readonly #core: Node | null;
  readonly #memo = new Map<string, Expr>();

  constructor(space: Space, boundary: Boundary, inline: ReadonlySet<Node>, core: Node | null) {
    this.#space = space;
    this.#boundary = boundary;
    this.#inline = inline;
    this.#core = core;
  }

  root(node: Node): Expr {
    return this.#value(node, pointOf(this.#space, node.shape));
  }

  #value(node: Node, at: readonly Index[]): Expr {
    const key = `${node.id}@${at.map((i) => i.key()).join("|")}`;
    const known = this.#memo.get(key);
    if (known) return known;
    const made = this.#make(node, at);
    this.#memo.set(key, made);
    return made;
  }

  #make(node: Node, at: readonly Index[]): Expr {
    if (node === this.#core) return { kind: "core", dtype: node.dtype };
    const literal = literalOf(node);
    if (literal !== undefined) return { kind: "const", value: literal, dtype: node.dtype };
    const lower = node.op.lower;
    if (this.#isStored(node)) return this.#load(node, node.shape, at);
    const src = this.#boundary.sources(node);
    if (lower.kind === "elementwise") return { kind: "op", node, args: src.map((s) => this.#value(s, at)) };
    if (lower.kind === "view") return this.#view(node, src, at);
    throw new Error(`${node.op.name} #${node.id} is neither stored nor fusible`);
  }

  #isStored(node: Node): boolean {
    return node.op.lower.kind === "leaf"
      ? literalOf(node) === undefined
      : this.#boundary.stored(node) && !this.#inline.has(node);
  }

  #load(node: Node, shape: Shape, at: readonly Index[]): Expr {
    return { kind: "load", node, index: flatten(this.#space, at, shape) };
  }

  #view(node: Node, src: readonly Node[], at: readonly Index[]): Expr {
    const lower = node.op.lower;
    if (lower.kind !== "view") throw new Error(`${node.op.name} is not a view`);
    // A reshape of something stored reads the same element: no need to know its place in the other shape.
    if (lower.linear && this.#isStored(src[0]) && src[0] !== this.#core) return this.#load(src[0], node.shape, at);
    const pieces = lower.read(node.attrs, node, at, this.#space).flatMap((piece) => {
      const when = piece.when.filter((c) => !always(c));
      return when.some(never) ? [] : [{ when, value: this.#value(src[piece.src], piece.at) }];
    });
    if (pieces.length === 0) return { kind: "const", value: 0, dtype: node.dtype };
    return pieces[0].when.length === 0 ? pieces[0].value : { kind: "pick", dtype: node.dtype, pieces };
  }
}

function always({ index, lo, hi, step }: Condition): boolean {
  const [least, most] = index.range();
  return step === 1 && least >= lo && most < hi;
}

function never({ index, lo, hi }: Condition): boolean {
  const [least, most] = index.range();
  return most < lo || least >= hi;
}

/** Every index in the expressions, conditions and quotients included. */
export function indicesOf(values: readonly Expr[]): Index[] {
  const found: Index[] = [];
  const seen = new Set<Expr>();
  const addIndex = (i: Index): void => {
    found.push(i);
    for (const q of i.quotients) addIndex(q.of);
  };
  const visit = (e: Expr): void => {
    if (seen.has(e)) return;
    seen.add(e);
    if (e.kind === "load") addIndex(e.index);
    else if (e.kind === "op") e.args.forEach(visit);
    else if (e.kind === "pick") {
      for (const p of e.pieces) {
        p.when.forEach((c) => {
          addIndex(c.index);
        });
        visit(p.value);
      }
    }
  };
  values.forEach(visit);
  return found;
}

/** All loads, each once. */
export function loadsOf(values: readonly Expr[]): Extract<Expr, { kind: "load" }>[] {
  const found = new Set<Extract<Expr, { kind: "load" }>>();
  const seen = new Set<Expr>();
  const visit = (e: Expr): void => {
    if (seen.has(e)) return;
    seen.add(e);
    if (e.kind === "load") found.add(e);
    else if (e.kind === "op") e.args.forEach(visit);
    else if (e.kind === "pick") for (const p of e.pieces) visit(p.value);
  };
  values.forEach(visit);
  return [...found];
}

/** The same expressions with every index passed through `f`. */
export function mapIndices(values: readonly Expr[], f: (i: Index) => Index): Expr[] {
  const done = new Map<Expr, Expr>();
  const map = (i: Index): Index => {
    const moved = f(i);
    return moved.quotients.length === 0
      ? moved
      : new Index(
          moved.space,
          moved.off,
          moved.coef,
          i.quotients.map((q) => ({ ...q, of: map(q.of) })),
        );
  };
  const visit = (e: Expr): Expr => {
    const known = done.get(e);
    if (known) return known;
    const made: Expr =
      e.kind === "load"
        ? { ...e, index: map(e.index) }
        : e.kind === "op"
          ? { ...e, args: e.args.map(visit) }
          : e.kind === "pick"
            ? {
                ...e,
                pieces: e.pieces.map((p) => ({
                  when: p.when.map((c) => ({ ...c, index: map(c.index) })),
                  value: visit(p.value),
                })),
              }
            : e;
    done.set(e, made);
    return made;
  };
  return values.map(visit);
}

/**
 * Fewest variables that say the same: drops variables of size 1 and joins neighbours that every index walks through as one.
 * `barrier[i]` forbids joining variables i and i + 1 (kept and reduced ones must stay apart).
 */
export function simplify(
  space: Space,
  values: readonly Expr[],
  barrier: readonly boolean[] = [],
): { space: number[]; values: Expr[]; runs: number[][] } {
  const indices = indicesOf(values);
  const runs: number[][] = [];
  let blocked = false;
  space.forEach((size, i) => {
    const before = runs[runs.length - 1];
    const last = before?.[before.length - 1];
    if (size > 1) {
      const joins = before !== undefined && !blocked && indices.every((x) => x.coef[last] === x.coef[i] * size);
      if (joins) before.push(i);
      else runs.push([i]);
      blocked = false;
    }
    blocked ||= barrier[i] === true;
  });
  const sizes = runs.map((run) => numel(run.map((i) => space[i])));
  const innermost = runs.map((run) => run[run.length - 1]);
  const moved = mapIndices(
    values,
    (x) =>
      new Index(
        sizes,
        x.off,
        innermost.map((i) => x.coef[i]),
        x.quotients,
      ),
  );
  return { space: sizes, values: moved, runs };
}
