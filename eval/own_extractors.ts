// Feature networks trained on a data set of one's own (train_features.ts) as extractors: what FVD-x compares, and VQA-x's score.

import { pickFrames } from "../data/frames.ts";
import { compile, type Tensor } from "../engine/index.ts";
import { featureVideo, type VideoFeatures } from "../models/video_features.ts";
import type { Extractor } from "./features.ts";
import { unitFrames } from "./fvd_score.ts";

/** Rows of features, or, of a network with one output, its score from 0 to 1. */
export function ownExtractor(model: VideoFeatures, hash: string, what: "features" | "score"): Extractor {
  const { size, frames, features } = model.config;
  const step = compile(
    ({ x }: { x: Tensor }) => {
      const y = model.forward(featureVideo(x, size));
      return { rows: what === "features" ? y.features : y.outputs.sigmoid() };
    },
    { name: `own ${what}` },
  );
  return {
    name: `own network, ${what}`,
    hash,
    preprocessing: `own-1 ${size}`,
    extension: `${frames} frames`,
    width: what === "features" ? features : 1,
    extract: async (clips, _, side) =>
      (await step({ x: unitFrames(clips, side, (n) => pickFrames(n, frames)) }).rows.data()) as Float32Array,
  };
}
