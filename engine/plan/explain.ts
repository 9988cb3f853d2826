// The plan in words: what each dispatch computes, reads and writes, who lives where in the arena and when, and the totals.
// Stable text (no node numbers), so that two versions can be compared. Callers: Step.explain, DEBUG=plan, and the runtime's
// errors, which name the ops of the kernel that failed.

import type { DType } from "../dtype.ts";
import { show } from "../error.ts";
import { type Node, toposort } from "../graph.ts";
import type { Shape } from "../shape.ts";
import type { Group } from "./fuse.ts";
import type { Dispatch, Place, Plan } from "./plan.ts";

/** The whole plan, a few lines per dispatch. */
export function explainPlan(plan: Plan): string {
  const inputs = plan.inputs.map((i) => `${i.name} ${typed(i)}`).join(", ");
  const texts = new Set([...plan.setup, ...plan.dispatches].map((d) => d.source.wgsl)).size;
  const name = namesOf(plan);
  const seen = new Set<string>();
  return [
    `${plan.name}(${inputs}): ${plan.dispatches.length} dispatches of ${texts} kernels, ${plan.setup.length} once`,
    ...plan.setup.flatMap((d) => dispatchLines("once", d, plan, name, seen)),
    ...plan.dispatches.flatMap((d, i) => dispatchLines(String(i), d, plan, name, seen)),
    ...plan.outputs.map((o) => {
      const from = name(o.place);
      return `result ${o.name} ${typed(o)}${from === `result ${o.name}` ? "" : ` copied from ${from}`}`;
    }),
    ...plan.copies.map((c) => `copy ${name(c.from)} to ${name(c.to)}, ${bytes(c.bytes)}`),
    ...arenaMap(plan),
    ...totals(plan),
  ].join("\n");
}

/** Names of the ops that groups compute, sources first: `matmul add tanh`, repeated ones as `mul*3`. */
export function opsOf(groups: readonly Group[], plan: Pick<Plan, "fusion">): string {
  const counts = new Map<string, number>();
  for (const n of groups.flatMap((g) => computed(g, plan))) counts.set(n.op.name, (counts.get(n.op.name) ?? 0) + 1);
  return [...counts].map(([op, n]) => (n > 1 ? `${op}*${n}` : op)).join(" ");
}

/** Nodes of a group in order of evaluation: from its results back to what is in memory or constant. */
function computed(group: Group, { fusion }: Pick<Plan, "fusion">): Node[] {
  const inside = new Set(group.core ? [...group.roots, group.core] : group.roots);
  const isRead = (n: Node): boolean => !inside.has(n) && (n.op.lower.kind === "leaf" || fusion.stored(n));
  const whole = (n: Node): boolean => n === group.core && n.op.lower.kind === "kernel";
  return toposort(group.roots, (n) => (isRead(n) || whole(n) ? [] : fusion.sources(n))).filter((n) => !isRead(n));
}

/** A value's dtype and shape: `f32[8, 64]`. */
function typed(v: { readonly shape: Shape; readonly dtype: DType }): string {
  return `${v.dtype}${show(v.shape)}`;
}

function bytes(n: number): string {
  return `${n.toLocaleString("en")} B`;
}

/** What each place is called: inputs by their names, the arena's @0.., constants #0.., memory of its own by number. */
function namesOf(plan: Plan): (p: Place) => string {
  const names = new Map<unknown, string>();
  const counts = { state: 0, data: 0 };
  for (const s of plan.storages) {
    const kind = s.mutable ? "state" : "data";
    names.set(s, `${kind} ${counts[kind]++}`);
  }
  return (p) => {
    if (p.kind === "arena") return `@${p.index}`;
    if (p.kind === "constant") return `#${p.index}`;
    if (p.kind === "result") return `result ${p.name}`;
    return p.kind === "input" ? p.name : (names.get(p.storage) ?? "data");
  };
}

/** What a dispatch touches, by how. Scratch is written by the first dispatch that binds it; `seen` says whether that was before. */
function touches(
  d: Dispatch,
  name: (p: Place) => string,
  seen: Set<string>,
): Record<"reads" | "updates" | "writes", string[]> {
  const lists: ReturnType<typeof touches> = { reads: [], updates: [], writes: [] };
  d.slots.forEach((slot, i) => {
    const at = name(d.places[i]);
    if ("scratch" in slot) lists[seen.has(at) ? "reads" : "writes"].push(`${at} scratch`);
    else if (!d.written.has(slot.place)) lists.reads.push(`${at} ${typed(slot.node)}`);
    else lists[slot.node.storage ? "updates" : "writes"].push(`${at} ${typed(slot.node)}`);
    seen.add(at);
  });
  return lists;
}

/** A dispatch and, indented, what it computes and touches. */
function dispatchLines(
  label: string,
  d: Dispatch,
  plan: Plan,
  name: (p: Place) => string,
  seen: Set<string>,
): readonly string[] {
  const touched = Object.entries(touches(d, name, seen)).flatMap(([kind, values]) =>
    values.length > 0 ? [`        ${kind.padEnd(9)}${values.join(", ")}`] : [],
  );
  const { source } = d;
  const head = `${label.padStart(4)}  ${source.label.padEnd(56)} ${source.workgroups.join("x").padStart(9)}`;
  return [`${head} ${bytes(boundBytes(d)).padStart(14)}`, `        computes ${opsOf(d.groups, plan)}`, ...touched];
}

