// An example whose scores are known: starter stickers of two seeds, and networks whose weights come from a seed too, so that nothing
// has to be trained or fetched. The scores judge nothing; they show that stickers, networks and statistics here are those that
// the values were published with. Run by `gifgrad eval example` and the tests.

import { trainTokenizer } from "../data/tokenizer_train.ts";
import { Clip } from "../models/clip.ts";
import { VideoFeatures } from "../models/video_features.ts";
import { clipExtractor, clipScore } from "./clip_similarity.ts";
import type { Clips } from "./clips.ts";
import { fvdScore } from "./fvd_score.ts";
import { ownExtractor } from "./own_extractors.ts";
import type { Score } from "./score.ts";
import { ownClipConfig } from "./train_features.ts";
import { vqaScore } from "./vqa_score.ts";

/** Two starter sets; `seed` is that of the networks, resamples and halves. */
export const EXAMPLE = { count: 24, size: 16, generated: 2, real: 1, seed: 1 } as const;

export interface Expected {
  /** sha256 of the decoded stickers of either set. */
  readonly clips: Readonly<Record<"generated" | "real", string>>;
  readonly values: Readonly<Record<string, number>>;
}

/** Computed in float64 on the host (DEVICE=reference). */
export const EXPECTED: Expected = {
  clips: {
    generated: "4dc58b03ba527403924c5f146167c79f30878eb11b8477173b2c3b745eb21471",
    real: "233d51db7adc7f00576ded331b2702159055dfd12e2c5fd790fc1d7b0dbcd4fb",
  },
  values: { "FVD-x": 0.0211867, "CLIP-x": 0.0416831, "VQA-x": 0.516652 },
};

/**
 * Relative to the value. Float32 on the software adapter is within 3e-7 of float64. WGSL allows adapters to be coarser in exp,
 * division and square roots by tens of units in the last place, a few 1e-6 per layer of ten, and FVD is what is left of a
 * difference of larger numbers.
 */
export const TOLERANCE = 1e-4;

/** FVD-x, CLIP-x and VQA-x of the example's sets, on the open device. */
export async function exampleScores(generated: Clips, real: Clips): Promise<Score[]> {
  const { seed } = EXAMPLE;
  const o = { seed, published: false, batch: 8 };
  const shape = { size: generated.size, frames: generated.frames, width: 8 };
  const video = new VideoFeatures({ ...shape, features: 16, outputs: 1 }).seed(seed);
  const tokenizer = trainTokenizer(generated.captions ?? [], { vocabSize: 600 });
  const model = new Clip(ownClipConfig(tokenizer.vocabSize)).seed(seed);
  const name = `seed ${seed}`;
  return [
    await fvdScore(generated, real, ownExtractor(video, name, "features"), o),
    await clipScore(generated, null, clipExtractor(model, name, generated.frames), { model, tokenizer }, o),
    await vqaScore(generated, null, ownExtractor(video, name, "score"), o),
  ];
}

export interface Comparison {
  readonly name: string;
  readonly value: number;
  readonly expected: number;
  readonly ok: boolean;
}

/** @throws Error when the stickers are not those of the example: their scores say nothing then */
export function compareExample(
  scores: readonly Score[],
  clips: Readonly<Record<"generated" | "real", Clips>>,
): Comparison[] {
  for (const which of ["generated", "real"] as const)
    if (clips[which].sha256 !== EXPECTED.clips[which])
      throw new Error(
        `${clips[which].dir}: the stickers are not those of the example (${clips[which].sha256.slice(0, 12)}, not ${EXPECTED.clips[which].slice(0, 12)}): another version draws others`,
      );
  return scores.map(({ name, value }) => {
    const expected = EXPECTED.values[name];
    return { name, value, expected, ok: Math.abs(value - expected) <= TOLERANCE * Math.abs(expected) };
  });
}
