// The configuration of a benchmark: what is trained on what, sampled how, scored by which networks, and which of the paper's
// tables come of it. A JSON file; unknown keys are refused by name, the keys' meanings are printed by `benchmark --schema`.
// Relative paths count from the configuration's own folder. Called by cli/benchmark.ts; what follows from it is plan.ts.

import { isAbsolute, join } from "node:path";
import * as z from "zod";
import { checked, section } from "../../data/json_config.ts";
import { DOMAINS } from "../../data/record.ts";
import { PRESETS, type SystemName } from "../../models/config.ts";
import { SAMPLERS, type SamplerName } from "../../models/samplers.ts";
import { SYSTEMS } from "../../models/systems.ts";
import { METRICS } from "../score.ts";
import { TEST_NAMES, type TestName } from "./result.ts";

const NAMES = SYSTEMS.map(({ name }) => name) as [SystemName, ...SystemName[]];
const count = z.int().positive();
const seed = z.int().min(0).max(0xffffffff);
const size = z.int().min(16).max(512).multipleOf(8);

const starter = section({
  starter: section({
    count: count.describe("how many stickers"),
    seed: seed.default(1).describe("another seed gives other stickers: test sets need one of their own"),
    domains: z.array(z.enum(DOMAINS)).min(1).optional().describe("default: both, three in ten Real"),
    plain: z.boolean().default(false).describe("no text, no coloured ground: the easiest to learn"),
    subjects: z.array(z.string()).min(1).optional().describe("only these, as in starter records"),
    actions: z.array(z.string()).min(1).optional().describe("only these"),
  }).describe("stickers that the benchmark draws into its own folder"),
});
const folder = section({ folder: z.string().min(1).describe("stickers with a metadata.jsonl") });
const source = z.union([folder, starter], { error: 'must be {"folder": "path"} or {"starter": {"count": 500}}' });

const trainingSet = section({
  stickers: source,
  test: z.array(z.enum(TEST_NAMES)).min(1).describe("test sets that it is scored on: those of its own domain"),
});

const tables = section({
  separate: z.boolean().default(false).describe("Table 4: trained on each domain, scored on the same one's test set"),
  joint: z.boolean().default(false).describe("Table 7: trained on both domains together"),
  trainingSets: section({
    system: z.enum(NAMES).default("sti"),
    sets: z.record(z.string().regex(/^[\w-]+$/, "a name of letters, digits, - and _"), trainingSet),
  })
    .optional()
    .describe("Table 5: one system trained on other sets, beside itself trained on `training`, domain by domain"),
  curves: section({
    systems: z.array(z.enum(NAMES)).min(1),
    set: z.enum(["real", "cartoon", "joint"]).default("joint").describe("which trainings' checkpoints are scored"),
    every: count.describe("optimiser steps between two checkpoints that are scored"),
  })
    .optional()
    .describe("Figure 6: scores against training steps"),
});

const steps = section({
  autoencoder: count.describe("of the diffusion systems; one for each training set, which they share"),
  diffusion: count,
  vqvae: count.describe("VideoGPT's first stage"),
  prior: count.describe("VideoGPT's second"),
});

const sampling = section({
  sampler: z.enum(Object.keys(SAMPLERS) as [SamplerName, ...SamplerName[]]).default("ddim"),
  steps: z.int().min(1).max(1000).default(25),
  guidance: z.number().min(0).default(7.5),
  eta: z.number().min(0).max(1).default(0),
  batch: count.default(4).describe("stickers at a time; the last bits depend on it"),
});

const config = section({
  title: z.string().min(1).default("Benchmark of the sticker systems"),
  preset: z.enum(PRESETS).describe("size of the models"),
  size: size.optional().describe("pixels a side; default: the preset's"),
  seed: seed.default(1).describe("of weights, order, noise and resamples"),
  systems: z
    .array(z.enum(NAMES))
    .min(1)
    .default([...NAMES]),
  training: section({
    name: z.string().min(1).default("this set").describe("its row in Table 5; a name of the paper's is compared"),
    stickers: source,
  }).describe("what the systems of Tables 4 and 7 are trained on; records of both domains"),
  test: section({ "VSD-R": source.optional(), "VSD-C": source.optional() }).describe(
    "test sets; of a folder with both domains VSD-R takes the Real stickers, VSD-C the cartoons",
  ),
  tables: tables.describe("what is made"),
  steps: steps.describe("optimiser steps of each stage"),
  take: z
    .record(z.string(), z.string())
    .default({})
    .describe('run folders of systems that are trained already, as {"joint/sti": "runs/mine"}: set and system'),
  sampling: sampling.prefault({}).describe("of the diffusion systems; VideoGPT draws code by code"),
  metrics: z
    .array(z.enum(METRICS))
    .min(1)
    .default([...METRICS]),
  weights: z
    .union(
      [
        section({ folder: z.string().min(1).describe("published weights, or what eval train-features made") }),
        section({
          train: section({ steps: count, batch: z.int().min(2).max(256).default(16) }).describe("of each network"),
        }),
      ],
      { error: 'must be {"folder": "path"} or {"train": {"steps": 300}}' },
    )
    .describe("networks to score with; those trained on `training` give FVD-x, CLIP-x and VQA-x"),
  cost: section({ runs: count.default(5).describe("stickers that are timed, after a first one") })
    .optional()
    .describe("inference time, memory and operations of each system; absent: not measured"),
  gallery: z.int().min(0).max(100).default(6).describe("captions of each test set whose stickers the report shows"),
});

