// `gifgrad dataset ...`: names, options and help of its commands. Each command's work is in dataset.ts, imported when one runs.
// Called by main.ts.

import { Argument, type Command, InvalidArgumentError, Option } from "commander";
import type { Shard } from "../data/curate/stage.ts";
import { above, between, pixels, seed, whole } from "./options.ts";

/** Options that every stage takes. */
export interface StageCommandOptions {
  readonly shard?: Shard;
  readonly again?: boolean;
  readonly dryRun?: boolean;
  /** Of a data set that is not there yet, or takes another. */
  readonly config?: string;
}

export interface ShowOptions {
  readonly rejected?: string;
  readonly count: number;
  readonly out: string;
}

export interface ExportOptions {
  readonly format: (typeof FORMATS)[number];
  readonly out: string;
  readonly strips?: boolean;
}

export interface VerifyOptions {
  readonly prune: boolean;
}

export interface CacheOptions {
  readonly size: number;
  readonly frames: number;
  readonly processes?: number;
}

export interface TrainDomainOptions {
  readonly out: string;
  readonly size: number;
  readonly width: number;
  readonly init?: string;
  readonly heldOut: number;
  readonly steps: number;
  readonly batch: number;
  readonly lr: number;
  readonly seed: number;
  readonly resume: boolean;
}

/** The stages that are commands of their own, in the order in which `build` runs them. */
export const STAGES = ["collect", "measure", "ocr", "domain", "describe", "summarise", "translate"] as const;
const FORMATS = ["imagefolder", "webdataset", "parquet"] as const;
const REASONS = ["undecodable", "aspect", "entropy", "text", "near-duplicate", "not-collected"];

const work = () => import("./dataset.ts");

