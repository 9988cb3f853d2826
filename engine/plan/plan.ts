// Program -> Plan: groups in order, one place in memory for everything they read and write, kernels emitted. Pure: a plan can
// be made, printed and tested without a device. runtime/gpu.ts turns it into buffers and pipelines.

import { withLanes } from "../../kernels/lane.ts";
import { type Caps, choose, type KernelSource } from "../../kernels/wgsl.ts";
import type { Program } from "../device.ts";
import { type DType, elementBytes } from "../dtype.ts";
import type { Node } from "../graph.ts";
import { numel, type Shape } from "../shape.ts";
import type { Storage } from "../storage.ts";
import { chained } from "./chain.ts";
import { type EmittedPass, emit, kernelOf, type Slot } from "./emit.ts";
import { type Fusion, fuse, type Group, readsInPlace } from "./fuse.ts";
import { checkLimits } from "./limits.ts";
import { type Arena, type Interval, planMemory } from "./memory.ts";

export type Place =
  /** A range of the arena. */
  | { readonly kind: "arena"; readonly index: number; readonly bytes: number }
  /** Memory of its own: a parameter, or data captured by the program. */
  | { readonly kind: "storage"; readonly storage: Storage; readonly bytes: number }
  /** Filled once by a setup dispatch, the same at every call: address tables of convolutions. */
  | { readonly kind: "constant"; readonly index: number; readonly bytes: number }
  /** What the caller feeds, under this name. */
  | { readonly kind: "input"; readonly name: string; readonly bytes: number }
  /** What the caller gets, under this name: memory that outlives the call. */
  | { readonly kind: "result"; readonly name: string; readonly bytes: number };

export interface Dispatch {
  readonly source: KernelSource;
  readonly places: readonly Place[];
  /** What it computes: a group, or a part of one, or several (chain.ts). With what its bindings hold this is for people: explain.ts. */
  readonly groups: readonly Group[];
  readonly slots: readonly Slot[];
  /** Places (as in Slot) of the group's results. */
  readonly written: ReadonlySet<string>;
}

export interface Plan {
  readonly name: string;
  readonly dispatches: readonly Dispatch[];
  /** Dispatches that read nothing: run once, when the program is recorded. Number i fills constant i. */
  readonly setup: readonly Dispatch[];
  readonly arena: Arena;
  readonly inputs: readonly {
    readonly name: string;
    readonly shape: Shape;
    readonly dtype: DType;
    readonly bytes: number;
  }[];
  readonly outputs: readonly {
    readonly name: string;
    readonly place: Place;
    readonly shape: Shape;
    readonly dtype: DType;
    readonly bytes: number;
  }[];
  /** State values that could not be written in place: copied in this order, after the last dispatch. */
  readonly copies: readonly Copy[];
  /** Memory that the program reads or writes besides its arena. */
  readonly storages: readonly Storage[];
  /** What was decided about nodes: with it explain.ts tells which ops a dispatch computes. */
  readonly fusion: Fusion;
}

export interface Copy {
  readonly from: Place;
  readonly to: Place;
  readonly bytes: number;
}

export interface PlanOptions {
  /** false: one kernel per node, for tests. */
  readonly fuse?: boolean;
  /** Which small dispatches become one: those of programs that run again, where that pays, or all that can; false: none. */
  readonly chain?: "paying" | "all" | false;
}

/** Bytes of a buffer that holds `n` elements: a whole number of vec4s, so that kernels may run over the end. */
function paddedBytes(n: number, element = 4): number {
  return Math.max(16, Math.ceil((n * element) / 16) * 16);
}

/** Bytes of a tensor's buffer; `f16`: the adapter has 16-bit floats. */
export function tensorBytes(t: { readonly shape: Shape; readonly dtype: DType }, { f16 }: Pick<Caps, "f16">): number {
  return paddedBytes(numel(t.shape), elementBytes(t.dtype, f16));
}

