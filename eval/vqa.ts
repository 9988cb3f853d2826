// What FAST-VQA and FasterVQA look at, and how their score is read: which frames, and which fragments of them at native
// resolution (Wu et al. 2022, section 3). Pure functions on the host; the network is models/fast_vqa.ts.

/** Bytes of frames, [channels, frames, height, width]. */
export interface Video {
  readonly shape: readonly [c: number, t: number, h: number, w: number];
  readonly data: Uint8Array;
  /** Which frame is shown at each moment; absent: each once. A clip that is played again costs its own frames alone. */
  readonly order?: readonly number[];
}

const moments = ({ shape, order }: Video): number => order?.length ?? shape[1];

export interface FrameSampling {
  /** Frames of a clip, and the step between them. */
  readonly length: number;
  readonly interval: number;
  readonly clips: number;
}

/** FAST-VQA's: 4 clips of 32 frames, every other frame. */
export const FAST_VQA_FRAMES: FrameSampling = { length: 32, interval: 2, clips: 4 };

/**
 * Frame indices of `clips` clips in the middle of equal parts of a video of `total` frames, one clip behind the other. A
 * video that is too short starts again.
 */
export function sampleFrames(total: number, { length, interval, clips }: FrameSampling = FAST_VQA_FRAMES): number[] {
  atLeastOne("a video has frames", total);
  const spare = total - length * interval + 1;
  const step = spare / clips;
  const start = (clip: number): number => (spare > 0 ? Math.floor(clip * step + step / 2) : 0);
  return Array.from(
    { length: clips * length },
    (_, i) => (start(Math.floor(i / length)) + (i % length) * interval) % total,
  );
}

/**
 * FasterVQA's: one clip of `parts` runs of `length` neighbouring frames, one from each equal part of the video, at places
 * that `draw` chooses (a whole number from 0 to below its argument).
 */
export function sampleParts(total: number, draw: (below: number) => number, parts = 8, length = 4): number[] {
  atLeastOne("a video has frames", total);
  const part = Math.floor(total / parts);
  const starts = Array.from({ length: parts }, (_, i) => i * part + (part > length ? draw(part - length) : 0));
  return starts.flatMap((start) => Array.from({ length }, (_, i) => (start + i) % total));
}

function atLeastOne(what: string, n: number): void {
  if (!Number.isInteger(n) || n < 1) throw new RangeError(`VQA: ${what}, got ${n}`);
}

export interface Grid {
  /** Fragments down and across. */
  readonly rows: number;
  readonly columns: number;
  /** Size of each in pixels. */
  readonly height: number;
  readonly width: number;
  /** Frames in a row that share their fragments' places. */
  readonly aligned: number;
}

/** 7 x 7 fragments of 32 x 32 pixels: 224 x 224. FasterVQA aligns 8 frames. */
export const FRAGMENTS: Grid = { rows: 7, columns: 7, height: 32, width: 32, aligned: 32 };

/** Where in its cell each fragment begins, [rows, columns, runs of aligned frames]. */
export interface Places {
  readonly down: ArrayLike<number>;
  readonly across: ArrayLike<number>;
}

/** Random places for a video: all that go down, then all that go across, none where cells are as small as fragments. */
export function drawPlaces(video: Video, grid: Grid, draw: (below: number) => number): Places {
  const [, , h, w] = video.shape;
  const count = grid.rows * grid.columns * runsOf(moments(video), grid);
  const places = (cell: number, size: number): Int32Array =>
    Int32Array.from({ length: count }, () => (cell > size ? draw(cell - size) : 0));
  return {
    down: places(Math.floor(h / grid.rows), grid.height),
    across: places(Math.floor(w / grid.columns), grid.width),
  };
}

/** Runs of frames that share places; a still picture is one. Throws when the frames do not divide into them. */
function runsOf(t: number, { aligned }: Grid): number {
  if (t === 1) return 1;
  if (t % aligned !== 0) throw new RangeError(`VQA: ${t} frames do not divide into runs of ${aligned}`);
  return t / aligned;
}

/**
 * The mosaic of fragments, floats of 0 to 255, [c, moments, rows height, columns width]. A video smaller than the mosaic is
 * first enlarged until it covers it; the grid stays that of the video as it was, as in the published code, so that fragments
 * come from its upper left part.
 */
