// The fourth decision of fusion: what is stored although nothing asks for it. A value used more than once, unless recomputing it
// is as cheap as loading it; and what would make one kernel too large: read more tensors than a dispatch may bind, compute more
// ops or load more values than is worth their compile time. Called by fuse.ts.

import type { Node } from "../../graph.ts";
import { literalOf } from "../../ops/op.ts";
import { numel } from "../../shape.ts";
import { isCore } from "./composites.ts";
import { CutRequest, type Draft } from "./draft.ts";

/** Ops and transcendental calls worth recomputing rather than storing, given that one large operand is read either way. */
const RECOMPUTE_OPS = 24;
/** Most ops of one kernel: a longer chain is cut, because compile time grows faster than what a saved pass brings. */
export const KERNEL_OPS = 128;
/** Ops on a small tensor that is then broadcast: more than these and it is computed once instead of per element. */
const BROADCAST_OPS = 3;

/**
 * Most values that one kernel loads, a tensor counted for each place in it: past them an intermediate is stored. Loads at
 * shifted places are scalar, with conditions around them, and compile in more than linear time. A sum of 128 shifted views
 * and its gradient on llvmpipe, CPU time of the first call and of a later one: 64 loads 19 s and 61 ms, 32 8.5 s and 66 ms,
 * 16 3.2 s and 77 ms, 8 2.0 s and 79 ms, 4 1.5 s and 139 ms. No step of a preset reaches 16.
 */
export const KERNEL_LOADS = 16;

/** What computing a node in place would take. */
interface Cost {
  /** Stored values that it would read. */
  readonly loads: ReadonlySet<Node>;
  /** What it reads at one place each, stored values and movements of others, and how many loads that takes. */
  readonly reads: ReadonlyMap<Node, number>;
  readonly ops: number;
  /** The kernel whose epilogue this is, if any. Such a value cannot be computed anywhere else. */
  readonly core: Node | null;
  /** Bindings of that kernel's own operands: they are not shared with the epilogue's. */
  readonly coreLoads: number;
}

const FREE: Cost = { loads: new Set(), reads: new Map(), ops: 0, core: null, coreLoads: 0 };

function loadOf(n: Node): Cost {
  return { ...FREE, loads: new Set([n]), reads: new Map([[n, 1]]) };
}

/** Loads that it takes to read all of `reads`. */
export function countLoads(reads: ReadonlyMap<Node, number>): number {
  let sum = 0;
  for (const n of reads.values()) sum += n;
  return sum;
}

export function storeShared(draft: Draft): void {
  new Sizes(draft).run();
}

class Sizes {
  readonly #draft: Draft;
  readonly #costs = new Map<Node, Cost>();

  constructor(draft: Draft) {
    this.#draft = draft;
  }

