// The run folder: config.json (what must not change when a run is resumed), run.json (who ran it with what, and how it
// ended), metrics.jsonl and checkpoints/. Every file is whole at any moment, so a run survives being killed. Training loops
// are in the recipes; one process at a time may have a run open.

import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { isThere } from "../data/regular_file.ts";
import { replaceFile } from "../engine/atomic.ts";
import { load } from "../engine/checkpoint.ts";
import type { Parameter } from "../engine/index.ts";
import {
  type Checkpoint,
  checkpointAt,
  type Json,
  type Keep,
  latestCheckpoint,
  removeLeftovers,
  stepsIn,
  writeCheckpoint,
} from "./checkpoints.ts";
import { type Environment, environment } from "./environment.ts";
import { type Metrics, MetricsFile } from "./metrics.ts";

export type Config = Readonly<Record<string, Json>>;

export interface RunOptions {
  /** All that determines the result: recipe, preset, seed, steps, batch, data fingerprint. */
  readonly config: Config;
  readonly resume: boolean;
  /** Name of the adapter, for the record: other adapters give other bits. */
  readonly adapter: string;
  /** Checkpoints to keep (default 2). */
  readonly keep?: number;
  /** Checkpoints at multiples of this many steps stay too. */
  readonly keepEvery?: number;
  /** Told what a user should know about a resumed run, e.g. a damaged checkpoint that was passed over. */
  readonly notice?: (text: string) => void;
}

/** One process's share of a run. */
interface Session extends Environment {
  readonly started: string;
  readonly fromStep: number;
  readonly adapter: string;
}

/** run.json */
export interface RunRecord {
  readonly sessions: readonly Session[];
  /** Absent while the run is unfinished. */
  readonly finished?: { readonly at: string; readonly step: number; readonly sha256: string; readonly results: Json };
}

const CONFIG = "config.json";
const RECORD = "run.json";
export const METRICS = "metrics.jsonl";
const CHECKPOINTS = "checkpoints";

/** An open run. */
export class Run {
  readonly dir: string;
  /** The checkpoint that this run goes on from; null for a run that starts at step 0. */
  readonly resumed: Checkpoint | null;
  readonly #keep: Keep;
  readonly #metrics: MetricsFile;
  #record: RunRecord;

  /** Use `openRun`. */
  constructor(dir: string, record: RunRecord, resumed: Checkpoint | null, keep: Keep) {
    this.dir = dir;
    this.resumed = resumed;
    this.#record = record;
    this.#keep = keep;
    this.#metrics = new MetricsFile(join(dir, METRICS), resumed?.step ?? 0);
  }

  /** Optimiser steps that were done when the run was opened. */
  get step(): number {
    return this.resumed?.step ?? 0;
  }

  /**
   * Loads the checkpoint that the run goes on from and returns what was kept beside it; null at step 0.
   * @throws LoadError when it does not fit `into`
   */
  async restore(into: ReadonlyMap<string, Parameter>): Promise<Json> {
    if (!this.resumed) return null;
    await load(this.resumed.path, into);
    return this.resumed.extra;
  }

  /** Appends a line to metrics.jsonl. Log a step before saving it: a resumed run cuts off what comes after the save. */
  log(metrics: Metrics): void {
    this.#metrics.append(metrics);
  }

