// The six systems of the paper's Table 4 as a table: what each is called, what it is told, in which stages it trains, which
// network it is at a preset, and which of its parameters belong to which component. Networks are built to be counted and
// planned: their weights are made on first use. How they compute is in one file per system. Called by commands and tests.

import type { Parameter } from "../engine/index.ts";
import type { Module } from "../engine/nn/index.ts";
import { type DiffusionSystem, PRESETS, type Preset, type SystemName, systemConfig } from "./config.ts";
import { LatentDiffusion } from "./latent_diffusion.ts";
import { VideoGpt, videoGptConfig } from "./videogpt.ts";

export interface System {
  readonly name: SystemName;
  /** As the paper's tables call it. */
  readonly title: string;
  /** What it is told about the sticker that it shall draw. */
  readonly conditions: string;
  /** Recipes that train it, in this order. */
  readonly stages: readonly string[];
  /** The whole system, frozen parts included. Allocates no weights. */
  build(preset: Preset): Module;
  readonly components: readonly ComponentRule[];
}

/** Which parameters are a part of a component; the first rule of a system that matches a name has it. */
export interface ComponentRule {
  readonly component: string;
  readonly part: string;
  readonly names: RegExp;
  /** Not in the paper's count of the system, and so not in ours. */
  readonly beyond?: boolean;
}

function rules(component: string, parts: Readonly<Record<string, RegExp>>): ComponentRule[] {
  return Object.entries(parts).map(([part, names]) => ({ component, part, names }));
}

const DIFFUSION: readonly ComponentRule[] = [
  ...rules("autoencoder", {
    encoder: /^autoencoder\.encoder\./,
    decoder: /^autoencoder\.decoder\./,
    "quantising convolutions": /^autoencoder\.(post_)?quant_conv\./,
  }),
  ...rules("text encoder", {
    "token and position embeddings": /^text_encoder\.text_model\.embeddings\./,
    layers: /^text_encoder\./,
  }),
  ...rules("image encoder", { all: /^image_encoder\./ }),
  ...rules("unet", {
    "mixing scalars": /^unet\..*\.mix$/,
    "swapped attention": /^unet\..*\.swap_attention\./,
    "STI attention": /^unet\..*\.temp_convs\.\d+\.transformer_blocks\./,
    "STI weights": /^unet\..*\.temp_convs\.\d+\.(w\d|norm\..*)$/,
    "temporal convolutions": /^unet\..*\.temp_convs\./,
    "temporal attention": /^unet\..*\.temp_attentions\./,
    "first temporal attention": /^unet\.transformer_in\./,
    "image guidance": /^unet\.(image_latents_|context_embedding|fps_embedding)/,
    "first convolution": /^unet\.conv_in\./,
    "time embedding": /^unet\.time_embedding\./,
    "residual blocks": /^unet\..*\.resnets\./,
    "spatial transformers": /^unet\..*\.attentions\./,
    resampling: /^unet\..*\.(down|up)samplers\./,
    head: /^unet\.conv_(norm_)?out\./,
  }),
];

function diffusion(name: DiffusionSystem, title: string, conditions = "a caption with its domain"): System {
  const build = (preset: Preset): Module => new LatentDiffusion(systemConfig(name, preset));
  return { name, title, conditions, stages: ["autoencoder", "diffusion"], build, components: DIFFUSION };
}

const VIDEOGPT: readonly ComponentRule[] = [
  ...rules("vqvae", {
    encoder: /^vqvae\.encoder\./,
    decoder: /^vqvae\.decoder\./,
    "convolution to codes": /^vqvae\.pre_vq_conv\./,
    "convolution from codes": /^vqvae\.post_vq_conv\./,
  }),
  { component: "prior", part: "tags", names: /^prior\.tags$/, beyond: true },
  ...rules("prior", {
    "first linear": /^prior\.fc_in\./,
    "start vector": /^prior\..*\.sos$/,
    positions: /^prior\..*\.pos_embd\./,
    layers: /^prior\.attn_stack\.attn_nets\./,
    "last norm": /^prior\.norm\./,
    "last linear": /^prior\.fc_out\./,
  }),
];

/** In the order of the paper's tables. */
export const SYSTEMS: readonly System[] = [
  {
    name: "videogpt",
    title: "VideoGPT",
    conditions: "tags: known words of a caption, and its domain",
    stages: ["vqvae", "prior"],
    build: (preset) => new VideoGpt(videoGptConfig(preset)),
    components: VIDEOGPT,
  },
  diffusion("make-a-video", "Make-A-Video"),
  diffusion("videoldm", "VideoLDM"),
  diffusion("videofactory", "VideoFactory"),
  diffusion("i2vgen-xl", "I2VGen-XL", "a caption with its domain and, where one is given, a picture"),
  diffusion("sti", "Ours (STI)"),
];

export interface ComponentCount {
  /** Sum of its parts. */
  readonly count: number;
  readonly parts: Readonly<Record<string, number>>;
}

export interface SystemCount {
  readonly system: SystemName;
  readonly preset: Preset;
  /** Everything that is loaded, frozen parts included, as the paper counts. */
  readonly total: number;
  readonly components: Readonly<Record<string, ComponentCount>>;
  /** What the paper's count leaves out. */
  readonly beyond: Readonly<Record<string, number>>;
}

/**
 * Parameters of a system at a preset, from its configuration alone. Buffers do not count.
 * @throws Error when a parameter belongs to no component
 */
export function countSystem(system: System, preset: Preset): SystemCount {
  return { system: system.name, preset, ...countParameters(system, system.build(preset).state()) };
}

/** The same of a model that is there, whatever its sizes. */
export function countParameters(
  system: System,
  state: ReadonlyMap<string, Parameter>,
): Pick<SystemCount, "total" | "components" | "beyond"> {
  const sizes = new Map<ComponentRule, number>();
  for (const [name, p] of state) {
    if (p.buffer) continue;
    const rule = system.components.find(({ names }) => names.test(name));
    if (!rule) throw new Error(`${system.name}: ${name} belongs to no component`);
    const size = p.shape.reduce((a, b) => a * b, 1);
    sizes.set(rule, (sizes.get(rule) ?? 0) + size);
  }
  const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);
  const present = system.components.filter((rule) => sizes.has(rule));
  const counted = present.filter((rule) => !rule.beyond);
  const named = (some: readonly ComponentRule[]): Record<string, number> =>
    Object.fromEntries(some.map((rule) => [rule.part, sizes.get(rule) as number]));
  const components: Record<string, ComponentCount> = {};
  for (const { component } of counted) {
    const parts = named(counted.filter((rule) => rule.component === component));
    components[component] = { count: sum(Object.values(parts)), parts };
  }
  const total = sum(Object.values(components).map(({ count }) => count));
  return { total, components, beyond: named(present.filter((rule) => rule.beyond)) };
}

/** Every system at every preset, or those that are named. */
export function countSystems(names?: readonly SystemName[], presets: readonly Preset[] = PRESETS): SystemCount[] {
  const chosen = SYSTEMS.filter(({ name }) => !names || names.includes(name));
  return chosen.flatMap((system) => presets.map((preset) => countSystem(system, preset)));
}
