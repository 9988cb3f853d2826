// `gifgrad eval`: scores of folders of generated stickers, printed with how they were measured; and `eval train-features`, which
// makes networks to score with from a data set.

import { join } from "node:path";
import { openDevice } from "../engine/index.ts";
import { clipScore } from "../eval/clip_similarity.ts";
import { type Clips, openClips } from "../eval/clips.ts";
import type { ExtractOptions } from "../eval/features.ts";
import { fvdScore } from "../eval/fvd_score.ts";
import { holdsUnfinished, OwnCheckpoints } from "../eval/own_checkpoint.ts";
import { holdsOwn, saveOwn } from "../eval/own_weights.ts";
import { type Metric, ProtocolError, rank, type Score } from "../eval/score.ts";
import { OWN_NETWORKS, type OwnNetwork, trainFeatures } from "../eval/train_features.ts";
import { vqaScore } from "../eval/vqa_score.ts";
import { type Progress, progress } from "../train/progress.ts";
import { openScorers, type Scorers } from "./eval_weights.ts";
import { type EvalOptions, refuseGiven, type TrainFeaturesOptions } from "./options.ts";
import { announce } from "./train.ts";

interface Result {
  readonly generated: string;
  readonly metric: Metric;
  readonly score: Score;
}

interface Failure {
  readonly generated: string;
  readonly metric: Metric;
  readonly reason: string;
}

/** Prints what could be computed. The exit code is 1 where a metric failed, or scores were measured unlike each other. */
export async function run(o: EvalOptions): Promise<void> {
  refuseUnread(o);
  const sets: Clips[] = [];
  const device = await openDevice();
  try {
    announce(device);
    await openGenerated(o, sets);
    const real = await openSet(o.real, sets[0].size, o.frames);
    sets.push(real);
    const scorers = await openScorers(o);
    const { results, failures } = await scoreAll(sets.slice(0, -1), real, scorers, o);
    report(results, failures, o, { adapter: device.name, missing: scorers.missing });
  } finally {
    for (const clips of sets) clips.close();
    device.close();
  }
}

/** Throws one line for an option that none of the networks reads. */
function refuseUnread({ given = [], weights, metrics }: EvalOptions): void {
  const published = !holdsOwn(weights);
  const needs = (some: readonly Metric[]): boolean => published && some.some((metric) => metrics.includes(metric));
  if (!needs(["fvd"])) refuseGiven(given, ["fvdFrames"], "FVD by the published I3D");
  if (!needs(["fvd", "vqa"])) refuseGiven(given, ["extension"], "FVD and VQA by the published networks");
}

/**
 * Opens the folders of generated stickers into `sets`, which the caller closes, whatever happens.
 * @throws Error of one line where no size is asked for and theirs differ
 */
export async function openGenerated({ generated, size, frames }: EvalOptions, sets: Clips[]): Promise<void> {
  for (const dir of generated) {
    const clips = await openSet(dir, size, frames);
    sets.push(clips);
    const [first] = sets;
    if (clips.size !== first.size)
      throw new Error(
        `eval: the stickers of ${first.dir} have ${first.size} pixels a side, those of ${dir} ${clips.size}: ` +
          "scores of unlike sizes cannot be compared; give --size to resize all",
      );
  }
}

/** The clips of a folder; what cannot be read is left out, and said. */
async function openSet(dir: string, size?: number, frames?: number): Promise<Clips> {
  const clips = await openClips(dir, { size, frames });
  for (const { file_name, reason } of clips.rejected) console.error(`${dir}: ${file_name} is left out: ${reason}`);
  return clips;
}

/** Every metric of every set. One that fails takes no other with it. */
export async function scoreAll(
  sets: readonly Clips[],
  real: Clips,
  scorers: Scorers,
  o: EvalOptions,
): Promise<{ results: Result[]; failures: Failure[] }> {
  const results: Result[] = [];
  const failures: Failure[] = [];
  for (const metric of o.metrics)
    for (const clips of sets) {
      const of = { generated: clips.dir, metric };
      try {
        const score = await scoreClips(metric, clips, real, scorers, shared(metric, clips, o));
        if (score) results.push({ ...of, score });
      } catch (error) {
        failures.push({ ...of, reason: error instanceof Error ? error.message : String(error) });
      }
    }
  return { results, failures };
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

/** One metric of generated clips beside real ones; null where its network is missing. Throws where it cannot be used. */
export async function scoreClips(
  metric: Metric,
  clips: Clips,
  real: Clips,
  scorers: Scorers,
  o: ScoreOptions,
): Promise<Score | null> {
  const unusable = scorers.unusable[metric];
  if (unusable !== undefined) throw new Error(unusable);
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

/**
 * Prints scores, and says what there is none of and why. Scores that were measured unlike each other are not ranked.
 * @throws Error where there is no score and no failure: no network
 */
export function report(
  results: readonly Result[],
  failures: readonly Failure[],
  o: Pick<EvalOptions, "metrics" | "json">,
  { adapter, missing }: { readonly adapter: string; readonly missing: Scorers["missing"] },
): void {
  const refused: Partial<Record<Metric, string>> = {};
  for (const metric of o.metrics) {
    const some = results.filter((r) => r.metric === metric);
    if (some.length === 0) continue;
    try {
      const order = rank(some.map((r) => r.score));
      if (!o.json) table(order.map((i) => some[i]));
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      refused[metric] = error.message;
    }
  }
  if (o.json) console.log(JSON.stringify({ adapter, scores: results, missing, refused, failed: failures }));
  for (const [metric, why] of Object.entries(missing)) console.error(`${metric} is not computed: ${why}`);
  const wrong = [
    ...Object.values(refused),
    ...failures.map(({ metric, generated, reason }) => `${metric} of ${generated} failed: ${reason}`),
  ];
  for (const line of wrong) console.error(`gifgrad: ${line}`);
  if (wrong.length > 0) process.exitCode = 1;
  else if (results.length === 0)
    throw new Error(
      "eval: no score could be computed; npx gifgrad eval train-features makes networks to score with from a data set",
    );
}

/** The scores of one metric, best first, and how they were measured. */
function table(ranked: readonly Result[]): void {
  const [{ score }] = ranked;
  console.log(`${score.name} (${score.better} is better)`);
  for (const { generated, score } of ranked) console.log(`  ${generated}: ${line(score)}`);
  const protocol = Object.entries(score.protocol).map(([key, value]) => `${key} ${short(value)}`);
  console.log(`  measured with: ${protocol.join(", ")}, seed ${score.seed}`);
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

/** @throws Error where `out` holds finished networks, or an unfinished training and `resume` is false, or none and it is true */
export async function trainOwn(o: TrainFeaturesOptions): Promise<void> {
  const unfinished = holdsUnfinished(o.out, OWN_NETWORKS);
  if (unfinished && !o.resume)
    throw new Error(`${o.out} holds an unfinished training: go on with it by --resume, or give another folder`);
  if (!unfinished && holdsOwn(o.out)) throw new Error(`${o.out} holds finished networks already: give another folder`);
  if (!unfinished && o.resume) throw new Error(`${o.out} holds no unfinished training: begin one without --resume`);
  const clips = await openSet(o.data, o.size);
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
