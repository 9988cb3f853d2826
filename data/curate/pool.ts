// Decoding in processes of its own: sticker files come from anywhere, and one that hangs a decoder, or makes it take all the
// memory, costs its process and is rejected, while the stage goes on. Also what uses all cores. worker.ts is the other side.

import { type ChildProcess, fork } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

export interface PoolOptions {
  readonly processes: number;
  /** A file that takes longer is given up. */
  readonly seconds?: number;
  /** The program of a process. Another one where a test wants processes that die. */
  readonly worker?: string;
}

/** worker.ts as cli/build.mjs bundles it. */
const WORKER = fileURLToPath(new URL("../../dist/curate_worker.js", import.meta.url));

/** Requests that a process has: that in hand, and the one it goes on to at once. */
const DEPTH = 2;

/** Megabytes of JavaScript heap of a worker; pixels are outside of it and bounded by decode/limits.ts. */
const HEAP = 256;

/** What worker.ts sends back: an answer or the reason why there is none. */
export interface Answer {
  readonly answer?: unknown;
  readonly error?: string;
  readonly peakBytes: number;
}

interface Job {
  readonly request: object;
  readonly resolve: (answer: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** A file was too much for its process: it hung, ran out of memory or crashed. */
export class WorkerFailure extends Error {
  override readonly name = "WorkerFailure";
}

interface Worker {
  readonly process: ChildProcess;
  /** What it has been given, in the order in which it answers: the first is in hand. */
  readonly jobs: Job[];
  /** Ends a process whose job in hand takes too long. */
  timer?: NodeJS.Timeout;
  late: boolean;
}

/** A fixed number of processes that work on one request at a time each. */
export class Pool {
  readonly #processes: number;
  readonly #seconds: number;
  readonly #program: string;
  readonly #workers = new Set<Worker>();
  readonly #waiting: Job[] = [];
  #peak = 0;

  /** The most bytes of memory that any process has had resident by its latest answer. */
  get peakBytes(): number {
    return this.#peak;
  }

  constructor({ processes, seconds = 20, worker = WORKER }: PoolOptions) {
    if (!existsSync(worker)) throw new Error(`${worker} is missing: run "npx gifgrad --version", which builds it`);
    [this.#processes, this.#seconds, this.#program] = [processes, seconds, worker];
  }

  /** @throws WorkerFailure when the process does not answer; Error with the worker's message when the request fails */
  run<Answer>(request: object): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ request, resolve: resolve as (answer: unknown) => void, reject });
      this.#next();
    });
  }

  async close(): Promise<void> {
    await Promise.all(
      [...this.#workers].map(
        ({ process }) =>
          new Promise<void>((resolve) => {
            process.once("exit", () => resolve());
            process.kill("SIGKILL");
          }),
      ),
    );
  }

  #next(): void {
    while (this.#waiting.length > 0) {
      const worker = this.#free();
      if (!worker) return;
      const job = this.#waiting.shift() as Job;
      worker.jobs.push(job);
      if (worker.jobs.length === 1) this.#watch(worker);
      worker.process.send(job.request, () => {}); // of one that cannot be told, the end is told by #died
    }
  }

  /** That which has least to do, unless another may be started, if it takes one more. */
  #free(): Worker | undefined {
    const [least] = [...this.#workers].sort((a, b) => a.jobs.length - b.jobs.length);
    if (least?.jobs.length !== 0 && this.#workers.size < this.#processes) return this.#start();
    return least && least.jobs.length < DEPTH ? least : undefined;
  }

  #start(): Worker {
    const process = fork(this.#program, [], {
      execArgv: [`--max-old-space-size=${HEAP}`],
      serialization: "advanced",
      stdio: ["ignore", "ignore", "ignore", "ipc"],
    });
    const worker: Worker = { process, jobs: [], late: false };
    this.#workers.add(worker);
    process.on("message", (message) => this.#answered(worker, message as Answer));
    // What it has answered before it died is still read: whom its death is charged to follows from that.
    const read = new Promise((resolve) => process.once("disconnect", resolve));
    process.once("exit", (_, signal) => {
      this.#workers.delete(worker);
      read.then(() => this.#died(worker, signal));
    });
    return worker;
  }

  #watch(worker: Worker): void {
    worker.timer = setTimeout(() => {
      worker.late = true;
      worker.process.kill("SIGKILL");
    }, this.#seconds * 1000);
  }

  #answered(worker: Worker, { answer, error, peakBytes }: Answer): void {
    clearTimeout(worker.timer);
    this.#peak = Math.max(this.#peak, peakBytes);
    const job = worker.jobs.shift();
    if (worker.jobs.length > 0) this.#watch(worker);
    if (error === undefined) job?.resolve(answer);
    else job?.reject(new Error(error));
    this.#next();
  }

  /** The job in hand has cost the process; what was waiting behind it goes to another. */
  #died({ jobs, timer, late }: Worker, signal: string | null): void {
    clearTimeout(timer);
    const [cause, ...others] = jobs;
    this.#waiting.unshift(...others);
    const what = late ? `not decoded within ${this.#seconds} s` : `the decoder died of it (${signal ?? "exit"})`;
    cause?.reject(new WorkerFailure(what));
    this.#next();
  }
}
