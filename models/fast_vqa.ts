// FAST-VQA (Wu et al. 2022) and FasterVQA (Wu et al. 2023): how good a video looks, from fragments of it at their native
// resolution. The two are one network that was trained on other samples of frames. What it is fed is eval/vqa.ts.

import type { Tensor } from "../engine/index.ts";
import { Linear, Module } from "../engine/nn/index.ts";
import { byName, type Layout } from "./checkpoints/layout.ts";
import { SWIN_T, Swin3d, type Swin3dConfig, type SwinOptions } from "./swin3d.ts";

export interface FastVqaConfig {
  readonly backbone: Swin3dConfig;
  /** Inner width of the head. */
  readonly hidden: number;
}

export const FAST_VQA: FastVqaConfig = { backbone: SWIN_T, hidden: 64 };
/** The mobile one: windows of 4 for 16 frames of 4 x 4 fragments, one table of biases. */
export const FAST_VQA_M: FastVqaConfig = {
  backbone: { ...SWIN_T, window: [4, 4, 4], fragmentBias: [false, false, false, false] },
  hidden: 64,
};

/** A score for every position of the features; published as 1x1x1 convolutions. */
class Head extends Module {
  readonly fcHid: Linear;
  readonly fcLast: Linear;

  constructor(width: number, hidden: number) {
    super();
    this.fcHid = new Linear(width, hidden);
    this.fcLast = new Linear(hidden, 1);
  }

  forward(x: Tensor): Tensor {
    return this.fcLast.forward(this.fcHid.forward(x).gelu());
  }
}

export interface FastVqaOutput {
  /** [b, t', h', w', width] */
  readonly features: Tensor;
  /** A score per position, [b, t', h', w', 1]. */
  readonly map: Tensor;
  /** Its mean, [b]: without unit, the higher the better; `rescaleScore` of eval/vqa.ts makes it 0 to 1. */
  readonly score: Tensor;
}

export class FastVqa extends Module {
  readonly fragmentsBackbone: Swin3d;
  readonly vqaHead: Head;
  readonly config: FastVqaConfig;

  constructor(config: FastVqaConfig) {
    super();
    this.config = config;
    this.fragmentsBackbone = new Swin3d(config.backbone);
    this.vqaHead = new Head(this.fragmentsBackbone.norm.weight.shape[0], config.hidden);
  }

  /** Normalised mosaics of fragments [b, t, h, w, 3]. Throws ShapeError where the backbone does. */
  forward(x: Tensor, options: SwinOptions = {}): FastVqaOutput {
    const features = this.fragmentsBackbone.forward(x, options);
    const map = this.vqaHead.forward(features);
    return { features, map, score: map.mean([1, 2, 3, 4]) };
  }
}

/** Names in the published files, less "state_dict.": ours, beside tables of positions that are computed here. */
export const fastVqaLayout: Layout = byName((name) => {
  const inside = name.replace(/^state_dict\./, "");
  return inside.endsWith("relative_position_index") ? null : inside;
});
