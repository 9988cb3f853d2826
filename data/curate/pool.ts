// Decoding in processes of its own: sticker files come from anywhere, and one that hangs a decoder, or makes it take all the
// memory, costs its process and is rejected, while the stage goes on. Also what uses all cores. worker.ts is the other side.

import { type ChildProcess, fork } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

export interface PoolOptions {
  readonly processes: number;
  /** A file that takes longer is given up. */
  readonly seconds?: number;
}

/** worker.ts as cli/build.mjs bundles it. */
const WORKER = fileURLToPath(new URL("../../dist/curate_worker.js", import.meta.url));

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

/** A fixed number of processes that answer one request at a time each. */
export class Pool {
  readonly #options: PoolOptions;
  readonly #idle: ChildProcess[] = [];
  readonly #all = new Set<ChildProcess>();
  readonly #waiting: Job[] = [];
  #peak = 0;

  /** The most bytes of memory that any process has had resident by its latest answer. */
  get peakBytes(): number {
    return this.#peak;
  }

  constructor(options: PoolOptions) {
    if (!existsSync(WORKER)) throw new Error(`${WORKER} is missing: run "npx gifgrad --version", which builds it`);
    this.#options = options;
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
      [...this.#all].map(
        (child) =>
          new Promise<void>((resolve) => {
            child.once("exit", () => resolve());
            child.kill("SIGKILL");
          }),
      ),
    );
  }

  #next(): void {
    const job = this.#waiting[0];
    if (!job) return;
    const child = this.#idle.pop() ?? (this.#all.size < this.#options.processes ? this.#start() : undefined);
    if (!child) return;
    this.#waiting.shift();
    this.#give(child, job);
  }

  #start(): ChildProcess {
    const child = fork(WORKER, [], {
      execArgv: [`--max-old-space-size=${HEAP}`],
      serialization: "advanced",
      stdio: ["ignore", "ignore", "ignore", "ipc"],
    });
    this.#all.add(child);
    child.once("exit", () => this.#all.delete(child));
    return child;
  }

  #give(child: ChildProcess, { request, resolve, reject }: Job): void {
    const seconds = this.#options.seconds ?? 20;
    const end = (): void => {
      clearTimeout(timer);
      child.off("message", answered);
      child.off("exit", died);
      this.#next();
    };
    const answered = (message: unknown): void => {
      const { answer, error, peakBytes } = message as Answer;
      this.#peak = Math.max(this.#peak, peakBytes);
      this.#idle.push(child);
      end();
      if (error === undefined) resolve(answer);
      else reject(new Error(error));
    };
    const died = (_: number | null, signal: string | null): void => {
      this.#all.delete(child);
      end();
      reject(
        new WorkerFailure(late ? `not decoded within ${seconds} s` : `the decoder died of it (${signal ?? "exit"})`),
      );
    };
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.kill("SIGKILL");
    }, seconds * 1000);
    child.once("message", answered);
    child.once("exit", died);
    child.send(request);
  }
}
