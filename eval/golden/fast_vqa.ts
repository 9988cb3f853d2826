// Golden kind "fast-vqa": the backbone with its gated biases and the head, and what comes before and after them: fragments,
// frames, rescaled scores.

import { ConfigReader } from "../../models/checkpoints/reader.ts";
import { FastVqa, type FastVqaConfig, fastVqaLayout } from "../../models/fast_vqa.ts";
import type { Three } from "../../models/swin3d.ts";
import { type Grid, mosaic, normalise, rescaleScore, SCORES, sampleFrames } from "../vqa.ts";
import { channelsLast } from "./axes.ts";
import { need, peekJson, type Stored } from "./files.ts";
import { broken, type Check, compare, type Kind, TWO_ULPS } from "./kind.ts";
import { type ModelFolder, openModelFolder, peekConfig, type Tensors } from "./model.ts";

export const fastVqa: Kind = {
  name: "fast-vqa",
  recognises: async (folder) => typeof (await peekConfig(folder))?.vqa_head === "object",
  run,
};

async function* run(path: string): AsyncGenerator<Check> {
  const folder = await openModelFolder(path);
  yield* fragments(folder);
  yield* frames(folder);
  yield* scores(folder);
  const model = new FastVqa(readConfig(await folder.json("config.json")));
  await folder.load(model.state(), fastVqaLayout);
  const inputs: Tensors = { clip: folder.input("clip"), other: folder.input("clip_other") };
  const network = { weights: model.state(), inputs, outputs: (x: Tensors) => outputs(model, x) };
  yield* folder.checks(network, { except: (name) => name.startsWith("out.frag.") });
}

function outputs(model: FastVqa, { clip, other }: Tensors): Tensors {
  const [first, second] = [model.forward(clip), model.forward(other)];
  return {
    feat: first.features,
    score_map: first.map,
    score: first.score,
    other_feat: second.features,
    other_score: second.score,
    other_noadapt_feat: model.forward(other, { adapt: false }).features,
  };
}

function readConfig(json: unknown): FastVqaConfig {
  const r = new ConfigReader(json, "config.json");
  const [backbone, head] = [r.inside("backbone"), r.inside("vqa_head")];
  const three = (key: string): Three => {
    const [t, h, w] = backbone.counts(key, 3);
    return [t, h, w];
  };
  return {
    backbone: {
      patch: three("patch_size"),
      inputs: backbone.count("in_chans", 3),
      width: backbone.count("embed_dim"),
      depths: backbone.counts("depths"),
      heads: backbone.counts("num_heads"),
      window: three("window_size"),
      mlpRatio: backbone.number("mlp_ratio", 4),
      qkvBias: backbone.flag("qkv_bias", true),
      patchNorm: backbone.flag("patch_norm", true),
      fragmentBias: backbone.flags("frag_biases"),
      baseSize: three("base_x_size"),
    },
    hidden: head.count("hidden_channels", 64),
  };
}

// ---- before and after the network

interface Fragments {
  readonly aligned: number;
  readonly fragments_h: number;
  readonly fragments_w: number;
  readonly fsize_h: number;
  readonly fsize_w: number;
}

/** Mosaics by the stored places: bytes, so equal. "CASE_normalised" is that of CASE as the network takes it. */
async function* fragments(folder: ModelFolder): AsyncGenerator<Check> {
  const cases = ((await peekJson(folder.path, "fragments.json")) ?? {}) as Readonly<Record<string, Fragments>>;
  const made = new Map<string, Float32Array>();
  for (const [id, o] of Object.entries(cases)) {
    const video = need(folder.io, `in.frag.${id}.video`);
    const [c, t, h, w] = video.shape;
    const grid: Grid = {
      rows: o.fragments_h,
      columns: o.fragments_w,
      height: o.fsize_h,
      width: o.fsize_w,
      aligned: o.aligned,
    };
    const places = {
      down: need(folder.io, `in.frag.${id}.rnd_h`).data,
      across: need(folder.io, `in.frag.${id}.rnd_w`).data,
    };
    const got = mosaic({ shape: [c, t, h, w], data: Uint8Array.from(video.data) }, grid, places);
    made.set(id, got);
    yield compare(`out.frag.${id}`, got, need(folder.io, `out.frag.${id}`).data, 0);
  }
  for (const [name, want] of folder.io) {
    if (!name.startsWith("out.frag.") || made.has(name.slice("out.frag.".length))) continue;
    const source = made.get(name.replace(/^out\.frag\.(.*)_normalised$/, "$1"));
    yield source ? normalised(name, source, want) : broken(name, "nothing here computes it");
  }
}

function normalised(name: string, source: Float32Array, want: Stored): Check {
  return compare(name, normalise(source, want.shape[1]), channelsLast(want, 0).data, TWO_ULPS);
}

/** "frames:length:interval:clips" -> indices. */
async function* frames(folder: ModelFolder): AsyncGenerator<Check> {
  const cases = ((await peekJson(folder.path, "frames.json")) ?? {}) as Readonly<Record<string, number[]>>;
  for (const [name, want] of Object.entries(cases)) {
    const [total, length, interval, clips] = name.split(":").map(Number);
    yield compare(`frames ${name}`, sampleFrames(total, { length, interval, clips }), want, 0);
  }
}

/** Model -> score -> rescaled score. Float64 on both sides, and a few roundings in the exponential. */
async function* scores(folder: ModelFolder): AsyncGenerator<Check> {
  const models = ((await peekJson(folder.path, "rescale.json")) ?? {}) as Readonly<
    Record<string, Record<string, number>>
  >;
  for (const [model, rows] of Object.entries(models)) {
    if (!Object.hasOwn(SCORES, model)) yield broken(`rescale ${model}`, "no such model is known here");
    else
      for (const [score, want] of Object.entries(rows)) {
        const got = rescaleScore(Number(score), model as keyof typeof SCORES);
        yield compare(`rescale ${model} ${score}`, [got], [want], 1e-14);
      }
  }
}
