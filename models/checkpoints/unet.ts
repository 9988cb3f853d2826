// The UNets in the files of diffusers: configurations of `UNet2DConditionModel` (Stable Diffusion), `UNet3DConditionModel`
// (ModelScope's text-to-video) and `I2VGenXLUNet` to ours. Weights have our names there. The layers of this project's
// systems, which that library has not, are told by further keys of the configuration: "sti", "mix", "transformer_in", "image".

import { PLAIN, type StiConfig, type UNetConfig } from "../config.ts";
import { ConfigReader } from "./reader.ts";

/** What a file describes: the network, and whether it has layers between frames. */
export interface UNetDescription {
  /** Side of the latents that it was trained on, where the file says so. */
  readonly sample?: number;
  readonly config: UNetConfig;
  readonly temporal: boolean;
}

const IMAGE = "UNet2DConditionModel";
const VIDEO = "UNet3DConditionModel";

/** Fields that must have the one value that this network is made for, where they are given. */
const FIXED: Readonly<Record<string, readonly (string | number | boolean)[]>> = {
  act_fn: ["silu", "swish"],
  norm_eps: [1e-5],
  downsample_padding: [1],
  mid_block_scale_factor: [1],
  center_input_sample: [false],
  flip_sin_to_cos: [true],
  freq_shift: [0],
  only_cross_attention: [false],
  dual_cross_attention: [false],
  transformer_layers_per_block: [1],
  resnet_time_scale_shift: ["default"],
  resnet_skip_time_act: [false],
  resnet_out_scale_factor: [1],
  time_embedding_type: ["positional"],
  conv_in_kernel: [3],
  conv_out_kernel: [3],
  mid_block_type: ["UNetMidBlock2DCrossAttn"],
  dropout: [0],
  num_class_embeds: [],
  class_embed_type: [],
  addition_embed_type: [],
  encoder_hid_dim: [],
  encoder_hid_dim_type: [],
  num_attention_heads: [],
  time_cond_proj_dim: [],
  time_embedding_act_fn: [],
  timestep_post_act: [],
  cross_attention_norm: [],
};

/** Either conditional UNet. Throws ConfigError for what the network here does not have. */
export function readUNetConfig(json: unknown, label: string): UNetDescription {
  const r = new ConfigReader(json, label);
  r.only("_class_name", IMAGE, VIDEO);
  const sample = readSample(r);
  return r.text("_class_name", IMAGE) === VIDEO
    ? { ...sample, config: { ...readVideo(r), sti: readSti(r), mixing: readMixing(r) }, temporal: true }
    : { ...sample, config: { ...readCommon(r, "2D"), ...imageHeads(r) }, temporal: false };
}

function readSample(r: ConfigReader): Pick<UNetDescription, "sample"> {
  return r.has("sample_size") ? { sample: r.counts("sample_size", 1)[0] } : {};
}

/** Side that the library's class pools the picture's features to, whatever their size. */
export const SIDE = 32;

export function readI2VGenXL(json: unknown, label: string): UNetDescription {
  const r = new ConfigReader(json, label);
  return { ...readSample(r), config: readI2VGenXLConfig(r), temporal: true };
}

/**
 * `I2VGenXLUNet`: it reads as many channels of the picture as of the latents, and makes as many tokens of its vector, which is
 * as wide as they are. "image": this project's scaled networks have other sizes.
 */
export function readI2VGenXLConfig(r: ConfigReader): UNetConfig {
  r.only("_class_name", "I2VGenXLUNet");
  const unet = readVideo(r, ["num_attention_heads"]); // the class takes attention_head_dim for it, whatever it is
  const { latent, context } = unet;
  const own = r.has("image") ? r.inside("image") : null;
  const image = {
    side: own?.count("side") ?? SIDE,
    embedding: own?.count("embedding") ?? context,
    tokens: own?.count("tokens") ?? latent,
  };
  return { ...unet, inputs: 2 * latent, image };
}

function readCommon(r: ConfigReader, dimensions: "2D" | "3D", ignored: readonly string[] = []) {
  for (const [key, values] of Object.entries(FIXED)) if (!ignored.includes(key)) r.only(key, ...values);
  const channels = r.counts("block_out_channels");
  const latent = r.count("out_channels", 4);
  return {
    latent,
    inputs: r.count("in_channels", latent),
    channels,
    attended: attendedLevels(r, channels.length, dimensions),
    layers: r.depth("layers_per_block", 2),
    context: r.count("cross_attention_dim", dimensions === "3D" ? 1024 : 1280),
    groups: r.count("norm_num_groups", 32),
    ...PLAIN,
  };
}

/** The library's temporal convolutions drop a tenth in training, whatever the file says. */
function readVideo(r: ConfigReader, ignored: readonly string[] = []): UNetConfig {
  const headDim = r.count("attention_head_dim", 64);
  return { ...readCommon(r, "3D", ignored), headDim, transformerIn: readFirst(r, headDim), dropout: 0.1 };
}

/** "transformer_in": this project's scaled networks have it narrower than the library would make it. */
function readFirst(r: ConfigReader, headDim: number): UNetConfig["transformerIn"] {
  if (!r.has("transformer_in")) return { heads: 8, dim: headDim };
  const first = r.inside("transformer_in");
  return { heads: first.count("heads"), dim: first.count("dim") };
}

/** Which levels read text, from the names of the stages on the way down; those on the way up must mirror them. */
function attendedLevels(r: ConfigReader, levels: number, dimensions: string): boolean[] {
  const types = (key: string, way: string): boolean[] => {
    const names = r.texts(key);
    const [reads, not] = [`CrossAttn${way}Block${dimensions}`, `${way}Block${dimensions}`];
    const wrong = names.find((name) => name !== reads && name !== not);
    if (wrong !== undefined) r.refuse(key, `there is no ${wrong} here`);
    if (names.length !== levels) r.refuse(key, `expected ${levels} of them, one for each of block_out_channels`);
    return names.map((name) => name === reads);
  };
  const down = types("down_block_types", "Down");
  const up = types("up_block_types", "Up").reverse();
  if (up.join() !== down.join()) r.refuse("up_block_types", "only the mirror image of down_block_types is supported");
  return down;
}

/** In the image model's files `attention_head_dim` is how many heads a level has, not their width. */
function imageHeads(r: ConfigReader) {
  const channels = r.counts("block_out_channels");
  const heads = r.counts("attention_head_dim", channels.length);
  const odd = channels.findIndex((c, level) => c % heads[level] !== 0);
  if (odd >= 0) r.refuse("attention_head_dim", `does not divide the ${channels[odd]} channels of level ${odd}`);
  return { heads, headDim: channels[0] / heads[0], transformerIn: { heads: 1, dim: channels[0] }, dropout: 0 };
}

/** "sti": the authors' layer in the place of every temporal convolution. */
function readSti(r: ConfigReader): StiConfig | null {
  if (!r.has("sti")) return null;
  const s = r.inside("sti");
  s.only("detail", "conv", "light");
  return {
    heads: s.count("heads"),
    dim: s.count("head_dim"),
    pool: s.count("pool"),
    outNorm: s.flag("output_norm", false),
    ...(s.text("detail", "conv") === "light" ? { light: { frames: s.count("frames", 8) } } : {}),
  };
}

/** "mix": VideoLDM's number per temporal layer. */
function readMixing(r: ConfigReader): boolean {
  if (!r.has("mix")) return false;
  r.inside("mix").only("kind", "sigmoid");
  return true;
}
