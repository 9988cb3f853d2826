// The options that each command's `run(options)` takes, and the parsers that turn words on the command line into them.
// Checked here so that a wrong value stops before anything is loaded. Used by main.ts; the types by each command's file.

import { type Command, InvalidArgumentError, Option } from "commander";

export const PRESETS = ["nano", "micro", "tiny", "small", "paper"] as const;
export const SYSTEMS = ["videogpt", "make-a-video", "videoldm", "videofactory", "i2vgen-xl", "sti"] as const;
export const SAMPLER_NAMES = ["ddim", "ddpm", "dpm++", "euler"] as const;
/** Of diffusion systems; their training steps can be profiled and tuned. */
export const RECIPES = ["autoencoder", "diffusion"] as const;
/** Of all systems. */
export const STAGES = [...RECIPES, "vqvae", "prior"] as const;
export type Recipe = (typeof STAGES)[number];
export const OBJECTIVES = ["next", "masked"] as const;
export const RATE_SCHEDULES = ["cosine", "constant"] as const;
export const DOMAIN_CHOICES = ["cartoon", "real", "all"] as const;

export interface StarterOptions {
  /** Folder to write the stickers into. */
  out: string;
  count: number;
  /** Pixels a side. */
  size: number;
  seed: number;
}

export interface TrainOptions {
  /** Folder of stickers with a metadata.jsonl. */
  data: string;
  /** Absent: sti. */
  system?: (typeof SYSTEMS)[number];
  /** One stage; absent: all of the system's. */
  recipe?: Recipe;
  preset: (typeof PRESETS)[number];
  /** Of each stage. */
  steps: number;
  /** Run folder. */
  out: string;
  resume: boolean;
  seed: number;
  /** Stickers of one domain; absent or "all": of both. */
  domain?: (typeof DOMAIN_CHOICES)[number];
  /** diffusion: what is trained; absent: scratch. */
  trainable?: (typeof TRAINABLE)[number];
  /** diffusion: batches per step, shape of the rate, steps of its rise, share of captions dropped. */
  accumulate?: number;
  schedule?: (typeof RATE_SCHEDULES)[number];
  warmup?: number;
  drop?: number;
  /** diffusion: f16 is mixed precision. */
  precision?: "f32" | "f16";
  /** diffusion, i2vgen-xl: the first frames of the stickers guide. */
  pictures?: boolean;
  /** Folder for latents and text features; absent: in the data folder. */
  cache?: string;
  /** diffusion, prior: checkpoints at its multiples stay; absent: the last two alone. */
  keepEvery?: number;
  /** Stickers per step, peak learning rate, pixels a side: the recipe's own for the preset where absent. */
  batch?: number;
  lr?: number;
  size?: number;
  /** Run folder of the autoencoder that the diffusion recipe works in; absent: the one in `out`. */
  autoencoder?: string;
  /** diffusion: a tokenizer.json instead of one trained on the captions. */
  tokenizer?: string;
  /** prior: what it learns to say; absent: the next code. */
  objective?: (typeof OBJECTIVES)[number];
  /** diffusion: kind and place of an image model to start from; it takes the place of the autoencoder's stage too. */
  init?: string[];
}

export interface GenerateOptions {
  /** Which of these were on the command line; absent: none is refused for having no effect. */
  given?: readonly string[];
  /** Run folder of a trained diffusion model. */
  run: string;
  /** At least one; "[Domain] \t [Description]" with a real tab. */
  captions: string[];
  seed: number;
  sampler: (typeof SAMPLER_NAMES)[number];
  steps: number;
  /** How much fresh noise each step adds. */
  eta: number;
  guidance: number;
  /** What guidance moves away from; absent: the empty caption. */
  negative?: string;
  /** i2vgen-xl: a picture file, or a sticker whose first frame is taken, that all the stickers show. */
  image?: string;
  /** Stickers per caption, each with noise of its own, and how many are made at a time. */
  count: number;
  batch: number;
  fps: number;
  /** VideoGPT: logits are divided by the temperature; only the likeliest codes are drawn from. */
  temperature?: number;
  topK?: number;
  /** A .gif file for one caption, else a folder; absent: the folder "generated" in the run. */
  out?: string;
}

