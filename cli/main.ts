// The `gifgrad` command line: what the commands are called, their options and help. Each command's work is in its own
// file, imported only when that command runs, so that help is immediate. Called by gifgrad.mjs with process.argv.

import { Argument, Command, Option } from "commander";
import { version } from "../package.json";
import { addBenchmark } from "./benchmark_commands.ts";
import { addDataset } from "./dataset_commands.ts";
import { addEval } from "./eval_commands.ts";
import {
  ADAPTERS,
  above,
  between,
  CHECKPOINT_KINDS,
  caption,
  DEVICES,
  DIFFUSION_OPTIONS,
  DOMAIN_CHOICES,
  type ExportOptions,
  type GenerateOptions,
  type GoldenOptions,
  givenOptions,
  type ImportOptions,
  OBJECTIVES,
  type ParamsOptions,
  type PlanOptions,
  PRESETS,
  type ProfileOptions,
  pixels,
  RATE_SCHEDULES,
  RECIPES,
  refuseGiven,
  SAMPLER_NAMES,
  STAGES,
  type StarterOptions,
  type StartOptions,
  SYSTEMS,
  type SystemsOptions,
  seedOption,
  TRAINABLE,
  type TrainOptions,
  type TuneOptions,
  whole,
} from "./options.ts";

/** Runs the command that `argv` (as process.argv) names. An error ends the process with one message and code 1. */
export async function main(argv: readonly string[]): Promise<void> {
  try {
    if (process.env.DEBUG) await warnOfTopics(process.env.DEBUG);
    await createProgram().parseAsync(argv);
  } catch (error) {
    await report(error);
    process.exit(1);
  }
}

function createProgram(): Command {
  const program = new Command("gifgrad")
    .description("Animated stickers from text: make a data set, train a model on it, generate GIFs.")
    .version(version, "-V, --version", "print the version")
    .configureOutput({ outputError: (text, write) => write(`gifgrad: ${oneLine(text)}\n`) })
    .showHelpAfterError(false)
    .enablePositionalOptions()
    .addHelpText(
      "after",
      "\nOptions of a command: gifgrad <command> --help. Where an error arose: DEBUG=stack gifgrad ...",
    );
  for (const add of [
    addStart,
    addStarter,
    addTrain,
    addGenerate,
    addSystems,
    addProfile,
    addPlan,
    addTune,
    addDoctor,
    addGolden,
    addDataset,
    addEval,
    addBenchmark,
    addParams,
    addImport,
    addExport,
  ])
    add(program);
  return program;
}

function addStart(program: Command): void {
  program
    .command("start")
    .description("the whole job in a few minutes: starter stickers, training, GIFs and a report page")
    .option("--out <folder>", "where the stickers, models, GIFs and report go", "runs/start")
    .addOption(seedOption())
    .action(async (options: StartOptions) => (await import("./start.ts")).run(options));
}

function addSystems(program: Command): void {
  program
    .command("systems")
    .description("train all six systems for a few minutes each, sample them, compare them on one page")
    .option("--out <folder>", "where everything goes", "runs/systems")
    .addOption(new Option("--preset <name>", "size of the models").choices(PRESETS).default("nano"))
    .addOption(new Option("--system <name...>", "only these").choices(SYSTEMS))
    .option("--steps <n>", "optimiser steps of each system's last stage", whole(1), 150)
    .option("--minutes <n>", "begin no further system after so many (default: no limit)", above(0))
    .addOption(seedOption())
    .action(async (options: SystemsOptions) => (await import("./systems.ts")).run(options));
}

function addStarter(program: Command): void {
  program
    .command("starter")
    .description("write the starter set: procedural captioned stickers, English and Chinese")
    .argument("<out>", "folder to write into")
    .option("--count <n>", "how many stickers", whole(1, 1_000_000), 500)
    .option("--size <pixels>", "width and height", pixels, 64)
    .addOption(seedOption())
    .action(async (out: string, options: Omit<StarterOptions, "out">) =>
      (await import("./starter.ts")).run({ out, ...options }),
    );
}

