// The stickers and networks of a benchmark: starter sets drawn into its folder, test sets as clips with their captions, the check
// that no test sticker is trained on, and networks to score with where none are published. Called by benchmark.ts.

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { CLIP_FRAMES } from "../data/frames.ts";
import { DEFAULT_DOMAIN, type StickerRecord } from "../data/record.ts";
import { ACTION_IDS, type ActionId, writeStarter } from "../data/starter/index.ts";
import { METADATA, openDataset, readMetadata } from "../data/store.ts";
import { ofDomain } from "../data/subset.ts";
import { replaceFile } from "../engine/atomic.ts";
import type { BenchmarkConfig, SourceConfig } from "../eval/benchmark/config.ts";
import { type PlannedSet, TESTS } from "../eval/benchmark/plan.ts";
import { TEST_NAMES, type TestName } from "../eval/benchmark/result.ts";
import { type Clips, clipGif, clipsAt, openClips } from "../eval/clips.ts";
import { holdsOwn } from "../eval/own_weights.ts";
import { progress } from "../train/progress.ts";
import { trainNetworks } from "./eval.ts";
import { openScorers, type Scorers } from "./eval_weights.ts";

/** What all parts of a benchmark are told. */
export interface Bench {
  readonly config: BenchmarkConfig;
  /** Its folder. */
  readonly out: string;
  /** Pixels a side of all stickers. */
  readonly size: number;
}

/** Names what is determined by `parts`: the same parts, the same name; a folder of that name can be gone on with. */
export function shortHash(...parts: unknown[]): string {
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 10);
}

/**
 * Reads back what an earlier session of the benchmark has written.
 * @throws Error naming a file that is damaged, and what to do
 */
export async function readRecord<T>(path: string): Promise<T> {
  const text = await readFile(path, "utf8");
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null) return value as T;
    throw new Error("it holds no record");
  } catch (error) {
    throw new Error(`${path} is damaged (${reasonOf(error)}): remove it and give the same command again`, {
      cause: error,
    });
  }
}

/** An error in one line. */
export function reasonOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replace(/\s+/g, " ").trim();
}

/** Smallest side that starter stickers are drawn at: they are made smaller as any others are. */
const DRAWN = 64;

/** The folder of a source; a starter set is drawn where it is not there yet, by default of `domain` alone. */
export async function stickersOf(
  source: SourceConfig,
  { out, size }: Bench,
  domain?: "Real" | "Cartoon",
): Promise<string> {
  if ("folder" in source) return source.folder;
  const { count, seed, domains = domain && [domain], plain, subjects, actions } = source.starter;
  const unknown = actions?.find((action) => !(ACTION_IDS as readonly string[]).includes(action));
  if (unknown !== undefined) throw new Error(`starter set: there is no action "${unknown}"; there are ${ACTION_IDS}`);
  const options = {
    ...{ count, seed, plain, size: Math.max(DRAWN, size) },
    ...(domains && { domains }),
    only: { subjects, actions: actions as ActionId[] | undefined },
  };
  const dir = join(out, "sets", `starter-${count}-${shortHash(options)}`);
  if (existsSync(join(dir, METADATA))) return dir; // written last
  const line = progress("starter", count);
  await mkdir(join(out, "sets"), { recursive: true });
  await writeStarter(dir, { ...options, onProgress: (done) => line.update(done) });
  line.done(`stickers in ${dir}`);
  return dir;
}

/** A set to train on: its folder, and which of its stickers. */
export interface OpenSet {
  readonly dir: string;
  readonly domain: PlannedSet["domain"];
  readonly stickers: number;
  readonly fingerprint: string;
}

/** Decodes it, where that has not been done. */
export async function openSet({ source, domain }: PlannedSet, bench: Bench): Promise<OpenSet> {
  const dir = await stickersOf(source, bench);
  const all = await openDataset(dir, { size: bench.size, frames: CLIP_FRAMES });
  try {
    const { length, fingerprint } = domain ? ofDomain(all, domain) : all;
    return { dir, domain, stickers: length, fingerprint };
  } finally {
    all.close();
  }
}

export interface OpenTest {
  readonly name: TestName;
  readonly domain: "Real" | "Cartoon";
  /** The stickers of the test set, as all stickers are scored; `records` are those of the same places. */
  readonly clips: Clips;
  readonly records: readonly StickerRecord[];
}

/** The test sets that are configured. */
export async function openTests(bench: Bench): Promise<OpenTest[]> {
  const tests: OpenTest[] = [];
  for (const name of TEST_NAMES) {
    const source = bench.config.test[name];
    if (source) tests.push(await openTest(name, source, bench));
  }
  return tests;
}

