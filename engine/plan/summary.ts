// A plan in numbers: dispatches, operations by kernel family, and the memory it holds once it is recorded. For `gifgrad plan`
// and tests; what each dispatch does, in words, is explain.ts.

import { type ArenaValue, arenaValues, boundBytes, workOf } from "./explain.ts";
import type { Plan } from "./plan.ts";

/** Dispatches of one kernel family together. */
export interface FamilyWork {
  readonly family: string;
  readonly dispatches: number;
  /** Arithmetic operations, as the kernels' generators state them: a multiply-add is two, an exp one. */
  readonly flops: number;
  /** What they bind, or move where a kernel says so. */
  readonly bytes: number;
}

/** Bytes that a recorded plan holds on the device beside the tensors that it shares with others. */
export interface PlanMemory {
  readonly arena: number;
  /** No arrangement of the arena could be smaller. */
  readonly lowerBound: number;
  readonly inputs: number;
  /** Of all sets: a step that is called again keeps two, used in turn. */
  readonly results: number;
  /** Address tables, filled once. */
  readonly tables: number;
  readonly uniforms: number;
}

export interface PlanSummary {
  readonly name: string;
  readonly dispatches: number;
  /** Distinct shader texts: what an adapter compiles. */
  readonly kernels: number;
  /** By operations, most first. */
  readonly families: readonly FamilyWork[];
  readonly flops: number;
  readonly memory: PlanMemory;
  /** What is live when most is, largest first. */
  readonly largest: readonly ArenaValue[];
}

/** Uniform structs of a recording lie at multiples of this, WebGPU's minUniformBufferOffsetAlignment. */
const UNIFORM_ALIGNMENT = 256;

/** Bytes of the buffer that holds the scalars of all dispatches. */
export function uniformBytes(sources: readonly { readonly uniforms: readonly number[] }[]): number {
  const aligned = (words: number): number => Math.ceil((4 * words) / UNIFORM_ALIGNMENT) * UNIFORM_ALIGNMENT;
  return sources.reduce((sum, s) => sum + aligned(s.uniforms.length), 0);
}

/** `reused`: of a step that is called again. */
export function summarise(plan: Plan, reused = true): PlanSummary {
  const all = [...plan.setup, ...plan.dispatches];
  const sum = (list: readonly { readonly bytes: number }[]): number => list.reduce((total, v) => total + v.bytes, 0);
  const families = sumFamilies(plan.dispatches.map((d) => ({ ...workOf(d), dispatches: 1 })));
  return {
    name: plan.name,
    dispatches: plan.dispatches.length,
    kernels: new Set(all.map((d) => d.source.wgsl)).size,
    families,
    flops: families.reduce((total, f) => total + f.flops, 0),
    memory: {
      arena: plan.arena.bytes,
      lowerBound: plan.arena.lowerBound,
      inputs: sum(plan.inputs),
      results: (reused ? 2 : 1) * sum(plan.outputs),
      tables: plan.setup.reduce((total, d) => total + boundBytes(d), 0),
      uniforms: uniformBytes(all.map((d) => d.source)),
    },
    largest: fullest(arenaValues(plan)),
  };
}

/** Everything a recording holds for itself. */
export function heldBytes({ arena, inputs, results, tables, uniforms }: PlanMemory): number {
  return arena + inputs + results + tables + uniforms;
}

/** Sums by family, most operations first. */
export function sumFamilies(parts: readonly FamilyWork[]): FamilyWork[] {
  const families = new Map<string, FamilyWork>();
  for (const { family, dispatches, flops, bytes } of parts) {
    const known = families.get(family) ?? { dispatches: 0, flops: 0, bytes: 0 };
    families.set(family, {
      family,
      dispatches: known.dispatches + dispatches,
      flops: known.flops + flops,
      bytes: known.bytes + bytes,
    });
  }
  return [...families.values()].sort((a, b) => b.flops - a.flops || b.bytes - a.bytes);
}

/** The values that live at the dispatch where they are the most bytes. */
function fullest(values: readonly ArenaValue[]): ArenaValue[] {
  const change = new Map<number, number>();
  const add = (time: number, bytes: number): void => void change.set(time, (change.get(time) ?? 0) + bytes);
  for (const { first, last, bytes } of values) {
    add(first, bytes);
    add(last + 1, -bytes);
  }
  let [live, most, when] = [0, 0, 0];
  for (const time of [...change.keys()].sort((a, b) => a - b)) {
    live += change.get(time) as number;
    if (live > most) [most, when] = [live, time];
  }
  return values.filter((v) => v.first <= when && when <= v.last).sort((a, b) => b.bytes - a.bytes || a.index - b.index);
}
