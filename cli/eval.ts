// `gifgrad eval`: scores of folders of generated stickers, printed with how they were measured; and `eval train-features`, which
// makes networks to score with from a data set.

import { join } from "node:path";
import { openDevice } from "../engine/index.ts";
import { clipScore } from "../eval/clip_similarity.ts";
import { type Clips, openClips } from "../eval/clips.ts";
import type { ExtractOptions } from "../eval/features.ts";
import { fvdScore } from "../eval/fvd_score.ts";
import { holdsUnfinished, OwnCheckpoints } from "../eval/own_checkpoint.ts";
import { saveOwn } from "../eval/own_weights.ts";
import { ProtocolError, rank, type Score } from "../eval/score.ts";
import { OWN_NETWORKS, type OwnNetwork, trainFeatures } from "../eval/train_features.ts";
import { vqaScore } from "../eval/vqa_score.ts";
import { type Progress, progress } from "../train/progress.ts";
import { openScorers, type Scorers } from "./eval_weights.ts";
import type { EvalOptions, METRICS, TrainFeaturesOptions } from "./options.ts";
import { announce } from "./train.ts";

type Metric = (typeof METRICS)[number];

interface Result {
  readonly generated: string;
  readonly metric: Metric;
  readonly score: Score;
}

export async function run(o: EvalOptions): Promise<void> {
  const sets: Clips[] = [];
  const device = await openDevice();
  try {
    announce(device);
    for (const dir of o.generated) sets.push(await openSet(dir, o.size ?? sets[0]?.size, o.frames));
    const real = await openSet(o.real, sets[0].size, o.frames);
    sets.push(real);
    const scorers = await openScorers(o);
    const results: Result[] = [];
    for (const metric of o.metrics)
      for (const clips of sets.slice(0, o.generated.length)) {
        const score = await scoreClips(metric, clips, real, scorers, shared(metric, clips, o));
        if (score) results.push({ generated: clips.dir, metric, score });
      }
    if (o.json) console.log(JSON.stringify({ adapter: device.name, scores: results, missing: scorers.missing }));
    else print(results, o.metrics);
    for (const [metric, why] of Object.entries(scorers.missing)) console.error(`${metric} is not computed: ${why}`);
    if (results.length === 0)
      throw new Error(
        "eval: no score could be computed; npx gifgrad eval train-features makes networks to score with from a data set",
      );
  } finally {
    for (const clips of sets) clips.close();
    device.close();
  }
}

async function openSet(dir: string, size: number | undefined, frames: number): Promise<Clips> {
  const clips = await openClips(dir, { size, frames });
  for (const { file_name, reason } of clips.rejected) console.error(`${dir}: ${file_name} is left out: ${reason}`);
  return clips;
}

interface ScoreOptions extends ExtractOptions {
  readonly seed: number;
}

type ScoreOf = (clips: Clips, real: Clips, s: Scorers, o: ScoreOptions) => Promise<Score | null>;

const SCORE: Readonly<Record<Metric, ScoreOf>> = {
  fvd: async (clips, real, { published, fvd }, o) => (fvd ? fvdScore(clips, real, fvd, { ...o, published }) : null),
  clip: async (clips, real, { published, clip }, o) =>
    clip ? clipScore(clips, real, clip.extractor, clip, { ...o, published, scale: clip.scale }) : null,
  vqa: async (clips, real, { published, vqa }, o) => (vqa ? vqaScore(clips, real, vqa, { ...o, published }) : null),
};

/** One metric of generated clips beside real ones; null where its network is missing. */
export function scoreClips(
  metric: Metric,
  clips: Clips,
  real: Clips,
  scorers: Scorers,
  o: ScoreOptions,
): Promise<Score | null> {
  return SCORE[metric](clips, real, scorers, o);
}

/** What all metrics take: features are kept beside the decoded clips of the set. */
function shared(metric: Metric, clips: Clips, { seed, batch }: EvalOptions): ScoreOptions {
  let line: Progress | undefined;
  const onProgress = (done: number, total: number): void => {
    line = done <= batch ? progress(metric, total) : line;
    line?.update(done);
    if (done === total) line?.done();
  };
  return { seed, batch, cacheDir: join(clips.dir, ".gifgrad"), onProgress };
}

/** A table per metric. Scores that were measured unlike each other are refused: the reason is said, the exit code is 1. */
function print(results: readonly Result[], metrics: readonly Metric[]): void {
  for (const metric of metrics) {
    const some = results.filter((r) => r.metric === metric);
    if (some.length === 0) continue;
    try {
      const order = rank(some.map((r) => r.score));
      const [{ score }] = some;
      console.log(`${score.name} (${score.better} is better)`);
      for (const i of order) console.log(`  ${some[i].generated}: ${line(some[i].score)}`);
      const protocol = Object.entries(score.protocol).map(([key, value]) => `${key} ${short(value)}`);
      console.log(`  measured with: ${protocol.join(", ")}, seed ${score.seed}`);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      console.error(`gifgrad: ${error.message}`);
      process.exitCode = 1;
    }
  }
}

function line({ value, interval, floor, also }: Score): string {
  const spread = interval ? ` [${number(interval.low)}, ${number(interval.high)}]` : "";
  const real = floor ? `; real stickers score ${number(floor.value)} (n ${floor.n})` : "";
  const more = Object.entries(also).map(([key, x]) => `; ${key} ${number(x)}`);
  return `${number(value)}${spread}${real}${more.join("")}`;
}

function number(x: number): string {
  return Number.isInteger(x) ? String(x) : x.toPrecision(4);
}

function short(value: string | number | null): string {
  if (value === null) return "none";
  return typeof value === "string" && /^[0-9a-f]{64}$/.test(value) ? value.slice(0, 12) : String(value);
}

export async function trainOwn(o: TrainFeaturesOptions): Promise<void> {
  const unfinished = holdsUnfinished(o.out, OWN_NETWORKS);
  if (unfinished && !o.resume)
    throw new Error(`${o.out} holds an unfinished training: go on with it by --resume, or give another folder`);
  if (!unfinished && o.resume) throw new Error(`${o.out} holds no unfinished training: begin one without --resume`);
  const clips = await openClips(o.data, { size: o.size });
  const device = await openDevice();
  try {
    announce(device);
    await trainNetworks(clips, o);
  } finally {
    clips.close();
    device.close();
  }
}

/** Trains the three networks on the clips, on the open device, and leaves them in `out`; goes on with what is unfinished there. */
export async function trainNetworks(
  clips: Clips,
  o: Pick<TrainFeaturesOptions, "out" | "steps" | "batch" | "seed">,
): Promise<void> {
  const { out, steps, batch, seed } = o;
  const { size, frames, length, sha256 } = clips;
  const about = { data: sha256, clips: length, size, frames, steps, batch, seed };
  const checkpoints = new OwnCheckpoints(out, about);
  const lines = new Map<OwnNetwork, Progress>();
  const own = await trainFeatures(clips, {
    ...o,
    checkpoints,
    onStep(network, step, loss) {
      const shown = lines.get(network) ?? progress(network, steps);
      lines.set(network, shown);
      shown.update(step, `loss ${loss.toPrecision(3)}`);
      if (step === steps) shown.done(`loss ${loss.toPrecision(3)}`);
    },
  });
  await saveOwn(out, own, about);
  await checkpoints.clear(OWN_NETWORKS);
  for (const [network, [first, last]] of Object.entries(own.losses))
    console.log(`${network}: loss ${first.toPrecision(3)} at first, ${last.toPrecision(3)} at last`);
  console.log(`${out}: networks for FVD-x, CLIP-x and VQA-x`);
}
