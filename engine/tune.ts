// The tuner: of each kernel family and class of shapes that programs ask for, times the variants that could serve it, after
// checking each against the definition. Slow (seconds per variant, most of it compiling on software adapters), so it runs
// on request only: `gifgrad tune`, which stores what it returns.

import { candidatesOf, type Lowered, tuningKey, type Variant } from "../kernels/wgsl.ts";
import type { Program } from "./device.ts";
import { cpuMs } from "./env.ts";
import { type Kernel, kernelOf } from "./plan/emit.ts";
import { makePlan } from "./plan/plan.ts";
import { waitFor } from "./runtime/patience.ts";
import { kernelInputs, kernelProblem } from "./testing/kernels.ts";
import { type Machine, type Prepared, prepare } from "./testing/runner.ts";
import type { TuningFile } from "./tuning.ts";

/** A class of shapes to tune, and one kernel of it. */
export interface TuneCase extends Kernel {
  readonly key: string;
  /** Operations of all kernels of the class in the programs: the largest classes are tuned first. */
  readonly flops: number;
}

export interface TuneResult {
  readonly key: string;
  /** Milliseconds of each sound variant, the default first. */
  readonly times: Readonly<Record<string, number>>;
  /** Variants that do not compute what they should, and how. */
  readonly wrong: Readonly<Record<string, string>>;
  /** The variant to use instead of the default; null where nothing is clearly faster. */
  readonly choice: string | null;
  /** Of a variant that was faster than the default and yet is not the choice: which, and why. */
  readonly left: string | null;
}

/** Classes with more than one variant to choose from, the most work first. */
export function tuneCases(programs: readonly Program[], { caps }: Pick<Machine, "caps">): TuneCase[] {
  const cases = new Map<string, TuneCase>();
  for (const program of programs) {
    const plan = makePlan(program, caps);
    for (const group of new Set(plan.dispatches.flatMap((d) => d.groups))) {
      const kernel = kernelOf(group, plan.fusion);
      if (!kernel || candidatesOf(kernel.family, kernel.spec, caps).length < 2) continue;
      const key = tuningKey(kernel.family.name, kernel.spec);
      const flops = flopsOf(candidatesOf(kernel.family, kernel.spec, caps)[0].emit(kernel.spec, caps));
      const known = cases.get(key);
      cases.set(key, known ? { ...known, flops: known.flops + flops } : { ...kernel, key, flops });
    }
  }
  return [...cases.values()].sort((a, b) => b.flops - a.flops);
}

const flopsOf = (lowered: Lowered): number => lowered.passes.reduce((sum, p) => sum + (p.source.flops ?? 0), 0);

/** Operations up to which the float64 loops answer in about a second; above, the default variant is the measure. */
const REFERENCE_FLOPS = 2e8;
/** A choice must be faster than the default by this share, which is more than the noise of the least of several timings. */
const GAIN = 0.07;
const ROUNDS = 5;

/** Checks and times the variants of one class, interleaved, and picks. */
export async function tune(machine: Machine, c: TuneCase): Promise<TuneResult> {
  const variants = candidatesOf(c.family, c.spec, machine.caps);
  const inputs = kernelInputs(c.family.inputs(c.spec), 1);
  const ready = new Map<string, Prepared>();
  const wrong: Record<string, string> = {};
  try {
    let want: readonly Float64Array[] | null = null;
    for (const v of variants) {
      const lowered = v.emit(c.spec, machine.caps);
      want ??= await definition(machine, c, lowered, inputs);
      const problem = await kernelProblem(machine, c.family, c.spec, lowered, inputs, want);
      if (problem) wrong[v.name] = problem;
      else ready.set(v.name, await prepare(machine, lowered, inputs, c.family.outputs(c.spec)));
    }
    const times = await race(machine, ready);
    const standard = variants[0].name;
    const choice = await confirmed(machine, ready, standard, pick(variants, times));
    return { key: c.key, times, wrong, choice, left: leftOut(times, standard, choice) };
  } finally {
    for (const p of ready.values()) p.destroy();
  }
}

