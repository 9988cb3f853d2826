// The Frechet video distance as a score: I3D's logits of generated and of real clips, equally many of each, their distance,
// that between halves of the real ones, and an interval. The distance itself and the rules for short clips are fvd.ts. With
// another network the same number is called FVD-x.

import { compile, type Tensor, tensor } from "../engine/index.ts";
import { type I3d, i3dVideo } from "../models/i3d.ts";
import { type Clips, clipsAt } from "./clips.ts";
import { drawing, shuffled } from "./draw.ts";
import { type ExtractOptions, type Extractor, extractFeatures, protocolOf } from "./features.ts";
import { type Extension, extendFrames, type Features, frechetDistance } from "./fvd.ts";
import { bootstrap, type Score } from "./score.ts";

export interface ExtensionOptions {
  /** How a clip is played until there are `count` frames (default: loop to 16). */
  readonly extension?: Extension;
  readonly count?: number;
}

/** I3D as a feature network. Throws RangeError where it would see fewer than 9 frames. */
export function i3dExtractor(
  model: I3d,
  hash: string,
  { extension = "loop", count = 16 }: ExtensionOptions = {},
): Extractor {
  extendFrames(1, extension, count);
  const step = compile(({ x }: { x: Tensor }) => ({ logits: model.forward(i3dVideo(x)).logits }), { name: "i3d" });
  return {
    name: `I3D (epsilon ${model.config.epsilon})`,
    hash,
    preprocessing: "i3d-1",
    extension: `${extension} to ${count}`,
    width: model.config.classes,
    extract: async (clips, _, size) =>
      step({
        x: unitFrames(clips, size, (n) => extendFrames(n, extension, count)),
      }).logits.data() as Promise<Float32Array>,
  };
}

/** Clips of bytes as a tensor [b, t, size, size, 3] in [0, 1] of the frames that `pick` names. */
export function unitFrames(
  clips: readonly Uint8Array[],
  size: number,
  pick: (frames: number) => readonly number[],
): Tensor {
  const frame = size * size * 3;
  const order = pick(clips[0].length / frame);
  const out = new Float32Array(clips.length * order.length * frame);
  clips.forEach((clip, b) => {
    order.forEach((from, t) => {
      const at = (b * order.length + t) * frame;
      for (let i = 0; i < frame; i++) out[at + i] = clip[from * frame + i] / 255;
    });
  });
  return tensor(out, [clips.length, order.length, size, size, 3]);
}

export interface FvdOptions extends ExtractOptions {
  /** Of the choice of clips where there are more of one kind, of the halves, and of the resamples. */
  readonly seed: number;
  /** Resamples of the interval (default 50: each takes a singular value decomposition). */
  readonly rounds?: number;
  /** Whether the extractor is the published network. */
  readonly published: boolean;
}

/**
 * Distance of generated clips from real ones; lower is better. Of the larger set as many are drawn as the smaller has. Value,
 * floor and interval are cut at 0, below which no distance is.
 * @throws Error where sizes or frame counts differ, RangeError for fewer than 4 clips: halves of the real ones need 2 each
 */
export async function fvdScore(generated: Clips, real: Clips, extractor: Extractor, o: FvdOptions): Promise<Score> {
  for (const key of ["size", "frames"] as const)
    if (generated[key] !== real[key])
      throw new Error(`FVD: generated clips have ${key} ${generated[key]}, real ones ${real[key]}`);
  const n = Math.min(generated.length, real.length);
  if (n < 4)
    throw new RangeError(`FVD: at least 4 clips of each kind are needed, got ${generated.length} and ${real.length}`);
  const [ours, theirs] = [equally(generated, n, o.seed), equally(real, n, o.seed)];
  const a = await extractFeatures(ours, extractor, o);
  const b = await extractFeatures(theirs, extractor, o);
  const value = Math.max(0, frechetDistance(a, b));
  const order = shuffled(n, drawing(o.seed, "halves"));
  const half = Math.floor(n / 2);
  const halves = [order.slice(0, half), order.slice(half, 2 * half)].map((places) => rowsAt(b, places));
  const resampled = (draw: () => Int32Array): number => frechetDistance(rowsAt(a, draw()), rowsAt(b, draw()));
  return {
    name: o.published ? "FVD" : "FVD-x",
    value,
    better: "lower",
    protocol: protocolOf(generated, extractor, { n, real: real.sha256 }),
    floor: { value: Math.max(0, frechetDistance(halves[0], halves[1])), n: half },
    interval: bootstrap(n, resampled, { seed: o.seed, rounds: o.rounds ?? 50, centre: value, least: 0 }),
    seed: o.seed,
    also: {},
  };
}

/** `n` of the clips, all of them in their order where there are no more. */
function equally(clips: Clips, n: number, seed: number): Clips {
  if (clips.length === n) return clips;
  const places = shuffled(clips.length, drawing(seed, "choice")).slice(0, n);
  return clipsAt(
    clips,
    places.sort((i, j) => i - j),
  );
}

function rowsAt({ width, data }: Features, places: ArrayLike<number>): Features {
  const out = new Float64Array(places.length * width);
  for (let row = 0; row < places.length; row++)
    for (let i = 0; i < width; i++) out[row * width + i] = data[places[row] * width + i];
  return { count: places.length, width, data: out };
}
