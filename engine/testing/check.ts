// What a check is: a property of one subject (an op, a kernel family, programs) over random cases, run to a budget, with a
// count and, when it fails, the smallest counterexample in words. Records are turned into checks by ops.ts, kernels.ts and
// laws.ts; checkOp and its siblings run them and throw; test/deep runs them for hours.

import fc from "fast-check";
import { type Device, device } from "../device.ts";
import { ReferenceDevice } from "../reference.ts";
import type { Shape } from "../shape.ts";

export interface Budget {
  readonly seed: number;
  /** Random cases of each check. */
  readonly cases: number;
}

export interface Failure {
  /** Subject, call and what is wrong with it, after shrinking. */
  readonly message: string;
  /** Of the run that failed: the same seed and number of cases fail again. */
  readonly seed: number;
  readonly cases: number;
}

export interface Outcome {
  readonly cases: number;
  /** Cases drawn that say nothing about the law, by reason. */
  readonly skipped: Readonly<Record<string, number>>;
  /** For kernels: runs by variant. One that no drawn spec suits is missing. */
  readonly runs?: Readonly<Record<string, number>>;
  readonly failure: Failure | null;
}

export interface Check {
  /** "op softmax", "kernel matmul", "programs". */
  readonly subject: string;
  /** What must hold: "gradient", "WGSL equals the definition", ... */
  readonly law: string;
  /** "gpu": runs on the open GPU device, "dawn": type-checks WGSL, "host": needs neither. */
  readonly needs: "host" | "dawn" | "gpu";
  run(budget: Budget): Promise<Outcome>;
}

/** Says that a case does not speak for or against the law: it is counted apart. */
export class Skip {
  readonly reason: string;
  constructor(reason: string) {
    this.reason = reason;
  }
}

/** What is wrong with a case, in words; null when nothing is. */
export type Verdict = string | Skip | null;

/** Cases tried while shrinking one failure, and the time for it: a case on a device may compile for a second. */
const SHRINK_CASES = 300;
const SHRINK_MS = 20_000;

export const seeds: fc.Arbitrary<number> = fc.integer({ min: 0, max: 2 ** 31 - 1 });

/** Runs `judge` on `budget.cases` random cases, each with a seed for its values, and shrinks the first that fails. */
export async function forAll<T>(
  arbitrary: fc.Arbitrary<T>,
  budget: Budget,
  judge: (value: T, seed: number) => Verdict | Promise<Verdict>,
): Promise<Outcome> {
  const skipped: Record<string, number> = {};
  let message: string | null = null;
  let [cases, tried, stop] = [0, 0, 0];
  const property = fc.asyncProperty(arbitrary, seeds, async (value, seed) => {
    if (message !== null && (++tried > SHRINK_CASES || Date.now() > stop)) return;
    const verdict = await attempt(() => judge(value, seed));
    if (message === null) cases++;
    if (verdict instanceof Skip) skipped[verdict.reason] = (skipped[verdict.reason] ?? 0) + 1;
    else if (verdict !== null) {
      if (message === null) stop = Date.now() + SHRINK_MS;
      message = verdict;
      throw new Error(verdict);
    }
  });
  const result = await fc.check(property, { seed: budget.seed, numRuns: budget.cases });
  if (message === null && result.failed) message = String(result.errorInstance);
  const failure = message === null ? null : { message, seed: budget.seed, cases: budget.cases };
  return { cases, skipped, failure };
}

/** An error that a case throws is what is wrong with it. */
async function attempt(judge: () => Verdict | Promise<Verdict>): Promise<Verdict> {
  try {
    return await judge();
  } catch (e) {
    return e instanceof Error ? `${e.name}: ${e.message}` : String(e);
  }
}

/** "permute, shapes [2,1,2], order [2,0,1]" */
export function describeCall(name: string, shapes: readonly Shape[], attrs: object): string {
  const words = Object.entries(attrs).map(([key, value]) => `, ${key} ${JSON.stringify(value)}`);
  return `${name}, shapes ${shapes.map((s) => `[${s.join()}]`).join(" ")}${words.join("")}`;
}

export interface CheckOptions {
  /** Of each check; 30 when absent. Checks on a device draw a tenth of them, because each may compile a kernel. */
  readonly cases?: number;
  /** 1 when absent; the same seed draws the same cases. */
  readonly seed?: number;
}

export interface Report {
  /** Cases of each law that spoke for or against it; a law that none of its cases said anything about is not here. */
  readonly cases: Readonly<Record<string, number>>;
  /** Laws that were not checked here, or not by all cases drawn, and why: "no float32 input (30 of 30 cases)". */
  readonly skipped: Readonly<Record<string, string>>;
}

/** Thrown when a check fails: one paragraph per failed law, each with its smallest counterexample. */
export class CheckError extends Error {
  override name = "CheckError";
}

/** The open device, or null. */
export function openedDevice(): Device | null {
  try {
    return device();
  } catch {
    return null;
  }
}

/** Is the open device one whose kernels can be checked? */
export function hasGpu(): boolean {
  const open = openedDevice();
  return open !== null && !(open instanceof ReferenceDevice);
}

function budgetOf(check: Check, { cases = 30, seed = 1 }: CheckOptions): Budget {
  return { seed, cases: check.needs === "gpu" ? Math.ceil(cases / 10) : cases };
}

/** Runs the checks, all of them even when one fails. Throws CheckError with every counterexample. */
export async function runChecks(checks: readonly Check[], options: CheckOptions = {}): Promise<Report> {
  const cases: Record<string, number> = {};
  const skipped: Record<string, string> = {};
  const failures: string[] = [];
  for (const check of checks) {
    const name = `${check.subject}: ${check.law}`;
    if (check.needs === "gpu" && !hasGpu()) {
      skipped[name] = "no GPU device is open (await openDevice() first; a software adapter counts)";
      continue;
    }
    const outcome = await check.run(budgetOf(check, options));
    const skips = Object.entries(outcome.skipped);
    const said = skips.reduce((rest, [, n]) => rest - n, outcome.cases);
    if (said > 0) cases[name] = said;
    if (skips.length > 0) skipped[name] = skips.map(([why, n]) => `${why} (${n} of ${outcome.cases} cases)`).join(", ");
    if (outcome.failure) failures.push(`${name}\n  ${outcome.failure.message} (seed ${outcome.failure.seed})`);
  }
  if (failures.length > 0) throw new CheckError(failures.join("\n"));
  return { cases, skipped };
}