function addTrain(program: Command): void {
  program
    .command("train")
    .description("train a system on a folder of stickers: all of its stages, or one")
    .argument("<data>", "folder of stickers with a metadata.jsonl: file_name, caption and optionally domain")
    .addOption(new Option("--system <name>", "which of the six systems").choices(SYSTEMS).default("sti"))
    .addOption(new Option("--recipe <name>", "one stage only (default: all, one after another)").choices(STAGES))
    .addOption(new Option("--preset <name>", "size of the model").choices(PRESETS).default("micro"))
    .option("--steps <n>", "optimiser steps of each stage, those of a resumed run included", whole(1), 2000)
    .requiredOption("--out <folder>", "run folder: checkpoints, metrics.jsonl, run.json")
    .option("--resume", "go on from the last checkpoint in the run folder", false)
    .addOption(new Option("--domain <name>", "train on one domain").choices(DOMAIN_CHOICES).default("all"))
    .addOption(
      new Option(
        "--trainable <part>",
        "diffusion: temporal convolutions or STI; all temporal layers; the whole UNet; the text encoder too",
      )
        .choices(TRAINABLE)
        .default("scratch"),
    )
    .option("--autoencoder <folder>", "diffusion: run folder of the trained autoencoder (default: the one in --out)")
    .option("--tokenizer <file>", "diffusion: a tokenizer.json to use (default: one trained on the captions)")
    .option("--init <kind and folder...>", "diffusion: start from an image model, as in --init sd21 <folder>")
    .addOption(new Option("--objective <name>", "prior: the next code, or masked codes").choices(OBJECTIVES))
    .option("--keep-every <n>", "keep checkpoints at its multiples (default: the last two)", whole(1))
    .option("--batch <n>", "stickers per batch (default: the recipe's)", whole(1))
    .option("--accumulate <n>", "diffusion: batches per step (default: 1; 6 at preset paper)", whole(1))
    .option("--lr <rate>", "peak learning rate (default: the recipe's)", above(0))
    .addOption(
      new Option("--schedule <name>", "diffusion: learning rate over time (default: the preset's)").choices(
        RATE_SCHEDULES,
      ),
    )
    .option("--warmup <n>", "diffusion: steps of linear rise (default: the preset's)", whole(0))
    .addOption(
      new Option("--precision <name>", "diffusion: f16 is mixed precision, with f32 weights")
        .choices(["f32", "f16"])
        .default("f32"),
    )
    .option("--drop <share>", "diffusion: captions left out, which guidance needs (default: 0.1)", between(0, 1))
    .option("--pictures", "diffusion, i2vgen-xl: guide by first frames too, for generate --image", false)
    .option("--size <pixels>", "width and height stickers are resized to (default: the preset's)", pixels)
    .option("--cache <folder>", "for outputs of frozen networks (default: .gifgrad in the data folder)")
    .addOption(seedOption())
    .action(async (data: string, options: Omit<TrainOptions, "data">, command: Command) => {
      const given = givenOptions(command);
      if (options.system === "videogpt") refuseGiven(given, DIFFUSION_OPTIONS, "diffusion systems, not for videogpt");
      else refuseGiven(given, ["objective"], `videogpt's prior, not for ${options.system}`);
      await (await import("./train.ts")).run({ data, ...options });
    });
}

function addGenerate(program: Command): void {
  program
    .command("generate")
    .description("sample GIFs for captions from a trained run")
    .addArgument(
      new Argument("<caption...>", 'as in "Cartoon \\t a red heart beating"; VideoGPT: tags').argParser(captions),
    )
    .requiredOption("--run <folder>", "run folder of the trained model")
    .addOption(new Option("--sampler <name>", "how noise is removed").choices(SAMPLER_NAMES).default("ddim"))
    .option("--steps <n>", "steps of the sampler; rounds of a masked prior, there 12", whole(1, 1000), 25)
    .option("--eta <share>", "ddim, euler: fresh noise per step; 0 is none, 1 as much as ancestral", between(0, 1), 0)
    .option("--guidance <scale>", "classifier-free guidance; 1 is none", above(0, { orEqual: true }), 2)
    .option("--negative <caption>", "what guidance moves away from (default: the empty caption)", caption)
    .option("--image <file>", "i2vgen-xl: a picture that the stickers show")
    .option("--count <n>", "stickers per caption", whole(1, 10_000), 1)
    .option("--batch <n>", "stickers sampled at a time: faster, takes more memory", whole(1, 256), 1)
    .option("--fps <n>", "frames per second", between(1, 50), 10)
    .option("--temperature <t>", "VideoGPT: above 1 more varied, below 1 more likely (default: 1)", above(0))
    .option("--top-k <n>", "VideoGPT: draw from the n likeliest codes (default: all)", whole(1))
    .option("-o, --out <path>", 'a .gif file, or a folder (default: the folder "generated" in the run)')
    .addOption(seedOption())
    .action(async (captions: string[], options: Omit<GenerateOptions, "captions">, command: Command) => {
      const given = givenOptions(command);
      if (!["ddim", "euler"].includes(options.sampler))
        refuseGiven(given, ["eta"], `the samplers ddim and euler, not for ${options.sampler}`);
      const stickers = captions.length * options.count;
      if (stickers > 1 && options.out?.toLowerCase().endsWith(".gif"))
        throw new Error(`generate: ${stickers} stickers cannot share the file ${options.out}: give -o a folder`);
      await (await import("./generate.ts")).run({ captions, ...options, given });
    });
}