export function mosaic(video: Video, grid: Grid, { down, across }: Places): Float32Array {
  const [c, frames, h, w] = video.shape;
  if (h < grid.height || w < grid.width)
    throw new RangeError(`VQA: frames of ${w} x ${h} are smaller than a fragment of ${grid.width} x ${grid.height}`);
  const t = moments(video);
  const [size, runs] = [[grid.rows * grid.height, grid.columns * grid.width], runsOf(t, grid)];
  const source = enlarged(video, Math.min(h / size[0], w / size[1]));
  const [, , sh, sw] = source.shape;
  const cells = [Math.floor(h / grid.rows), Math.floor(w / grid.columns)];
  const out = new Float32Array(c * t * size[0] * size[1]);
  const perRun = t / runs;
  for (let plane = 0, at = 0; plane < c * t; plane++) {
    const run = Math.floor((plane % t) / perRun);
    const frame = video.order ? video.order[plane % t] : plane % t;
    const top = (Math.floor(plane / t) * frames + frame) * sh;
    for (let y = 0; y < size[0]; y++) {
      const i = Math.floor(y / grid.height);
      for (let j = 0; j < grid.columns; j++, at += grid.width) {
        const place = (i * grid.columns + j) * runs + run;
        const row = Math.min(cells[0] * i, h - grid.height) + down[place] + (y % grid.height);
        const column = Math.min(cells[1] * j, w - grid.width) + across[place];
        const first = (top + row) * sw + column;
        out.set(source.data.subarray(first, first + grid.width), at);
      }
    }
  }
  return out;
}

/**
 * Enlarged by 1 / ratio where ratio < 1, by bilinear interpolation of values in [0, 1] that are cut down to whole bytes. Cutting
 * shows the last bit, so everything is rounded to float32 where torch rounds it, fused products included: float64 throughout
 * gives one byte in thirty another value.
 */
function enlarged(video: Video, ratio: number): Video {
  if (ratio >= 1) return video;
  const [c, t, h, w] = video.shape;
  const factor = 1 / ratio;
  const [nh, nw] = [Math.floor(h * factor), Math.floor(w * factor)];
  const [rows, columns] = [between(h, nh, factor), between(w, nw, factor)];
  const data = new Uint8Array(c * t * nh * nw);
  for (let plane = 0, at = 0; plane < c * t; plane++)
    for (let y = 0; y < nh; y++) {
      const [low, high] = [(plane * h + rows.low[y]) * w, (plane * h + rows.high[y]) * w];
      const below = rows.part[y];
      const above = f32(1 - below);
      for (let x = 0; x < nw; x++, at++) {
        const [left, right] = [columns.low[x], columns.high[x]];
        const after = columns.part[x];
        const before = f32(1 - after);
        let sum = f32(UNIT[video.data[low + right]] * f32(above * after));
        sum = f32(UNIT[video.data[low + left]] * f32(above * before) + sum);
        sum = f32(UNIT[video.data[high + left]] * f32(below * before) + sum);
        sum = f32(UNIT[video.data[high + right]] * f32(below * after) + sum);
        data[at] = Math.floor(f32(sum * 255));
      }
    }
  return { ...video, shape: [c, t, nh, nw], data };
}

/** Bytes as float32 in [0, 1]. */
const UNIT = Float32Array.from({ length: 256 }, (_, byte) => byte / 255);
const f32 = Math.fround;

interface Between {
  readonly low: Int32Array;
  readonly high: Int32Array;
  /** Share of `high`. */
  readonly part: Float32Array;
}

/** For each of `to` positions its neighbours among `from`. */
function between(from: number, to: number, factor: number): Between {
  const at = Float32Array.from({ length: to }, (_, i) => Math.max(0, f32(1 / factor) * (i + 0.5) - 0.5));
  const low = Int32Array.from(at, (x) => Math.min(from - 1, Math.floor(x)));
  const high = low.map((x) => Math.min(from - 1, x + 1));
  return { low, high, part: at.map((x, i) => x - low[i]) };
}

/** Per channel of bytes. */
export const MEAN = [123.675, 116.28, 103.53];
const STD = [58.395, 57.12, 57.375];

/** A mosaic [3, t, h, w] of bytes as the network takes it: normalised, channels last. */
export function normalise(mosaic: ArrayLike<number>, frames: number): Float32Array {
  const pixels = mosaic.length / 3;
  if (!Number.isInteger(pixels / frames)) throw new RangeError(`VQA: ${mosaic.length} values are no ${frames} frames`);
  const out = new Float32Array(mosaic.length);
  for (let c = 0; c < 3; c++)
    for (let pixel = 0; pixel < pixels; pixel++) out[3 * pixel + c] = (mosaic[c * pixels + pixel] - MEAN[c]) / STD[c];
  return out;
}

/** Mean and deviation of the scores of published models on their training data. */
export const SCORES = {
  FasterVQA: [0.14759505, 0.03613452],
  "FasterVQA-MS": [0.15218826, 0.03230298],
  "FasterVQA-MT": [0.14699507, 0.036453716],
  "FAST-VQA": [-0.110198185, 0.04178565],
  "FAST-VQA-M": [0.023889644, 0.030781006],
} as const satisfies Readonly<Record<string, readonly [mean: number, deviation: number]>>;

/** sigmoid((score - mean) / deviation), in (0, 1): 0.25 is bad, 0.5 fair, 0.75 good. */
export function rescaleScore(score: number, model: keyof typeof SCORES): number {
  const [mean, deviation] = SCORES[model];
  return 1 / (1 + Math.exp(-(score - mean) / deviation));
}
