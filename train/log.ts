// What a training loop tells and hears while it runs: one progress line and a line in metrics.jsonl per logged step,
// and Ctrl-C. The loops themselves are in the recipes.

import { type ProgressOptions, progress } from "./progress.ts";
import type { Run } from "./run.ts";

export interface StepLogOptions extends Pick<ProgressOptions, "stream" | "clock"> {
  /** Shown at the start of the line, e.g. "autoencoder". */
  readonly label: string;
  /** Optimiser steps of the whole run. */
  readonly steps: number;
  /** Stickers per step. */
  readonly batch: number;
  /** How an interrupted run is continued: ends the sentence "to go on, ...". */
  readonly goOn?: string;
}

export interface StepLog {
  /**
   * Records that `step` steps are done: the line on the terminal, and the values in metrics.jsonl. `stall_ms` among
   * them is the time that this step waited for its data.
   */
  step(step: number, values: Readonly<Record<string, number>> & { readonly loss: number }): void;
  /** Ends the line of a complete run, with the time that all its steps waited for data. */
  done(note?: string): void;
  /** Ends the line of a run that was interrupted after it was saved, and says how to go on. */
  stopped(step: number): void;
}

/** The progress line of a run, which counts on from the step that the run was resumed at. */
export function stepLog(run: Run, o: StepLogOptions): StepLog {
  const { label, steps, batch, goOn = "give the same command with --resume", stream = process.stderr, clock } = o;
  const items = { name: "stickers", each: batch };
  const now = clock ?? (() => performance.now());
  const started = now();
  const line = progress(label, steps, { from: run.step, items, stream, clock });
  let stalled: number | undefined;
  return {
    step(step, values) {
      run.log({ step, ...values, seconds: Math.round(now() - started) / 1000 });
      const notes = [`loss ${values.loss.toPrecision(4)}`];
      if ("stall_ms" in values) {
        stalled = (stalled ?? 0) + values.stall_ms;
        notes.push(`stall ${values.stall_ms.toFixed(1)} ms`);
      }
      line.update(step, notes.join("  "));
    },
    done(note) {
      const waited = stalled === undefined ? [] : [`waited ${(stalled / 1000).toFixed(2)} s for data`];
      line.done([...(note ? [note] : []), ...waited].join(", "));
    },
    stopped(step) {
      line.done(`stopped after step ${step}, saved in ${run.dir}`);
      stream.write(`to go on, ${goOn}\n`);
    },
  };
}

/** Ctrl-C, and what timeouts, schedulers and `kill` send. */
export type StopSignal = "SIGINT" | "SIGTERM";

/** What shells expect of a process that stopped for a signal: 128 + its number. */
export function exitCode(signal: StopSignal): number {
  return signal === "SIGINT" ? 130 : 143;
}

export interface Interrupt {
  /** The first Ctrl-C (or SIGTERM); null before: finish the step, save, stop. */
  readonly signal: StopSignal | null;
  /** Whether there was one. */
  readonly requested: boolean;
  /** Gives the signals back to their default. */
  release(): void;
}

/**
 * Turns Ctrl-C into a request that a training loop looks at between steps; a second one ends the process at once. The
 * loop must await something now and then, or no signal is ever seen.
 */
export function interruptible(stream: { write(text: string): unknown } = process.stderr): Interrupt {
  let first: StopSignal | null = null;
  const onSignal = (signal: NodeJS.Signals) => {
    if (first) process.exit(exitCode(signal as StopSignal));
    first = signal as StopSignal;
    stream.write("\nstopping after this step; Ctrl-C again to leave without saving\n");
  };
  process.on("SIGINT", onSignal).on("SIGTERM", onSignal);
  return {
    get signal() {
      return first;
    },
    get requested() {
      return first !== null;
    },
    release() {
      process.off("SIGINT", onSignal).off("SIGTERM", onSignal);
    },
  };
}