function addProfile(program: Command): void {
  program
    .command("profile")
    .description("trace a training step, or any command, for Perfetto; print a table of its kernels")
    .argument("[command...]", "a command that opens a device, with its arguments (default: a step of --preset)")
    .passThroughOptions()
    .addOption(new Option("--preset <name>", "size of the model").choices(PRESETS).default("nano"))
    .addOption(new Option("--recipe <name>", "which stage's training step").choices(RECIPES).default("diffusion"))
    .option("--steps <n>", "steps to run", whole(1), 5)
    .option("--batch <n>", "stickers per step", whole(1), 4)
    .option("-o, --out <file>", "the trace", "trace.json")
    .option("--json", "print the tables as JSON", false)
    .action(async (command: string[], options: Omit<ProfileOptions, "command">) =>
      (await import("./profile.ts")).run({ command, ...options }),
    );
}

function addPlan(program: Command): void {
  program
    .command("plan")
    .description("what sampling, or a training step, would take: dispatches, operations, memory; needs no GPU")
    .addOption(new Option("--system <name>", "which of the systems").choices(SYSTEMS).default("sti"))
    .addOption(new Option("--preset <name>", "size of the model").choices(PRESETS).default("nano"))
    .option("--batch <n>", "stickers per step", whole(1), 1)
    .addOption(new Option("--dtype <name>", "of weights and activations").choices(["f32", "f16"]).default("f32"))
    .option("--train", "training steps, with gradients, moments and averages, instead of sampling", false)
    .addOption(new Option("--recipe <name>", "with --train: one stage only").choices(STAGES))
    .addOption(
      new Option("--trainable <part>", "with --train: what diffusion training updates")
        .choices(TRAINABLE)
        .default("scratch"),
    )
    .option("--steps <n>", "sampling: denoising steps", whole(1, 1000), 25)
    .addOption(
      new Option("--adapter <kind>", "whose limits: a discrete GPU's, WebGPU's least, this machine's")
        .choices(ADAPTERS)
        .default("discrete"),
    )
    .option("--json", "print everything as JSON", false)
    .action(async (options: PlanOptions, command: Command) => {
      const given = givenOptions(command);
      if (options.train) refuseGiven(given, ["steps"], "sampling, not for --train");
      else refuseGiven(given, ["recipe", "trainable"], "training steps, which --train plans");
      await (await import("./plan.ts")).run(options);
    });
}

function addTune(program: Command): void {
  program
    .command("tune")
    .description("measure which kernel variants are fastest on this adapter, and store the choices for openDevice")
    .addOption(
      new Option("--preset <name>", "size of the model whose shapes are tuned").choices(PRESETS).default("nano"),
    )
    .addOption(new Option("--recipe <name>", "one stage's training step only").choices(RECIPES))
    .option("--batch <n>", "stickers per step", whole(1), 4)
    .option("--limit <n>", "only the n classes of shapes with the most work", whole(1))
    .option("-o, --out <file>", "the tuning file (default: one per adapter in the user's cache folder)")
    .option("--fresh", "measure again what the file has already", false)
    .option("--json", "print the file", false)
    .action(async (options: TuneOptions) => (await import("./tune.ts")).run(options));
}

function addDoctor(program: Command): void {
  program
    .command("doctor")
    .description("check the adapter, its driver and each kernel family; say what is wrong and what to do")
    .action(async () => (await import("./doctor.ts")).run());
}

function addParams(program: Command): void {
  program
    .command("params")
    .description("how many parameters each system has at each preset, by component; no weights are made")
    .addOption(new Option("--system <name>", "one system only").choices(SYSTEMS))
    .addOption(new Option("--preset <name>", "one preset only").choices(PRESETS))
    .option("--json", "one JSON document instead of tables", false)
    .action(async (options: ParamsOptions) => (await import("./params.ts")).run(options));
}

