// The cells of a benchmark: a trained model's stickers for the captions of a test set, and their scores. Both lie in folders and
// files named by all that determines them, so that nothing is done twice and an unlike configuration makes others. Called by
// benchmark.ts; sampling is generate.ts, scores are eval's.

import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { CLIP_FRAMES, formatCaption } from "../data/frames.ts";
import type { StickerRecord } from "../data/record.ts";
import { METADATA } from "../data/store.ts";
import { tagText } from "../data/tags.ts";
import { replaceFile } from "../engine/atomic.ts";
import { lastSteps, metricsOf, type PlannedCell } from "../eval/benchmark/plan.ts";
import type { Cell, TrainingResult } from "../eval/benchmark/result.ts";
import { CLIPS_VERSION, openClips } from "../eval/clips.ts";
import type { Extractor } from "../eval/features.ts";
import type { Metric, Score } from "../eval/score.ts";
import type { SystemName } from "../models/config.ts";
import { interruptible } from "../train/log.ts";
import { progress } from "../train/progress.ts";
import { readRun } from "../train/run.ts";
import { type Bench, type OpenTest, readRecord, reasonOf, shortHash } from "./benchmark_sets.ts";
import { lastStage, Stopped } from "./benchmark_train.ts";
import { scoreClips } from "./eval.ts";
import type { Scorers } from "./eval_weights.ts";
import { type GifOptions, sampleGifs } from "./generate.ts";
import { type Maker, openMaker } from "./makers.ts";
import { existingStage } from "./train.ts";

/** What a cell's file keeps: all of a `Cell` that takes time. */
type Made = Pick<Cell, "scores" | "failed" | "samples" | "seconds">;

/** A trained model, opened when the first of its cells asks for it. */
export class Trained {
  readonly #bench: Bench;
  readonly #training: TrainingResult;
  readonly #makers = new Map<number | null, Maker>();

  constructor(training: TrainingResult, bench: Bench) {
    this.#training = training;
    this.#bench = bench;
  }

  get system(): string {
    return this.#training.system;
  }

  get taken(): boolean {
    return this.#training.taken;
  }

  /** "joint-sti" */
  get name(): string {
    return this.#training.id.replace("/", "-");
  }

  #run(): string {
    const { run, taken } = this.#training;
    return taken ? run : join(this.#bench.out, run);
  }

