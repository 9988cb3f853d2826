// Video Swin transformer (Liu et al. 2022) with the gated relative position biases of FAST-VQA (Wu et al. 2022, section 4.2):
// attention in windows of frames and patches, every other layer in windows moved by half their size. The score on top of it
// is fast_vqa.ts. Attribute names are those of the published weights.

import { type Parameter, ShapeError, type Tensor, tensor } from "../engine/index.ts";
import {
  Conv,
  LayerNorm,
  Linear,
  Module,
  normalInit,
  parameter,
  roll,
  scaledDotProductAttention,
} from "../engine/nn/index.ts";

/** Frames or positions, rows, columns. */
export type Three = readonly [t: number, h: number, w: number];

export interface Swin3dConfig {
  readonly patch: Three;
  readonly inputs: number;
  /** Width of the first stage; each of the others is twice as wide as the one before. */
  readonly width: number;
  /** Layers and heads per stage. */
  readonly depths: readonly number[];
  readonly heads: readonly number[];
  readonly window: Three;
  /** Inner width of the MLPs over the stage's width. */
  readonly mlpRatio: number;
  readonly qkvBias: boolean;
  readonly patchNorm: boolean;
  /** Per stage: a second table of biases, for pairs of positions in one fragment. */
  readonly fragmentBias: readonly boolean[];
  /** Size of the input that `window` is meant for; windows of other inputs shrink in proportion. */
  readonly baseSize: Three;
}

/** Video Swin-T as FAST-VQA and FasterVQA have it. */
export const SWIN_T: Swin3dConfig = {
  patch: [2, 4, 4],
  inputs: 3,
  width: 96,
  depths: [2, 2, 6, 2],
  heads: [3, 6, 12, 24],
  window: [8, 7, 7],
  mlpRatio: 4,
  qkvBias: true,
  patchNorm: true,
  fragmentBias: [true, true, true, false],
  baseSize: [32, 224, 224],
};

const each = <T>(f: (axis: 0 | 1 | 2) => T): [T, T, T] => [f(0), f(1), f(2)];
const volume = ([t, h, w]: Three): number => t * h * w;

/** Windows as all stages have them. */
interface Windows {
  readonly window: Three;
  readonly shift: Three;
  /** Whether windows were shrunk to the input, which decides where the table of biases is read. */
  readonly adapted: boolean;
  /** Largest number of attention scores that are in memory at once. */
  readonly scores: number;
}

/** How one map is cut into them: host numbers only. */
interface Cut extends Windows {
  /** Sizes of the map, padded to whole windows. */
  readonly padded: Three;
}

/** Windows larger than the map are as large as the map, and do not move along that axis. */
function cut(map: Three, windows: Windows): Cut {
  const window = each((i) => Math.min(map[i], windows.window[i]));
  return {
    ...windows,
    window,
    padded: each((i) => Math.ceil(map[i] / window[i]) * window[i]),
    shift: each((i) => (map[i] <= windows.window[i] ? 0 : windows.shift[i])),
  };
}

/** [b, t, h, w, c] of whole windows -> [b windows, positions, c], windows of a clip in order. */
function toWindows(x: Tensor, { padded, window: [t, h, w] }: Cut): Tensor {
  const { b, c } = x.dims("b t h w c");
  const [nt, nh, nw] = [padded[0] / t, padded[1] / h, padded[2] / w];
  const blocks = x.reshape([b, nt, t, nh, h, nw, w, c]).permute([0, 1, 3, 5, 2, 4, 6, 7]);
  return blocks.reshape([b * nt * nh * nw, t * h * w, c]);
}

function fromWindows(x: Tensor, { padded, window: [t, h, w] }: Cut): Tensor {
  const [nt, nh, nw] = [padded[0] / t, padded[1] / h, padded[2] / w];
  const c = x.shape[2];
  const blocks = x.reshape([-1, nt, nh, nw, t, h, w, c]).permute([0, 1, 4, 2, 5, 3, 6, 7]);
  return blocks.reshape([-1, ...padded, c]);
}