async function openTest(name: TestName, source: SourceConfig, bench: Bench): Promise<OpenTest> {
  const { domain } = TESTS[name];
  const dir = await stickersOf(source, bench, domain);
  const { records } = await readMetadata(dir);
  const all = await openClips(dir, { size: bench.size });
  for (const { file_name, reason } of all.rejected) console.error(`${dir}: ${file_name} is left out: ${reason}`);
  const byFile = new Map([...records].reverse().map((record) => [record.file_name, record]));
  const listed = all.names.map((file) => byFile.get(file) as StickerRecord);
  const places = listed.flatMap((record, i) => ((record.domain ?? DEFAULT_DOMAIN) === domain ? [i] : []));
  if (places.length === 0) {
    all.close();
    throw new Error(`test.${name}: none of the ${all.length} stickers of ${dir} is of the domain ${domain}`);
  }
  const clips = places.length === all.length ? all : clipsAt(all, places);
  return { name, domain, clips, records: places.map((i) => listed[i]) };
}

/**
 * Makes sure that no test sticker is a file that systems are trained on.
 * @throws Error naming the first one that is, and where
 */
export async function checkHeldOut(tests: readonly OpenTest[], trained: readonly string[]): Promise<void> {
  const hashOf = async (path: string): Promise<string> =>
    createHash("sha256")
      .update(await readFile(path))
      .digest("hex");
  const held = new Map<number, Map<string, string>>(); // bytes -> hash -> file: only files of one length are compared
  for (const { clips } of tests)
    for (const name of clips.names) {
      const path = join(clips.dir, name);
      const { size } = await stat(path);
      held.set(size, (held.get(size) ?? new Map<string, string>()).set(await hashOf(path), path));
    }
  for (const dir of trained)
    for (const { file_name } of (await readMetadata(dir)).records) {
      const path = join(dir, file_name);
      const { size } = await stat(path).catch(() => ({ size: -1 })); // one that cannot be read is not trained on
      const same = held.has(size) && held.get(size)?.get(await hashOf(path));
      if (same)
        throw new Error(`${same} is a test sticker and is trained on, as ${path}: take it out of one of the two sets`);
    }
}

/**
 * The networks to score with. Those that the configuration wants trained are trained once, on all of `training`.
 * @throws Error where one cannot be used, or a folder has none for any of the metrics: now, and not when all is trained
 */
export async function openBenchmarkScorers(bench: Bench): Promise<Scorers> {
  const { config, size } = bench;
  const { metrics, weights, seed } = config;
  const dir = "folder" in weights ? weights.folder : await ownWeights(bench, weights.train);
  const rest = { generated: [], real: "", batch: 4, json: false } as const;
  const scorers = await openScorers({
    ...rest,
    generated: [],
    ...{ weights: dir, metrics: [...metrics], size, frames: CLIP_FRAMES, extension: "loop", fvdFrames: 16, seed },
  });
  const [unusable] = Object.values(scorers.unusable);
  if (unusable !== undefined) throw new Error(`weights: ${unusable}`);
  const lacking = metrics.map((metric) => scorers.missing[metric]);
  if (lacking.every((why) => why !== undefined))
    throw new Error(`weights: no network for any of ${metrics.join(", ")}: ${lacking.join("; ")}`);
  return scorers;
}

async function ownWeights(bench: Bench, train: { readonly steps: number; readonly batch: number }): Promise<string> {
  const { config, out, size } = bench;
  const from = await stickersOf(config.training.stickers, bench);
  // Clips of its own: training keeps the same stickers in another order, and each would throw the other's away.
  const clips = await openClips(from, { size, cacheDir: join(out, "clips", shortHash(from)) });
  try {
    const dir = join(out, `features-${shortHash(clips.sha256, clips.captions, size, train, config.seed)}`);
    if (!holdsOwn(dir)) await trainNetworks(clips, { ...train, out: dir, seed: config.seed });
    return dir;
  } finally {
    clips.close();
  }
}

/** Test stickers as they are scored, as GIFs for the report: their places, by path from the benchmark's folder. */
export async function writeReferences(
  { name, clips }: OpenTest,
  places: readonly number[],
  { out, size }: Bench,
): Promise<Map<number, string>> {
  const folder = join("references", `${name}-${shortHash(clips.sha256, clips.names, size)}`);
  await mkdir(join(out, folder), { recursive: true });
  const paths = new Map(places.map((i) => [i, join(folder, `${i + 1}.gif`)]));
  for (const [i, path] of paths) {
    if (existsSync(join(out, path))) continue;
    const gif = clipGif(await clips.read(i), size);
    await replaceFile(join(out, path), (file) => file.writeFile(gif));
  }
  return paths;
}
