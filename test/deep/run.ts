// The loop of check:deep: batches of the check that is furthest behind its share, each with a seed that follows from the
// run's seed, the check and how far it is, so that a run that is stopped and resumed draws the cases of one that is not.

import { bitsFrom } from "../../engine/state.ts";
import type { Check } from "../../engine/testing/check.ts";
import { type State, type Tally, writeState } from "./state.ts";
import { keyOf, share } from "./suite.ts";

/** Cases per batch: what a kill may cost. */
const BATCH = { host: 50, dawn: 10, gpu: 10 } as const;
/** A check that has failed so often is not run any further. */
const ENOUGH = 3;
const SAVE_MS = 1000;

export interface DeepRun {
  readonly checks: readonly Check[];
  readonly state: State;
  /** Where the state is kept. */
  readonly path: string;
  /** True when the run should stop after the batch at hand. */
  readonly stop?: () => boolean;
  readonly onBatch?: (check: Check, done: number, total: number) => void;
  /** Called before a batch that runs on a device. */
  readonly onDevice?: () => Promise<void>;
}

/** Runs to the end of the budget, or until told to stop. Resolves to true when nothing is left to do. */
export async function runDeep({ checks, state, path, stop, onBatch, onDevice }: DeepRun): Promise<boolean> {
  const targets = share(checks, state.cases);
  const total = targets.reduce((a, b) => a + b, 0);
  let saved = 0;
  for (;;) {
    const next = furthestBehind(checks, targets, state);
    const over = next < 0 || stop?.() === true;
    if (next < 0) state.finished = true;
    if (over || Date.now() - saved > SAVE_MS) {
      await writeState(path, state);
      saved = Date.now();
    }
    if (over) return next < 0;
    const check = checks[next];
    if (check.needs === "gpu") await onDevice?.();
    const tally = tallyOf(state, check);
    const cases = Math.min(BATCH[check.needs], targets[next] - tally.done);
    const seed = bitsFrom(state.seed, keyOf(check))(tally.done) >>> 1;
    const outcome = await check.run({ seed, cases });
    tally.done += cases;
    tally.cases += outcome.cases;
    add(tally.skipped, outcome.skipped);
    add(tally.runs, outcome.runs ?? {});
    if (outcome.failure) tally.failures.push(outcome.failure);
    onBatch?.(check, doneOf(state), total);
  }
}

function add(to: Record<string, number>, counts: Readonly<Record<string, number>>): void {
  for (const [name, n] of Object.entries(counts)) to[name] = (to[name] ?? 0) + n;
}

export function tallyOf(state: State, check: Check): Tally {
  const key = keyOf(check);
  state.checks[key] ??= { done: 0, cases: 0, skipped: {}, runs: {}, failures: [] };
  return state.checks[key];
}

function doneOf(state: State): number {
  return Object.values(state.checks).reduce((sum, t) => sum + t.done, 0);
}

/** Index of the check with the smallest part of its share done; -1 when all are done or have failed often enough. */
function furthestBehind(checks: readonly Check[], targets: readonly number[], state: State): number {
  let [best, least] = [-1, 1];
  checks.forEach((check, i) => {
    const { done, failures } = tallyOf(state, check);
    const part = failures.length >= ENOUGH ? 1 : done / targets[i];
    if (part < least) [best, least] = [i, part];
  });
  return best;
}