/** A number for each position of each window of one clip, [windows, positions], from a number per position of the map. */
function perWindow({ padded, window, shift }: Cut, of: (at: Three) => number): Float32Array {
  const counts = each((i) => padded[i] / window[i]);
  const [size, out] = [volume(window), new Float32Array(volume(padded))];
  for (let flat = 0; flat < out.length; flat++) {
    const [win, pos] = [unravel(Math.floor(flat / size), counts), unravel(flat % size, window)];
    out[flat] = of(each((i) => (win[i] * window[i] + pos[i] + shift[i]) % padded[i]));
  }
  return out;
}

function unravel(flat: number, [, h, w]: Three): Three {
  return [Math.floor(flat / (h * w)), Math.floor(flat / w) % h, flat % w];
}

/**
 * Which fragment a position lies in along one axis of n positions: there are as many fragments as a window has positions,
 * by nearest interpolation, whose scale is a float32.
 */
function fragment(at: number, n: number, fragments: number): number {
  return Math.min(fragments - 1, Math.floor(Math.fround(at * Math.fround(fragments / n))));
}

/** Positions that were neighbours only after the map was moved around its ends must not see each other: their region. */
function region(at: Three, { padded, window, shift }: Cut): number {
  const [t, h, w] = each((i) => {
    const moved = (at[i] - shift[i] + padded[i]) % padded[i]; // where it stands after the move
    if (moved >= padded[i] - shift[i]) return 2;
    return moved >= padded[i] - window[i] ? 1 : 0;
  });
  return 9 * t + 3 * h + w;
}

/** 64 MB of attention scores. */
const MOST_SCORES = 2 ** 24;

class WindowAttention extends Module {
  /** Biases by the difference of two positions, [(2 t - 1)(2 h - 1)(2 w - 1), heads]; the second within fragments. */
  readonly relativePositionBiasTable: Parameter;
  readonly fragmentPositionBiasTable: Parameter | null;
  readonly qkv: Linear;
  readonly proj: Linear;
  readonly #heads: number;
  readonly #window: Three;

  constructor(width: number, heads: number, { window, qkvBias }: Swin3dConfig, fragmentBias: boolean) {
    super();
    if (width % heads !== 0) throw new ShapeError(`Swin: a width of ${width} does not divide into ${heads} heads`);
    const rows = volume(each((i) => 2 * window[i] - 1));
    const table = (): Parameter => parameter([rows, heads], normalInit(0.02));
    this.relativePositionBiasTable = table();
    this.fragmentPositionBiasTable = fragmentBias ? table() : null;
    this.qkv = new Linear(width, 3 * width, { bias: qkvBias });
    this.proj = new Linear(width, width);
    this.#heads = heads;
    this.#window = window;
  }

