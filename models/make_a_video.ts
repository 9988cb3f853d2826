// Make-A-Video (Singer et al. 2022, arXiv 2209.14792), as the VSD2M paper runs it: the network of ModelScope's text-to-video
// model. With S the features of a residual block of the image network, and U those of its spatial transformer,
//
//     y = T_conv(S) = S + convolutions over neighbouring frames       behind every residual block      (22 layers)
//     y = T_attn(U) = U + attention over all frames of a position     behind every spatial transformer (16 layers)
//
// Both are plain residual sums that start as the identity, so that an image model keeps its images. T_attn also stands
// behind the first convolution of the network. Where the layers go is video_unet.ts; the layers as Make-A-Video's own
// paper has them are in pseudo3d.ts. The other systems change or add to the layers of this file.

import type { Rng, Tensor } from "../engine/index.ts";
import { Conv, dropout, GroupNorm, Linear, Module, zerosInit } from "../engine/nn/index.ts";
import { TransformerBlock } from "./unet_blocks.ts";

/**
 * T_conv(x) = x + g_4 with g_0 = x and g_j = conv(SiLU(norm(g_{j-1}))): four convolutions over three neighbouring frames
 * (spec 2.8). The last one starts at zero, so that the layer starts as the identity. Group statistics run over all frames
 * of a clip, those of the image network over one.
 */
export class TemporalConv extends Module {
  // norm, SiLU, convolution; from the second on with dropout before the convolution. Files count layers without weights.
  readonly conv1: readonly [GroupNorm, null, Conv];
  readonly conv2: readonly [GroupNorm, null, null, Conv];
  readonly conv3: readonly [GroupNorm, null, null, Conv];
  readonly conv4: readonly [GroupNorm, null, null, Conv];
  readonly #dropout: number;

  constructor(channels: number, groups: number, p = 0) {
    super();
    const norm = (): GroupNorm => new GroupNorm(groups, channels);
    const conv = (init?: typeof zerosInit): Conv =>
      new Conv(channels, channels, [3, 1, 1], { padding: [1, 0, 0], init });
    this.conv1 = [norm(), null, conv()];
    this.conv2 = [norm(), null, null, conv()];
    this.conv3 = [norm(), null, null, conv()];
    this.conv4 = [norm(), null, null, conv(zerosInit)];
    this.#dropout = p;
  }

  /** [b, f, h, w, c] -> the same shape; dropout acts where a generator is given (training). */
  forward(x: Tensor, rng?: Rng): Tensor {
    return x.add(this.change(x, rng));
  }

  /** What the layer adds to x. */
  change(x: Tensor, rng?: Rng): Tensor {
    let y = this.conv1[2].forward(this.conv1[0].forward(x).silu());
    for (const [norm, , , conv] of [this.conv2, this.conv3, this.conv4]) {
      y = conv.forward(dropout(norm.forward(y).silu(), this.#dropout, rng));
    }
    return y;
  }
}

/**
 * T_attn (spec 2.9): every position attends over its own frames, twice, without text. The last Linear starts at zero, so
 * that the layer starts as the identity. There is no position code: the order of frames comes from the convolutions.
 */
export class TemporalTransformer extends Module {
  readonly norm: GroupNorm;
  readonly projIn: Linear;
  readonly transformerBlocks: readonly [TransformerBlock];
  readonly projOut: Linear;

  /** The inner width is heads * dim; it may differ from `channels`. */
  constructor(channels: number, heads: number, dim: number, groups: number) {
    super();
    this.norm = new GroupNorm(groups, channels, 1e-6);
    this.projIn = new Linear(channels, heads * dim);
    this.transformerBlocks = [new TransformerBlock(heads * dim, heads, dim, null)];
    this.projOut = new Linear(heads * dim, channels, { init: zerosInit });
  }

  /** [b, f, h, w, c] -> the same shape. */
  forward(x: Tensor): Tensor {
    return x.add(this.change(x));
  }

  /** What the layer adds to x. */
  change(x: Tensor): Tensor {
    const { b, h, w } = x.dims("b f h w c");
    const tokens = this.norm.forward(x).rearrange("b f h w c -> (b h w) f c");
    const y = this.projOut.forward(this.transformerBlocks[0].forward(this.projIn.forward(tokens)));
    return y.rearrange("(b h w) f c -> b f h w c", { b, h, w });
  }
}