export type BenchmarkConfig = z.output<typeof config>;
export type SourceConfig = BenchmarkConfig["training"]["stickers"];

/**
 * Parses a configuration; `where` names it in errors and `base` is the folder its paths count from.
 * @throws Error of one line naming every key at fault and what is allowed there
 */
export function parseBenchmark(value: unknown, where: string, base: string): BenchmarkConfig {
  const given: BenchmarkConfig = checked(config, value, where);
  const fault = faultOf(given);
  if (fault !== null) throw new Error(`${where}: ${fault}`);
  return located(given, base);
}

/** JSON Schema of the configuration, with the meaning of each key. */
export function benchmarkSchema(): object {
  return z.toJSONSchema(config, { io: "input" });
}

/** What is wrong between keys; null where nothing is. */
function faultOf(c: BenchmarkConfig): string | null {
  const { separate, joint, trainingSets, curves } = c.tables;
  const tests = TEST_NAMES.filter((name) => c.test[name]);
  if (tests.length === 0) return `test: give at least one of ${TEST_NAMES.join(" and ")}`;
  if (!separate && !joint && !trainingSets && !curves)
    return 'tables: nothing is asked for; give {"separate": true}, "joint", "trainingSets" or "curves"';
  const twice = c.systems.find((name, i) => c.systems.indexOf(name) !== i);
  if (twice !== undefined) return `systems: ${twice} is named twice`;
  const outside = [...(curves?.systems ?? []), ...(trainingSets ? [trainingSets.system] : [])];
  const stranger = outside.find((name) => !c.systems.includes(name));
  if (stranger !== undefined) return `tables: ${stranger} is not among the systems`;
  const domain = { real: "VSD-R", cartoon: "VSD-C", joint: null }[curves?.set ?? "joint"] as TestName | null;
  if (curves && domain && !c.test[domain])
    return `tables.curves.set: "${curves.set}" is scored on ${domain}, and there is no such test set`;
  for (const [name, set] of Object.entries(trainingSets?.sets ?? {})) {
    if (RESERVED.includes(name)) return `tables.trainingSets.sets.${name}: the name is taken; choose another`;
    if (name === c.training.name)
      return `tables.trainingSets.sets.${name}: training.name is the same, and both are rows of Table 5; choose another`;
    const missing = set.test.find((test) => !tests.includes(test));
    if (missing !== undefined) return `tables.trainingSets.sets.${name}.test: there is no test set ${missing}`;
  }
  return null;
}

/** Names of what `training` is trained on: one domain of it, or all. */
const RESERVED: readonly string[] = ["real", "cartoon", "joint"];

function located(c: BenchmarkConfig, base: string): BenchmarkConfig {
  const path = (given: string): string => (isAbsolute(given) ? given : join(base, given));
  const of = (given: SourceConfig): SourceConfig => ("folder" in given ? { folder: path(given.folder) } : given);
  const mapped = <T>(all: Readonly<Record<string, T>>, change: (one: T) => T): Record<string, T> =>
    Object.fromEntries(Object.entries(all).map(([name, one]) => [name, change(one)]));
  const { trainingSets } = c.tables;
  return {
    ...c,
    training: { ...c.training, stickers: of(c.training.stickers) },
    test: mapped(c.test as Record<TestName, SourceConfig>, of),
    tables: {
      ...c.tables,
      ...(trainingSets && {
        trainingSets: {
          ...trainingSets,
          sets: mapped(trainingSets.sets, (set) => ({ ...set, stickers: of(set.stickers) })),
        },
      }),
    },
    take: mapped(c.take, path),
    weights: "folder" in c.weights ? { folder: path(c.weights.folder) } : c.weights,
  };
}