  /** Saves a checkpoint of `step` steps, atomically, and deletes old ones. Run no step that assigns until it is done. */
  async save(step: number, state: ReadonlyMap<string, Parameter>, extra: Json = null): Promise<Checkpoint> {
    this.#metrics.sync();
    return writeCheckpoint(join(this.dir, CHECKPOINTS), step, state, extra, this.#keep);
  }

  /** Records how the run ended; `last` is its final checkpoint. */
  async finish(last: Checkpoint, results: Json = null): Promise<void> {
    const finished = { at: new Date().toISOString(), step: last.step, sha256: last.sha256, results };
    this.#record = { ...this.#record, finished };
    await writeJson(join(this.dir, RECORD), this.#record);
  }

  close(): void {
    this.#metrics.close();
  }
}

/** Throws the system's error where `dir` may not be looked into. */
export function holdsRun(dir: string): boolean {
  return isThere(join(dir, CONFIG));
}

/**
 * What `openRun` asks of the folder first. Commands call it before the data is decoded, which can take hours.
 * @throws Error when a run is there and `resume` is false, or when none is there and it is true
 */
export function checkResume(dir: string, resume: boolean): void {
  if (holdsRun(dir) === resume) return;
  if (resume) throw new Error(`${dir} holds no run to resume (no ${CONFIG}): start one without --resume`);
  throw new Error(`${dir} holds a run already: go on with it by --resume, or give another folder`);
}

/**
 * Starts a run in `dir`, or goes on with the one that is there.
 * @throws Error when a run is there and `resume` is false, when none is there and it is true, or when the configs differ
 */
export async function openRun(dir: string, options: RunOptions): Promise<Run> {
  const { resume, adapter, keep = 2, keepEvery, notice = () => {} } = options;
  const config = plain(options.config);
  checkResume(dir, resume);
  const exists = holdsRun(dir);
  const checkpoints = join(dir, CHECKPOINTS);
  await mkdir(checkpoints, { recursive: true });
  if (exists) checkConfig(dir, await readJson<Config>(dir, CONFIG), config);
  await removeLeftovers(checkpoints);
  const damaged = (path: string) => notice(`${path} is incomplete or damaged: passed over`);
  const resumed = exists ? await latestCheckpoint(checkpoints, damaged) : null;
  if (exists && !resumed) notice(`${dir} has no complete checkpoint: starting from step 0`);
  const before = exists ? (await readJson<RunRecord>(dir, RECORD)).sessions : [];
  const started = new Date().toISOString();
  const session: Session = { started, fromStep: resumed?.step ?? 0, adapter, ...environment() };
  const record: RunRecord = { sessions: [...before, session] };
  if (before.length > 0 && before[before.length - 1].adapter !== adapter) {
    notice(
      `begun on ${before[before.length - 1].adapter}, going on with ${adapter}: the result will differ in last bits`,
    );
  }
  await writeJson(join(dir, RECORD), record);
  if (!exists) await writeJson(join(dir, CONFIG), config); // last: from here on the folder is a run
  return new Run(dir, record, resumed, { newest: keep, every: keepEvery });
}

/** What a finished or interrupted run has left, for those who use its model. */
export interface StoredRun {
  readonly config: Config;
  readonly record: RunRecord;
  readonly checkpoint: Checkpoint;
}

/**
 * With the newest checkpoint, or that of `step`.
 * @throws Error when `dir` holds no run, or one without a complete checkpoint, or none of that step
 */
export async function readRun(dir: string, step?: number): Promise<StoredRun> {
  if (!holdsRun(dir)) throw new Error(`${dir} holds no run (no ${CONFIG}): train one first`);
  const folder = join(dir, CHECKPOINTS);
  const checkpoint = step === undefined ? await latestCheckpoint(folder) : await checkpointAt(folder, step);
  if (!checkpoint && step !== undefined) {
    const kept = (await stepsIn(folder)).join(", ");
    throw new Error(`${dir} has no complete checkpoint of step ${step}${kept ? `, only of ${kept}` : ""}`);
  }
  if (!checkpoint) throw new Error(`${dir} has no complete checkpoint yet: train it further with --resume`);
  return { config: await readJson(dir, CONFIG), record: await readJson(dir, RECORD), checkpoint };
}

/** As it reads back from a file: without fields that are undefined. */
function plain(config: Config): Config {
  return JSON.parse(JSON.stringify(config)) as Config;
}

async function writeJson(path: string, value: object): Promise<void> {
  await replaceFile(path, (file) => file.writeFile(`${JSON.stringify(value, null, 2)}\n`));
}

async function readJson<T>(dir: string, name: string): Promise<T> {
  const path = join(dir, name);
  try {
    return JSON.parse(await readFile(path, "utf8")) as T;
  } catch (error) {
    throw new Error(`${path}: ${(error as Error).message}`);
  }
}

function checkConfig(dir: string, old: Config, now: Config): void {
  const found = differences(old, now, "");
  if (found.length === 0) return;
  throw new Error(`${dir} was started with another configuration, so it cannot be resumed:\n  ${found.join("\n  ")}`);
}

/** Each leaf that differs, as "model.width: 64 in the run, 32 now". */
function differences(old: Json | undefined, now: Json | undefined, path: string): string[] {
  if (isObject(old) && isObject(now)) {
    const keys = new Set([...Object.keys(old), ...Object.keys(now)]);
    return [...keys].flatMap((key) => differences(old[key], now[key], path === "" ? key : `${path}.${key}`));
  }
  const [a, b] = [old, now].map((value) => (value === undefined ? "absent" : JSON.stringify(value)));
  return a === b ? [] : [`${path}: ${a} in the run, ${b} now`];
}

function isObject(value: Json | undefined): value is { readonly [key: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
