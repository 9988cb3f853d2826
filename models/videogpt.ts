// VideoGPT (Yan et al. 2021), the system of the paper's Table 4 that denoises nothing (spec 4). A VQ-VAE turns a sticker
// into a small grid of codes, and a transformer writes such grids, one code after another, after a few tags:
//
//     z = E(x), e = the nearest code to each vector of z       L_VQ    = |x - D(e)|^2 / 0.06 + 0.25 |z - sg(e)|^2
//     p(e | c) = product over i of p(e_i | e_1 .. e_{i-1}, c)  L_prior = - 1/n sum over i of log p(e_i | e_1 .. e_{i-1}, c)
//
// It cannot read a caption: c is a handful of known words, a sticker's domain among them. This file holds the sizes and
// the two networks together; they are vqvae.ts (with codebook.ts) and prior.ts, and train one after the other.

import type { Tensor } from "../engine/index.ts";
import { Module } from "../engine/nn/index.ts";
import type { Preset } from "./config.ts";
import { Prior, type PriorConfig } from "./prior.ts";
import { gridOf, VqVae, type VqVaeConfig } from "./vqvae.ts";

/** Plain data: run folders store it as JSON. */
export interface VideoGptConfig {
  readonly system: "videogpt";
  readonly preset: Preset;
  /** Side of the square frames in pixels, and how many there are. */
  readonly size: number;
  readonly frames: number;
  readonly vqvae: VqVaeConfig;
  /** Its grid, codes and their features follow from the VQ-VAE. */
  readonly prior: Omit<PriorConfig, "grid" | "codes" | "embedding">;
}

type Sizes = Pick<VideoGptConfig, "size" | "vqvae"> & {
  readonly prior: Pick<PriorConfig, "width" | "heads" | "layers" | "dropout" | "attentionDropout">;
};

// Every preset has the paper's topology; `paper` its sizes: strides of 4 on every axis, 8192 codes a sticker.
const SIZES: Readonly<Record<Preset, Sizes>> = {
  // 16 pixels leave nothing to halve twice: 4 x 8 x 8 codes.
  nano: {
    size: 16,
    vqvae: { hidden: 32, layers: 1, codes: 128, embedding: 16, strides: [2, 2, 2] },
    prior: { width: 96, heads: 4, layers: 2, dropout: 0, attentionDropout: 0 },
  },
  micro: {
    size: 64,
    vqvae: { hidden: 64, layers: 2, codes: 256, embedding: 64, strides: [4, 4, 4] },
    prior: { width: 192, heads: 4, layers: 6, dropout: 0.1, attentionDropout: 0 },
  },
  tiny: {
    size: 128,
    vqvae: { hidden: 96, layers: 3, codes: 512, embedding: 128, strides: [4, 4, 4] },
    prior: { width: 288, heads: 4, layers: 10, dropout: 0.1, attentionDropout: 0 },
  },
  small: {
    size: 256,
    vqvae: { hidden: 144, layers: 4, codes: 1024, embedding: 192, strides: [4, 4, 4] },
    prior: { width: 384, heads: 4, layers: 14, dropout: 0.1, attentionDropout: 0 },
  },
  paper: {
    size: 256,
    vqvae: { hidden: 240, layers: 4, codes: 2048, embedding: 256, strides: [4, 4, 4] },
    prior: { width: 576, heads: 4, layers: 20, dropout: 0.2, attentionDropout: 0.3 },
  },
};

/** Tags that can be told apart: the most frequent words of the data, the two domains among them. */
const TAGS = 500;
/** Tokens in front of the codes: the domain and seven words. */
const SLOTS = 8;

/** VideoGPT at a preset; `over` replaces whole parts, e.g. `{ size: 48 }`. */
export function videoGptConfig(preset: Preset, over: Partial<VideoGptConfig> = {}): VideoGptConfig {
  const { size, vqvae, prior } = SIZES[preset];
  return {
    system: "videogpt",
    preset,
    size,
    frames: 8,
    vqvae,
    prior: { ...prior, objective: "next", tags: { count: TAGS, slots: SLOTS }, frames: null },
    ...over,
  };
}

/** The whole configuration of its prior. Throws ShapeError when the strides do not divide the frames. */
export function priorConfig({ size, frames, vqvae, prior }: VideoGptConfig): PriorConfig {
  const grid = gridOf([frames, size, size], vqvae.strides);
  return { ...prior, grid, codes: vqvae.codes, embedding: vqvae.embedding };
}

/** The VQ-VAE's pixels lie in [-0.5, 0.5], clips in [-1, 1]. */
export const PIXELS = 0.5;

export class VideoGpt extends Module {
  readonly vqvae: VqVae;
  readonly prior: Prior;
  readonly config: VideoGptConfig;

  constructor(config: VideoGptConfig) {
    super();
    this.config = config;
    this.vqvae = new VqVae(config.vqvae);
    this.prior = new Prior(priorConfig(config));
  }

  /** Clips [b, f, H, W, 3] in [-1, 1] -> codes i32 [b, n] in raster order. */
  encode(clips: Tensor): Tensor {
    return this.vqvae.encode(clips.mul(PIXELS)).reshape([clips.shape[0], -1]);
  }

  /** Codes i32 [b, n] -> clips [b, f, H, W, 3] in [-1, 1]. */
  decode(codes: Tensor): Tensor {
    const grid = this.prior.config.grid;
    return this.vqvae
      .decode(codes.reshape([codes.shape[0], ...grid]))
      .div(PIXELS)
      .clamp(-1, 1);
  }
}
