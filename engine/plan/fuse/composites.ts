// The first decision of fusion: which composites (softmax, norms, attention) stay whole, one kernel each, and which are replaced
// by what they are made of. A composite stays unless the gradient made its parts live: then the parts serve both.

import { type Node, toposort } from "../../graph.ts";
import { isComposite } from "../../ops/op.ts";
import { Tensor } from "../../tensor.ts";

/** Is `n` what a dispatch is made around: a reduction or a hand-written kernel? */
export function isCore(n: Node): boolean {
  return n.op.lower.kind === "reduce" || n.op.lower.kind === "kernel";
}

export class Composites {
  readonly #replaced = new Map<Node, Node>();
  readonly #parts = new Map<Node, readonly Node[]>();

  /** Replaces what is to be replaced below `wanted`, and gives all nodes that are left, sources before users. */
  expand(wanted: readonly Node[]): Node[] {
    for (;;) {
      const order = toposort(
        wanted.map((n) => this.resolve(n)),
        (n) => this.sources(n),
      );
      const live = new Set(order);
      const shared = order.filter(
        (n) => isComposite(n.op) && (n.op.lower.kind === "parts" || this.#partsOf(n).some((p) => live.has(p))),
      );
      if (shared.length === 0) return order;
      for (const n of shared) this.#replaced.set(n, decompose(n));
    }
  }

  /** What stands in the place of `n`: itself, where it was not replaced. */
  resolve(n: Node): Node {
    let last = n;
    for (let next = this.#replaced.get(n); next; next = this.#replaced.get(next)) last = next;
    return last;
  }

  sources(n: Node): readonly Node[] {
    return this.#replaced.size === 0 ? n.src : n.src.map((s) => this.resolve(s));
  }

  /** The kernels and reductions inside a composite's decomposition. */
  #partsOf(n: Node): readonly Node[] {
    const known = this.#parts.get(n);
    if (known) return known;
    const outside = new Set(n.src);
    const inside = toposort([decompose(n)], (p) => (outside.has(p) ? [] : p.src));
    const parts = inside.filter((p) => !outside.has(p) && isCore(p));
    this.#parts.set(n, parts);
    return parts;
  }
}

function decompose(n: Node): Node {
  if (!isComposite(n.op)) return n;
  return n.op.decompose(
    n.src.map((s) => new Tensor(s)),
    n.attrs,
  ).node;
}
