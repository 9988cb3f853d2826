// What a long check has done so far, in a file that is either as it was or complete: a killed run goes on from its last
// saved batch. Called by run.ts.

import { mkdirSync, readFileSync } from "node:fs";
import { dirname } from "node:path";
import { replaceFile } from "../../engine/atomic.ts";
import type { Failure } from "../../engine/testing/check.ts";

/** Of one check. */
export interface Tally {
  /** How much of its share is done: a batch counts whole, also when it ended at a failure. */
  done: number;
  /** Cases that were run. */
  cases: number;
  skipped: Record<string, number>;
  /** Kernel runs by variant. */
  runs: Record<string, number>;
  failures: Failure[];
}

export interface State {
  readonly format: 2;
  readonly seed: number;
  readonly cases: number;
  readonly only: string;
  finished: boolean;
  readonly checks: Record<string, Tally>;
}

export function newState(seed: number, cases: number, only: string): State {
  return { format: 2, seed, cases, only, finished: false, checks: {} };
}

/** The state at `path`, or null when there is none. Throws when the file is of another format. */
export function readState(path: string): State | null {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch {
    return null;
  }
  const state = JSON.parse(text) as State;
  if (state.format !== 2) throw new Error(`${path} has format ${state.format}, expected 2: start over with --fresh`);
  return state;
}

export async function writeState(path: string, state: State): Promise<void> {
  mkdirSync(dirname(path), { recursive: true });
  await replaceFile(path, async (file) => file.writeFile(JSON.stringify(state)));
}
