// The autoencoder in the files of diffusers: configuration of `AutoencoderKL` to ours and back. Weight names are the same
// there, but for the attention of older files (`currentName` of autoencoder.ts).

import { currentName } from "../autoencoder.ts";
import type { AutoencoderConfig } from "../config.ts";
import { byName, type Layout } from "./layout.ts";
import { ConfigReader } from "./reader.ts";

/** Our configuration and latent scale. Throws ConfigError for what the autoencoder here does not have. */
export function readVaeConfig(json: unknown, label: string): { config: AutoencoderConfig; scale: number } {
  const r = new ConfigReader(json, label);
  r.only("_class_name", "AutoencoderKL");
  r.only("in_channels", 3);
  r.only("out_channels", 3);
  r.only("act_fn", "silu", "swish");
  for (const key of ["use_quant_conv", "use_post_quant_conv", "mid_block_add_attention"]) r.only(key, true);
  for (const key of ["shift_factor", "latents_mean", "latents_std"]) if (r.has(key)) r.refuse(key, "is not supported");
  const channels = r.counts("block_out_channels");
  const blocks = { down_block_types: "DownEncoderBlock2D", up_block_types: "UpDecoderBlock2D" };
  for (const [key, type] of Object.entries(blocks))
    if (r.has(key) && r.texts(key).some((t) => t !== type)) r.refuse(key, `only ${type} is supported`);
  const config = {
    channels,
    layers: r.depth("layers_per_block", 1),
    latent: r.count("latent_channels", 4),
    groups: r.count("norm_num_groups", 32),
  };
  return { config, scale: r.number("scaling_factor", 0.18215) };
}

/** Names of diffusers' autoencoder, old and new. */
export const vaeLayout: Layout = byName(currentName);
