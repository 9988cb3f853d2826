// A small network over clips, trained on a data set of one's own: its features stand in for I3D's, and one output of it for
// FAST-VQA's score, where no published weights are at hand (scores called FVD-x and VQA-x). What it is trained to say is
// eval/train_features.ts.

import { ShapeError, type Tensor } from "../engine/index.ts";
import { Conv, interpolate, Linear, Module, normalInit } from "../engine/nn/index.ts";

export interface VideoFeaturesConfig {
  /** Pixels a side and frames of the clips it sees. */
  readonly size: number;
  readonly frames: number;
  /** Channels of the first layer; each further one has twice as many. */
  readonly width: number;
  readonly features: number;
  readonly outputs: number;
}

export interface VideoFeaturesOutput {
  /** [b, features] */
  readonly features: Tensor;
  /** [b, outputs] */
  readonly outputs: Tensor;
}

export class VideoFeatures extends Module {
  readonly convs: readonly Conv[];
  readonly hidden: Linear;
  readonly head: Linear;
  readonly config: VideoFeaturesConfig;

  constructor(config: VideoFeaturesConfig) {
    super();
    this.config = config;
    const { width, features, outputs } = config;
    // He et al. 2015: through three layers and a pool, smaller values would leave features that differ by a thousandth.
    const conv = (inputs: number, outputs: number, first: number): Conv =>
      new Conv(inputs, outputs, [3, 3, 3], {
        stride: [first, 2, 2],
        padding: 1,
        init: normalInit(Math.sqrt(2 / (27 * inputs))),
      });
    this.convs = [conv(3, width, 1), conv(width, 2 * width, 2), conv(2 * width, 4 * width, 2)];
    this.hidden = new Linear(8 * width, features, { init: normalInit(Math.sqrt(1 / (8 * width))) });
    this.head = new Linear(features, outputs);
  }

  /** Clips [b, frames, size, size, 3] in [-1, 1]. Throws ShapeError for others. */
  forward(x: Tensor): VideoFeaturesOutput {
    const { t, h, w } = x.dims("b t h w c");
    const { frames, size } = this.config;
    if (t !== frames || h !== size || w !== size)
      throw new ShapeError(`video features: expected ${frames} frames of ${size} x ${size} pixels, got ${x}`);
    let y = x;
    for (const conv of this.convs) y = conv.forward(y).silu();
    // Mean and spread over time and space: the mean alone cannot tell sharp from smooth.
    const mean = y.mean([1, 2, 3], { keepdims: true });
    const spread = y.sub(mean).square().mean([1, 2, 3]).add(1e-6).sqrt();
    const features = this.hidden.forward(mean.reshape(spread.shape).concat([spread], -1)).tanh();
    return { features, outputs: this.head.forward(features) };
  }
}

/** Clips [b, t, h, w, 3] in [0, 1] as this network takes them: resized without antialiasing, in [-1, 1]. */
export function featureVideo(x: Tensor, size: number): Tensor {
  const { b, t, h, w, c } = x.dims("b t h w c");
  const frames =
    h === size && w === size ? x : interpolate(x.reshape([b * t, h, w, c]), { size: [size, size], mode: "linear" });
  return frames.reshape([b, t, size, size, c]).mul(2).sub(1);
}
