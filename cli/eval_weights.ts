// The networks that `gifgrad eval` scores with, from a folder of weights: published ones by the names of their files, or those of
// `eval train-features`. A metric whose network is not there is named with what is missing.

import { join } from "node:path";
import { fileSha256 } from "../data/hash.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { openTokenizer } from "../data/tokenizer_folder.ts";
import { LoadError } from "../engine/checkpoint.ts";
import type { Module } from "../engine/nn/index.ts";
import { clipExtractor, SCALE } from "../eval/clip_similarity.ts";
import type { Extractor } from "../eval/features.ts";
import { i3dExtractor } from "../eval/fvd_score.ts";
import { ownExtractor } from "../eval/own_extractors.ts";
import { holdsOwn, openOwn } from "../eval/own_weights.ts";
import type { Metric } from "../eval/score.ts";
import { fastVqaExtractor, type VqaOptions } from "../eval/vqa_score.ts";
import { loadForeign } from "../models/checkpoints/layout.ts";
import { Clip, type ClipConfig } from "../models/clip.ts";
import { FAST_VQA, FastVqa, fastVqaLayout } from "../models/fast_vqa.ts";
import { I3D_KINETICS, I3d, i3dLayout } from "../models/i3d.ts";
import { filesIn, isFolder } from "../train/foreign/find.ts";
import { loadPart, openCheckpoint, partOf } from "../train/foreign/imported.ts";
import type { EvalOptions } from "./options.ts";

export interface Scorers {
  /** Whether these are the published networks. */
  readonly published: boolean;
  readonly fvd?: Extractor;
  readonly clip?: {
    readonly extractor: Extractor;
    readonly model: Clip;
    readonly tokenizer: Tokenizer;
    readonly scale: number;
  };
  readonly vqa?: Extractor;
  /** For each metric that was asked for and cannot be computed, why. */
  readonly missing: Readonly<Partial<Record<Metric, string>>>;
  /** For each whose network is there and cannot be used, e.g. since its file is damaged, why. */
  readonly unusable: Readonly<Partial<Record<Metric, string>>>;
}

/** I3D's files, and the epsilon of the batch norms of the program that each is from. */
const I3D_FILES: readonly (readonly [name: string, epsilon: number])[] = [
  ["i3d_pretrained_400.pt", I3D_KINETICS.epsilon],
  ["i3d_pretrained_400.safetensors", I3D_KINETICS.epsilon],
  ["rgb_imagenet.pt", 1e-3],
];
const VQA_FILES: readonly (readonly [name: string, model: VqaOptions["model"]])[] = [
  ["FAST_VQA_B_1_4.pth", "FAST-VQA"],
  ["FAST_VQA_3D_1_1.pth", "FasterVQA"],
];
const CLIP_FILES = ["clip", "ViT-B-32.pt"];

/**
 * Opens what the metrics need. A file that is damaged, or is not of the network that it is named after, costs its metric alone.
 * @throws Error where there is no such folder, or what it says of networks of its own is damaged
 */
export async function openScorers(o: EvalOptions): Promise<Scorers> {
  const { weights: dir } = o;
  if (!(await isFolder(dir))) throw new Error(`eval: there is no folder of weights ${dir}`);
  return holdsOwn(dir) ? ownScorers(o) : publishedScorers(o);
}

async function ownScorers({ weights, frames, metrics }: EvalOptions): Promise<Scorers> {
  const own = await openOwn(weights);
  const { open, unusable } = opener(metrics);
  const extractor = async (network: "video" | "quality", kind: "features" | "score"): Promise<Extractor> => {
    const { model, sha256 } = await own[network]();
    return ownExtractor(model, sha256, kind);
  };
  return {
    published: false,
    fvd: await open("fvd", () => extractor("video", "features")),
    clip: await open("clip", async () => {
      const { model, sha256, tokenizer } = await own.clip();
      const scale = Math.exp(await model.logitScale.item());
      return { extractor: clipExtractor(model, sha256, frames), model, tokenizer, scale };
    }),
    vqa: await open("vqa", () => extractor("quality", "score")),
    missing: {},
    unusable,
  };
}

