// Which nodes share a kernel. A program becomes groups, one dispatch each (or the few passes of one kernel family): a group
// stores one value (or several of one shape), computes everything elementwise and every movement on the way in registers,
// and may contain one `core`, a reduction or a hand-written kernel, whose epilogue the elementwise part is.
//
// Decisions, in order: (1) composites whose parts are needed anyway are replaced by their decomposition; (2) results,
// kernel operands and kernel results are stored; (3) each kernel and reduction takes along the elementwise ops that only it
// feeds, however they branch and join; (4) a value used more than once is stored unless recomputing it is as cheap as loading
// it; (5) values whose only reader is one elementwise group are computed in that group, and stored from there if they are wanted
// (this is what makes an optimiser update one kernel).

import type { Program } from "../device.ts";
import { isFloat } from "../dtype.ts";
import { type Node, toposort } from "../graph.ts";
import { contiguous, isComposite, type KernelLowering, type Layout, literalOf } from "../ops/op.ts";
import { flatten, SplitRequest, unflatten } from "../ops/view.ts";
import { numel, sameShape } from "../shape.ts";
import { Tensor } from "../tensor.ts";
import { type Boundary, identity } from "./expr.ts";

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

export interface Fusion extends Boundary {
  /** In no particular order: plan.ts orders them. */
  readonly groups: readonly Group[];
  /** Results and new state values, after replacement of composites. */
  resolve(n: Node): Node;
  /** Stored nodes and leaves that a group reads. */
  reads(g: Group): Set<Node>;
}

export interface FuseOptions {
  /** Storage bindings a dispatch may have. */
  readonly maxBindings: number;
  /** false: every node on its own, for tests that compare the two. */
  readonly fuse: boolean;
  /** What a hand-written kernel takes along, given how its operands lie: any elementwise ops (when absent), or just a bias. */
  readonly epilogues?: (core: Node, operands: readonly Operand[]) => "any" | "bias";
}

/** Ops and transcendental calls worth recomputing rather than storing, given that one large operand is read either way. */
const RECOMPUTE_OPS = 24;
/** Most ops of one kernel: a longer chain is cut, because compile time grows faster than what a saved pass brings. */
const KERNEL_OPS = 128;
/** Ops on a small tensor that is then broadcast: more than these and it is computed once instead of per element. */
const BROADCAST_OPS = 3;

export function fuse(program: Program, options: FuseOptions): Fusion {
  const straight = new Set<Node>();
  const tried: Fuser[] = []; // keeps the nodes that it made, so that the next attempt finds the same ones
  for (;;) {
    const fuser = new Fuser(program, options, straight);
    tried.push(fuser);
    try {
      return fuser.run();
    } catch (e) {
      if (!(e instanceof CutRequest)) throw e;
      straight.add(e.core);
    }
  }
}

/** The epilogue of `core` reads too much and must end earlier, but branches: fusion starts again, without the branches. */
class CutRequest extends Error {
  readonly core: Node;
  constructor(core: Node) {
    super(`the epilogue of ${core.op.name} branches and cannot be cut`);
    this.core = core;
  }
}

class Fuser {
  readonly #options: FuseOptions;
  readonly #replaced = new Map<Node, Node>();
  readonly #parts = new Map<Node, readonly Node[]>();
  readonly #roots: readonly Node[];
  readonly #wanted: ReadonlySet<Node>;
  readonly #order: readonly Node[];
  readonly #uses: ReadonlyMap<Node, readonly Node[]>;
  readonly #stored = new Set<Node>();
  readonly #operands = new Map<Node, readonly Operand[]>();
  /** Ops that a stored node's kernel computes. */
  readonly #ops = new Map<Node, number>();
  /** Last node of an epilogue -> the kernel it belongs to. */
  readonly #coreOf = new Map<Node, Node>();
  /** Nodes inside an epilogue, before its last, whoever uses them is in it too. */
  readonly #inside = new Set<Node>();
  /** Kernels whose epilogue uses some value twice. */
  readonly #branching = new Set<Node>();
  /** Kernels whose epilogue must not. */
  readonly #straight: ReadonlySet<Node>;
  readonly #position: ReadonlyMap<Node, number>;

  constructor(program: Program, options: FuseOptions, straight: ReadonlySet<Node>) {
    this.#options = options;
    this.#straight = straight;
    const wanted = [...Object.values(program.outputs), ...program.assigns.map(([, value]) => value)];
    this.#order = this.#expandComposites(wanted);
    this.#roots = wanted.map((n) => this.resolve(n));
    this.#wanted = new Set(this.#roots);
    this.#uses = this.#countUses();
    this.#position = new Map(this.#order.map((n, i) => [n, i]));
  }