/** Throws DeviceError when the program needs more than the adapter can bind (limits.ts). */
export function makePlan(program: Program, caps: Caps, options: PlanOptions = {}): Plan {
  const fusion = fuse(program, {
    maxBindings: caps.maxBindings,
    fuse: options.fuse ?? true,
    epilogues: (core, operands) => {
      const kernel = kernelOf({ core, operands }, { sources: (n) => n.src });
      return (kernel && choose(kernel.family, kernel.spec, caps).epilogues) ?? "any";
    },
  });
  const plan = new Planner(program, caps, fusion).plan(options);
  checkLimits(plan, caps);
  return plan;
}

class Planner {
  readonly #program: Program;
  readonly #caps: Caps;
  readonly #fusion: Fusion;
  readonly #inputName = new Map<Node, string>();
  readonly #resultName = new Map<Node, string>();
  readonly #inPlace = new Map<Node, Node>();
  readonly #arenaIndex = new Map<string, number>();
  readonly #setup = new Map<string, Dispatch>();
  readonly #intervals: { bytes: number; first: number; last: number }[] = [];

  constructor(program: Program, caps: Caps, fusion: Fusion) {
    this.#program = program;
    this.#caps = caps;
    this.#fusion = fusion;
    for (const [name, node] of Object.entries(program.inputs)) this.#inputName.set(node, name);
    for (const [name, node] of Object.entries(program.outputs)) {
      const value = fusion.resolve(node);
      if (!this.#resultName.has(value)) this.#resultName.set(value, name);
    }
  }

  plan({ fuse = true, chain = "paying" }: PlanOptions): Plan {
    const order = this.#order();
    const single = order.flatMap((group, time) => this.#emitGroup(group, time));
    const chains = fuse && (chain === "all" || (chain === "paying" && this.#program.reused));
    const joined = chains ? chained(single, this.#caps, { keyOf, always: chain === "all" }) : single;
    const [dispatches, setup] = [joined, [...this.#setup.values()]].map((list) => list.map((d) => this.#numbered(d)));
    for (const [time, { places }] of dispatches.entries()) for (const p of places) this.#touch(p, time);
    const end = dispatches.length;
    const outputs = Object.entries(this.#program.outputs).map(([name, node]) => {
      const place = this.#place(this.#fusion.resolve(node));
      this.#touch(place, end);
      return { name, place, shape: node.shape, dtype: node.dtype, bytes: tensorBytes(node, this.#caps) };
    });
    const copies = this.#lateCopies(end);
    const arena = planMemory(this.#intervals as Interval[], this.#caps.maxBuffer);
    const inputs = Object.entries(this.#program.inputs).map(([name, n]) => {
      return { name, shape: n.shape, dtype: n.dtype, bytes: tensorBytes(n, this.#caps) };
    });
    return {
      name: this.#program.name,
      dispatches,
      setup,
      arena,
      inputs,
      outputs,
      copies,
      storages: this.#storages(dispatches, outputs, copies),
      fusion: this.#fusion,
    };
  }

  // ---- order -------------------------------------------------------------------------------------------------------

  /** Groups after what they read; and a group that overwrites state after all groups that read the old value. */
  #order(): Group[] {
    const groups = [...this.#fusion.groups].sort((a, b) => newest(a) - newest(b));
    const writer = new Map<Node, Group>();
    for (const g of groups) for (const r of g.roots) writer.set(r, g);
    const reads = new Map(groups.map((g) => [g, this.#fusion.reads(g)]));
    const before = new Map<Group, Set<Group>>();
    const readers = new Map<Node, Group[]>();
    for (const g of groups) {
      const own = reads.get(g) as Set<Node>;
      before.set(
        g,
        new Set([...own].flatMap((n) => (writer.has(n) && writer.get(n) !== g ? [writer.get(n) as Group] : []))),
      );
      for (const n of own) readers.set(n, [...(readers.get(n) ?? []), g]);
    }
    const later = new Map(
      groups.map((g) => [g, new Set(g.roots.flatMap((r) => readers.get(r) ?? []).filter((r) => r !== g))]),
    );
    // Old values that the caller or another state asks for must not be overwritten.
    const wanted = new Set(
      [...Object.values(this.#program.outputs), ...this.#program.assigns.map(([, value]) => value)].map(
        this.#fusion.resolve,
      ),
    );
    for (const [state, raw] of this.#program.assigns) {
      const value = this.#fusion.resolve(raw);
      const group = writer.get(value);
      if (!group || this.#inPlace.has(value) || wanted.has(state)) continue;
      if ((reads.get(group) as Set<Node>).has(state) && !this.#overwrites(group, state)) continue;
      const others = (readers.get(state) ?? []).filter((g) => g !== group);
      if (reaches(group, new Set(others), later)) continue;
      for (const g of others) {
        (before.get(group) as Set<Group>).add(g);
        (later.get(g) as Set<Group>).add(group);
      }
      this.#inPlace.set(value, state);
    }
    return depthFirst(groups, before);
  }

  /** May an elementwise group write where it reads `state`? Only if it reads nothing of it but the element it writes. */
  #overwrites(group: Group, state: Node): boolean {
    return !group.core && readsInPlace(group.roots, state, this.#fusion);
  }

  // ---- places ------------------------------------------------------------------------------------------------------

  #place(node: Node): Place {
    const target = this.#inPlace.get(node) ?? node;
    const name = this.#inputName.get(target);
    const bytes = tensorBytes(target, this.#caps);
    if (name !== undefined) return { kind: "input", name, bytes };
    if (target.storage) return { kind: "storage", storage: target.storage, bytes };
    const result = this.#resultName.get(target);
    if (result !== undefined) return { kind: "result", name: result, bytes };
    return this.#arenaPlace(`n${target.id}`, bytes);
  }

  #arenaPlace(key: string, bytes: number): Place {
    let index = this.#arenaIndex.get(key);
    if (index === undefined) {
      index = this.#intervals.push({ bytes, first: Number.POSITIVE_INFINITY, last: -1 }) - 1;
      this.#arenaIndex.set(key, index);
    }
    return { kind: "arena", index, bytes };
  }

  #touch(place: Place, time: number): void {
    if (place.kind !== "arena") return;
    const interval = this.#intervals[place.index];
    interval.first = Math.min(interval.first, time);
    interval.last = Math.max(interval.last, time);
  }

  #emitGroup(group: Group, time: number): Dispatch[] {
    const emitted = emit(group, { boundary: this.#fusion, caps: this.#caps, place: (n) => keyOf(this.#place(n)) });
    const setup = emitted.passes.filter(isSetup);
    const constant = new Map(
      setup.map((p) => {
        const { scratch } = p.slots[0];
        return [scratch, this.#constant(p, group, emitted.scratch[scratch])] as const;
      }),
    );
    const scratch = emitted.scratch.map(
      (elements, i) => constant.get(i) ?? this.#arenaPlace(`scratch ${time} ${i}`, paddedBytes(elements)),
    );
    const written = new Set(group.roots.map((r) => keyOf(this.#place(r))));
    return emitted.passes
      .filter((p) => !setup.some((s) => s === p))
      .map(({ source, slots }) => {
        const places = slots.map((s) => ("scratch" in s ? scratch[s.scratch] : this.#place(s.node)));
        return { source, places, groups: [group], slots, written };
      });
  }

  /** With threads' numbers as the adapter has them. */
  #numbered(d: Dispatch): Dispatch {
    return { ...d, source: { ...d.source, wgsl: withLanes(d.source.wgsl, this.#caps) } };
  }

  /** The place that `source`, which depends on nothing, fills; groups that need the same table share it. */
  #constant({ source, slots }: EmittedPass, group: Group, elements: number): Place {
    const key = `${source.wgsl}|${source.uniforms.join()}|${source.workgroups.join()}`;
    const known = this.#setup.get(key);
    if (known) return known.places[0];
    const place: Place = { kind: "constant", index: this.#setup.size, bytes: paddedBytes(elements) };
    this.#setup.set(key, { source, places: [place], groups: [group], slots, written: new Set() });
    return place;
  }

  /** Assignments that are not in place: leaves assigned to states, values wanted by two states, old values needed late. */
  #lateCopies(end: number): Copy[] {
    const late = this.#program.assigns
      .map(([state, raw]) => ({ state, value: this.#fusion.resolve(raw) }))
      .filter(({ state, value }) => this.#inPlace.get(value) !== state && value !== state);
    const written = new Set(late.map((c) => c.state));
    const saves: Copy[] = [];
    const copies = late.map(({ state, value }): Copy => {
      const bytes = tensorBytes(state, this.#caps);
      let from = this.#place(value);
      // An old value that another copy overwrites (two states that swap) is put aside first.
      if (written.has(value)) {
        const aside = this.#arenaPlace(`old ${value.id}`, bytes);
        saves.push({ from, to: aside, bytes });
        from = aside;
      }
      this.#touch(from, end);
      return { from, to: this.#place(state), bytes };
    });
    return [...saves, ...copies];
  }

  #storages(dispatches: readonly Dispatch[], outputs: Plan["outputs"], copies: Plan["copies"]): Storage[] {
    const places = [
      ...dispatches.flatMap((d) => d.places),
      ...outputs.map((o) => o.place),
      ...copies.flatMap((c) => [c.from, c.to]),
    ];
    return [...new Set(places.flatMap((p) => (p.kind === "storage" ? [p.storage] : [])))];
  }
}

type Setup = EmittedPass & { readonly slots: readonly [{ readonly scratch: number }] };

/** Does the pass bind one scratch buffer and nothing else, before any other does? Then it writes the same at every call. */
function isSetup(pass: EmittedPass, i: number, all: readonly EmittedPass[]): pass is Setup {
  const [slot] = pass.slots;
  if (pass.slots.length !== 1 || !("scratch" in slot)) return false;
  return !all.slice(0, i).some((p) => p.slots.some((s) => "scratch" in s && s.scratch === slot.scratch));
}

const storageIds = new WeakMap<Storage, number>();
let nextStorageId = 0;

function keyOf(place: Place): string {
  if (place.kind === "arena" || place.kind === "constant") return `${place.kind} ${place.index}`;
  if (place.kind === "input" || place.kind === "result") return `${place.kind} ${place.name}`;
  if (!storageIds.has(place.storage)) storageIds.set(place.storage, nextStorageId++);
  return `storage ${storageIds.get(place.storage)}`;
}

/**
 * When the expression asked for the group: for a kernel with an epilogue, when it asked for the kernel. A weight's update
 * thus runs when its gradient is there and not at the end of the step, until when the gradient's operands would live.
 */
function newest(g: Group): number {
  return g.core ? g.core.id : Math.max(...g.roots.map((r) => r.id));
}

function depthFirst(groups: readonly Group[], before: ReadonlyMap<Group, ReadonlySet<Group>>): Group[] {
  const order: Group[] = [];
  const state = new Map<Group, "open" | "done">();
  for (const start of groups) {
    const stack = [start];
    while (stack.length > 0) {
      const g = stack[stack.length - 1];
      if (state.get(g) === "open") {
        state.set(g, "done");
        order.push(g);
      }
      if (state.has(g)) {
        stack.pop();
        continue;
      }
      state.set(g, "open");
      const next = [...(before.get(g) as ReadonlySet<Group>)]
        .filter((b) => !state.has(b))
        .sort((a, b) => newest(b) - newest(a));
      stack.push(...next);
    }
  }
  return order;
}

/** Must one of `targets` run after `group`, directly or not? */
function reaches(group: Group, targets: ReadonlySet<Group>, later: ReadonlyMap<Group, ReadonlySet<Group>>): boolean {
  const stack = [group];
  const seen = new Set<Group>();
  while (stack.length > 0) {
    const g = stack.pop() as Group;
    if (seen.has(g)) continue;
    seen.add(g);
    const next = [...(later.get(g) as ReadonlySet<Group>)];
    if (next.some((n) => targets.has(n))) return true;
    stack.push(...next);
  }
  return false;
}
