// metrics.jsonl: one JSON object per logged step, appended as training goes. Used by run.ts, read by reports.

import { closeSync, fsyncSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";

/** A logged step. `seconds` and `stall_ms` depend on the machine's speed; all other numbers repeat in a resumed run. */
export interface Metrics {
  readonly step: number;
  readonly [name: string]: number;
}

/** An open metrics file, at its end. */
export class MetricsFile {
  readonly #file: number;

  /**
   * Opens the file, or makes it, and cuts off what was logged after `lastStep` together with a half-written last line: a
   * killed run has logged steps that its resumed self does again.
   */
  constructor(path: string, lastStep: number) {
    this.#file = openSync(path, "a+");
    ftruncateSync(this.#file, bytesUpTo(readFileSync(path), lastStep));
  }

  append(metrics: Metrics): void {
    writeSync(this.#file, `${JSON.stringify(metrics)}\n`);
  }

  /** Brings the lines to the disk: before a checkpoint that counts on them. */
  sync(): void {
    fsyncSync(this.#file);
  }

  close(): void {
    closeSync(this.#file);
  }
}

/** All logged steps. A half-written last line, as in a run that is under way, is left out. */
export function readMetrics(path: string): Metrics[] {
  const text = readFileSync(path, "utf8");
  const lines = text.slice(0, text.lastIndexOf("\n") + 1).split("\n");
  return lines.filter((line) => line !== "").map((line) => JSON.parse(line) as Metrics);
}

/** Length of the leading lines whose step is at most `lastStep`. */
function bytesUpTo(file: Buffer, lastStep: number): number {
  for (let start = 0; ; ) {
    const end = file.indexOf("\n", start);
    if (end < 0 || !(stepOf(file.toString("utf8", start, end)) <= lastStep)) return start;
    start = end + 1;
  }
}

function stepOf(line: string): number {
  try {
    return (JSON.parse(line) as Metrics).step;
  } catch {
    return Number.NaN; // a line that a power cut has left half on the disk
  }
}
