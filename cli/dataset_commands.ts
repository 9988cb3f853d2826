// `gifgrad dataset ...`: names, options and help of its commands. Each command's work is in dataset.ts, imported when one runs.
// Called by main.ts.

import { Argument, type Command, InvalidArgumentError, Option } from "commander";
import type { Shard } from "../data/curate/stage.ts";

/** Options that every stage takes. */
export interface StageCommandOptions {
  readonly shard?: Shard;
}

export interface BuildOptions {
  readonly out: string;
}

/** The stages that are commands of their own, in the order in which `build` runs them. */
export const STAGES = ["collect", "measure"] as const;

export function addDataset(program: Command): void {
  const dataset = program.command("dataset").description("make a vision-language sticker data set, stage by stage");
  dataset
    .command("build")
    .description("run every stage of a configuration; run it again to go on or to bring the data set up to date")
    .argument("<config>", "a JSON file: sources, filters, annotators")
    .requiredOption("--out <folder>", "the data set")
    .action(async (config: string, o: BuildOptions) => (await import("./dataset.ts")).build(config, o));
  for (const name of STAGES) {
    dataset
      .command(name)
      .description(`the stage "${name}" alone`)
      .argument("<dataset>", "folder of the data set")
      .addOption(new Option("--shard <i/n>", "this machine's part, from 1/n to n/n; then run merge").argParser(shard))
      .action(async (dir: string, o: StageCommandOptions) => (await import("./dataset.ts")).stage(dir, name, o));
  }
  dataset
    .command("filter")
    .description("decide which stickers are kept, by the limits of the configuration")
    .argument("<dataset>", "folder of the data set")
    .action(async (dir: string) => (await import("./dataset.ts")).filter(dir));
  dataset
    .command("merge")
    .description("make a stage's table from what several machines have done, and copy their work here")
    .argument("<dataset>", "folder of the data set")
    .addArgument(new Argument("<stage>", "which stage").choices(STAGES))
    .option("--from <folders...>", "copies of the data set on which shards were run")
    .action(async (dir: string, name: string, o: { from?: string[] }) =>
      (await import("./dataset.ts")).merge(dir, name, o.from ?? []),
    );
  dataset
    .command("schema")
    .description("print the JSON Schema of configurations, for editors")
    .action(async () => (await import("./dataset.ts")).schema());
}

/** "2/8" is the second of eight. */
function shard(value: string): Shard {
  const [, index, count] = /^(\d+)\/(\d+)$/.exec(value) ?? [];
  const parsed = { index: Number(index) - 1, count: Number(count) };
  if (parsed.index >= 0 && parsed.index < parsed.count) return parsed;
  throw new InvalidArgumentError("Expected i/n with i from 1 to n.");
}