export interface StartOptions {
  out: string;
  seed: number;
}

export interface SystemsOptions {
  out: string;
  preset: (typeof PRESETS)[number];
  /** Some of the systems; absent: all. */
  system?: (typeof SYSTEMS)[number][];
  /** Of each system's last stage. */
  steps: number;
  /** No system is begun after so many. */
  minutes?: number;
  seed: number;
}

export const DEVICES = ["gpu", "reference"] as const;

export interface GoldenOptions {
  /** A golden folder, or a folder of them. */
  folder: string;
  /** One JSON document instead of lines. */
  json: boolean;
  device: (typeof DEVICES)[number];
}

export interface ParamsOptions {
  /** Absent: all of them. */
  system?: (typeof SYSTEMS)[number];
  preset?: (typeof PRESETS)[number];
  /** One JSON document instead of tables. */
  json: boolean;
}

export interface ProfileOptions {
  /** A command to trace, with its arguments; empty: a training step of `recipe` at `preset`. */
  command: string[];
  recipe: (typeof RECIPES)[number];
  preset: (typeof PRESETS)[number];
  steps: number;
  batch: number;
  /** The trace file. */
  out: string;
  /** Print the tables as JSON. */
  json: boolean;
}

export const ADAPTERS = ["discrete", "minimum", "this"] as const;
export const TRAINABLE = ["scratch", "all", "temporal", "conv"] as const;

export interface PlanOptions {
  system: (typeof SYSTEMS)[number];
  preset: (typeof PRESETS)[number];
  /** Stickers per step. */
  batch: number;
  dtype: "f32" | "f16";
  /** Training steps instead of sampling. */
  train: boolean;
  /** With `train`: one stage's step; absent: all of the system's. */
  recipe?: Recipe;
  /** With `train`: what the diffusion recipe updates. */
  trainable: (typeof TRAINABLE)[number];
  /** Sampling: denoising steps. */
  steps: number;
  /** Whose capabilities and limits the plan is for: a discrete GPU's, WebGPU's minimum, this machine's. */
  adapter: (typeof ADAPTERS)[number];
  json: boolean;
}

export interface TuneOptions {
  preset: (typeof PRESETS)[number];
  /** Whose training step's shapes; absent: those of all recipes. */
  recipe?: (typeof RECIPES)[number];
  batch: number;
  /** Most classes of shapes to measure; absent: all. */
  limit?: number;
  /** The tuning file; absent: where openDevice looks. */
  out?: string;
  /** Measure again what the file has. */
  fresh: boolean;
  json: boolean;
}

export const CHECKPOINT_KINDS = ["sd21", "text-to-video-ms", "i2vgen-xl", "videogpt", "clip"] as const;

export interface ImportOptions {
  /** Folder of a pipeline or of one network, or a file of weights. */
  path: string;
  as: (typeof CHECKPOINT_KINDS)[number];
  /** A new folder. */
  out: string;
  /** Those of a folder's weights that are called so: "fp16". */
  variant?: string;
  /** Folder of configurations, for weights that come without. */
  config?: string;
}

export interface ExportOptions {
  /** An imported checkpoint, or the run folder of a diffusion system. */
  run: string;
  /** Checked against what it is. */
  as?: (typeof CHECKPOINT_KINDS)[number];
  /** A new folder. */
  out: string;
}

export const METRICS = ["vqa", "fvd", "clip"] as const;
export const EXTENSIONS = ["loop", "ping-pong", "resample"] as const;