  run(): void {
    const { order, absorbed, sizes } = this.#draft;
    for (const n of order) {
      const lower = n.op.lower;
      if (lower.kind === "leaf" || (isCore(n) && !absorbed.has(n))) {
        this.#costs.set(n, literalOf(n) !== undefined ? FREE : loadOf(n));
        continue;
      }
      let cost = this.#costOf(n);
      while (this.#bindsTooMuch(cost) || (cost.core && countLoads(cost.reads) > KERNEL_LOADS)) {
        this.#storeSourceOf(n, this.#bindsTooMuch(cost));
        cost = this.#costOf(n);
      }
      sizes.set(n, cost);
      if (this.#isDear(n, cost)) {
        this.#storeBase(n);
        cost = this.#costOf(n);
      }
      if (!cost.core && this.#isLarge(n, cost)) this.#draft.store(n);
      this.#settle(n, cost);
    }
  }

  /** Bindings for what a kernel reads: the rest is for its result, its scratch and its uniforms. */
  #mostBindings(): number {
    return this.#draft.options.maxBindings - 3;
  }
  #bindsTooMuch({ loads, coreLoads }: Cost): boolean {
    return loads.size + coreLoads > this.#mostBindings();
  }

  /** Is `n` as much as one kernel should compute? A movement that is (a concat of many pieces) is copied. */
  #isLarge(n: Node, { ops, reads }: Cost): boolean {
    const { kind } = n.op.lower;
    return (kind === "elementwise" && ops >= KERNEL_OPS) || countLoads(reads) > KERNEL_LOADS;
  }

  /** Is `n` used more than once, and dearer to compute again than to load? */
  #isDear(n: Node, cost: Cost): boolean {
    if (this.#draft.usersOf(n).length < 2 || this.#draft.inside.has(n)) return false;
    const large = [...cost.loads].filter((s) => numel(s.shape) * 8 > numel(n.shape)).length;
    return cost.core !== null || large > 1 || cost.ops > RECOMPUTE_OPS;
  }

  #settle(n: Node, cost: Cost): void {
    this.#costs.set(n, this.#draft.stored(n) ? loadOf(n) : cost);
  }

  #known(n: Node): Cost {
    return this.#costs.get(n) as Cost;
  }

  /** Stores `n`, or, where it is a view, what it is a view of: then each reader views memory. */
  #storeBase(n: Node): void {
    const { kind } = n.op.lower;
    if (kind === "elementwise") this.#draft.store(n);
    else if (kind === "view") for (const s of this.#draft.sources(n)) this.#storeBase(s);
    else return;
    this.#settle(n, this.#costOf(n));
  }

  #costOf(n: Node): Cost {
    const { absorbed, operands: kernels } = this.#draft;
    const sources = this.#draft.sources(n);
    if (n.op.lower.kind === "view" && sources.length === 1) this.#storeBroadcast(n, sources[0]);
    const operands = kernels.get(n);
    if (operands) return { ...FREE, core: n, coreLoads: operands.length };
    const parts = sources.map((s) => this.#known(s));
    const loads = new Set(parts.flatMap((p) => [...p.loads]));
    const own = n.op.lower.kind === "elementwise" ? 1 : 0;
    const ops = own + parts.reduce((sum, p) => sum + p.ops, 0);
    if (absorbed.has(n)) return { ...FREE, ops, core: n, coreLoads: loads.size };
    return {
      loads,
      reads: readsOf(n, parts),
      ops,
      core: parts.find((p) => p.core)?.core ?? null,
      coreLoads: Math.max(0, ...parts.map((p) => p.coreLoads)), // of one kernel, however often its result is used
    };
  }

  /** Stores what `view` repeats, if that is dear. */
  #storeBroadcast(view: Node, small: Node): void {
    if (numel(view.shape) < 8 * numel(small.shape) || this.#draft.stored(small)) return;
    if (this.#known(small).ops <= BROADCAST_OPS) return;
    this.#draft.store(small);
    this.#costs.set(small, loadOf(small));
  }

  /**
   * Stores a source of `n`, so that `n` reads fewer tensors, or else loads fewer values: the one that reads most, or the kernel
   * that `n` follows.
   */
  #storeSourceOf(n: Node, tensors: boolean): void {
    const { branching } = this.#draft;
    const weight = (s: Node): number => {
      const { core, loads, reads } = this.#known(s);
      return core ? 0 : tensors ? loads.size : countLoads(reads);
    };
    const open = this.#draft.sources(n).filter((s) => !this.#draft.stored(s) && s.op.lower.kind !== "leaf");
    const heaviest = open.reduce<Node | undefined>((a, b) => (a && weight(a) >= weight(b) ? a : b), undefined);
    const source = heaviest && weight(heaviest) > 1 ? heaviest : open.find((s) => this.#known(s).core);
    if (!source) throw new Error(`${n.op.name} reads more than ${this.#mostBindings()} tensors`);
    const { core } = this.#known(source);
    if (core && branching.has(core)) throw new CutRequest(core);
    if (core) this.#draft.endEpilogue(core, source);
    this.#draft.store(source);
    this.#costs.set(source, loadOf(source));
  }
}

/** A movement reads its sources at another place; anything else, and a reshape, reads what they do at the same one. */
function readsOf(n: Node, parts: readonly Cost[]): Map<Node, number> {
  const { lower } = n.op;
  if (lower.kind === "view" && !lower.linear)
    return new Map([[n, parts.reduce((sum, p) => sum + countLoads(p.reads), 0)]]);
  return new Map(parts.flatMap((p) => [...p.reads]));
}
