// The checkpoints of VGen, the code that ModelScope's text-to-video network and I2VGen-XL were published with: its
// configurations to ours, and its weight names, which number blocks as Stable Diffusion's first files do, from ours. The
// networks are those of video_unet.ts and i2vgen_xl.ts.

import { PLAIN, type UNetConfig } from "../config.ts";
import type { Layout } from "./layout.ts";
import type { ConfigReader } from "./reader.ts";

export interface VgenConfig {
  readonly unet: UNetConfig;
  /** A text-to-video network that is told the frame rate. */
  readonly fps: boolean;
}

/** The picture's features are added to an array of zeros twice there, not once; published weights were trained so. */
export const VGEN_GAIN = 2;

/** Throws ConfigError for what is not here: networks without temporal attention, several transformer layers. */
export function readVgenConfig(r: ConfigReader): VgenConfig {
  r.only("type", "UNetSD_T2VBase", "UNetSD_I2VGen");
  r.only("temporal_attention", true);
  r.only("use_image_dataset", false);
  r.only("adapter_transformer_layers", 1);
  const [latent, width, headDim] = [r.count("in_dim"), r.count("dim"), r.count("head_dim", 64)];
  r.only("out_dim", latent);
  const guided = r.text("type") === "UNetSD_I2VGen";
  const channels = r.counts("dim_mult").map((m) => m * width);
  const scales = r.numbers("attn_scales");
  const unet: UNetConfig = {
    latent,
    inputs: guided ? 2 * latent : latent,
    channels,
    attended: channels.map((_, level) => scales.includes(2 ** -level)),
    layers: r.depth("num_res_blocks", 3),
    headDim,
    context: r.count("context_dim", 512),
    groups: r.count("norm_num_groups", 32),
    transformerIn: { heads: r.count("num_heads", Math.floor(width / 32) || 1), dim: headDim },
    dropout: r.number("dropout", 0.1),
    ...PLAIN,
    image: guided
      ? { side: 32, embedding: r.count("y_dim", 512), tokens: r.count("num_tokens", 4), gain: VGEN_GAIN }
      : null,
  };
  return { unet, fps: !guided && r.flag("use_fps_condition", false) };
}

const RESIDUAL: Readonly<Record<string, string>> = {
  norm1: "in_layers.0",
  conv1: "in_layers.2",
  time_emb_proj: "emb_layers.1",
  norm2: "out_layers.0",
  conv2: "out_layers.3",
  conv_shortcut: "skip_connection",
};

/** Place in a block's list. Temporal convolutions are a part of the residual block; the attribute is misspelt there. */
const SLOT: Readonly<Record<string, string>> = {
  resnets: "0",
  temp_convs: "0.temopral_conv",
  attentions: "1",
  temp_attentions: "2",
};

const OUTSIDE: readonly (readonly [RegExp, string])[] = [
  [/^conv_in\./, "input_blocks.0.0."],
  [/^transformer_in\./, "input_blocks.0.1."],
  [/^time_embedding\.linear_1\./, "time_embed.0."],
  [/^time_embedding\.linear_2\./, "time_embed.2."],
  [/^conv_norm_out\./, "out.0."],
  [/^conv_out\./, "out.2."],
  [/^image_latents_proj_in\./, "local_image_concat."],
  [/^image_latents_context_embedding\./, "local_image_embedding."],
  [/^image_latents_temporal_encoder\.norm1\./, "local_temporal_encoder.layers.0.0.norm."],
  [/^image_latents_temporal_encoder\.attn1\.to_[qkv]\./, "local_temporal_encoder.layers.0.0.fn.to_qkv."],
  [/^image_latents_temporal_encoder\.attn1\.to_out\./, "local_temporal_encoder.layers.0.0.fn.to_out."],
  [/^image_latents_temporal_encoder\.ff\.net\.0\.proj\./, "local_temporal_encoder.layers.0.1.net.0.0."],
  [/^image_latents_temporal_encoder\.ff\.net\.2\./, "local_temporal_encoder.layers.0.1.net.2."],
];

interface NameOptions {
  /** false: the image network alone, which Stable Diffusion's files number in the same manner. */
  readonly temporal?: boolean;
}

/** Name in a VGen file of the tensor that holds our parameter `name`: blocks are counted through, layer after layer. */
function vgenName(
  name: string,
  { layers, channels, attended }: UNetConfig,
  { temporal = true }: NameOptions = {},
): string {
  const outside = OUTSIDE.find(([ours]) => ours.test(name));
  if (outside) return name.replace(...outside);
  const resnet = (rest: string): string => rest.replace(/^\w+/, (part) => RESIDUAL[part] ?? part);
  const inside = (part: string, rest: string): string => `${SLOT[part]}.${part === "resnets" ? resnet(rest) : rest}`;
  const [, where, stage, part, layer, rest] =
    /^(down|up|mid)_blocks?(?:\.(\d+))?\.(\w+)\.(\d+)\.(.+)$/.exec(name) ?? [];
  if (where === "mid") {
    // residual, spatial, temporal, residual
    const second = temporal ? "3" : "2";
    return `middle_block.${inside(part, rest).replace(/^0/, layer === "1" ? second : "0")}`;
  }
  if (where === "down") {
    const block = 1 + Number(stage) * (layers + 1);
    return part === "downsamplers"
      ? `input_blocks.${block + layers}.${temporal ? "" : "0."}${rest.replace("conv", "op")}`
      : `input_blocks.${block + Number(layer)}.${inside(part, rest)}`;
  }
  if (where === "up") {
    const block = Number(stage) * (layers + 1);
    const level = channels.length - 1 - Number(stage);
    const attention = (attended?.[level] ?? level !== channels.length - 1) ? (temporal ? 2 : 1) : 0;
    return part === "upsamplers"
      ? `output_blocks.${block + layers}.${1 + attention}.${rest}`
      : `output_blocks.${block + Number(layer)}.${inside(part, rest)}`;
  }
  return name; // context_embedding, fps_embedding
}

/** The tensors of a VGen file and which of the parameters `ours` each holds; several: rows of a fused query, key, value. */
export function vgenTensors(
  ours: Iterable<string>,
  config: UNetConfig,
  o: NameOptions = {},
): ReadonlyMap<string, readonly string[]> {
  const found = new Map<string, readonly string[]>();
  for (const name of ours) {
    const theirs = vgenName(name, config, o);
    found.set(theirs, [...(found.get(theirs) ?? []), name]);
  }
  return found;
}

export function vgenLayout(ours: Iterable<string>, config: UNetConfig, o: NameOptions = {}): Layout {
  const tensors = vgenTensors(ours, config, o);
  return (name) => ({ names: tensors.get(name) ?? [name] });
}