  /** Names the weights: of checkpoint `step`, or the last one. */
  async identity(step: number | null): Promise<string> {
    const { config, checkpoint } = await readRun(existingStage(this.#run(), lastStage(this.system)), step ?? undefined);
    return shortHash(config, checkpoint.sha256);
  }

  async maker(step: number | null): Promise<Maker> {
    const open = this.#makers.get(step) ?? (await openMaker(this.#run(), step === null ? {} : { step }));
    this.#makers.set(step, open);
    const { size } = this.#bench;
    if (open.size !== size) throw new Error(`${this.#run()} makes stickers of ${open.size} pixels, not of ${size}`);
    return open;
  }
}

/** Samples and scores what is not there yet; a cell with a metric that failed is not kept, so that it is tried again. Throws Stopped. */
export async function makeCell(
  cell: PlannedCell,
  trained: Trained,
  test: OpenTest,
  scorers: Scorers,
  bench: Bench,
): Promise<Made> {
  const { config, out } = bench;
  // The last point of a curve is the table's model; a run that was taken may have another number of steps.
  const last = !trained.taken && cell.steps === lastSteps(cell.system as SystemName, config);
  const step = last ? null : cell.steps;
  const identity = await trained.identity(step);
  const captions = test.records.map((record) => captionFor(trained.system, record));
  const key = shortHash(1, identity, captions, config.seed, samplingOf(trained.system, bench));
  const name = `${trained.name}-${test.name}${step === null ? "" : `-step-${step}`}`;
  const samples = join("samples", `${name}-${key}`);
  const metrics = metricsOf(trained.system, config);
  const networks = metrics.map((metric) => [metric, ...networkOf(scorers, metric)]);
  const path = join(out, "cells", `${name}-${shortHash(key, CLIPS_VERSION, test.clips.sha256, networks)}.json`);
  if (existsSync(path)) return readRecord<Made>(path);
  const interrupt = interruptible();
  try {
    const check = (): void => {
      if (interrupt.signal) throw new Stopped(interrupt.signal);
    };
    let t0 = performance.now();
    const seconds = (): number => {
      const passed = (performance.now() - t0) / 1000;
      t0 = performance.now();
      return Math.round(100 * passed) / 100;
    };
    const fresh = !existsSync(join(out, samples, METADATA));
    if (fresh) await sampleInto(join(out, samples), captions, test.records, await trained.maker(step), bench, check);
    const sampling = seconds();
    const scored = await scoresOf(join(out, samples), metrics, { test, scorers, bench, check });
    const made: Made = { ...scored, samples, seconds: fresh ? { sampling, scoring: seconds() } : null };
    if (!made.failed) await replaceFile(path, (file) => file.writeFile(`${JSON.stringify(made, null, 2)}\n`));
    return made;
  } finally {
    interrupt.release();
  }
}

/** What a system is told of a test sticker: its caption with the domain, or its tags. */
function captionFor(system: string, record: StickerRecord): string {
  if (system === "videogpt") return tagText(record);
  return formatCaption(record.domain ?? "Cartoon", record.caption);
}

/** Options that decide a system's samples; VideoGPT reads none but the size of a batch. */
function samplingOf(system: string, { config: { sampling } }: Bench): Partial<Bench["config"]["sampling"]> {
  return system === "videogpt" ? { batch: sampling.batch } : sampling;
}

function networkOf({ fvd, clip, vqa }: Scorers, metric: Metric): unknown[] {
  const of = (extractor: Extractor | undefined): unknown[] =>
    extractor ? [extractor.name, extractor.hash, extractor.preprocessing, extractor.extension] : [];
  return metric === "clip" ? [...of(clip?.extractor), clip?.scale] : of({ fvd, vqa }[metric]);
}

/** A GIF for each caption, as many at a time as configured; those that are there stay. metadata.jsonl is written last. */
async function sampleInto(
  folder: string,
  captions: readonly string[],
  records: readonly StickerRecord[],
  maker: Maker,
  { config }: Bench,
  check: () => void,
): Promise<void> {
  const { batch, ...how } = config.sampling;
  const options: GifOptions = { ...how, seed: config.seed };
  await mkdir(folder, { recursive: true });
  const names = captions.map((_, i) => `${String(i + 1).padStart(6, "0")}.gif`);
  const each = maker.steps(batch, options);
  const line = progress("  sampling", captions.length, { items: { name: "stickers", each: 1 } });
  for (let first = 0; first < captions.length; first += batch) {
    const places = Array.from({ length: batch }, (_, i) => Math.min(first + i, captions.length - 1)); // one shape
    if (places.every((i) => existsSync(join(folder, names[i])))) continue;
    check();
    const stickers = places.map((i) => ({ caption: captions[i], index: i }));
    const onStep = (done: number): void => {
      check();
      line.update(Math.min(captions.length, first + Math.floor((batch * done) / each))); // the last batch may be padded
    };
    const gifs = await sampleGifs(maker, stickers, { ...options, onStep });
    for (const [i, place] of places.entries())
      await replaceFile(join(folder, names[place]), (file) => file.writeFile(gifs[i]));
  }
  const lines = records.map(({ caption, domain }, i) => JSON.stringify({ file_name: names[i], caption, domain }));
  await replaceFile(join(folder, METADATA), (file) => file.writeFile(`${lines.join("\n")}\n`));
  line.done(folder);
}

/** One metric's failure leaves the others; stickers that cannot be read fail all of them, and stay where they are. */
async function scoresOf(
  folder: string,
  metrics: readonly Metric[],
  o: { readonly test: OpenTest; readonly scorers: Scorers; readonly bench: Bench; readonly check: () => void },
): Promise<Pick<Cell, "scores" | "failed">> {
  const { test, scorers, check } = o;
  const { config, out, size } = o.bench;
  const clips = await openClips(folder, { size, frames: CLIP_FRAMES });
  try {
    const scores: Partial<Record<Metric, Score>> = {};
    const failed: Partial<Record<Metric, string>> = {};
    for (const metric of metrics) {
      check();
      const options = { seed: config.seed, batch: config.sampling.batch, cacheDir: join(out, ".gifgrad") };
      try {
        if (clips.length !== test.clips.length) throw new Error(`${folder}: ${clips.rejected[0]?.reason}`);
        const score = await scoreClips(metric, clips, test.clips, scorers, options);
        if (score) scores[metric] = score;
      } catch (error) {
        failed[metric] = reasonOf(error);
      }
    }
    return { scores, ...(Object.keys(failed).length > 0 && { failed }) };
  } finally {
    clips.close();
  }
}
