// `npm run check:deep -- --cases 500000`: the laws of `npm test` with a long budget and random seeds. See test/README.md.

import { Command, InvalidArgumentError } from "commander";
import { type Device, openDevice } from "../../engine/device.ts";
import { closeOthers } from "../../engine/testing/laws.ts";
import { failuresOf, progress, summary } from "./report.ts";
import { runDeep } from "./run.ts";
import { newState, readState, type State } from "./state.ts";
import { atLeast, keyOf, suite } from "./suite.ts";

interface Options {
  readonly cases?: number;
  readonly seed?: number;
  readonly only: string;
  readonly state: string;
  readonly fresh: boolean;
  readonly resume: boolean;
  readonly host: boolean;
}

/** Batches on one device: afterwards it is opened anew, because it keeps every pipeline that it has made. */
const DEVICE_BATCHES = 300;

function whole(text: string): number {
  const n = Number(text);
  if (!Number.isInteger(n) || n < 0) throw new InvalidArgumentError("expected a whole number");
  return n;
}

function parse(argv: readonly string[]): Options {
  return new Command("check:deep")
    .description(
      "Check every op, kernel and law on random cases, for as long as it takes. Ctrl-C stops; the same command goes on.",
    )
    .option("--cases <n>", "cases of all checks together (20,000, or those of the run that is resumed)", whole)
    .option("--seed <n>", "of all cases; random when absent, and printed", whole)
    .option("--only <text>", 'checks whose name contains it: "op softmax", "kernel", "gradient"', "")
    .option("--state <file>", "where the run is kept", process.env.DEEP_STATE ?? ".cache/deep/state.json")
    .option("--fresh", "start over although an unfinished run is there", false)
    .option("--resume", "go on with the run that is there, and say so when there is none", false)
    .option("--host", "without an adapter: only what runs on the host", false)
    .parse(argv, { from: "user" })
    .opts<Options>();
}

/** The run to go on with, or a new one. An unfinished run of the same kind is resumed without being asked to. */
function stateFor({ cases, seed, only, state: path, fresh, resume }: Options): State {
  const found = fresh ? null : readState(path);
  const same = found && (seed ?? found.seed) === found.seed && (resume || found.only === only);
  if (resume && !same) throw new Error(`there is no run to resume in ${path}${found ? ` with seed ${seed}` : ""}`);
  if (same && (!found.finished || (cases ?? 0) > found.cases)) {
    console.log(`Going on with the run in ${path} (--fresh starts over).`);
    return { ...found, cases: cases ?? found.cases, finished: false };
  }
  return newState(seed ?? Math.floor(Math.random() * 2 ** 31), cases ?? 20_000, only);
}

async function main(argv: readonly string[]): Promise<number> {
  const options = parse(argv);
  const state = stateFor(options);
  const gpu = options.host ? null : new Reopened();
  const name = await gpu?.open();
  const here = { host: true, dawn: !options.host, gpu: name !== undefined };
  const checks = suite().filter((c) => keyOf(c).includes(state.only) && here[c.needs]);
  if (checks.length === 0) throw new Error(`no check contains "${state.only}"`);
  console.log(`${checks.length} checks, seed ${state.seed}, ${name ?? "no device: only what runs on the host"}`);
  const least = atLeast(checks, state.cases);
  if (least) console.log(least);
  let stopping = false;
  process.once("SIGINT", () => {
    stopping = true;
    console.log("\nStopping after this batch; the same command goes on. Once more to stop at once.");
    process.once("SIGINT", () => process.exit(130));
  });
  const show = printer(state);
  const finished = await runDeep({
    checks,
    state,
    path: options.state,
    stop: () => stopping,
    onBatch: (check, done, total) => show(done, total, keyOf(check)),
    onDevice: async () => gpu?.next(),
  });
  await gpu?.close();
  console.log(`\n${summary(state)}`);
  return failuresOf(state) > 0 ? 1 : finished ? 0 : 130;
}

/** The GPU device of the run, opened anew from time to time. */
class Reopened {
  #device: Device | null = null;
  #batches = 0;

  /** Its name, or undefined where there is no adapter. */
  async open(): Promise<string | undefined> {
    this.#device = await openDevice({ device: "gpu" }).catch((e: Error) => {
      console.log(`${e.message}`);
      return null;
    });
    return this.#device?.name;
  }

  async next(): Promise<void> {
    if (++this.#batches % DEVICE_BATCHES !== 0) return;
    await this.close();
    await this.open();
  }

  async close(): Promise<void> {
    if (this.#device) await closeOthers(this.#device);
    this.#device?.close();
    this.#device = null;
  }
}

/** Prints where the run is: over itself in a terminal, now and then in a log. */
function printer(state: State): (done: number, total: number, what: string) => void {
  const started = Date.now();
  let [before, last] = [-1, 0];
  return (done, total, what) => {
    if (before < 0) before = done;
    const tty = process.stdout.isTTY;
    if (Date.now() - last < (tty ? 200 : 20_000)) return;
    last = Date.now();
    const rate = (done - before) / Math.max(1, (Date.now() - started) / 1000);
    const line = progress(state, done, total, rate, what);
    if (tty) process.stdout.write(`\r\x1b[2K${line.slice(0, (process.stdout.columns ?? 120) - 1)}`);
    else console.log(line);
  };
}

process.exitCode = await main(process.argv.slice(2)).catch((e: Error) => {
  console.error(e.message);
  return 2;
});