/** What every variant must compute: the family's float64 loops, or for large shapes the default variant, which tests check. */
async function definition(
  machine: Machine,
  c: TuneCase,
  lowered: Lowered,
  inputs: ReturnType<typeof kernelInputs>,
): Promise<readonly Float64Array[]> {
  if (flopsOf(lowered) <= REFERENCE_FLOPS) {
    return c.family.reference(
      c.spec,
      inputs.map((v) => Float64Array.from(v)),
    );
  }
  const prepared = await prepare(machine, lowered, inputs, c.family.outputs(c.spec));
  prepared.dispatch();
  const outputs = await prepared.read();
  prepared.destroy();
  return outputs.map((v) => Float64Array.from(v));
}

/** The choice, if it wins again against the default alone: of many noisy timings the least is often luck. */
async function confirmed(
  machine: Machine,
  ready: ReadonlyMap<string, Prepared>,
  standard: string,
  choice: string | null,
): Promise<string | null> {
  if (choice === null || !ready.has(standard)) return choice;
  const again = await race(machine, new Map([...ready].filter(([name]) => name === standard || name === choice)));
  return again[choice] < (1 - GAIN) * again[standard] ? choice : null;
}

/** Least time of each, in rounds that take turns, so that a busy moment hits all alike. */
async function race(machine: Machine, ready: ReadonlyMap<string, Prepared>): Promise<Record<string, number>> {
  const times: Record<string, number> = {};
  const repeats = new Map<string, number>();
  for (const [name, p] of ready) {
    await timeOf(machine, p, 1); // the first run may compile
    repeats.set(name, Math.max(1, Math.min(50, Math.ceil(4 / (await timeOf(machine, p, 1))))));
  }
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, p] of ready) {
      const ms = await timeOf(machine, p, repeats.get(name) as number);
      times[name] = Math.min(times[name] ?? Number.POSITIVE_INFINITY, ms);
    }
  }
  return times;
}

/** Milliseconds per run: CPU time on a software adapter, whatever else the machine does; else time until it is done. */
async function timeOf({ device, caps }: Machine, p: Prepared, runs: number): Promise<number> {
  const cpu = cpuMs();
  const start = performance.now();
  for (let i = 0; i < runs; i++) p.dispatch();
  // Asking on and on whether it is done would count as the kernel's time.
  await waitFor(device.queue.onSubmittedWorkDone(), caps.adapter === "cpu");
  return (caps.adapter === "cpu" ? cpuMs() - cpu : performance.now() - start) / runs;
}

function pick(variants: readonly Variant<unknown>[], times: Readonly<Record<string, number>>): string | null {
  const [fastest] = Object.entries(times).sort(([, a], [, b]) => a - b);
  const standard = times[variants[0].name];
  if (!fastest || fastest[0] === variants[0].name) return null;
  return standard === undefined || fastest[1] < (1 - GAIN) * standard ? fastest[0] : null;
}

/** Why the fastest is not the choice, where it is neither that nor the default. */
export function leftOut(
  times: Readonly<Record<string, number>>,
  standard: string,
  choice: string | null,
): string | null {
  const [fastest] = Object.keys(times).sort((a, b) => times[a] - times[b]);
  if (choice !== null || fastest === undefined || fastest === standard) return null;
  const why =
    times[fastest] < (1 - GAIN) * times[standard]
      ? "not confirmed twice"
      : `less than ${Math.round(100 * GAIN)} % faster`;
  return `${fastest}: ${why}`;
}

/** A tuning file with one more class. */
export function withResult(file: TuningFile, { key, times, choice }: TuneResult): TuningFile {
  const { [key]: _, ...others } = file.choices;
  return {
    ...file,
    choices: choice === null ? others : { ...others, [key]: choice },
    measured: { ...file.measured, [key]: times },
  };
}
