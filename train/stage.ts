// What every recipe is told and what it returns, when its run is saved and how it ends, and the one guard. The loops are in
// the recipes' own files, whole.

import { join } from "node:path";
import type { Checkpoint } from "./checkpoints.ts";
import type { Interrupt, StepLog, StopSignal } from "./log.ts";
import { readMetrics } from "./metrics.ts";
import { METRICS, type Run } from "./run.ts";

/** What every recipe is told: where its run goes, how long it trains on how much at a time, and how it is saved. */
export interface StageRecipe {
  /** Run folder of this stage. */
  readonly out: string;
  /** Optimiser steps of the whole run, those of earlier sessions included. */
  readonly steps: number;
  /** Stickers per step, where the recipe does not say otherwise. */
  readonly batch: number;
  /** The learning rate's peak. */
  readonly lr: number;
  /** Of initial weights, order and noise. */
  readonly seed: number;
  /** Go on with the run that is in `out`. */
  readonly resume: boolean;
  /** Steps between checkpoints; absent: about a minute of them. */
  readonly saveEvery?: number;
  /** How the user goes on after an interrupt, see StepLogOptions. */
  readonly goOn?: string;
}

/** How a training stage ended, for run.json and the report. Losses are those of the whole run, earlier sessions included. */
export interface StageResult {
  readonly steps: number;
  /** Of this session. */
  readonly seconds: number;
  /** Mean loss of the first and of the last tenth of the steps (at most 50 of them). */
  readonly firstLoss: number;
  readonly lastLoss: number;
  /** Loss of predicting the mean: what a model that has learned nothing scores. */
  readonly baseline: number;
  /** Of the final checkpoint; null when the run was interrupted. */
  readonly sha256: string | null;
  /** The signal that asked for an end, even where the run was just complete: what would come next should not begin. */
  readonly stopped: StopSignal | null;
  readonly losses: readonly { readonly step: number; readonly loss: number }[];
}

/** Thrown when a loss, or the norm of its gradient, is not a number any more. */
export class TrainingError extends Error {
  override name = "TrainingError";
}

/**
 * Stops a run with a value that is NaN or infinite, naming the step, the last good checkpoint and the usual causes. Checked
 * before every save: the gradient's norm goes first, one step before the loss, when the weights are about to be lost.
 */
export function checkFinite(
  values: Readonly<Record<string, number>>,
  step: number,
  run: Run,
  good: Checkpoint | null,
): void {
  const bad = Object.entries(values).find(([, value]) => !Number.isFinite(value));
  if (!bad) return;
  const saved = good
    ? `the last good checkpoint is step ${good.step} in ${run.dir}`
    : `no checkpoint was saved in ${run.dir} yet`;
  throw new TrainingError(
    `${bad[0]} is ${bad[1]} at step ${step}; ${saved}. Usual causes: the learning rate is too high (halve --lr), the batch is too small, or the data holds broken images`,
  );
}

const SAVE_MS = 60_000;

/**
 * When a run is saved: every so many steps where that is asked for, else once a minute, and less often where saving takes
 * long, so that it costs at most a twentieth of the time. Saving changes nothing in the run.
 */
export class SaveClock {
  readonly #every: number | undefined;
  readonly #kept: number;
  #last = performance.now();
  #cost = 0;

  /** Besides, at every multiple of `kept` steps, whose checkpoints stay. */
  constructor(every?: number, kept = Number.POSITIVE_INFINITY) {
    this.#every = every;
    this.#kept = kept;
  }

  due(step: number): boolean {
    if (step % this.#kept === 0) return true;
    if (this.#every) return step % this.#every === 0;
    return performance.now() - this.#last >= Math.max(SAVE_MS, 20 * this.#cost);
  }

  /** Runs the saving and takes its time. */
  async time<T>(save: () => Promise<T>): Promise<T> {
    const started = performance.now();
    const result = await save();
    this.#last = performance.now();
    this.#cost = this.#last - started;
    return result;
  }
}

export interface StageEnd {
  /** Optimiser steps of the whole run. */
  readonly steps: number;
  /** The newest checkpoint: the run is complete when it is of the last step. */
  readonly checkpoint: Checkpoint | null;
  readonly interrupt: Interrupt;
  /** Milliseconds, as performance.now() gave them. */
  readonly started: number;
  readonly baseline: number;
  /** What scores the baseline. Default: predicting the mean. */
  readonly guess?: string;
}

/** Ends a run whose loop is over, because all steps are done (perhaps in an earlier session) or because of an interrupt. */
export async function endStage(run: Run, log: StepLog, o: StageEnd): Promise<StageResult> {
  const { steps, checkpoint, interrupt, started, baseline, guess = "predicting the mean" } = o;
  const complete = checkpoint?.step === steps;
  const losses = readMetrics(join(run.dir, METRICS)).map(({ step, loss }) => ({ step, loss }));
  if (complete) {
    await run.finish(checkpoint);
    const figures = `loss ${tenth(losses, "last").toPrecision(3)} (${guess} ${baseline.toPrecision(3)})`;
    log.done(losses.length > 0 ? `${figures}, saved in ${run.dir}` : `saved in ${run.dir}`);
  } else log.stopped(checkpoint?.step ?? 0);
  return {
    steps,
    seconds: (performance.now() - started) / 1000,
    firstLoss: tenth(losses, "first"),
    lastLoss: tenth(losses, "last"),
    baseline,
    sha256: complete ? checkpoint.sha256 : null,
    stopped: interrupt.signal,
    losses,
  };
}

/** Mean of the first or last tenth of the losses, at least one and at most 50. */
export function tenth(losses: readonly { readonly loss: number }[], end: "first" | "last"): number {
  const n = Math.max(1, Math.min(50, Math.floor(losses.length / 10)));
  const part = end === "first" ? losses.slice(0, n) : losses.slice(-n);
  return part.reduce((sum, l) => sum + l.loss, 0) / part.length;
}
