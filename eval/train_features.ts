// Trains the stand-ins for published networks on a data set of one's own: a video feature network (FVD-x), a pair of caption and
// picture encoders (CLIP-x) and a judge of quality (VQA-x). Each loop is below, whole. Where they are kept and read is
// own_weights.ts, how a killed training goes on own_checkpoint.ts. Called by the command line.

import { CLIP_PREPROCESS, clipPreprocess } from "../data/clip_preprocess.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { trainTokenizer } from "../data/tokenizer_train.ts";
import { compile, grad, joinState, type Tensor, tensor } from "../engine/index.ts";
import { bceWithLogits, crossEntropy, type Module, mse } from "../engine/nn/index.ts";
import { AdamW, clipGradNorm, warmupCosine } from "../engine/optim/index.ts";
import { Clip, type ClipConfig } from "../models/clip.ts";
import { featureVideo, VideoFeatures } from "../models/video_features.ts";
import type { Clips } from "./clips.ts";
import { DEGRADATIONS, type Degradation } from "./degrade.ts";
import { type Draw, drawing, shuffled } from "./draw.ts";
import { unitFrames } from "./fvd_score.ts";
import { type OwnCheckpoints, START } from "./own_checkpoint.ts";

export interface TrainFeaturesOptions {
  /** Of each of the three networks. */
  readonly steps: number;
  readonly batch: number;
  readonly seed: number;
  readonly onStep?: (network: OwnNetwork, step: number, loss: number) => void;
  /** Where the training is kept from time to time, and goes on from; absent: nowhere. */
  readonly checkpoints?: OwnCheckpoints;
  /** Steps from one time to the next (default 20: saving takes less than one of them). */
  readonly every?: number;
}

export type OwnNetwork = "video" | "clip" | "quality";
export const OWN_NETWORKS: readonly OwnNetwork[] = ["video", "quality", "clip"];

export interface OwnNetworks {
  readonly video: VideoFeatures;
  readonly quality: VideoFeatures;
  readonly clip: Clip;
  readonly tokenizer: Tokenizer;
  /** Mean loss of the first and of the last tenth of the steps. */
  readonly losses: Readonly<Record<OwnNetwork, readonly [first: number, last: number]>>;
}

/** Words that the video network learns to name, the most frequent of the captions. */
const WORDS = 32;
const HOWS = Object.keys(DEGRADATIONS) as Degradation[];
/** What a judge of single pictures can see. */
const VISIBLE: readonly Degradation[] = ["noise", "blur", "blocks"];
const VOCABULARY = 1024;

/** All three. Throws Error when the clips have no captions, or fewer than two different ones. */
export async function trainFeatures(clips: Clips, o: TrainFeaturesOptions): Promise<OwnNetworks> {
  const { captions } = clips;
  if (!captions) throw new Error(`${clips.dir} has no metadata.jsonl with captions, which the networks learn from`);
  if (new Set(captions).size < 2) throw new Error(`${clips.dir}: the captions are all the same`);
  const [video, first] = await trainVideo(clips, captions, o);
  const [quality, second] = await trainQuality(clips, o);
  const tokenizer = trainTokenizer(captions, { vocabSize: VOCABULARY });
  const [clip, third] = await trainClip(clips, captions, tokenizer, o);
  return { video, quality, clip, tokenizer, losses: { video: first, quality: second, clip: third } };
}

type Losses = readonly [first: number, last: number];

/** Says what was done to a clip, and which words its caption has: its features hold motion, texture and subject. */
async function trainVideo(
  clips: Clips,
  captions: readonly string[],
  o: TrainFeaturesOptions,
): Promise<[VideoFeatures, Losses]> {
  const words = frequentWords(captions);
  const { size, frames } = clips;
  const model = new VideoFeatures({ size, frames, width: 12, features: 64, outputs: HOWS.length + words.length });
  const loss = ({ x, how, has }: Readonly<Record<string, Tensor>>): Tensor => {
    const { outputs } = model.forward(featureVideo(x, size));
    const named = bceWithLogits(outputs.slice(1, HOWS.length, HOWS.length + words.length), has);
    return crossEntropy(outputs.slice(1, 0, HOWS.length), how).add(named);
  };
  const losses = await optimise("video", model, loss, o, async (draw) => {
    const places = Array.from({ length: o.batch }, () => draw(clips.length));
    const hows = places.map(() => draw(HOWS.length));
    const spoiled = await Promise.all(
      places.map(async (place, i) =>
        spoil(await clips.read(place), HOWS[hows[i]], { size, strength: 0.3 + 0.7 * share(draw), draw }),
      ),
    );
    const has = places.flatMap((place) => words.map((word) => (wordsOf(captions[place]).includes(word) ? 1 : 0)));
    return {
      x: unitFrames(spoiled, size, (n) => Array.from({ length: n }, (_, i) => i)),
      how: tensor(Int32Array.from(hows)),
      has: tensor(Float32Array.from(has), [o.batch, words.length]),
    };
  });
  return [model, losses];
}

/** Scores a clip 1 less the strength of what spoiled it. */
export async function trainQuality(clips: Clips, o: TrainFeaturesOptions): Promise<[VideoFeatures, Losses]> {
  const { size, frames } = clips;
  const model = new VideoFeatures({ size, frames, width: 12, features: 32, outputs: 1 });
  const loss = ({ x, good }: Readonly<Record<string, Tensor>>): Tensor =>
    mse(model.forward(featureVideo(x, size)).outputs.sigmoid(), good);
  const losses = await optimise("quality", model, loss, o, async (draw) => {
    const strengths = Array.from({ length: o.batch }, () => (draw(4) === 0 ? 0 : share(draw)));
    const spoiled = await Promise.all(
      strengths.map(async (strength) =>
        spoil(await clips.read(draw(clips.length)), VISIBLE[draw(VISIBLE.length)], { size, strength, draw }),
      ),
    );
    return {
      x: unitFrames(spoiled, size, (n) => Array.from({ length: n }, (_, i) => i)),
      good: tensor(
        Float32Array.from(strengths, (s) => 1 - s),
        [o.batch, 1],
      ),
    };
  });
  return [model, losses];
}

