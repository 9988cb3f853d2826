// What fusion has decided so far: the program's nodes in order and who uses them, which are stored, what each kernel reads and
// which ops follow it. The stages beside this file read it and add to it, one after another; fuse.ts calls them.

import type { Program } from "../../device.ts";
import type { Node } from "../../graph.ts";
import { type Layout, literalOf } from "../../ops/op.ts";
import type { Boundary } from "../expr.ts";
import { Composites, isCore } from "./composites.ts";

export interface Operand {
  /** The stored node that the kernel reads. */
  readonly node: Node;
  readonly layout: Layout;
}

export interface Group {
  /** Values this group stores, all of one shape; the last is the one it was made for. */
  readonly roots: Node[];
  readonly core: Node | null;
  /** Operands of a kernel core, in order. */
  readonly operands: readonly Operand[];
}

export interface FuseOptions {
  /** Storage bindings a dispatch may have. */
  readonly maxBindings: number;
  /** false: every node on its own, for tests that compare the two. */
  readonly fuse: boolean;
  /** What a hand-written kernel takes along, given how its operands lie: any elementwise ops (when absent), or just a bias. */
  readonly epilogues?: (core: Node, operands: readonly Operand[]) => "any" | "bias";
}

export interface Size {
  readonly ops: number;
  /** What it reads at one place each, and how many loads that takes. */
  readonly reads: ReadonlyMap<Node, number>;
}

/** The epilogue of `core` reads too much and must end earlier, but branches: fusion starts again, without the branches. */
export class CutRequest extends Error {
  readonly core: Node;
  constructor(core: Node) {
    super(`the epilogue of ${core.op.name} branches and cannot be cut`);
    this.core = core;
  }
}

export class Draft implements Boundary {
  readonly options: FuseOptions;
  /** Results and new state values, after replacement of composites. */
  readonly wanted: ReadonlySet<Node>;
  /** All nodes, sources before users. */
  readonly order: readonly Node[];
  readonly operands = new Map<Node, readonly Operand[]>();
  /** How much a stored node's kernel computes. */
  readonly sizes = new Map<Node, Size>();
  /** Kernels whose result is not stored, because an epilogue takes it on. */
  readonly absorbed = new Set<Node>();
  /** Last node of an epilogue -> the kernel it belongs to. */
  readonly coreOf = new Map<Node, Node>();
  /** Nodes inside an epilogue, before its last, whoever uses them is in it too. */
  readonly inside = new Set<Node>();
  /** Kernels whose epilogue uses some value twice. */
  readonly branching = new Set<Node>();
  /** Kernels whose epilogue must not. */
  readonly straight: ReadonlySet<Node>;
  readonly #composites = new Composites();
  readonly #memory = new Set<Node>();
  readonly #uses = new Map<Node, Node[]>();
  readonly #position: ReadonlyMap<Node, number>;

  constructor(program: Program, options: FuseOptions, straight: ReadonlySet<Node>) {
    this.options = options;
    this.straight = straight;
    const wanted = [...Object.values(program.outputs), ...program.assigns.map(([, value]) => value)];
    this.order = this.#composites.expand(wanted);
    this.wanted = new Set(wanted.map(this.resolve));
    this.#position = new Map(this.order.map((n, i) => [n, i]));
    for (const n of this.order) {
      for (const s of this.sources(n)) {
        const known = this.#uses.get(s);
        if (known) known.push(n);
        else this.#uses.set(s, [n]);
      }
    }
  }

  resolve = (n: Node): Node => this.#composites.resolve(n);
  sources = (n: Node): readonly Node[] => this.#composites.sources(n);
  stored = (n: Node): boolean => this.#memory.has(n);

  store(n: Node): void {
    if (n.op.lower.kind !== "leaf" || literalOf(n) !== undefined) this.#memory.add(n);
  }
  /** Takes a decision to store back: the one kernel that reads the value computes it. */
  unstore(n: Node): void {
    this.#memory.delete(n);
  }

  usersOf(n: Node): readonly Node[] {
    return this.#uses.get(n) ?? [];
  }
  /** Place of `n` in the order. */
  place(n: Node): number {
    return this.#position.get(n) as number;
  }

  /** Lets the epilogue of `core` end at `last`, earlier than planned. */
  endEpilogue(core: Node, last: Node): void {
    for (const [end, owner] of this.coreOf) if (owner === core) this.coreOf.delete(end);
    if (last === core) this.absorbed.delete(core);
    else this.coreOf.set(last, core);
  }

  /** One group for each stored node. */
  groups(): Group[] {
    return this.order.filter(this.stored).map((n) => {
      const core = isCore(n) ? n : (this.coreOf.get(n) ?? null);
      return { roots: [n], core, operands: (core && this.operands.get(core)) ?? [] };
    });
  }

  /** Stored nodes and leaves that a group reads. */
  reads = (g: Group): Set<Node> => {
    const found = new Set<Node>(g.operands.map((o) => o.node));
    const inside = new Set<Node>(g.roots);
    if (g.core) inside.add(g.core);
    const stack: Node[] = [...g.roots];
    const seen = new Set<Node>();
    while (stack.length > 0) {
      const n = stack.pop() as Node;
      if (seen.has(n)) continue;
      seen.add(n);
      const boundary = n.op.lower.kind === "leaf" || (this.stored(n) && !inside.has(n));
      if (boundary) {
        if (literalOf(n) === undefined) found.add(n);
      } else if (!(n === g.core && n.op.lower.kind === "kernel")) stack.push(...this.sources(n));
    }
    return found;
  };
}
