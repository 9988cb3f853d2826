// `gifgrad eval ...`: names, options and help of its commands. Their work is in eval.ts, imported when one runs. Called by
// main.ts.

import { type Command, Option } from "commander";
import {
  above,
  type CostOptions,
  type EvalOptions,
  EXTENSIONS,
  type ExampleOptions,
  givenOptions,
  METRICS,
  pixels,
  SAMPLER_NAMES,
  seedOption,
  type TrainFeaturesOptions,
  whole,
} from "./options.ts";

type Given = Pick<EvalOptions, "real" | "weights">;

const WEIGHTS =
  "a folder with published weight files, or what npx gifgrad eval train-features made from a data set of your own";

export function addEval(program: Command): void {
  const command = program
    .command("eval")
    .description("score folders of generated stickers: FVD, CLIP similarity and VQA")
    .argument("<generated...>", "folders of stickers; metadata.jsonl gives their captions; several are ranked")
    .option("--real <folder>", "real stickers, of the captions' test set")
    .option(
      "--weights <folder>",
      "published weight files (see eval/README.md), or what train-features made: scores are FVD-x, CLIP-x, VQA-x then",
    )
    .addOption(new Option("--metrics <name...>", "only these").choices(METRICS).default(METRICS))
    .option("--size <pixels>", "width and height of all (default: those of the generated stickers)", pixels)
    .option("--frames <n>", "frames taken of each sticker", whole(1, 256), 8)
    .addOption(new Option("--extension <rule>", "how short clips are played on").choices(EXTENSIONS).default("loop"))
    .option("--fvd-frames <n>", "FVD: frames that I3D sees; it needs 9", whole(1, 256), 16)
    .option("--batch <n>", "stickers at a time; changes no score", whole(1, 256), 4)
    .option("--json", "one JSON document instead of a table", false)
    .addOption(seedOption())
    .action(
      async (generated: string[], o: Omit<EvalOptions, "generated" | keyof Given> & Partial<Given>, self: Command) => {
        const { real, weights } = o; // required here alone: commander would ask train-features for them too
        if (real === undefined) throw new Error("eval: --real is missing: a folder of real stickers to compare with");
        if (weights === undefined) throw new Error(`eval: --weights is missing: ${WEIGHTS}`);
        await (await import("./eval.ts")).run({ generated, ...o, real, weights, given: givenOptions(self) });
      },
    );
  command
    .command("example")
    .description("score starter stickers with networks made from a seed, beside the scores published for them")
    .option("--out <folder>", "where the stickers go", "runs/example")
    .action(async (o: ExampleOptions) => (await import("./eval_example.ts")).run(o));
  command
    .command("cost")
    .description("what one sticker of a run costs: parameters, seconds, memory, operations")
    .argument("<run>", "run folder of a trained model")
    .option("--runs <n>", "stickers that are timed, after one that is not", whole(1, 10_000), 20)
    .addOption(new Option("--sampler <name>", "as in generate").choices(SAMPLER_NAMES).default("ddim"))
    .option("--steps <n>", "as in generate", whole(1, 1000), 25)
    .option("--guidance <scale>", "as in generate", above(0, { orEqual: true }), 2)
    .option("--json", "one JSON document instead of a table", false)
    .addOption(seedOption())
    .action(async (run: string, o: Omit<CostOptions, "run">, cost: Command) =>
      (await import("./eval_cost.ts")).run({ run, ...o, given: givenOptions(cost) }),
    );
  command
    .command("train-features")
    .description("train small networks on a data set, to score with where published weights are not at hand")
    .argument("<data>", "folder of stickers with a metadata.jsonl")
    .requiredOption("--out <folder>", "where the weights go")
    .option("--steps <n>", "optimiser steps of each network", whole(1), 300)
    .option("--resume", "go on with a training that was stopped, to the same bits", false)
    .option("--batch <n>", "stickers per step", whole(2, 256), 16)
    .option("--size <pixels>", "width and height (default: that of the stickers)", pixels)
    .addOption(seedOption())
    .action(async (data: string, o: Omit<TrainFeaturesOptions, "data">) =>
      (await import("./eval.ts")).trainOwn({ data, ...o }),
    );
}
