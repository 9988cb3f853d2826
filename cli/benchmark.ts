// `gifgrad benchmark`: trains (or takes) every system of a configuration, samples the test sets, scores the stickers, and leaves the
// paper's tables: benchmark.json, benchmark.md and report.html. Each part's result is on disk as soon as it is known: killed
// and started again, the command goes on where it was. A part that fails is shown as failed, and the others go on.

import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { CLIP_FRAMES } from "../data/frames.ts";
import { readConfiguration } from "../data/json_config.ts";
import { replaceFile } from "../engine/atomic.ts";
import { type Device, openDevice } from "../engine/index.ts";
import { type BenchmarkConfig, benchmarkSchema, parseBenchmark } from "../eval/benchmark/config.ts";
import { renderBenchmarkMarkdown } from "../eval/benchmark/markdown.ts";
import { estimate, type PlannedSet, type PlannedTraining, planBenchmark } from "../eval/benchmark/plan.ts";
import { renderBenchmarkReport } from "../eval/benchmark/report.ts";
import type {
  BenchmarkResult,
  BenchmarkSystem,
  Cell,
  GalleryRow,
  SystemCost,
  TrainingResult,
} from "../eval/benchmark/result.ts";
import { failuresOf } from "../eval/benchmark/tables.ts";
import { systemConfig } from "../models/config.ts";
import { SYSTEMS } from "../models/systems.ts";
import { environment } from "../train/environment.ts";
import { exitCode, interruptible } from "../train/log.ts";
import { makeCell, Trained } from "./benchmark_cells.ts";
import {
  type Bench,
  checkHeldOut,
  type OpenSet,
  type OpenTest,
  openBenchmarkScorers,
  openSet,
  openTests,
  readRecord,
  reasonOf,
  shortHash,
  stickersOf,
  writeReferences,
} from "./benchmark_sets.ts";
import { Stopped, takeSystem, trainAutoencoder, trainSystem } from "./benchmark_train.ts";
import { costOfRun } from "./eval_cost.ts";
import type { Scorers } from "./eval_weights.ts";
import type { BenchmarkOptions } from "./options.ts";
import { announce } from "./train.ts";

export async function run({ config: path, out, estimate: only, schema }: BenchmarkOptions): Promise<void> {
  if (schema) {
    console.log(JSON.stringify(benchmarkSchema(), null, 2));
    return;
  }
  if (path === undefined) throw new Error("benchmark: give a configuration; --schema prints what may be in it");
  const config = await readConfig(path);
  const plan = planBenchmark(config);
  console.error(inWords(config, plan));
  if (only) return;
  const device = await openDevice();
  try {
    announce(device);
    await runBenchmark(config, plan, out, device);
  } finally {
    device.close();
  }
}

/** Does what is not done yet, on the open device. The exit code is set: 1 where something failed, that of Ctrl-C after it. */
export async function runBenchmark(
  config: BenchmarkConfig,
  plan: readonly PlannedTraining[],
  out: string,
  device: Device,
): Promise<void> {
  const size = config.size ?? systemConfig("sti", config.preset).size;
  await new Benchmark({ config, out, size }, plan, device).run();
}

export async function readConfig(path: string): Promise<BenchmarkConfig> {
  return parseBenchmark(await readConfiguration(path), path, resolve(dirname(path)));
}

/** "18 trainings and 3 autoencoders (1,800 steps); 24 samplings, 48 cells" */
function inWords(config: BenchmarkConfig, plan: readonly PlannedTraining[]): string {
  const { trainings, taken, autoencoders, optimiserSteps, samplings, cells } = estimate(config, plan);
  const given = taken > 0 ? ` (and ${taken} taken)` : "";
  return (
    `${trainings} trainings${given} and ${autoencoders} autoencoders: ${optimiserSteps.toLocaleString("en")} optimiser steps; ` +
    `${samplings} samplings of a test set, ${config.sampling.steps} steps each; ${cells} cells`
  );
}

/** A benchmark at work: what is known so far, and what is done next. */
class Benchmark {
  readonly #bench: Bench;
  readonly #plan: readonly PlannedTraining[];
  readonly #device: Device;
  readonly #started = performance.now();
  readonly #environment = environment();
  readonly #cells: Map<string, Cell>;
  readonly #trainings = new Map<string, TrainingResult>();
  readonly #costs = new Map<string, Pick<BenchmarkSystem, "cost" | "costFailed">>();
  readonly #references = new Map<string, Map<number, string>>();
  #before: Pick<BenchmarkResult, "began" | "seconds"> = { began: new Date().toISOString(), seconds: 0 };
  #tests: readonly OpenTest[] = [];
  #scorers: Scorers | null = null;

