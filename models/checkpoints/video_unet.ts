// Configurations of diffusers' video UNets to ours: what UNet3DConditionModel and I2VGenXLUNet have in common, and the latter.
// Their weights have our names.

import { PLAIN, type UNetConfig } from "../config.ts";
import type { ConfigReader } from "./reader.ts";

/** Throws ConfigError for what the video UNet here does not have. */
export function readVideoUNetConfig(r: ConfigReader): UNetConfig {
  const [channels, latent, headDim] = [
    r.counts("block_out_channels"),
    r.count("in_channels", 4),
    r.count("attention_head_dim", 64),
  ];
  r.only("out_channels", latent);
  r.only("act_fn", "silu");
  return {
    latent,
    channels,
    attended: attendedLevels(r, channels.length),
    layers: r.count("layers_per_block", 2),
    headDim,
    context: r.count("cross_attention_dim", 1024),
    groups: r.count("norm_num_groups", 32),
    transformerIn: { heads: 8, dim: headDim },
    dropout: 0.1,
    ...PLAIN,
  };
}

/** From the names of the stages, which must be the same going up. */
function attendedLevels(r: ConfigReader, levels: number): boolean[] {
  const attended = (key: string, plain: string, cross: string): boolean[] => {
    const types = r.texts(key);
    const wrong = types.find((type) => type !== plain && type !== cross);
    if (wrong !== undefined || types.length !== levels) r.refuse(key, `expected ${levels} of ${plain} and ${cross}`);
    return types.map((type) => type === cross);
  };
  const down = attended("down_block_types", "DownBlock3D", "CrossAttnDownBlock3D");
  const up = attended("up_block_types", "UpBlock3D", "CrossAttnUpBlock3D");
  if (up.reverse().join() !== down.join())
    r.refuse("up_block_types", "expected text attention at the same levels as down");
  return down;
}

/** Side that the class pools the picture's features to, whatever their size. */
const SIDE = 32;

/** `I2VGenXLUNet`: it reads as many channels of the picture as of the latents, and makes as many tokens of its vector. */
export function readI2VGenXLConfig(r: ConfigReader): UNetConfig {
  r.only("_class_name", "I2VGenXLUNet");
  const unet = readVideoUNetConfig(r);
  const { latent, context } = unet;
  return { ...unet, inputs: 2 * latent, image: { side: SIDE, embedding: context, tokens: latent } };
}
