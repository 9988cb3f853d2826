// What a sticker costs: parameters by component, seconds, memory, operations. What is timed and planned comes from outside, since
// metrics do not sample; counting is models/systems.ts, planning engine/planning.ts. Called by `gifgrad eval cost` and the
// benchmark.

import { device, type Parameter } from "../engine/index.ts";
import { planWork } from "../engine/planning.ts";
import { countParameters, type System } from "../models/systems.ts";
import type { SystemCost } from "./benchmark/result.ts";
import { mean } from "./score.ts";

export type Timing = SystemCost["time"];

export interface CostWork {
  readonly system: System;
  /** Of the whole model, frozen parts included. */
  readonly state: ReadonlyMap<string, Parameter>;
  /** Makes one sticker on the current device, from a caption to pixels on the host. */
  make(): Promise<unknown>;
  /** Does the same with a model of the same sizes, built inside: on a device that only plans, so that no weight is read. */
  plan(): unknown;
}

export interface CostOptions {
  /** Stickers that are timed, after a first one that is not. */
  readonly runs: number;
  readonly onRun?: (done: number, total: number) => void;
}

/**
 * The cost of one sticker on the current device. Measured memory is what that device holds afterwards, so it should have been
 * opened for this alone; null where a device does not keep count.
 * @throws RangeError without a run
 */
export async function measureCost(work: CostWork, o: CostOptions): Promise<SystemCost> {
  const open = device();
  const { total, components } = countParameters(work.system, work.state);
  const { peak, flops, dispatches } = await planWork(open.caps, () => work.plan());
  const time = await timeRuns(() => work.make(), o);
  const measured = open.memory().bytes;
  return {
    parameters: {
      total,
      components: Object.fromEntries(Object.entries(components).map(([name, { count }]) => [name, count])),
    },
    time,
    memory: { planned: peak, measured: measured > 0 ? measured : null },
    flops,
    dispatches,
  };
}

/** Seconds of `runs` calls after a first one, which traces, plans, compiles and moves weights, and is left out. */
export async function timeRuns(
  run: () => Promise<unknown>,
  { runs, onRun }: CostOptions,
  now: () => number = () => performance.now(),
): Promise<Timing> {
  if (!Number.isInteger(runs) || runs < 1) throw new RangeError(`cost: at least one run is timed, got ${runs}`);
  const seconds: number[] = [];
  for (let i = 0; i <= runs; i++) {
    const start = now();
    await run();
    if (i > 0) seconds.push((now() - start) / 1e3);
    onRun?.(i, runs);
  }
  const sorted = seconds.toSorted((a, b) => a - b);
  const at = (share: number): number => percentile(sorted, share);
  return { runs, mean: mean(seconds), median: at(0.5), p5: at(0.05), p95: at(0.95) };
}

/** Of ascending values, between its neighbours where it falls between two of them. */
export function percentile(sorted: readonly number[], share: number): number {
  const at = share * (sorted.length - 1);
  const low = Math.floor(at);
  return sorted[low] + (at - low) * (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]);
}