  constructor(bench: Bench, plan: readonly PlannedTraining[], device: Device) {
    this.#bench = bench;
    this.#plan = plan;
    this.#device = device;
    const cells = plan.flatMap((training) => training.cells);
    this.#cells = new Map(
      cells.map((cell) => [cell.id, { ...cell, state: "pending", scores: {}, samples: null, seconds: null }]),
    );
  }

  async run(): Promise<void> {
    const { out } = this.#bench;
    await mkdir(join(out, "cells"), { recursive: true });
    this.#before = await earlier(out, this.#before);
    try {
      await this.#prepare();
      await this.#work();
      await this.#measureCosts();
    } catch (error) {
      if (!(error instanceof Stopped)) throw error;
      console.error("stopped: the same command goes on from here");
      process.exitCode = exitCode(error.signal);
    } finally {
      for (const { clips } of this.#tests) clips.close();
    }
    await this.#write();
    const failed = failuresOf(this.#result());
    for (const line of failed) console.error(`failed: ${line}`);
    if (failed.length > 0) process.exitCode ??= 1;
    for (const name of ["report.html", "benchmark.md", "benchmark.json"]) console.log(resolve(out, name));
  }

  /** What all cells need: test stickers, which nobody trains on, and networks to score with. */
  async #prepare(): Promise<void> {
    this.#tests = await openTests(this.#bench);
    const trained = new Set<string>();
    for (const { set, take } of this.#plan) if (take === null) trained.add(await stickersOf(set.source, this.#bench));
    await checkHeldOut(this.#tests, [...trained]);
    this.#scorers = await openBenchmarkScorers(this.#bench);
    for (const test of this.#tests)
      this.#references.set(test.name, await writeReferences(test, this.#shown(test), this.#bench));
  }

  async #work(): Promise<void> {
    const sets = new Map<string, Promise<OpenSet>>();
    const autoencoders = new Map<string, Promise<string>>();
    for (const [i, training] of this.#plan.entries()) {
      console.error(`training ${i + 1} of ${this.#plan.length}: ${training.id}`);
      try {
        const { set, system, take } = training;
        let result: TrainingResult;
        if (take !== null) result = await takeSystem(training, take);
        else {
          const open = sets.get(set.name) ?? openSet(set, this.#bench);
          sets.set(set.name, open);
          const shared = system.stages.includes("autoencoder");
          const autoencoder = autoencoders.get(set.name) ?? (shared ? this.#autoencoder(set, await open) : null);
          if (autoencoder) autoencoders.set(set.name, autoencoder);
          result = await trainSystem(training, await open, shared ? await autoencoder : null, this.#bench);
        }
        this.#trainings.set(training.id, result);
        await this.#makeCells(training, new Trained(result, this.#bench));
      } catch (error) {
        if (error instanceof Stopped) throw error;
        this.#fail(training, reasonOf(error));
      }
      await this.#write();
    }
  }

  /** Trains a set's autoencoder; its run folder. */
  async #autoencoder(set: PlannedSet, open: OpenSet): Promise<string> {
    const result = await trainAutoencoder(set.name, open, this.#bench);
    this.#trainings.set(result.id, result);
    return join(this.#bench.out, result.run);
  }

  async #makeCells(training: PlannedTraining, trained: Trained): Promise<void> {
    const ids = [...this.#cells.keys()];
    for (const cell of training.cells) {
      console.error(`cell ${ids.indexOf(cell.id) + 1} of ${ids.length}: ${cell.id}`);
      const known = this.#cells.get(cell.id) as Cell;
      try {
        const test = this.#tests.find(({ name }) => name === cell.test) as OpenTest;
        const made = await makeCell(cell, trained, test, this.#scorers as Scorers, this.#bench);
        this.#cells.set(cell.id, { ...known, ...made, state: "done" });
      } catch (error) {
        if (error instanceof Stopped) throw error;
        this.#cells.set(cell.id, { ...known, state: "failed", reason: reasonOf(error) });
      }
    }
  }

  /** What one sticker of each system takes, on a device of its own. Weights make no difference: any training will do. */
  async #measureCosts(): Promise<void> {
    const { config, out, size } = this.#bench;
    const { cost, sampling, preset, seed, systems } = config;
    if (!cost) return;
    for (const { name } of SYSTEMS.filter((system) => systems.includes(system.name))) {
      const training = [...this.#trainings.values()].find(({ system, state }) => system === name && state === "done");
      if (!training) continue; // said to have failed already
      const key = shortHash(1, name, preset, size, name === "videogpt" ? null : sampling, cost, this.#device.name);
      const path = join(out, "cells", `cost-${name}-${key}.json`);
      const interrupt = interruptible();
      try {
        const there = existsSync(path);
        const run = training.taken ? training.run : join(out, training.run);
        if (!there) console.error(`cost: ${name}`);
        const known = there
          ? await readRecord<SystemCost>(path)
          : (await costOfRun(run, { ...sampling, ...cost, seed })).cost;
        this.#costs.set(name, { cost: known });
        if (!there) await replaceFile(path, (file) => file.writeFile(`${JSON.stringify(known, null, 2)}\n`));
      } catch (error) {
        this.#costs.set(name, { cost: null, costFailed: reasonOf(error) });
      } finally {
        interrupt.release();
      }
      await this.#write();
      if (interrupt.signal) throw new Stopped(interrupt.signal);
    }
  }

  /** A training that failed, and its cells with it. */
  #fail({ id, system, set, cells, take }: PlannedTraining, reason: string): void {
    const about = { id, system: system.name, set: set.name, stickers: null, taken: take !== null, stages: [] };
    this.#trainings.set(id, { ...about, state: "failed", reason, run: take ?? "" });
    for (const cell of cells) {
      const known = this.#cells.get(cell.id) as Cell;
      this.#cells.set(cell.id, { ...known, state: "failed", reason: `the training ${id} failed: ${reason}` });
    }
  }

  /** Places of test stickers that the report shows, evenly spread over the set. */
  #shown({ clips: { length } }: OpenTest): number[] {
    const count = Math.min(this.#bench.config.gallery, length);
    return Array.from({ length: count }, (_, i) => Math.floor((i * length) / count));
  }

  #gallery(): GalleryRow[] {
    const { joint } = this.#bench.config.tables;
    return this.#tests.flatMap((test) => {
      const ofTest = [...this.#cells.values()].filter((cell) => cell.test === test.name && cell.steps === null);
      const best = ofTest.filter(({ part }) => part === (joint ? "joint" : "separate"));
      const columns = best.length > 0 ? best : ofTest;
      return this.#shown(test).map((place) => ({
        test: test.name,
        caption: test.records[place].caption,
        reference: this.#references.get(test.name)?.get(place) ?? "",
        stickers: columns.map(({ system, set, samples }) => ({
          ...{ system, set },
          gif: samples && join(samples, `${String(place + 1).padStart(6, "0")}.gif`),
        })),
      }));
    });
  }

  #result(): BenchmarkResult {
    const { config, size } = this.#bench;
    const { sampler, steps, guidance } = config.sampling;
    const cells = [...this.#cells.values()];
    return {
      format: 1,
      title: config.title,
      config,
      environment: this.#environment,
      adapter: { name: this.#device.name, kind: this.#device.details().kind },
      began: this.#before.began,
      written: new Date().toISOString(),
      seconds: Math.round(this.#before.seconds + (performance.now() - this.#started) / 1000),
      complete: cells.every(({ state }) => state !== "pending"),
      preset: config.preset,
      size,
      frames: CLIP_FRAMES,
      seed: config.seed,
      sampling: `${sampler}, ${steps} steps, guidance ${guidance}; VideoGPT: code by code`,
      published: this.#scorers?.published ?? false,
      missing: this.#scorers?.missing ?? {},
      systems: SYSTEMS.filter(({ name }) => config.systems.includes(name)).map(({ name, title, conditions }) => ({
        ...{ name, title, conditions },
        ...(this.#costs.get(name) ?? { cost: null }),
      })),
      trainings: [...this.#trainings.values()],
      tests: this.#tests.map(({ name, domain, clips }) => ({
        ...{ name, domain, stickers: clips.length, sha256: clips.sha256 },
      })),
      cells,
      gallery: this.#gallery(),
    };
  }

  async #write(): Promise<void> {
    const { out } = this.#bench;
    const result = this.#result();
    const files = {
      "benchmark.json": `${JSON.stringify(result, null, 2)}\n`,
      "benchmark.md": renderBenchmarkMarkdown(result),
      "report.html": await renderBenchmarkReport(result, (path) => readFile(join(out, path))),
    };
    for (const [name, text] of Object.entries(files))
      await replaceFile(join(out, name), (file) => file.writeFile(text));
  }
}

/** When an earlier session began in this folder, and how long all of them worked. */
async function earlier(out: string, none: Pick<BenchmarkResult, "began" | "seconds">): Promise<typeof none> {
  const path = join(out, "benchmark.json");
  if (!existsSync(path)) return none;
  const { began, seconds } = await readRecord<BenchmarkResult>(path);
  return { began, seconds };
}
