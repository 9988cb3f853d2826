// Stable Diffusion 2 in one file, as its authors publish it: UNet, autoencoder and OpenCLIP's text tower under names of
// their own, beside constants of the schedule. The UNet's blocks are counted as in VGen's files.

import type { UNetConfig } from "../config.ts";
import { openaiLayout } from "./clip_names.ts";
import { byName, byRules, type Layout, type Rule } from "./layout.ts";
import { vgenLayout } from "./vgen.ts";

/** What stands before the names of each part. */
const UNET = "model.diffusion_model.";
const VAE = "first_stage_model.";
const TEXT = "cond_stage_model.";

/** Names are those of the image network, so without temporal layers between them. */
export function originalUNetLayout(ours: Iterable<string>, config: UNetConfig): Layout {
  const inside = vgenLayout(ours, config, { temporal: false });
  return (name) => (name.startsWith(UNET) ? inside(name.slice(UNET.length)) : { names: [] });
}

const BLOCK: Readonly<Record<string, string>> = { nin_shortcut: "conv_shortcut" };
const ATTENTION: Readonly<Record<string, string>> = {
  norm: "group_norm",
  q: "to_q",
  k: "to_k",
  v: "to_v",
  proj_out: "to_out.0",
};

/** `levels` because the way up is counted from the top there. */
export function originalVaeLayout(levels: number): Layout {
  const rules: Rule[] = [
    { from: /(.*)\.mid\.block_1\.(.*)/, to: "$1.mid_block.resnets.0.$2" },
    { from: /(.*)\.mid\.block_2\.(.*)/, to: "$1.mid_block.resnets.1.$2" },
    { from: /(.*)\.mid\.attn_1\.(.*)/, to: "$1.mid_block.attentions.0.$2" },
    { from: /encoder\.down\.(\d+)\.block\.(.*)/, to: "encoder.down_blocks.$1.resnets.$2" },
    { from: /encoder\.down\.(\d+)\.downsample\.(.*)/, to: "encoder.down_blocks.$1.downsamplers.0.$2" },
    { from: /decoder\.up\.(\d+)\.block\.(.*)/, to: "decoder.up_blocks.$1.resnets.$2" },
    { from: /decoder\.up\.(\d+)\.upsample\.(.*)/, to: "decoder.up_blocks.$1.upsamplers.0.$2" },
    { from: /(encoder|decoder)\.norm_out\.(.*)/, to: "$1.conv_norm_out.$2" },
  ];
  const moved = byRules(rules);
  const current = (name: string): string =>
    moved(name)
      .names[0].replace(/(up_blocks\.)(\d+)/, (_, path, level) => `${path}${levels - 1 - Number(level)}`)
      .replace(/(resnets\.\d+\.)(\w+)/, (_, path, part) => path + (BLOCK[part] ?? part))
      .replace(/(attentions\.0\.)(\w+)/, (_, path, part) => path + (ATTENTION[part] ?? part));
  // The loss that the autoencoder was trained with, a discriminator, may be in the file too.
  return byName((name) =>
    name.startsWith(VAE) && !name.startsWith(`${VAE}loss.`) ? current(name.slice(VAE.length)) : null,
  );
}

/** The tower has one layer more than is used, which diffusers' folders leave out, and a projection. */
export function originalTextLayout(names: Iterable<string>, layers: number): Layout {
  const inside = openaiLayout([...names].filter((name) => name.startsWith(TEXT)));
  return (name) => {
    const target = inside && name.startsWith(TEXT) ? inside(name) : { names: [] };
    const used = target.names.filter((ours) => {
      const layer = /\.layers\.(\d+)\./.exec(ours)?.[1];
      return !(Number(layer) >= layers) && !/^(text_projection\.weight|logit_scale)$/.test(ours);
    });
    return { ...target, names: used };
  };
}

/** Whether names are those of such a file. */
export function isOriginal(names: Iterable<string>): boolean {
  return [...names].some((name) => name.startsWith(UNET));
}
