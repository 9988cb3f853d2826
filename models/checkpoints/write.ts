// Our configurations as config.json of diffusers and transformers: what the readers beside this file read back to the same
// values. Layers that those libraries have not are told by keys of this project's own: "sti", "mix", "transformer_in", "image".

import type { ClipConfig } from "../clip.ts";
import type { AutoencoderConfig, ImageGuidanceConfig, StiConfig, TextConfig, UNetConfig } from "../config.ts";
import type { VisionConfig } from "../image_encoder.ts";
import { ConfigError } from "./reader.ts";
import type { SchedulerDescription } from "./scheduler.ts";
import { SIDE, type UNetDescription } from "./unet.ts";

type Fields = Readonly<Record<string, unknown>>;

export function writeVaeConfig({
  config,
  scale,
}: {
  readonly config: AutoencoderConfig;
  readonly scale: number;
}): Fields {
  const { channels, layers, latent, groups } = config;
  return {
    _class_name: "AutoencoderKL",
    act_fn: "silu",
    block_out_channels: channels,
    down_block_types: channels.map(() => "DownEncoderBlock2D"),
    in_channels: 3,
    latent_channels: latent,
    layers_per_block: layers,
    norm_num_groups: groups,
    out_channels: 3,
    scaling_factor: scale,
    up_block_types: channels.map(() => "UpDecoderBlock2D"),
  };
}

/** Throws ConfigError for VideoFactory's layers, and for pictures that count twice, as in VGen: there are no keys for them. */
export function writeUNetConfig({ config, temporal, sample }: UNetDescription): Fields {
  if (config.swap) throw new ConfigError("a UNet with swapped attention cannot be written in diffusers' layout");
  if (config.image?.gain) throw new ConfigError("a UNet of VGen's I2VGen-XL cannot be written in diffusers' layout");
  const { channels, heads, headDim, latent, inputs = latent, sti, mixing, image, transformerIn } = config;
  const dimensions = temporal ? "3D" : "2D";
  const attended = config.attended ?? channels.map((_, level) => level !== channels.length - 1);
  const types = (way: string): string[] =>
    attended.map((reads) => `${reads ? "CrossAttn" : ""}${way}Block${dimensions}`);
  const counts = heads ?? channels.map((c) => c / headDim);
  const own = temporal && (transformerIn.heads !== 8 || transformerIn.dim !== headDim);
  return {
    _class_name: image ? "I2VGenXLUNet" : temporal ? "UNet3DConditionModel" : "UNet2DConditionModel",
    act_fn: "silu",
    attention_head_dim: temporal ? headDim : counts,
    block_out_channels: channels,
    cross_attention_dim: config.context,
    down_block_types: types("Down"),
    in_channels: image ? latent : inputs,
    layers_per_block: config.layers,
    norm_num_groups: config.groups,
    out_channels: latent,
    ...(sample === undefined ? {} : { sample_size: sample }),
    up_block_types: types("Up").reverse(),
    ...(temporal ? {} : { use_linear_projection: true }),
    ...(own ? { transformer_in: transformerIn } : {}),
    ...(image && !isPublished(image, config) ? { image } : {}),
    ...(sti ? { sti: writeSti(sti) } : {}),
    ...(mixing ? { mix: { kind: "sigmoid" } } : {}),
  };
}

/** Whether a picture's sizes are those that diffusers' class has for this network. */
function isPublished({ side, embedding, tokens }: ImageGuidanceConfig, { context, latent }: UNetConfig): boolean {
  return side === SIDE && embedding === context && tokens === latent;
}

function writeSti({ heads, dim, pool, outNorm, light, third }: StiConfig): Fields {
  if (third) throw new ConfigError("an STI layer with a third weight cannot be written in diffusers' layout");
  const detail = light ? { detail: "light", frames: light.frames } : { detail: "conv" };
  return { heads, head_dim: dim, pool, output_norm: outNorm, ...detail };
}

function textFields(config: TextConfig): Fields {
  return {
    vocab_size: config.vocabulary,
    hidden_size: config.width,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    intermediate_size: config.mlp,
    max_position_embeddings: config.length,
    hidden_act: config.activation ?? "gelu",
    layer_norm_eps: config.epsilon ?? 1e-5,
    ...(config.endId === undefined ? { eos_token_id: 2 } : { eos_token_id: config.endId }),
  };
}

function visionFields(config: VisionConfig): Fields {
  return {
    hidden_size: config.width,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    intermediate_size: config.mlp,
    image_size: config.size,
    patch_size: config.patch,
    num_channels: config.inputs ?? 3,
    hidden_act: config.activation ?? "gelu",
    layer_norm_eps: config.epsilon ?? 1e-5,
  };
}

/** With the name of the class that has a projection, where there is one. */
function tower(name: string, type: string, fields: Fields, projection: number | undefined): Fields {
  const projected = projection === undefined ? {} : { projection_dim: projection };
  const architectures = [projection === undefined ? name : `${name}WithProjection`];
  return { architectures, model_type: type, ...projected, ...fields };
}

export function writeTextConfig(config: TextConfig): Fields {
  return tower("CLIPTextModel", "clip_text_model", textFields(config), config.projection);
}

export function writeVisionConfig(config: VisionConfig): Fields {
  return tower("CLIPVisionModel", "clip_vision_model", visionFields(config), config.projection);
}

export function writeClipConfig({ text, vision }: ClipConfig): Fields {
  return {
    architectures: ["CLIPModel"],
    model_type: "clip",
    projection_dim: text.projection,
    text_config: textFields(text),
    vision_config: visionFields(vision),
  };
}

const BETAS = { linear: "linear", "scaled-linear": "scaled_linear", cosine: "squaredcos_cap_v2" } as const;
const PREDICTIONS = { epsilon: "epsilon", v: "v_prediction", sample: "sample" } as const;

/** Throws ConfigError for a schedule that is given by its betas. */
export function writeSchedulerConfig({ prediction, schedule, plan }: SchedulerDescription): Fields {
  const { steps = 1000, betas = "scaled-linear", range = [0.00085, 0.012], zeroTerminalSnr = false } = schedule;
  if (typeof betas !== "string") throw new ConfigError("a schedule of given betas cannot be written");
  return {
    _class_name: "DDIMScheduler",
    beta_end: range[1],
    beta_schedule: BETAS[betas],
    beta_start: range[0],
    clip_sample: false,
    num_train_timesteps: steps,
    prediction_type: PREDICTIONS[prediction],
    rescale_betas_zero_snr: zeroTerminalSnr,
    set_alpha_to_one: plan.end === "clean",
    steps_offset: plan.offset ?? 0,
    timestep_spacing: plan.spacing ?? "leading",
  };
}
