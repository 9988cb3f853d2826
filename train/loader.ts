// The batches of a training loop, read ahead: while the device works on one step, the disk and this thread prepare the
// next ones. A batch is a function of its step alone, so a run has the same ones whether they are read ahead or not,
// and a resumed run needs no state of it. Used by the recipes.

import type { Dataset } from "../data/store.ts";

/**
 * Batches that are prepared before they are asked for: one in use of the next step, one against a disk that hesitates.
 */
const AHEAD = 2;

export interface LoaderOptions<B> {
  /** The batch of a step. */
  read(step: number): B | Promise<B>;
  /** The first step, and the one after the last: none is read beyond it. */
  readonly from: number;
  readonly to: number;
  /** Batches to read ahead (default 2); 0: each is read when it is asked for. */
  readonly ahead?: number;
  /** Milliseconds, only differences count. */
  readonly clock?: () => number;
}

/** Gives the batches of steps `from`, `from + 1`, ... one after another. */
export class Loader<B> {
  readonly #o: LoaderOptions<B>;
  readonly #now: () => number;
  readonly #reading = new Map<number, Promise<B>>();
  #step: number;
  #stall = 0;

  constructor(o: LoaderOptions<B>) {
    this.#o = o;
    this.#now = o.clock ?? (() => performance.now());
    this.#step = o.from;
  }

  /** Milliseconds that the latest `next` kept the loop waiting: 0 where the data was ready before the device was. */
  get stall(): number {
    return this.#stall;
  }

  /** The batch of the next step. Throws what reading it threw. */
  async next(): Promise<B> {
    const step = this.#step++;
    const asked = this.#now();
    const batch = await this.#read(step);
    this.#reading.delete(step);
    this.#stall = Math.round(1000 * (this.#now() - asked)) / 1000;
    // Not at once: the loop hands this batch to the device first.
    setImmediate(() => this.#readAhead());
    return batch;
  }

  /** Reads nothing more, and waits for what is being read: only then may files be closed. */
  async close(): Promise<void> {
    this.#step = this.#o.to;
    await Promise.allSettled(this.#reading.values());
  }

  #readAhead(): void {
    const end = Math.min(this.#o.to, this.#step + (this.#o.ahead ?? AHEAD));
    for (let step = this.#step; step < end; step++) this.#read(step);
  }

  #read(step: number): Promise<B> {
    const begun = this.#reading.get(step) ?? Promise.resolve(step).then((k) => this.#o.read(k));
    begun.catch(() => {}); // told by `next`, should the loop come so far
    this.#reading.set(step, begun);
    return begun;
  }
}

/**
 * All clips of a data set in their order, `each` at a time, for the networks that see every clip once. The last chunk
 * is filled up with the last record, so that there is one shape and one program.
 */
export function chunksOf(data: Dataset, each: number): Loader<Float32Array> {
  const records = (chunk: number): number[] =>
    Array.from({ length: each }, (_, j) => Math.min(chunk * each + j, data.length - 1));
  return new Loader({ read: (chunk) => data.batch(records(chunk)), from: 0, to: Math.ceil(data.length / each) });
}