export function addDataset(program: Command): void {
  const dataset = program.command("dataset").description("make a vision-language sticker data set, stage by stage");
  const command = (name: string, about: string): Command =>
    dataset.command(name).description(about).argument("<dataset>", "folder of the data set");

  dataset
    .command("build")
    .description("run every stage of a configuration; run it again to go on or to bring the data set up to date")
    .argument("<config>", "a JSON file: sources, filters, annotators")
    .requiredOption("--out <folder>", "the data set")
    .option("--dry-run", "say what each stage has to do, and what language models would cost, and do nothing", false)
    .action(async (config: string, o: { out: string; dryRun: boolean }) =>
      o.dryRun ? (await work()).plan(config, o.out) : (await work()).build(config, o.out),
    );
  for (const name of STAGES) {
    command(name, `the stage "${name}" alone`)
      .addOption(new Option("--shard <i/n>", "this machine's part, from 1/n to n/n; then run merge").argParser(shard))
      .option("--config <file>", "make the data set, or give it this configuration, as build does")
      .option("--again", "do again what ended in an error, e.g. a model's answer that was none", false)
      .option("--dry-run", "say how much is to be done, and what a language model would cost, and do nothing", false)
      .action(async (dir: string, o: StageCommandOptions) => (await work()).stage(dir, name, o));
  }
  command("merge", "make a stage's table from what several machines have done, and copy their work here")
    .addArgument(new Argument("<stage>", "which stage").choices(STAGES))
    .option("--from <folders...>", "copies of the data set on which shards were run")
    .action(async (dir: string, name: string, o: { from?: string[] }) => (await work()).merge(dir, name, o.from ?? []));
  command("filter", "decide which stickers are kept, by the limits of the configuration").action(async (dir: string) =>
    (await work()).filter(dir),
  );
  command("split", "choose the test sets and what is held out of training").action(async (dir: string) =>
    (await work()).split(dir),
  );
  command("stats", "the paper's Tables 2 and 3 and Figures 3 and 4 for this data set, as JSON and a page")
    .option("-o, --out <folder>", "where stats.json and stats.html go (default: the data set)")
    .action(async (dir: string, o: { out?: string }) => (await work()).stats(dir, o.out ?? dir));
  command("show", "a contact sheet of stickers, kept or rejected, to judge by eye")
    .addOption(
      new Option(
        "--rejected <reason>",
        "those rejected for this reason; a list instead of a picture for those not collected",
      ).choices(REASONS),
    )
    .option("--count <n>", "how many", whole(1, 2000), 60)
    .option("-o, --out <file>", "the PNG", "sheet.png")
    .action(async (dir: string, o: ShowOptions) => (await work()).show(dir, o));
  command("export", "write the data set for training and sharing, with its card")
    .addOption(new Option("--format <name>", "for whom").choices(FORMATS).default("imagefolder"))
    .option("--strips", "imagefolder: a strip of eight frames beside each sticker, for viewers", false)
    .requiredOption("-o, --out <folder>", "where it goes")
    .action(async (dir: string, o: ExportOptions) => (await work()).exportTo(dir, o));
  command("verify", "hash every file again and say what is missing or changed")
    .option("--prune", "remove files in no table, e.g. since their source has lost them; not while a stage runs", false)
    .action(async (dir: string, o: VerifyOptions) => (await work()).verifyAll(dir, o));
  command("history", "where everything that is said of one sticker comes from: tool, model, version, time")
    .argument("<id>", "the sticker's sha256, or its beginning")
    .action(async (dir: string, id: string) => (await work()).tellHistory(dir, id));
  dataset
    .command("cache")
    .description("decode the stickers of a data folder or export once, into the file of frames that training reads")
    .argument("<folder>", "a folder with a metadata.jsonl, as export writes it")
    .option("--size <pixels>", "width and height of the frames: what will be trained at", pixels, 64)
    .option("--frames <n>", "frames of each sticker", whole(1, 64), 8)
    .option("--processes <n>", "decoding processes (default: one per core)", whole(1, 1024))
    .action(async (dir: string, o: CacheOptions) => (await work()).cache(dir, o));
  dataset
    .command("train-domain")
    .description(
      'train the classifier of the stage "domain", EfficientNet, and test it on stickers that it has not seen',
    )
    .argument("<folder>", 'folders "cartoon" and "real", or an imagefolder export whose lines name domains')
    .requiredOption("--out <folder>", "run folder; name it as annotate.domainModel")
    .option("--size <pixels>", "width and height of what it sees; 224 on a GPU", pixels, 48)
    .option("--width <n>", "times the widths of EfficientNet-B0; 1 on a GPU", above(0), 0.5)
    .option("--init <file>", "start from torchvision's weights of efficientnet_b0, with --width 1")
    .option("--held-out <share>", "of the stickers, to test with", between(0, 1), 0.2)
    .option("--steps <n>", "optimiser steps", whole(1), 200)
    .option("--batch <n>", "pictures per step, half of each domain", even, 16)
    .option("--lr <rate>", "peak learning rate", above(0), 2e-3)
    .option("--resume", "go on from the last checkpoint in the run folder", false)
    .addOption(new Option("--seed <n>", "same seed and adapter, same weights").argParser(seed).default(1))
    .action(async (dir: string, o: TrainDomainOptions) => (await work()).trainDomainOn(dir, o));
  dataset
    .command("schema")
    .description("print the JSON Schema of configurations, for editors")
    .action(async () => (await work()).schema());
}

function even(value: string): number {
  const n = whole(2)(value);
  if (n % 2 === 0) return n;
  throw new InvalidArgumentError("Expected an even number.");
}

/** "2/8" is the second of eight. */
function shard(value: string): Shard {
  const [, index, count] = /^(\d+)\/(\d+)$/.exec(value) ?? [];
  const parsed = { index: Number(index) - 1, count: Number(count) };
  if (parsed.index >= 0 && parsed.index < parsed.count) return parsed;
  throw new InvalidArgumentError("Expected i/n with i from 1 to n.");
}
