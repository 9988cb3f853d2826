// Nodes of the expression graph: immutable, hash-consed (the same op on the same sources with the same attributes is
// the same node), plus the walks everything else uses. A node has no memory; Storage has, and only leaves have Storage.

import type { DType } from "./dtype.ts";
import { got } from "./error.ts";
import type { AnyOp, Attrs } from "./ops/op.ts";
import type { Shape } from "./shape.ts";
import type { Storage } from "./storage.ts";

export interface Node {
  readonly id: number;
  readonly op: AnyOp;
  readonly src: readonly Node[];
  readonly attrs: Attrs;
  readonly shape: Shape;
  readonly dtype: DType;
  /** Where a leaf's values live; undefined for constants, placeholders and everything computed. */
  readonly storage?: Storage;
}

let nextId = 1;
const interned = new Map<string, WeakRef<Node>>();
const forgotten = new FinalizationRegistry<string>((key) => {
  if (interned.get(key)?.deref() === undefined) interned.delete(key);
});

/**
 * JSON has one word, null, for all numbers that are not finite, and drops the sign of zero. What it drops or empties (functions,
 * maps) would make unlike nodes one.
 */
function spell(key: string, value: unknown): unknown {
  if (typeof value === "number")
    return Number.isFinite(value) && !Object.is(value, -0) ? value : `number ${Object.is(value, -0) ? "-0" : value}`;
  const kept = typeof value !== "object" || value === null || Array.isArray(value) || ArrayBuffer.isView(value);
  const lost = kept ? ["function", "symbol", "bigint"].includes(typeof value) : !isPlain(value);
  if (lost) throw new TypeError(`attribute ${key}: expected plain data (JSON), got ${got(value)}`);
  return value;
}

function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** The text of attributes by which nodes are equal. Throws TypeError for what is no plain data. */
function spellAttrs(op: AnyOp, attrs: Attrs): string {
  try {
    return JSON.stringify(attrs, spell);
  } catch (error) {
    throw new TypeError(`${op.name}: ${(error as Error).message}`, { cause: error });
  }
}

/** The node for `op(src, attrs)`: an existing one when an equal one is alive. `shape` and `dtype` follow from the rest. */
export function intern(op: AnyOp, src: readonly Node[], attrs: Attrs, shape: Shape, dtype: DType): Node {
  const key = `${op.name}(${src.map((s) => s.id).join()})${spellAttrs(op, attrs)}:${dtype}${shape.join()}`;
  const known = interned.get(key)?.deref();
  const node: Node = known ?? Object.freeze({ id: nextId++, op, src, attrs, shape, dtype });
  witness?.add(node);
  if (known) return known;
  interned.set(key, new WeakRef(node));
  forgotten.register(node, key);
  return node;
}

/** Nodes that the innermost `witnessed` body has asked for. */
let witness: Set<Node> | null = null;

/** Runs `body` and says which nodes it asked for, those included that existed before. */
export function witnessed<T>(body: () => T): { result: T; asked: ReadonlySet<Node> } {
  const outer = witness;
  const asked = new Set<Node>();
  witness = asked;
  try {
    return { result: body(), asked };
  } finally {
    witness = outer;
    if (outer) for (const n of asked) outer.add(n);
  }
}

/** A leaf: always a new node, because two leaves with equal shapes are different values. */
export function leaf(op: AnyOp, attrs: Attrs, shape: Shape, dtype: DType, storage?: Storage): Node {
  return Object.freeze({ id: nextId++, op, src: [], attrs, shape, dtype, storage });
}

/** All nodes that `roots` need, sources before users, in a deterministic order. A loop, because graphs are deep. */
export function toposort(roots: readonly Node[], sources: (n: Node) => readonly Node[] = (n) => n.src): Node[] {
  const order: Node[] = [];
  const state = new Map<Node, "open" | "done">();
  const stack = [...roots].reverse();
  while (stack.length > 0) {
    const node = stack[stack.length - 1];
    if (state.get(node) === "done") {
      stack.pop();
    } else if (state.get(node) === "open") {
      state.set(node, "done");
      order.push(node);
      stack.pop();
    } else {
      state.set(node, "open");
      const src = sources(node);
      for (let i = src.length - 1; i >= 0; i--) if (!state.has(src[i])) stack.push(src[i]);
    }
  }
  return order;
}

/**
 * The same expression on other leaves: `roots` with every node of `replaced` standing for what it maps to. Nodes that rest
 * on none of them stay as they are.
 */
export function substitute(roots: readonly Node[], replaced: ReadonlyMap<Node, Node>): Node[] {
  const made = new Map(replaced);
  for (const n of toposort(roots, (n) => (replaced.has(n) ? [] : n.src))) {
    if (made.has(n)) continue;
    const src = n.src.map((s) => made.get(s) as Node);
    const same = src.every((s, i) => s === n.src[i]);
    made.set(n, same ? n : intern(n.op, src, n.attrs, n.shape, n.dtype));
  }
  return roots.map((r) => made.get(r) as Node);
}

/** One line per node, for people: `%7 = matmul(%3, %5) f32[8, 64]`. */
export function print(roots: readonly Node[]): string {
  const number = new Map<Node, number>();
  return toposort(roots)
    .map((n, i) => {
      number.set(n, i);
      const attrs = Object.keys(n.attrs).length > 0 ? ` ${JSON.stringify(n.attrs)}` : "";
      const src = n.src.map((s) => `%${number.get(s)}`).join(", ");
      return `%${i} = ${n.op.name}(${src})${attrs} ${n.dtype}[${n.shape.join(", ")}]`;
    })
    .join("\n");
}