function addImport(program: Command): void {
  program
    .command("import")
    .description("read a checkpoint of another program: diffusers folders, single files, torch files")
    .argument("<path>", "folder with unet/, vae/, text_encoder/ ..., folder of one network, or file of weights")
    .addOption(new Option("--as <kind>", "what it is").choices(CHECKPOINT_KINDS).makeOptionMandatory())
    .requiredOption("--out <folder>", "new folder for the imported checkpoint")
    .option("--variant <name>", 'which of a folder\'s weights, e.g. "fp16" (default: those without a variant)')
    .option("--config <folder>", "config.json files for weights that come without (default: the published sizes)")
    .action(async (path: string, options: Omit<ImportOptions, "path">) =>
      (await import("./import.ts")).runImport({ path, ...options }),
    );
}

function addExport(program: Command): void {
  program
    .command("export")
    .description("write an imported checkpoint back, byte by byte as it came, or a trained run as diffusers would")
    .argument("<run>", "folder of an imported checkpoint, or run folder")
    .addOption(new Option("--as <kind>", "what it must be").choices(CHECKPOINT_KINDS))
    .requiredOption("--out <folder>", "new folder for its files")
    .action(async (run: string, options: Omit<ExportOptions, "run">) =>
      (await import("./import.ts")).runExport({ run, ...options }),
    );
}

function addGolden(program: Command): void {
  program
    .command("golden")
    .description("hold the engine against golden data: every tensor's error and bound")
    .argument("<folder>", "a golden folder, or a folder of them")
    .option("--json", "one JSON document instead of lines", false)
    .addOption(new Option("--device <kind>", "reference: float64 on the host").choices(DEVICES).default("gpu"))
    .action(async (folder: string, options: Omit<GoldenOptions, "folder">) =>
      (await import("./golden.ts")).run({ folder, ...options }),
    );
}

/** Commander calls a variadic argument's parser once per word. */
function captions(text: string, previous: string[] | undefined): string[] {
  return [...(previous ?? []), caption(text)];
}

/** Commander writes "error: ..." and puts its suggestion on a line of its own. */
function oneLine(text: string): string {
  return text
    .replace(/^error: /, "")
    .trim()
    .replaceAll(/\s*\n\s*/g, " ");
}

const SYSTEM_ERRORS: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file or folder",
  ENOTDIR: "a file stands where a folder should be",
  EEXIST: "a file stands where a folder should be",
  EISDIR: "a folder stands where a file should be",
  ERR_FS_EISDIR: "a folder stands where a file should be",
  EACCES: "no permission",
  EPERM: "no permission",
  ELOOP: "a link leads to itself",
  EROFS: "the disk cannot be written",
  ENOSPC: "the disk is full",
};

/** What the operating system refused, and of which path; undefined for other errors. */
function ofSystem({ code, path }: NodeJS.ErrnoException): string | undefined {
  const what = SYSTEM_ERRORS[code ?? ""];
  return what && path ? `${what}: ${path}` : what;
}

/** What DEBUG names for a stack; gifgrad.mjs knows it too. */
const STACK = "stack";

/** One line for what DEBUG names in vain. */
async function warnOfTopics(list: string): Promise<void> {
  const known: readonly string[] = [...(await import("../engine/timeline.ts")).TOPICS, STACK];
  const unknown = list.split(",").filter((topic) => topic !== "" && !known.includes(topic));
  if (unknown.length > 0)
    console.error(`warning: DEBUG does not know ${unknown.join(", ")}; it takes ${known.join(", ")}`);
}

/** Prints what went wrong. Errors of the language itself are our mistakes, not the user's, and say so. */
async function report(error: unknown): Promise<void> {
  const { withoutAside } = await import("../engine/atomic.ts"); // here: help does not wait for it
  const message = error instanceof Error ? (ofSystem(error) ?? error.message) : String(error);
  console.error(`gifgrad: ${withoutAside(message)}`);
  if (error instanceof Error && process.env.DEBUG?.split(",").includes(STACK)) console.error(error.stack);
  else if (error instanceof TypeError || error instanceof ReferenceError) {
    console.error("gifgrad: this is a bug in Gifgrad; DEBUG=stack shows where");
  }
}
