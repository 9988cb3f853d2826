// Spatial Temporal Interaction, the layer that the VSD2M paper proposes (spec 3.5; arXiv 2412.08259):
//
//     y = w1 (x + up(attention(pool(x)))) + w2 T_conv(x)
//
// It stands wherever Make-A-Video's network has a temporal convolution T_conv (make_a_video.ts), 22 times; the temporal
// attention stays as it is there. Where the layers go is video_unet.ts.

import type { Parameter, Rng, Tensor } from "../engine/index.ts";
import {
  Attention,
  avgPool,
  Conv,
  constantInit,
  GroupNorm,
  interpolate,
  Module,
  parameter,
} from "../engine/nn/index.ts";
import type { StiConfig } from "./config.ts";
import { TemporalConv } from "./make_a_video.ts";
import { perFrame } from "./unet_blocks.ts";

/**
 * A sticker moves fast and has few frames: between two of them a hand may cross half of the picture. A temporal
 * convolution compares a position with the same position of the neighbouring frames, so it cannot follow; attention over
 * all positions of all frames can, but at full resolution it is too dear. STI uses each where it is good. For a clip
 * x [f, h, w, c]:
 *
 *     u           = average of each s x s square of a frame, s = 2            [f, h/s, w/s, c]
 *     Q, K, V     = u Wq, u Wk, u Wv, the f h/s w/s squares as one sequence   8 heads of 32
 *     semantic(x) = x + up(softmax(Q K^T / sqrt(32)) V Wo + bo)               what went where: coarse, and
 *                                                                             everything sees everything
 *     detail(x)   = x + four convolutions over three frames each              how each pixel changes: fine, and local
 *     output      = w1 semantic(x) + w2 detail(x)
 *
 * up repeats each square's answer for its pixels. The sequence has 2048 tokens on the network's largest maps, 32 x 32, and
 * 32 on its smallest; without the pooling 8192, at sixteen times the cost.
 *
 * w1 and w2 are two learned numbers, 0 and 1 at the start. The last convolution starts at zero, so detail and with it the
 * layer start as the identity: an image model that gets STI layers keeps producing the images it did. In the semantic
 * branch the first training step can only move w1; as soon as it is not zero, gradients reach the attention.
 */
export class SpatialTemporalInteraction extends Module {
  readonly w1: Parameter;
  readonly w2: Parameter;
  /** Of x itself, in the authors' variant with three weights, which starts from w1 = w2 = 0. */
  readonly w3: Parameter | null;
  /** The attention of the semantic branch, under its name in the authors' files. */
  readonly transformerBlocks: Attention;
  /** The detail branch: the paper's, or the small one of the authors' later network. */
  readonly convLayer: TemporalConv | null;
  readonly convLayers: readonly FramesAsChannels[];
  /** Of the output, in their later network: large w1 + w2 would let features grow from layer to layer. */
  readonly norm: GroupNorm | null;
  /** Side of the pooling window. */
  readonly pool: number;

  constructor(channels: number, config: StiConfig, groups: number, dropout = 0) {
    super();
    const { pool, outNorm, light, third } = config;
    this.w1 = parameter([1], constantInit(0));
    this.w2 = parameter([1], constantInit(third ? 0 : 1));
    this.w3 = third ? parameter([1], constantInit(1)) : null;
    this.transformerBlocks = new Attention(channels, config);
    this.convLayer = light ? null : new TemporalConv(channels, groups, dropout);
    this.convLayers = light ? [new FramesAsChannels(light.frames), new FramesAsChannels(light.frames)] : [];
    this.norm = outNorm ? new GroupNorm(groups, channels, 1e-6) : null;
    this.pool = pool;
  }

  /** x [b, f, h, w, c] -> the same shape; h and w at least the window. Dropout acts where a generator is given. */
  forward(x: Tensor, rng?: Rng): Tensor {
    const two = this.semantic(x).mul(this.w1).add(this.detail(x, rng).mul(this.w2));
    const y = this.w3 ? two.add(x.mul(this.w3)) : two;
    return this.norm ? perFrame(this.norm, y) : y;
  }

  /**
   * All positions of all frames of a clip are tokens of one sequence. They carry no frame number, so this branch sees
   * frames as a set: permuting those of x permutes those of the result and nothing else.
   */
  semantic(x: Tensor): Tensor {
    const { b, f, h, w, c } = x.dims("b f h w c");
    const pooled = avgPool(x.reshape([b * f, h, w, c]), this.pool);
    const attended = this.transformerBlocks.forward(pooled.reshape([b, -1, c])).reshape(pooled.shape);
    return x.add(interpolate(attended, { size: [h, w] }).reshape(x.shape));
  }

  /**
   * At full resolution. T_conv: convolutions over three frames, whose zero padding at the ends tells first from last. The
   * small one: a fixed number of frames as the channels of a picture, one such picture per channel of x.
   */
  detail(x: Tensor, rng?: Rng): Tensor {
    if (this.convLayer) return this.convLayer.forward(x, rng);
    const { b } = x.dims("b f h w c");
    const pictures = x.rearrange("b f h w c -> (b c) h w f");
    const y = this.convLayers.reduce((z, layer) => layer.forward(z), pictures);
    return y.rearrange("(b c) h w f -> b f h w c", { b });
  }
}

/**
 * z + conv(SiLU(norm(conv(SiLU(norm(z)))))) with 3 x 3 kernels over pictures [n, h, w, frames]: in a layer of 8 frames
 * 2,400 parameters for two of them, whatever the width of the network, where T_conv has 12 per pair of channels.
 */
class FramesAsChannels extends Module {
  readonly norm1: GroupNorm;
  readonly conv1: Conv;
  readonly norm2: GroupNorm;
  readonly conv2: Conv;

  constructor(frames: number) {
    super();
    this.norm1 = new GroupNorm(1, frames, 1e-6);
    this.conv1 = new Conv(frames, frames, [3, 3], { padding: 1 });
    this.norm2 = new GroupNorm(1, frames, 1e-6);
    this.conv2 = new Conv(frames, frames, [3, 3], { padding: 1 });
  }

  forward(z: Tensor): Tensor {
    const y = this.conv1.forward(this.norm1.forward(z).silu());
    return z.add(this.conv2.forward(this.norm2.forward(y).silu()));
  }
}
