// Spatial Temporal Interaction, the layer that the VSD2M paper proposes (spec 3.5; arXiv 2412.08259). It stands
// wherever a video UNet would have a plain temporal convolution; video_unet.ts puts it there.

import type { Parameter, Rng, Tensor } from "../engine/index.ts";
import { Attention, avgPool, constantInit, GroupNorm, interpolate, Module, parameter } from "../engine/nn/index.ts";
import type { StiConfig } from "./config.ts";
import { perFrame, TemporalConv } from "./unet_blocks.ts";

/**
 * A sticker moves fast and has few frames: between two of them a hand may cross half of the picture. A temporal
 * convolution compares a position with the same position of the neighbouring frames, so it cannot follow; attention over
 * all positions of all frames can, but at full resolution it is too dear. STI uses each where it is good:
 *
 *     semantic(x) = x + up(attention(pool(x)))     what went where: coarse, and everything sees everything
 *     detail(x)   = T_conv(x)                      how each pixel changes: fine, and local
 *     output      = w1 semantic(x) + w2 detail(x)
 *
 * with two learned numbers, w1 = 0 and w2 = 1 at the start. T_conv starts as the identity, hence so does the layer, and
 * an image model that gets STI layers keeps producing the images it did. In the semantic branch the first training step
 * can only move w1; as soon as it is not zero, gradients reach the attention.
 */
export class SpatialTemporalInteraction extends Module {
  readonly w1: Parameter;
  readonly w2: Parameter;
  /** The attention of the semantic branch, under its name in the authors' files. */
  readonly transformerBlocks: Attention;
  /** The detail branch. */
  readonly convLayer: TemporalConv;
  readonly norm: GroupNorm | null;
  readonly #pool: number;

  constructor(channels: number, config: StiConfig, groups: number, dropout = 0) {
    super();
    this.w1 = parameter([1], constantInit(0));
    this.w2 = parameter([1], constantInit(1));
    this.transformerBlocks = new Attention(channels, config);
    this.convLayer = new TemporalConv(channels, groups, dropout);
    this.norm = config.outNorm ? new GroupNorm(groups, channels, 1e-6) : null;
    this.#pool = config.pool;
  }

  /** x [b, f, h, w, c] -> the same shape; h and w at least the window. Dropout acts where a generator is given. */
  forward(x: Tensor, rng?: Rng): Tensor {
    const y = this.semantic(x).mul(this.w1).add(this.detail(x, rng).mul(this.w2));
    return this.norm ? perFrame(this.norm, y) : y;
  }

  /**
   * All positions of all frames of a clip are tokens of one sequence. They carry no frame number, so this branch sees
   * frames as a set: permuting those of x permutes those of the result and nothing else.
   */
  semantic(x: Tensor): Tensor {
    const { b, f, h, w, c } = x.dims("b f h w c");
    const pooled = avgPool(x.reshape([b * f, h, w, c]), this.#pool);
    const attended = this.transformerBlocks.forward(pooled.reshape([b, -1, c])).reshape(pooled.shape);
    return x.add(interpolate(attended, { size: [h, w] }).reshape(x.shape));
  }

  /** Convolutions over three frames at full resolution; their zero padding at the ends tells first from last. */
  detail(x: Tensor, rng?: Rng): Tensor {
    return this.convLayer.forward(x, rng);
  }
}