/** What is known of a dispatch before it runs: for profiles and traces. */
export interface DispatchInfo {
  readonly label: string;
  /** The kernel's family, "reduce", "elementwise" or "chain". */
  readonly family: string;
  /** 0 where the kernel does not say. */
  readonly flops: number;
  readonly bytes: number;
  /** In words: the ops, what it reads and writes, its workgroups. */
  readonly args: Readonly<Record<string, string>>;
}

/** Of each dispatch of a plan, in order. */
export function dispatchInfos(plan: Plan): DispatchInfo[] {
  const name = namesOf(plan);
  const seen = new Set<string>();
  return plan.dispatches.map((d) => {
    const { source, groups } = d;
    const touched = Object.entries(touches(d, name, seen)).filter(([, values]) => values.length > 0);
    return {
      label: source.label,
      ...workOf(d),
      args: {
        ops: opsOf(groups, plan),
        ...Object.fromEntries(touched.map(([kind, values]) => [kind, values.join(", ")])),
        workgroups: source.workgroups.join("x"),
      },
    };
  });
}

/** The family of a dispatch's kernel, its operations and the bytes that it moves. */
export function workOf(d: Dispatch): Pick<DispatchInfo, "family" | "flops" | "bytes"> {
  const { flops = 0, bytes = boundBytes(d) } = d.source;
  return { family: familyOf(d.groups), flops, bytes };
}

function familyOf([{ core }, ...others]: readonly Group[]): string {
  if (others.length > 0) return "chain";
  const lower = core?.op.lower;
  if (lower?.kind === "kernel") return lower.family.name;
  return lower ? "reduce" : "elementwise";
}

/** Bytes of everything that a dispatch binds, each place once: what it moves, unless it reads something repeatedly. */
export function boundBytes(d: Pick<Dispatch, "places">): number {
  return d.places.reduce((sum, p) => sum + bytesOf(p), 0);
}

/** Bytes of one place. */
export function bytesOf(p: Place): number {
  return p.bytes;
}

/** A value of the arena: which dispatches need it, from the first to the last, both included. */
export interface ArenaValue {
  readonly index: number;
  readonly bytes: number;
  readonly first: number;
  readonly last: number;
  readonly what: string;
}

/** All of them, in order of first use. */
export function arenaValues(plan: Plan): ArenaValue[] {
  const values = new Map<number, ArenaValue>();
  const touch = (p: Place, time: number, what: string): void => {
    if (p.kind !== "arena") return;
    values.set(p.index, { index: p.index, bytes: p.bytes, first: time, what, ...values.get(p.index), last: time });
  };
  plan.dispatches.forEach((d, time) => {
    d.slots.forEach((s, i) => {
      touch(d.places[i], time, "scratch" in s ? "scratch" : `${s.node.op.name} ${typed(s.node)}`);
    });
  });
  for (const o of plan.outputs) touch(o.place, plan.dispatches.length, `result ${o.name}`);
  for (const c of plan.copies) touch(c.from, plan.dispatches.length, "state copied last");
  return [...values.values()];
}

/** One line per value of the arena, by offset: where it lies, which dispatches need it, what it is. */
function arenaMap(plan: Plan): string[] {
  const { offsets, bytes: size, lowerBound } = plan.arena;
  const ratio = lowerBound > 0 ? (size / lowerBound).toFixed(2) : "1.00";
  const values = arenaValues(plan).sort((a, b) => offsets[a.index] - offsets[b.index] || a.first - b.first);
  return [
    `arena ${size} bytes (lower bound ${lowerBound}, ratio ${ratio}), ${values.length} values: offset, bytes, dispatches`,
    ...values.map(
      (v) =>
        `  ${String(offsets[v.index]).padStart(10)} ${String(v.bytes).padStart(10)} ${`${v.first}-${v.last}`.padStart(9)}  @${v.index} ${v.what}`,
    ),
  ];
}

/** Places of the plan's storages, each once. */
function storages(plan: Plan): Extract<Place, { kind: "storage" }>[] {
  const places = [
    ...plan.dispatches.flatMap((d) => d.places),
    ...plan.outputs.map((o) => o.place),
    ...plan.copies.flatMap((c) => [c.from, c.to]),
  ];
  const found = new Map(places.flatMap((p) => (p.kind === "storage" ? [[p.storage, p] as const] : [])));
  return [...found.values()];
}

function totals(plan: Plan): string[] {
  const sum = (list: readonly { readonly bytes: number }[]): string =>
    bytes(list.reduce((total, v) => total + v.bytes, 0));
  const all = [...plan.setup, ...plan.dispatches];
  const [state, data] = [true, false].map((mutable) => storages(plan).filter((p) => p.storage.mutable === mutable));
  const tables = plan.setup.reduce((total, d) => total + boundBytes(d), 0);
  const words = all.reduce((total, d) => total + d.source.uniforms.length, 0);
  return [
    `memory: state ${sum(state)} in ${state.length}, data ${sum(data)} in ${data.length}, inputs ${sum(plan.inputs)}, results ${sum(plan.outputs)}, tables ${bytes(tables)}, uniforms ${bytes(4 * words)}`,
    `${plan.copies.length} state copies, ${plan.storages.length} storages, ${bytes(plan.dispatches.reduce((total, d) => total + boundBytes(d), 0))} bound per call`,
  ];
}