/** Opens the networks of the metrics that are asked for; what is wrong with one is kept beside. */
function opener(metrics: readonly Metric[]) {
  const unusable: Partial<Record<Metric, string>> = {};
  const open = async <T>(metric: Metric, network: () => Promise<T>): Promise<T | undefined> => {
    if (!metrics.includes(metric)) return undefined;
    try {
      return await network();
    } catch (error) {
      unusable[metric] = (error as Error).message;
      return undefined;
    }
  };
  return { open, unusable };
}

async function publishedScorers(o: EvalOptions): Promise<Scorers> {
  const { weights: dir, metrics, extension, fvdFrames, seed } = o;
  const there = await filesIn(dir);
  const missing: Partial<Record<Metric, string>> = {};
  const lacks = (metric: Metric, names: readonly string[]): undefined => {
    missing[metric] = `${dir} has no ${names.join(" or ")}`;
  };
  const fvd = async (): Promise<Extractor | undefined> => {
    const found = I3D_FILES.find(([name]) => there.includes(name));
    if (!found)
      return lacks(
        "fvd",
        I3D_FILES.map(([name]) => name),
      );
    const model = new I3d({ ...I3D_KINETICS, epsilon: found[1] });
    await fill(join(dir, found[0]), "I3D", model, i3dLayout);
    return i3dExtractor(model, await fileSha256(join(dir, found[0])), { extension, count: fvdFrames });
  };
  const vqa = async (): Promise<Extractor | undefined> => {
    const found = VQA_FILES.find(([name]) => there.includes(name));
    if (!found)
      return lacks(
        "vqa",
        VQA_FILES.map(([name]) => name),
      );
    const network = new FastVqa(FAST_VQA);
    await fill(join(dir, found[0]), found[1], network, fastVqaLayout);
    return fastVqaExtractor(network, await fileSha256(join(dir, found[0])), { model: found[1], seed, extension });
  };
  const clip = async (): Promise<Scorers["clip"]> => {
    const folder = await isFolder(join(dir, CLIP_FILES[0]));
    if (!folder && !there.includes(CLIP_FILES[1])) return lacks("clip", ["folder clip", CLIP_FILES[1]]);
    return publishedClip(dir, join(dir, CLIP_FILES[folder ? 0 : 1]), o.frames);
  };
  const { open, unusable } = opener(metrics);
  return {
    published: true,
    fvd: await open("fvd", fvd),
    clip: await open("clip", clip),
    vqa: await open("vqa", vqa),
    missing,
    unusable,
  };
}

/** Throws one line when the file holds other weights, whatever it is called; what `load` says then is a list of all names. */
async function fill(path: string, name: string, network: Module, layout: typeof i3dLayout): Promise<void> {
  try {
    await loadForeign(path, network.state(), layout);
  } catch (error) {
    if (!(error instanceof LoadError)) throw error;
    const [, first = "", ...rest] = error.message.split(/\n\s*/);
    const more = rest.length > 0 ? `; ${rest.length} more do not fit` : "";
    throw new Error(`${path}: these are not the weights of ${name}: ${first}${more}`, { cause: error });
  }
}

async function publishedClip(dir: string, path: string, frames: number): Promise<Scorers["clip"]> {
  const checkpoint = await openCheckpoint(path, "clip");
  try {
    const part = partOf(checkpoint, "clip");
    const model = new Clip(part.config as ClipConfig);
    await loadPart(part, model);
    const tokenizer = await openTokenizer((await isFolder(path)) ? path : dir);
    const { place } = part;
    const hash = await fileSha256(place ? join(path, place.folder, place.weights) : path);
    return { extractor: clipExtractor(model, hash, frames), model, tokenizer, scale: SCALE };
  } finally {
    await checkpoint.close();
  }
}
