// What a benchmark's configuration asks for, as lists: which systems are trained on which sets, and the cells of the tables, each
// named. Pure: nothing is opened and nothing is known of what is done already. Called by cli/benchmark.ts.

import type { SystemName } from "../../models/config.ts";
import { SYSTEMS, type System } from "../../models/systems.ts";
import type { Metric } from "../score.ts";
import type { BenchmarkConfig, SourceConfig } from "./config.ts";
import { type Cell, type Part, TEST_NAMES, type TestName } from "./result.ts";

export type Domain = "Real" | "Cartoon";

/** Stickers of a test set, and which part of `training` is of their kind. */
export const TESTS: Readonly<Record<TestName, { readonly domain: Domain; readonly set: string }>> = {
  "VSD-R": { domain: "Real", set: "real" },
  "VSD-C": { domain: "Cartoon", set: "cartoon" },
};

/** Stickers that systems are trained on. */
export interface PlannedSet {
  readonly name: string;
  readonly source: SourceConfig;
  /** Only the stickers of one; null: all of them. */
  readonly domain: Domain | null;
}

/** One system on one set. */
export interface PlannedTraining {
  /** "joint/sti" */
  readonly id: string;
  readonly system: System;
  readonly set: PlannedSet;
  /** Steps between checkpoints that are kept to be scored; null: only the last one is. */
  readonly every: number | null;
  /** Run folder of a system that is trained already. */
  readonly take: string | null;
  readonly cells: readonly PlannedCell[];
}

export type PlannedCell = Pick<Cell, "id" | "part" | "system" | "set" | "test" | "steps">;

/**
 * All trainings with their cells, set by set.
 * @throws Error when something is taken that is not asked for
 */
export function planBenchmark(config: BenchmarkConfig): PlannedTraining[] {
  const cells = cellsOf(config);
  const wanted = new Map(cells.map((cell) => [`${cell.set}/${cell.system}`, cell]));
  const unknown = Object.keys(config.take).find((id) => !wanted.has(id));
  if (unknown !== undefined)
    throw new Error(`take: "${unknown}" is not asked for; there are ${[...wanted.keys()].join(", ")}`);
  const { curves } = config.tables;
  return setsOf(config).flatMap((set) =>
    SYSTEMS.filter(({ name }) => wanted.has(`${set.name}/${name}`)).map((system): PlannedTraining => {
      const id = `${set.name}/${system.name}`;
      const drawn = curves?.set === set.name && curves.systems.includes(system.name);
      const own = cells.filter((cell) => cell.set === set.name && cell.system === system.name);
      return { id, system, set, every: drawn ? curves.every : null, take: config.take[id] ?? null, cells: own };
    }),
  );
}

function setsOf({ training: { stickers: source }, tables }: BenchmarkConfig): PlannedSet[] {
  const others = Object.entries(tables.trainingSets?.sets ?? {});
  return [
    { name: "real", source, domain: "Real" },
    { name: "cartoon", source, domain: "Cartoon" },
    { name: "joint", source, domain: null },
    ...others.map(([name, { stickers }]): PlannedSet => ({ name, source: stickers, domain: null })),
  ];
}

function cellsOf(config: BenchmarkConfig): PlannedCell[] {
  const { separate, joint, trainingSets, curves } = config.tables;
  const tests = TEST_NAMES.filter((test) => config.test[test]);
  const each = (part: Part, systems: readonly SystemName[], setOf: (test: TestName) => string): PlannedCell[] =>
    systems.flatMap((system) => tests.map((test) => cell(part, system, setOf(test), test)));
  const ownSet = (test: TestName): string => TESTS[test].set;
  const other = Object.entries(trainingSets?.sets ?? {}).flatMap(([name, set]) =>
    set.test.map((test) => cell("trainingSets", trainingSets?.system as SystemName, name, test)),
  );
  return [
    ...(separate ? each("separate", config.systems, ownSet) : []),
    ...(joint ? each("joint", config.systems, () => "joint") : []),
    ...(trainingSets ? [...other, ...each("trainingSets", [trainingSets.system], ownSet)] : []),
    ...(curves
      ? curves.systems.flatMap((system) =>
          pointsOf(lastSteps(system, config), curves.every).flatMap((steps) =>
            tests
              .filter((test) => curves.set === "joint" || ownSet(test) === curves.set)
              .map((test) => cell("curves", system, curves.set, test, steps)),
          ),
        )
      : []),
  ];
}

function cell(part: Part, system: string, set: string, test: TestName, steps: number | null = null): PlannedCell {
  return {
    id: [part, system, set, test, ...(steps === null ? [] : [steps])].join("/"),
    part,
    system,
    set,
    test,
    steps,
  };
}

/** What a system is scored by. VideoGPT is told tags and no captions: as in the paper it has no CLIP similarity. */
export function metricsOf(system: string, { metrics }: Pick<BenchmarkConfig, "metrics">): Metric[] {
  return metrics.filter((metric) => !(metric === "clip" && system === "videogpt"));
}

/** Every so many steps, and the last one. */
export function pointsOf(steps: number, every: number): number[] {
  const points = Array.from({ length: Math.floor(steps / every) }, (_, i) => (i + 1) * every);
  return points[points.length - 1] === steps ? points : [...points, steps];
}

/** Optimiser steps of the stage that ends in something to sample. */
export function lastSteps(system: SystemName, { steps }: BenchmarkConfig): number {
  return system === "videogpt" ? steps.prior : steps.diffusion;
}

export interface Estimate {
  readonly trainings: number;
  readonly taken: number;
  /** One for each set with a diffusion system; the systems share it. */
  readonly autoencoders: number;
  /** Of all stages of all trainings. */
  readonly optimiserSteps: number;
  readonly cells: number;
  /** Different models that are sampled on a test set: cells of several tables may share one. */
  readonly samplings: number;
}

/** How much there is to do from the beginning. */
export function estimate(config: BenchmarkConfig, trainings: readonly PlannedTraining[]): Estimate {
  const own = trainings.filter(({ take }) => take === null);
  const diffusion = own.filter(({ system }) => system.stages.includes("autoencoder"));
  const autoencoders = new Set(diffusion.map(({ set }) => set.name)).size;
  const { steps } = config;
  const videogpt = own.length - diffusion.length;
  const cells = trainings.flatMap((training) => training.cells);
  const models = new Set(
    cells.map(({ system, set, test, steps: k }) =>
      [system, set, test, k ?? lastSteps(system as SystemName, config)].join("/"),
    ),
  );
  return {
    trainings: own.length,
    taken: trainings.length - own.length,
    autoencoders,
    optimiserSteps:
      autoencoders * steps.autoencoder + diffusion.length * steps.diffusion + videogpt * (steps.vqvae + steps.prior),
    cells: cells.length,
    samplings: models.size,
  };
}