export interface EvalOptions {
  /** Which of these were on the command line. */
  given?: readonly string[];
  /** Folders of generated stickers; several are ranked. */
  generated: string[];
  /** Folder of real stickers. */
  real: string;
  /** Published weight files, or a folder that train-features made. */
  weights: string;
  metrics: (typeof METRICS)[number][];
  /** Pixels a side of all clips; absent: that of the generated ones. */
  size?: number;
  /** Frames taken of each sticker; how they are played until a network has enough, and how many I3D gets. */
  frames: number;
  extension: (typeof EXTENSIONS)[number];
  fvdFrames: number;
  /** Clips at a time. */
  batch: number;
  seed: number;
  json: boolean;
}

export interface TrainFeaturesOptions {
  /** Folder of stickers with a metadata.jsonl. */
  data: string;
  out: string;
  /** Of each network. */
  steps: number;
  batch: number;
  size?: number;
  resume: boolean;
  seed: number;
}

export interface ExampleOptions {
  /** Where the example's stickers go. */
  out: string;
}

export interface CostOptions {
  /** Which of these were on the command line. */
  given?: readonly string[];
  /** Run folder. */
  run: string;
  /** Stickers that are timed. */
  runs: number;
  sampler: (typeof SAMPLER_NAMES)[number];
  steps: number;
  guidance: number;
  seed: number;
  json: boolean;
}

export interface BenchmarkOptions {
  /** The configuration, a JSON file. */
  config?: string;
  out: string;
  /** Only say how much there is to do. */
  estimate: boolean;
  /** Only print the configuration's JSON Schema. */
  schema: boolean;
}

/** A parser of whole numbers in [min, max] for commander's option(). */
export function whole(min: number, max = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = /^-?\d+$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
    throw new InvalidArgumentError(`Expected a whole number ${range}.`);
  };
}

/** A seed is one 32-bit word of the counter-based generator's key. */
export const seed = whole(0, 0xffffffff);

export function seedOption(): Option {
  return new Option("--seed <n>", "same seed and adapter, same bytes").argParser(seed).default(1);
}

/** Pixels a side: the presets halve the picture three times in the autoencoder, and 512 is the paper's largest. */
export function pixels(text: string): number {
  const value = whole(16, 512)(text);
  if (value % 8 === 0) return value;
  throw new InvalidArgumentError("Expected a multiple of 8.");
}

/** A parser of finite numbers above `min`, or equal to it where `orEqual`. */
export function above(min: number, { orEqual = false } = {}): (text: string) => number {
  return (text) => {
    const value = text.trim() === "" ? Number.NaN : Number(text);
    if (Number.isFinite(value) && (value > min || (orEqual && value === min))) return value;
    throw new InvalidArgumentError(`Expected a number ${orEqual ? "of at least" : "above"} ${min}.`);
  };
}

/** A parser of numbers in [min, max]. */
export function between(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = text.trim() === "" ? Number.NaN : Number(text);
    if (value >= min && value <= max) return value;
    throw new InvalidArgumentError(`Expected a number from ${min} to ${max}.`);
  };
}

/** Shells pass "\t" on as two characters; captions mean the tab between domain and description. */
export function caption(text: string): string {
  const value = text.replaceAll("\\t", "\t").trim();
  if (value === "") throw new InvalidArgumentError("The caption is empty.");
  return value;
}

/** Names of the options that were on the command line, as properties: "topK". */
export function givenOptions(command: Command): string[] {
  return command.options
    .map((option) => option.attributeName())
    .filter((name) => command.getOptionValueSource(name) === "cli");
}

/** Throws one line when one of `names`, as properties, was given where it would do nothing; `whom` says for whom it is. */
export function refuseGiven(given: readonly string[], names: readonly string[], whom: string): void {
  const name = names.find((one) => given.includes(one));
  if (name === undefined) return;
  throw new Error(`--${name.replaceAll(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)} is for ${whom}: leave it out`);
}

/** Options of `train` that diffusion systems alone read. */
export const DIFFUSION_OPTIONS = [
  ...["trainable", "autoencoder", "tokenizer", "init", "accumulate", "schedule", "warmup", "precision", "drop"],
  ...["pictures", "cache"],
];