/** A pair of encoders small enough for a CPU: pictures of 32 pixels in patches of 8. */
export function ownClipConfig(vocabulary: number): ClipConfig {
  const tower = { width: 64, layers: 2, heads: 2, mlp: 128, projection: 32 };
  return { text: { ...tower, vocabulary, length: 32 }, vision: { ...tower, size: 32, patch: 8 } };
}

/** Which caption of a batch of different ones belongs to which frame. */
async function trainClip(
  clips: Clips,
  captions: readonly string[],
  tokenizer: Tokenizer,
  o: TrainFeaturesOptions,
): Promise<[Clip, Losses]> {
  const model = new Clip(ownClipConfig(tokenizer.vocabSize));
  const { length } = model.config.text;
  const { size } = model.config.vision;
  const byCaption = new Map<string, number[]>();
  captions.forEach((caption, i) => {
    byCaption.set(caption, [...(byCaption.get(caption) ?? []), i]);
  });
  const different = [...byCaption.keys()];
  const batch = Math.min(o.batch, different.length);
  const frame = clips.size ** 2 * 3;
  const loss = ({ x, ids }: Readonly<Record<string, Tensor>>): Tensor =>
    model.loss(model.embedImages(x), model.embedText(ids));
  const losses = await optimise("clip", model, loss, o, async (draw) => {
    const chosen = shuffled(different.length, draw)
      .slice(0, batch)
      .map((i) => different[i]);
    const pictures = new Float32Array(batch * size * size * 3);
    for (const [i, caption] of chosen.entries()) {
      const places = byCaption.get(caption) as number[];
      const clip = await clips.read(places[draw(places.length)]);
      const t = draw(clips.frames);
      const picture = { width: clips.size, height: clips.size, rgb: clip.subarray(t * frame, (t + 1) * frame) };
      pictures.set(clipPreprocess(picture, { ...CLIP_PREPROCESS, size, crop: size }), i * size * size * 3);
    }
    const ids = Int32Array.from(chosen.flatMap((caption) => [...tokenizer.encodePadded(caption, length)]));
    return { x: tensor(pictures, [batch, size, size, 3]), ids: tensor(ids, [batch, length]) };
  });
  return [model, losses];
}

const [LR, MAX_NORM] = [2e-3, 1];
/** The loop of all three; `feed` draws what it needs. Throws Error when a loss is not finite any more. */
async function optimise(
  name: OwnNetwork,
  model: Module,
  lossOf: (feed: Readonly<Record<string, Tensor>>) => Tensor,
  { steps, seed, onStep, checkpoints, every = 20 }: TrainFeaturesOptions,
  feed: (draw: Draw) => Promise<Readonly<Record<string, Tensor>>>,
): Promise<Losses> {
  model.seed(seed);
  const adam = new AdamW(model.state());
  const step = compile(
    ({ lr, ...inputs }: Readonly<Record<string, Tensor>>) => {
      const loss = lossOf(inputs);
      adam.step(clipGradNorm(grad(loss, adam.targets), MAX_NORM).grads, { lr });
      return { loss };
    },
    { name: `own ${name}` },
  );
  const rate = warmupCosine({ lr: LR, warmup: Math.min(20, steps / 10), steps, floor: LR / 20 });
  const state = joinState({ model: model.state(), adam: adam.state() });
  const left = (await checkpoints?.restore(name, state)) ?? START;
  const losses = [...left.losses];
  const draw = drawing(seed, name, left.drawn);
  for (let k = left.step; k < steps; k++) {
    const loss = await step({ ...(await feed(draw)), lr: tensor(rate(k)) }).loss.item();
    if (!Number.isFinite(loss))
      throw new Error(`train-features: the loss of the ${name} network is ${loss} at step ${k}`);
    losses.push(loss);
    if ((k + 1) % every === 0 || k + 1 === steps)
      await checkpoints?.save(name, state, { step: k + 1, drawn: draw.drawn(), losses });
    onStep?.(name, k + 1, loss);
  }
  const tenth = Math.max(1, Math.floor(steps / 10));
  const meanOf = (some: readonly number[]): number => some.reduce((a, b) => a + b, 0) / some.length;
  return [meanOf(losses.slice(0, tenth)), meanOf(losses.slice(-tenth))];
}

function spoil(
  clip: Uint8Array,
  how: Degradation,
  o: { readonly size: number; readonly strength: number; readonly draw: Draw },
): Uint8Array {
  return DEGRADATIONS[how](clip, o);
}

/** From 0 to 1. */
function share(draw: Draw): number {
  return draw(1001) / 1000;
}

function wordsOf(caption: string): string[] {
  return caption.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
}

/** The most frequent first; of equals the one that stands first in the alphabet. */
function frequentWords(captions: readonly string[]): string[] {
  const counts = new Map<string, number>();
  for (const word of captions.flatMap((caption) => [...new Set(wordsOf(caption))]))
    counts.set(word, (counts.get(word) ?? 0) + 1);
  const order = [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
  return order.slice(0, WORDS).map(([word]) => word);
}