  /** [b windows, positions, width] -> the same shape. Windows go in runs, so that memory for the scores is bounded. */
  forward(x: Tensor, how: Cut): Tensor {
    const { b, n, c } = x.dims("b n c");
    const run = Math.max(1, Math.floor(how.scores / (this.#heads * n * n)));
    const within = this.#biases(n, how);
    const part = (from: number, to: number): Tensor => {
      const rows = x.slice(0, from, to);
      const [q, k, v] = [0, 1, 2].map((i) =>
        this.qkv
          .forward(rows)
          .slice(2, i * c, (i + 1) * c)
          .reshape([to - from, n, this.#heads, -1]),
      );
      return scaledDotProductAttention(q, k, v, { bias: within(from, to) }).reshape(rows.shape);
    };
    const runs = Array.from({ length: Math.ceil(b / run) }, (_, i) => part(i * run, Math.min(b, (i + 1) * run)));
    return this.proj.forward(runs.length === 1 ? runs[0] : runs[0].concat(runs.slice(1), 0));
  }

  /**
   * What is added to the scores of windows `from` to `to`. With g the distance of two positions' fragments (rows plus
   * columns), R and F the tables: g R + (1 - g) F where there is F, else R; and -100 between regions. [windows, heads, n, n].
   */
  #biases(n: number, how: Cut): (from: number, to: number) => Tensor {
    const index = tensor(this.#differences(n, how.window, how.adapted), [n * n]);
    const byPair = (table: Tensor): Tensor =>
      table.gatherRows(index).reshape([n, n, this.#heads]).permute([2, 0, 1]).reshape([1, this.#heads, n, n]);
    const relative = byPair(this.relativePositionBiasTable);
    const inFragment = this.fragmentPositionBiasTable && byPair(this.fragmentPositionBiasTable);
    const { padded, window, shift } = how;
    const rows = perWindow(how, ([, h]) => fragment(h, padded[1], window[1]));
    const columns = perWindow(how, ([, , w]) => fragment(w, padded[2], window[2]));
    const regions = perWindow(how, (at) => region(at, how));
    return (from, to) => {
      const count = to - from;
      // The windows of every clip are alike: number i has what window i has in the first.
      const pick = (all: Float32Array): Tensor => {
        const values = Float32Array.from({ length: count * n }, (_, i) => all[(from * n + i) % all.length]);
        return tensor(values, [count, 1, n]);
      };
      const apart = (all: Float32Array): Tensor => {
        const of = pick(all);
        return of.reshape([count, 1, n, 1]).sub(of.reshape([count, 1, 1, n]));
      };
      const gate = apart(rows).abs().add(apart(columns).abs());
      const bias = inFragment ? relative.mul(gate).add(inFragment.mul(gate.neg().add(1))) : relative;
      return shift.some((s) => s > 0) ? bias.add(apart(regions).notEqual(0).cast("f32").mul(-100)) : bias;
    };
  }

  /** Row of the tables for each pair of positions. Windows that just hit the map's end take the first positions of whole ones. */
  #differences(n: number, window: Three, adapted: boolean): Int32Array {
    const full = this.#window;
    const at = Array.from({ length: n }, (_, i) => unravel(i, adapted ? window : full));
    const rows = new Int32Array(n * n);
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++) {
        const [t, h, w] = each((a) => at[i][a] - at[j][a] + full[a] - 1);
        rows[i * n + j] = (t * (2 * full[1] - 1) + h) * (2 * full[2] - 1) + w;
      }
    return rows;
  }
}

class Mlp extends Module {
  readonly fc1: Linear;
  readonly fc2: Linear;

  constructor(width: number, inner: number) {
    super();
    this.fc1 = new Linear(width, inner);
    this.fc2 = new Linear(inner, width);
  }

  forward(x: Tensor): Tensor {
    return this.fc2.forward(this.fc1.forward(x).gelu());
  }
}

class Block extends Module {
  readonly norm1: LayerNorm;
  readonly attn: WindowAttention;
  readonly norm2: LayerNorm;
  readonly mlp: Mlp;
  readonly #moved: boolean;

  constructor(width: number, stage: number, config: Swin3dConfig, moved: boolean) {
    super();
    this.norm1 = new LayerNorm(width);
    this.attn = new WindowAttention(width, config.heads[stage], config, config.fragmentBias[stage]);
    this.norm2 = new LayerNorm(width);
    this.mlp = new Mlp(width, Math.floor(width * config.mlpRatio));
    this.#moved = moved;
  }

  /** [b, t, h, w, width] */
  forward(x: Tensor, windows: Windows): Tensor {
    const { t, h, w } = x.dims("b t h w c");
    const how = cut([t, h, w], this.#moved ? windows : { ...windows, shift: [0, 0, 0] });
    const ends = each((i): [number, number] => [0, how.padded[i] - x.shape[1 + i]]);
    const padded = this.norm1.forward(x).pad([[0, 0], ...ends, [0, 0]]);
    const back = how.shift.map((s) => -s);
    const seen = this.attn.forward(toWindows(roll(padded, back, [1, 2, 3]), how), how);
    const whole = roll(fromWindows(seen, how), how.shift, [1, 2, 3]);
    const y = x.add(whole.slice(1, 0, t).slice(2, 0, h).slice(3, 0, w));
    return y.add(this.mlp.forward(this.norm2.forward(y)));
  }
}

/** Four neighbours become one position of twice the width; odd sides get zeros at the end. */
class PatchMerging extends Module {
  readonly norm: LayerNorm;
  readonly reduction: Linear;

  constructor(width: number) {
    super();
    this.norm = new LayerNorm(4 * width);
    this.reduction = new Linear(4 * width, 2 * width, { bias: false });
  }

  forward(x: Tensor): Tensor {
    const { h, w } = x.dims("b t h w c");
    const even = x.pad([
      [0, 0],
      [0, 0],
      [0, h % 2],
      [0, w % 2],
      [0, 0],
    ]);
    const every = (row: number, column: number): Tensor =>
      even.slice(2, row, even.shape[2], 2).slice(3, column, even.shape[3], 2);
    const four = every(0, 0).concat([every(1, 0), every(0, 1), every(1, 1)], -1);
    return this.reduction.forward(this.norm.forward(four));
  }
}

class Stage extends Module {
  readonly blocks: readonly Block[];
  readonly downsample: PatchMerging | null;

  constructor(stage: number, config: Swin3dConfig) {
    super();
    const width = config.width * 2 ** stage;
    this.blocks = Array.from({ length: config.depths[stage] }, (_, i) => new Block(width, stage, config, i % 2 === 1));
    this.downsample = stage + 1 < config.depths.length ? new PatchMerging(width) : null;
  }
}

class PatchEmbed extends Module {
  readonly proj: Conv;
  readonly norm: LayerNorm | null;

  constructor({ inputs, width, patch, patchNorm }: Swin3dConfig) {
    super();
    this.proj = new Conv(inputs, width, patch, { stride: patch });
    this.norm = patchNorm ? new LayerNorm(width) : null;
  }
}

export interface SwinOptions {
  /** Shrinks the windows of clips smaller than the base size in proportion; true when absent. */
  readonly adapt?: boolean;
  /** Largest number of attention scores that are in memory at once, 4 bytes each; windows are taken in runs of no more. */
  readonly scores?: number;
}

export class Swin3d extends Module {
  readonly config: Swin3dConfig;
  readonly patchEmbed: PatchEmbed;
  readonly layers: readonly Stage[];
  readonly norm: LayerNorm;

  /** Throws ShapeError when heads do not divide widths. */
  constructor(config: Swin3dConfig) {
    super();
    this.config = config;
    this.patchEmbed = new PatchEmbed(config);
    this.layers = config.depths.map((_, stage) => new Stage(stage, config));
    this.norm = new LayerNorm(config.width * 2 ** (config.depths.length - 1));
  }

  /**
   * Clips [b, t, h, w, c] -> features [b, t', h', w', width']: sizes over the patch, and rows and columns halved by each stage
   * but the last, rounded up. Throws ShapeError for clips larger than the base size, whose windows the tables do not cover, and
   * for ones too small for any window.
   */
  forward(x: Tensor, { adapt = true, scores = MOST_SCORES }: SwinOptions = {}): Tensor {
    const { window, baseSize, patch } = this.config;
    x.dims("b t h w c");
    const used = adapt ? each((i) => Math.floor((window[i] * x.shape[1 + i]) / baseSize[i])) : window;
    if (used.some((n, i) => n < 1 || n > window[i]))
      throw new ShapeError(`Swin: windows of ${used} for clips ${x}: at least 1 and at most ${window}`);
    const windows = { window: used, shift: each((i) => Math.floor(window[i] / 2)), adapted: adapt, scores };
    const ends = each((i): [number, number] => [0, (patch[i] - (x.shape[1 + i] % patch[i])) % patch[i]]);
    const patches = this.patchEmbed.proj.forward(x.pad([[0, 0], ...ends, [0, 0]]));
    let y = this.patchEmbed.norm ? this.patchEmbed.norm.forward(patches) : patches;
    for (const { blocks, downsample } of this.layers) {
      for (const block of blocks) y = block.forward(y, windows);
      if (downsample) y = downsample.forward(y);
    }
    return this.norm.forward(y);
  }
}
