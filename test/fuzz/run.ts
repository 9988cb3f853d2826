// The cases of a fuzz run through the processes that decode stickers for a data set (data/curate/pool.ts), and through `collect`
// where they are archives. What must hold: every file is decoded or refused with a reason, no process dies or hangs, none takes
// more memory than LIMIT, and nothing is written outside of the data set. Called by main.ts and fuzz.test.ts.

import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { createCollection } from "../../data/curate/collection.ts";
import { parseConfig } from "../../data/curate/config.ts";
import type { Measures } from "../../data/curate/measure.ts";
import { Pool, WorkerFailure } from "../../data/curate/pool.ts";
import { runStage, type Stage } from "../../data/curate/stage.ts";
import { collect } from "../../data/curate/stages/collect.ts";
import { type Case, fuzzCase } from "./mutate.ts";
import { hostileTar, type Seed, seeds } from "./seeds.ts";

/** Bytes that a decoding process may have resident at its peak. */
export const LIMIT = 512e6;

/** A file may take this long; on an idle core the worst takes a few seconds. */
const SECONDS = 60;

/** Messages of the language about itself: a reason that names one of these is a mistake of ours and no reason. */
const OURS =
  /Cannot read|is not a function|is not iterable|undefined|Invalid (typed )?array|allocation failed|outside the bounds/;

export interface Failure {
  readonly case: string;
  readonly what: string;
}

export interface Report {
  readonly cases: number;
  readonly decoded: number;
  /** Reason, with its numbers taken out -> how often. */
  readonly rejected: ReadonlyMap<string, number>;
  readonly failures: readonly Failure[];
  readonly peakBytes: number;
}

/** What decides a case: normally a process of the pool. Replaced where a test plants a bug. */
export interface Decoder {
  run(path: string): Promise<Measures>;
  readonly peakBytes: number;
  close(): Promise<void>;
}

export function poolDecoder(processes: number): Decoder {
  const pool = new Pool({ processes, seconds: SECONDS });
  return {
    run: (path) => pool.run<Measures>({ task: "measure", path }),
    get peakBytes() {
      return pool.peakBytes;
    },
    close: () => pool.close(),
  };
}

export interface FuzzOptions {
  readonly seed: number;
  readonly from: number;
  readonly cases: number;
  /** Where files are put; removed at the end. */
  readonly dir: string;
  readonly decoder: Decoder;
  /** Files in hand at a time. */
  readonly parallel: number;
  readonly onProgress?: (done: number) => void;
}

export async function fuzz({ seed, from, cases, dir, decoder, parallel, onProgress }: FuzzOptions): Promise<Report> {
  const all = await seeds();
  const folder = await mkdtemp(join(dir, "fuzz-"));
  const [failures, rejected] = [[] as Failure[], new Map<string, number>()];
  let [decoded, done, next, peak] = [0, 0, from, 0];

  const one = async ({ name, how, bytes }: Case): Promise<void> => {
    const path = join(folder, name);
    await writeFile(path, bytes);
    const fail = (what: string): void => void failures.push({ case: `${name} (${how})`, what });
    try {
      const measures = await decoder.run(path);
      decoded++;
      const wrong = faultOf(measures);
      if (wrong) fail(wrong);
    } catch (error) {
      const { message } = error as Error;
      if (error instanceof WorkerFailure || message === "" || OURS.test(message)) fail(message || "no reason");
      const reason = message
        .replace(/\s+/g, " ")
        .replace(/0x[\da-f]+|\d+/g, "N")
        .slice(0, 70);
      rejected.set(reason, (rejected.get(reason) ?? 0) + 1);
    }
    if (decoder.peakBytes > Math.max(LIMIT, peak)) fail(`a process has had ${Math.round(decoder.peakBytes / 1e6)} MB`);
    peak = decoder.peakBytes;
    await rm(path);
    onProgress?.(++done);
  };

  try {
    const lane = async (): Promise<void> => {
      while (next < from + cases) await one(fuzzCase(all, seed, next++));
    };
    await Promise.all(Array.from({ length: parallel }, lane));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return { cases, decoded, rejected, failures, peakBytes: peak };
}

/** What measures of a decoded file cannot be. */
function faultOf({ width, height, frames, duration_ms, aspect, entropy, motion, phash }: Measures): string | null {
  const whole = [width, height, frames].every((n) => Number.isInteger(n) && n >= 1);
  const finite = [duration_ms, aspect, entropy, motion].every((n) => Number.isFinite(n) && n >= 0);
  if (whole && finite && /^[\da-f]{64}$/.test(phash)) return null;
  return `measured ${JSON.stringify({ width, height, frames, duration_ms, aspect, entropy, motion, phash })}`;
}

/**
 * Archives: `cases` damaged copies of one whose members want to be elsewhere, each collected into a data set of its own.
 * Returns what went wrong: files that appeared anywhere but in the data set, and errors that are not "is damaged".
 */
export async function fuzzArchives(seed: number, cases: number, dir: string): Promise<Failure[]> {
  const root = await mkdtemp(join(dir, "fuzz-archives-"));
  const failures: Failure[] = [];
  try {
    const outside = join(root, "outside");
    const here = join(root, "a", "b"); // two folders deep, so that ../.. is still seen
    await mkdir(outside);
    await mkdir(here, { recursive: true });
    const stickers = await seeds();
    const tar = await hostileTar(outside, stickers[0].bytes);
    const archive: readonly Seed[] = [{ format: "gif", bytes: tar }];
    for (let i = 0; i < cases; i++) {
      const { bytes, how } = i === 0 ? { bytes: tar, how: "whole" } : fuzzCase(archive, seed, i);
      await writeFile(join(here, "x.tar"), bytes);
      const sources = [{ type: "archive", name: "x", path: "x.tar" }];
      const set = await createCollection(join(here, "set"), parseConfig({ sources }, "fuzz", here));
      await runStage(set, collect as unknown as Stage).catch((error: Error) => {
        if (!/is damaged/.test(error.message)) failures.push({ case: `archive ${i} (${how})`, what: error.message });
      });
      for (const path of await strays(root, join("a", "b")))
        failures.push({ case: `archive ${i} (${how})`, what: `wrote ${path}` });
      await rm(join(here, "set"), { recursive: true, force: true });
    }
  } finally {
    await rm(root, { recursive: true, force: true });
  }
  return failures;
}

/** Files below `root` that are neither the archive nor in the places of a data set in `here`. */
export async function strays(root: string, here: string): Promise<string[]> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true });
  const own = /^(x\.tar|set\/(dataset\.json|(journal|annotations)\/.*|media\/[\da-f]{2}\/[\da-f]{64}\.\w+))$/;
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .filter((path) => !own.test(relative(here, path)));
}
