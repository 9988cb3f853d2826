// One system trained on one set for the benchmark: in a folder named by all that determines it, so that the same command goes on
// with what it finds there; or a run that is taken from elsewhere. Called by benchmark.ts; how to train is train.ts.

import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join, relative } from "node:path";
import { replaceFile } from "../engine/atomic.ts";
import type { PlannedTraining } from "../eval/benchmark/plan.ts";
import type { TrainingResult } from "../eval/benchmark/result.ts";
import type { StopSignal } from "../train/log.ts";
import { holdsRun, readRun } from "../train/run.ts";
import { type Bench, type OpenSet, readRecord, shortHash } from "./benchmark_sets.ts";
import type { Recipe } from "./options.ts";
import { existingStage, stageFolder, trainStage } from "./train.ts";

/** Ctrl-C: everything that is done is kept, and nothing more is begun. */
export class Stopped extends Error {
  override name = "Stopped";
  readonly signal: StopSignal;

  constructor(signal: StopSignal) {
    super("stopped");
    this.signal = signal;
  }
}

/** How a training ended, beside its run folder; written last. */
const RESULT = "training.json";

type Stages = TrainingResult["stages"];

/** The autoencoder that the diffusion systems of a set share. Goes on with what is there. Throws Stopped. */
export async function trainAutoencoder(name: string, set: OpenSet, bench: Bench): Promise<TrainingResult> {
  const { preset, seed, steps } = bench.config;
  const id = `${name}/autoencoder`;
  const key = shortHash(1, set.fingerprint, preset, bench.size, seed, steps.autoencoder);
  return trainIn(id, "autoencoder", { name, set, key, recipes: ["autoencoder"] }, bench);
}

/** Trains a system. `autoencoder`: run folder of the set's. Throws Stopped. */
export async function trainSystem(
  { id, system, set: { name }, every }: PlannedTraining,
  set: OpenSet,
  autoencoder: string | null,
  bench: Bench,
): Promise<TrainingResult> {
  const { preset, seed, steps } = bench.config;
  const recipes = system.stages.filter((recipe) => recipe !== "autoencoder") as Recipe[];
  const own = recipes.map((recipe) => steps[recipe]);
  const first = autoencoder && steps.autoencoder;
  const key = shortHash(1, set.fingerprint, system.name, preset, bench.size, seed, own, first, every);
  const about = { name, set, key, recipes, autoencoder, every };
  return trainIn(id, system.name, about, bench);
}

interface Work {
  readonly name: string;
  readonly set: OpenSet;
  readonly key: string;
  readonly recipes: readonly Recipe[];
  readonly autoencoder?: string | null;
  readonly every?: number | null;
}

async function trainIn(id: string, system: string, o: Work, bench: Bench): Promise<TrainingResult> {
  const { name, set, key, recipes, autoencoder, every } = o;
  const { preset, seed, steps } = bench.config;
  const out = join(bench.out, "trainings", `${name}-${system}-${key}`);
  const record = join(out, RESULT);
  if (existsSync(record)) return readRecord<TrainingResult>(record);
  const stages: Stages[number][] = [];
  for (const recipe of recipes) {
    const { stopped, seconds, firstLoss, lastLoss, baseline } = await trainStage(
      {
        ...{ data: set.dir, out, recipe, preset, seed, steps: steps[recipe], size: bench.size },
        ...(system !== "autoencoder" && { system: system as PlannedTraining["system"]["name"] }),
        ...(set.domain && { domain: set.domain === "Real" ? "real" : "cartoon" }),
        ...(autoencoder && { autoencoder }),
        ...(every && { keepEvery: every }),
        resume: holdsRun(stageFolder(out, recipe)),
      },
      "give the same command again",
    );
    if (stopped) throw new Stopped(stopped);
    stages.push({ recipe, steps: steps[recipe], seconds, firstLoss, lastLoss, baseline });
  }
  const result: TrainingResult = {
    ...{ id, system, set: name, stickers: set.stickers, state: "done", taken: false, stages },
    run: relative(bench.out, out),
  };
  await mkdir(out, { recursive: true });
  await replaceFile(record, (file) => file.writeFile(`${JSON.stringify(result, null, 2)}\n`));
  return result;
}

/**
 * The run that a plan takes: nothing is trained, and the stickers that it was trained on are not read.
 * @throws Error when it is a run of another system
 */
export async function takeSystem(planned: PlannedTraining, run: string): Promise<TrainingResult> {
  const { id, set } = planned;
  const system = planned.system.name;
  const { config } = await readRun(existingStage(run, lastStage(system)));
  const of = (config.config as { readonly system?: string }).system ?? "videogpt";
  if (of !== system) throw new Error(`${run} is a run of ${of}, not of ${system}`);
  return { id, system, set: set.name, stickers: null, state: "done", run, taken: true, stages: [] };
}

/** The stage whose checkpoints are sampled. */
export function lastStage(system: string): Recipe {
  return system === "videogpt" ? "prior" : "diffusion";
}