  resolve = (n: Node): Node => {
    let last = n;
    for (let next = this.#replaced.get(n); next; next = this.#replaced.get(next)) last = next;
    return last;
  };
  sources = (n: Node): readonly Node[] => (this.#replaced.size === 0 ? n.src : n.src.map(this.resolve));
  stored = (n: Node): boolean => this.#stored.has(n);

  run(): Fusion {
    this.#storeForced();
    if (this.#options.fuse) this.#takeEpilogues();
    for (const n of this.#order) if (this.#isCore(n) && !this.#absorbed.has(n)) this.#store(n);
    this.#storeShared();
    const groups = this.#options.fuse ? this.#mergeReaders(this.#makeGroups()) : this.#makeGroups();
    return { groups, resolve: this.resolve, sources: this.sources, stored: this.stored, reads: this.reads };
  }

  // (1) A composite stays whole (one kernel) unless the gradient made its parts live: then the parts serve both.
  #expandComposites(wanted: readonly Node[]): Node[] {
    for (;;) {
      const order = toposort(wanted.map(this.resolve), this.sources);
      const live = new Set(order);
      const shared = order.filter(
        (n) => isComposite(n.op) && (n.op.lower.kind === "parts" || this.#partsOf(n).some((p) => live.has(p))),
      );
      if (shared.length === 0) return order;
      for (const n of shared) this.#replaced.set(n, this.#decompose(n));
    }
  }
  #decompose(n: Node): Node {
    if (!isComposite(n.op)) return n;
    return n.op.decompose(
      n.src.map((s) => new Tensor(s)),
      n.attrs,
    ).node;
  }
  /** The kernels and reductions inside a composite's decomposition. */
  #partsOf(n: Node): readonly Node[] {
    const known = this.#parts.get(n);
    if (known) return known;
    const outside = new Set(n.src);
    const inside = toposort([this.#decompose(n)], (p) => (outside.has(p) ? [] : p.src));
    const parts = inside.filter((p) => !outside.has(p) && this.#isCore(p));
    this.#parts.set(n, parts);
    return parts;
  }

  #isCore(n: Node): boolean {
    return n.op.lower.kind === "reduce" || n.op.lower.kind === "kernel";
  }
  #countUses(): Map<Node, Node[]> {
    const uses = new Map<Node, Node[]>();
    for (const n of this.#order) {
      for (const s of this.sources(n)) {
        const known = uses.get(s);
        if (known) known.push(n);
        else uses.set(s, [n]);
      }
    }
    return uses;
  }
  #store(n: Node): void {
    if (n.op.lower.kind !== "leaf" || literalOf(n) !== undefined) this.#stored.add(n);
  }

  // (2)
  #storeForced(): void {
    for (const n of this.#roots) this.#store(n);
    for (const n of this.#order) {
      if (n.op.lower.kind === "kernel")
        this.#operands.set(
          n,
          this.sources(n).map((s) => this.#operand(s, n.op.lower as KernelLowering<unknown>)),
        );
      if (!this.#options.fuse && n.op.lower.kind !== "leaf") this.#store(n);
    }
  }

  /** How a kernel reads `n`: through movement ops where its strides allow it, else from a contiguous copy. */
  #operand(n: Node, lower: KernelLowering<unknown>): Operand {
    const through = this.#options.fuse ? this.#layoutOf(n) : null;
    const same =
      through && sameShape(through.layout.strides, contiguous(n.shape).strides) && through.layout.offset === 0;
    if (through && (same || lower.strided?.(through.layout, n.shape))) {
      this.#store(through.node);
      return through;
    }
    // A copy of halves stays halves: kernels widen what they load.
    const copied = this.#options.fuse && widens(n) ? this.sources(n)[0] : n;
    this.#store(copied);
    return { node: copied, layout: contiguous(n.shape) };
  }

  /** The node below a chain of movement ops, and the affine layout of `n` in it; null when it is not affine. */
  #layoutOf(n: Node): Operand | null {
    const space = n.shape;
    let node = n;
    let linear = identity(space);
    try {
      while (!this.#stored.has(node)) {
        const lower = node.op.lower;
        if (widens(node)) {
          node = this.sources(node)[0];
          continue;
        }
        if (lower.kind !== "view") break;
        let src = 0;
        // A reshape keeps row-major positions, so only the other movements need to know where in the shape they are.
        if (!lower.linear) {
          const pieces = lower.read(node.attrs, node, unflatten(linear, node.shape), space);
          if (pieces.length !== 1 || pieces[0].when.length > 0) break;
          src = pieces[0].src;
          linear = flatten(space, pieces[0].at, this.sources(node)[src].shape);
        }
        node = this.sources(node)[src];
      }
    } catch (e) {
      if (e instanceof SplitRequest) return null;
      throw e;
    }
    if (literalOf(node) !== undefined || linear.quotients.length > 0) return null;
    const strides = contiguous(n.shape).strides.map((s, i) => (n.shape[i] === 1 ? s : linear.coef[i]));
    return { node, layout: { offset: linear.off, strides } };
  }

  // (3) Later kernels first: of two kernels feeding one sum, the one computed last can add the other's stored result.
  readonly #absorbed = new Set<Node>();
  #takeEpilogues(): void {
    const claimed = new Set<Node>();
    for (let i = this.#order.length - 1; i >= 0; i--) {
      const core = this.#order[i];
      const lower = core.op.lower;
      if (!(lower.kind === "reduce" || (lower.kind === "kernel" && lower.epilogue))) continue;
      const path = this.#epiloguePath(core, claimed);
      const end = path.pop();
      if (!end) continue;
      for (const n of path) this.#inside.add(n);
      for (const n of [...path, end]) claimed.add(n);
      if ([core, ...path].some((n) => this.#usersOf(n).length > 1)) this.#branching.add(core);
      this.#coreOf.set(end, core);
      this.#absorbed.add(core);
      this.#store(end);
    }
  }

  #usersOf(n: Node): readonly Node[] {
    return this.#uses.get(n) ?? [];
  }

  /**
   * What follows `core` and is computed where its result is: ops that only it feeds, up to the last elementwise one through
   * which every use of the result goes. In order; empty when there is none.
   */
  #epiloguePath(core: Node, claimed: ReadonlySet<Node>): Node[] {
    const path: Node[] = [];
    let length = 0;
    const taken = new Set<Node>([core]);
    const open = new Set<Node>(this.#stored.has(core) ? [] : this.#usersOf(core));
    while (open.size > 0 && path.length < KERNEL_OPS) {
      const user = [...open].reduce((a, b) => (this.#place(a) < this.#place(b) ? a : b));
      if (claimed.has(user) || !this.#maySit(core, user, taken)) break;
      open.delete(user);
      taken.add(user);
      path.push(user);
      if (open.size === 0 && user.op.lower.kind === "elementwise") length = path.length;
      if (this.#stored.has(user) || (this.#straight.has(core) && this.#usersOf(user).length > 1)) break;
      for (const next of this.#usersOf(user)) open.add(next);
    }
    return path.slice(0, length);
  }
  #place(n: Node): number {
    return this.#position.get(n) as number;
  }

  /** Can `user` be part of the epilogue of `core`, of which `taken` is computed already? */
  #maySit(core: Node, user: Node, taken: ReadonlySet<Node>): boolean {
    const lower = user.op.lower;
    const passes = lower.kind === "elementwise" ? isFloat(user.dtype) : lower.kind === "view" && lower.linear === true;
    if (!passes || numel(user.shape) !== numel(core.shape)) return false;
    if (this.#straight.has(core) && this.#usersOf(core).length > 1) return false;
    if (lower.kind === "elementwise" && !this.#mayFollow(core, user, taken)) return false;
    // One buffer cannot be bound twice in a dispatch, so an epilogue does not read what the kernel itself reads.
    const operands = new Set(this.#operands.get(core)?.map((o) => o.node));
    return operands.size === 0 || !this.sources(user).some((s) => !taken.has(s) && this.#reaches(s, operands));
  }

  /** Kernels that take nothing but a bias take the first op behind them, if that adds a vector. */
  #mayFollow(core: Node, user: Node, taken: ReadonlySet<Node>): boolean {
    const operands = this.#operands.get(core);
    if (!operands || (this.#options.epilogues?.(core, operands) ?? "any") === "any") return true;
    const lower = user.op.lower;
    if ([...taken].some((n) => n !== core && n.op.lower.kind === "elementwise")) return false;
    let vector = this.sources(user).find((s) => !taken.has(s));
    if (!vector || lower.kind !== "elementwise" || !lower.adds) return false;
    while (vector.op.lower.kind === "view" && vector.src.length === 1) vector = this.sources(vector)[0];
    return numel(vector.shape) === core.shape[core.shape.length - 1];
  }

  /** Would computing `start` in place read one of `targets`? */
  #reaches(start: Node, targets: ReadonlySet<Node>): boolean {
    const seen = new Set<Node>();
    const stack = [start];
    while (stack.length > 0) {
      const n = stack.pop() as Node;
      if (targets.has(n)) return true;
      if (seen.has(n) || this.#stored.has(n) || this.#isCore(n)) continue;
      seen.add(n);
      stack.push(...this.sources(n));
    }
    return false;
  }

  // (4)
  #storeShared(): void {
    const costs = new Map<Node, Cost>();
    for (const n of this.#order) {
      const lower = n.op.lower;
      if (lower.kind === "leaf" || (this.#isCore(n) && !this.#absorbed.has(n))) {
        costs.set(n, literalOf(n) !== undefined ? FREE : loadOf(n));
        continue;
      }
      let cost = this.#costOf(n, costs);
      while (cost.loads.size + cost.coreLoads > this.#options.maxBindings - 3) {
        this.#storeSourceOf(n, costs);
        cost = this.#costOf(n, costs);
      }
      this.#ops.set(n, cost.ops);
      const many = this.#usersOf(n).length > 1 && !this.#inside.has(n);
      const large = [...cost.loads].filter((s) => numel(s.shape) * 8 > numel(n.shape)).length;
      if (many && (cost.core || large > 1 || cost.ops > RECOMPUTE_OPS)) {
        this.#storeBase(n, costs);
        cost = this.#costOf(n, costs);
      }
      if (lower.kind === "elementwise" && !cost.core && cost.ops >= KERNEL_OPS) this.#store(n);
      costs.set(n, this.#stored.has(n) ? loadOf(n) : cost);
    }
  }

  /** Stores `n`, or, where it is a view, what it is a view of: then each reader views memory. */
  #storeBase(n: Node, costs: Map<Node, Cost>): void {
    const kind = n.op.lower.kind;
    if (kind === "elementwise") this.#store(n);
    else if (kind === "view") for (const s of this.sources(n)) this.#storeBase(s, costs);
    else return;
    costs.set(n, this.#stored.has(n) ? loadOf(n) : this.#costOf(n, costs));
  }

  #costOf(n: Node, costs: Map<Node, Cost>): Cost {
    const sources = this.sources(n);
    if (n.op.lower.kind === "view" && sources.length === 1 && numel(n.shape) >= 8 * numel(sources[0].shape)) {
      const small = costs.get(sources[0]) as Cost;
      if (small.ops > BROADCAST_OPS && !this.#stored.has(sources[0])) {
        this.#store(sources[0]);
        costs.set(sources[0], loadOf(sources[0]));
      }
    }
    const operands = this.#operands.get(n);
    if (operands) return { loads: new Set(), ops: 0, core: n, coreLoads: operands.length };
    const parts = sources.map((s) => costs.get(s) as Cost);
    const loads = new Set(parts.flatMap((p) => [...p.loads]));
    const own = n.op.lower.kind === "elementwise" ? 1 : 0;
    const ops = own + parts.reduce((sum, p) => sum + p.ops, 0);
    if (this.#absorbed.has(n)) return { loads: new Set(), ops, core: n, coreLoads: loads.size };
    return {
      loads,
      ops,
      core: parts.find((p) => p.core)?.core ?? null,
      coreLoads: Math.max(0, ...parts.map((p) => p.coreLoads)), // of one kernel, however often its result is used
    };
  }

  /** Stores a source of `n`, so that `n` reads fewer tensors: the one that reads most, or else the kernel that `n` follows. */
  #storeSourceOf(n: Node, costs: Map<Node, Cost>): void {
    const costOf = (s: Node): Cost => costs.get(s) as Cost;
    const weight = (s: Node): number => (costOf(s).core ? 0 : costOf(s).loads.size);
    const open = this.sources(n).filter((s) => !this.#stored.has(s) && s.op.lower.kind !== "leaf");
    const heaviest = open.reduce<Node | undefined>((a, b) => (a && weight(a) >= weight(b) ? a : b), undefined);
    const source = heaviest && weight(heaviest) > 1 ? heaviest : open.find((s) => costOf(s).core);
    if (!source) throw new Error(`${n.op.name} reads more than ${this.#options.maxBindings - 3} tensors`);
    const { core } = costOf(source);
    if (core && this.#branching.has(core)) throw new CutRequest(core);
    if (core) this.#endEpilogue(core, source);
    this.#store(source);
    costs.set(source, loadOf(source));
  }

  /** Lets the epilogue of `core` end at `last`, earlier than planned. */
  #endEpilogue(core: Node, last: Node): void {
    for (const [end, owner] of this.#coreOf) if (owner === core) this.#coreOf.delete(end);
    if (last === core) this.#absorbed.delete(core);
    else this.#coreOf.set(last, core);
  }

  #makeGroups(): Group[] {
    return this.#order
      .filter((n) => this.#stored.has(n))
      .map((n) => {
        const core = this.#isCore(n) ? n : (this.#coreOf.get(n) ?? null);
        return { roots: [n], core, operands: (core && this.#operands.get(core)) ?? [] };
      });
  }

  // (5) A group that feeds exactly one other, element for element, is computed inside it and stored from there.
  #mergeReaders(groups: Group[]): Group[] {
    const byRoot = new Map(groups.map((g) => [g.roots[0], g]));
    const readers = new Map<Node, Set<Group>>();
    for (const g of groups) for (const n of this.reads(g)) readers.set(n, (readers.get(n) ?? new Set()).add(g));
    const gone = new Set<Group>();
    for (const g of [...groups].reverse()) {
      const root = g.roots[0];
      const [reader, ...others] = readers.get(root) ?? [];
      if (g.core || !reader || others.length > 0 || reader.core || gone.has(reader)) continue;
      if (root.op.lower.kind !== "elementwise" || !sameShape(root.shape, reader.roots[0].shape)) continue;
      if (!readsInPlace(reader.roots, root, this) || !this.#fits(reader, g)) continue;
      // Only a result is wanted in memory as well; anything else has this one reader.
      if (this.#wanted.has(root)) reader.roots.unshift(root);
      else {
        const last = reader.roots[reader.roots.length - 1];
        this.#ops.set(last, (this.#ops.get(last) ?? 0) + (this.#ops.get(root) ?? 0));
        this.#stored.delete(root);
      }
      gone.add(g);
      for (const n of this.reads(g)) {
        const set = readers.get(n);
        set?.delete(g);
        set?.add(reader);
      }
      byRoot.delete(root);
    }
    return groups.filter((g) => !gone.has(g));
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
      const boundary = n.op.lower.kind === "leaf" || (this.#stored.has(n) && !inside.has(n));
      if (boundary) {
        if (literalOf(n) === undefined) found.add(n);
      } else if (!(n === g.core && n.op.lower.kind === "kernel")) stack.push(...this.sources(n));
    }
    return found;
  };

  #fits(reader: Group, g: Group): boolean {
    const reads = new Set([...this.reads(reader), ...this.reads(g)]);
    const ops = [...reader.roots, ...g.roots].reduce((sum, n) => sum + (this.#ops.get(n) ?? 0), 0);
    return ops <= KERNEL_OPS && reads.size + reader.roots.length + 1 <= this.#options.maxBindings - 1;
  }
}

/** Do `roots`, computed in one kernel, use `value` only through elementwise ops, so at the very element they compute? */
export function readsInPlace(roots: readonly Node[], value: Node, { sources, stored }: Boundary): boolean {
  let only = true;
  const seen = { elsewhere: new Set<Node>(), here: new Set<Node>() };
  const visit = (n: Node, here: boolean): void => {
    if (n === value) only &&= here;
    const before = here ? seen.here : seen.elsewhere;
    if (n === value || before.has(n) || n.op.lower.kind === "leaf") return;
    before.add(n);
    if (stored(n) && !roots.includes(n)) return;
    for (const s of sources(n)) visit(s, here && n.op.lower.kind === "elementwise");
  };
  for (const r of roots) visit(r, true);
  return only;
}

interface Cost {
  /** Stored values that computing the node in place would read. */
  readonly loads: ReadonlySet<Node>;
  readonly ops: number;
  /** The kernel whose epilogue this is, if any. Such a value cannot be computed anywhere else. */
  readonly core: Node | null;
  /** Bindings of that kernel's own operands: they are not shared with the epilogue's. */
  readonly coreLoads: number;
}

const FREE: Cost = { loads: new Set(), ops: 0, core: null, coreLoads: 0 };

function loadOf(n: Node): Cost {
  return { loads: new Set([n]), ops: 0, core: null, coreLoads: 0 };
}

/** Is it the f32 cast of an f16 value? Kernels widen what they load, so that they read the f16 itself. */
function widens(n: Node): boolean {
  return "widens" in n.op && n.op.widens === true && n.dtype === "f32" && n.src[0].dtype === "f16";
}
