// The quality of each clip as a score: fragments of its frames, drawn by the seed, through FAST-VQA or FasterVQA, and the mean of
// all clips. What is cut out of a clip, and what a raw score means, is vqa.ts; the network models/fast_vqa.ts. With another
// network the same number is called VQA-x.

import { compile, type Tensor, tensor } from "../engine/index.ts";
import type { FastVqa } from "../models/fast_vqa.ts";
import type { Clips } from "./clips.ts";
import { type Draw, drawing } from "./draw.ts";
import { type ExtractOptions, type Extractor, extractFeatures, protocolOf } from "./features.ts";
import { type Extension, extendFrames, type Features } from "./fvd.ts";
import { bootstrap, mean, type Score } from "./score.ts";
import {
  drawPlaces,
  FRAGMENTS,
  mosaic,
  normalise,
  rescaleScore,
  sampleFrames,
  sampleParts,
  type Video,
} from "./vqa.ts";

/** Frames that a clip is played to before any are chosen. */
const PLAYED = 32;

export interface VqaOptions {
  /** Which published network the weights are of. */
  readonly model: "FAST-VQA" | "FasterVQA";
  readonly seed: number;
  readonly extension?: Extension;
}

/** A published network; rows are scores from 0 to 1. */
export function fastVqaExtractor(network: FastVqa, hash: string, o: VqaOptions): Extractor {
  const { model, seed, extension = "loop" } = o;
  const step = compile(({ x }: { x: Tensor }) => ({ score: network.forward(x).score }), { name: "vqa" });
  return {
    name: model,
    hash,
    preprocessing: "fragments-1",
    drawn: seed,
    extension: `${extension} to ${PLAYED}`,
    width: 1,
    async extract(clips, places, size) {
      const views = clips.map((clip, i) =>
        viewsOf(clip, size, { model, extension, draw: drawing(seed, `fragments ${places[i]}`) }),
      );
      const [{ count, frames }] = views;
      const side = FRAGMENTS.rows * FRAGMENTS.height;
      const out = new Float32Array(clips.length);
      // One view of all clips at a time: a published network on four views of a clip would take four times the memory.
      for (let view = 0; view < count; view++) {
        const x = new Float32Array(clips.length * frames * side * side * 3);
        views.forEach(({ data }, b) => {
          const length = data.length / count;
          x.set(data.subarray(view * length, (view + 1) * length), b * length);
        });
        const { score } = step({ x: tensor(x, [clips.length, frames, side, side, 3]) });
        const raw = await score.data();
        for (let b = 0; b < out.length; b++) out[b] += raw[b] / count;
      }
      return out.map((raw) => rescaleScore(raw, model));
    },
  };
}

interface Views {
  readonly data: Float32Array;
  readonly count: number;
  readonly frames: number;
}

interface ViewOptions {
  readonly model: VqaOptions["model"];
  readonly extension: Extension;
  readonly draw: Draw;
}

/** FAST-VQA looks at a clip four times for 32 frames, FasterVQA once. */
function viewsOf(clip: Uint8Array, size: number, { model, extension, draw }: ViewOptions): Views {
  const fast = model === "FAST-VQA";
  const chosen = fast ? sampleFrames(PLAYED) : sampleParts(PLAYED, draw);
  const played = extendFrames(clip.length / (size * size * 3), extension, PLAYED);
  const order = chosen.map((i) => played[i]);
  const video = { ...planes(clip, size), order };
  const grid = fast ? FRAGMENTS : { ...FRAGMENTS, aligned: 8 };
  const fragments = mosaic(video, grid, drawPlaces(video, grid, draw));
  return { data: normalise(fragments, chosen.length), count: fast ? chosen.length / PLAYED : 1, frames: PLAYED };
}

/** A clip [t, size, size, 3] as planes [3, t, size, size]. */
function planes(clip: Uint8Array, size: number): Video {
  const pixels = clip.length / 3;
  const data = new Uint8Array(clip.length);
  for (let c = 0; c < 3; c++) for (let p = 0; p < pixels; p++) data[c * pixels + p] = clip[3 * p + c];
  return { shape: [3, pixels / (size * size), size, size], data };
}

export interface VqaScoreOptions extends ExtractOptions {
  readonly seed: number;
  readonly rounds?: number;
  /** Whether the extractor is a published network. */
  readonly published: boolean;
}

/** Mean quality of the clips, from 0 to 1; higher is better. */
export async function vqaScore(
  generated: Clips,
  real: Clips | null,
  extractor: Extractor,
  o: VqaScoreOptions,
): Promise<Score> {
  const { data, count } = await extractFeatures(generated, extractor, o);
  const theirs: Features | null = real && (await extractFeatures(real, extractor, o));
  return {
    name: o.published ? "VQA" : "VQA-x",
    value: mean(data),
    better: "higher",
    protocol: protocolOf(generated, extractor),
    floor: theirs && { value: mean(theirs.data), n: theirs.count },
    interval: bootstrap(count, (draw) => mean(Float64Array.from(draw(), (i) => data[i])), {
      seed: o.seed,
      rounds: o.rounds,
    }),
    seed: o.seed,
    also: {},
  };
}
