// The layers that Make-A-Video's own paper describes (Singer et al. 2022, section 3.2, in the form of the public
// implementation that others build on). A 3-D convolution and attention over all of space and time are too dear, and an
// image model has neither: so each is a layer over space followed by one over time that changes nothing at first.
//
//     pseudo-3-D convolution   y = conv_time(conv_space(x)),   conv_time = identity at the start
//     space-time attention     u = x + attn_space(x),  y = u + attn_time(u),   both additions zero at the start
//
// The network of the VSD2M paper has the same idea in other layers (make_a_video.ts). Videos are [b, f, h, w, c].

import { type Parameter, ShapeError, type Tensor, tensor } from "../engine/index.ts";
import {
  Conv,
  type Initializer,
  Linear,
  l2Normalize,
  Module,
  onesInit,
  parameter,
  scaledDotProductAttention,
  zerosInit,
} from "../engine/nn/index.ts";
import { perFrame } from "./unet_blocks.ts";

export interface TimeOptions {
  /** false: every frame for itself, as an image. */
  readonly time?: boolean;
}

/** The middle tap passes every channel on unchanged. */
const identityInit: Initializer = ([taps, inputs, outputs]) => {
  const middle = Math.floor(taps / 2);
  return Float32Array.from({ length: taps * inputs * outputs }, (_, at) => {
    const [tap, i, o] = [Math.floor(at / (inputs * outputs)), Math.floor(at / outputs) % inputs, at % outputs];
    return tap === middle && i === o ? 1 : 0;
  });
};

/** A convolution over the frames of each position. */
class TimeConv extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter;

  constructor(channels: number, taps: number) {
    super();
    this.weight = parameter([taps, channels, channels], identityInit, { layout: "conv" });
    this.bias = parameter([channels], zerosInit);
  }

  forward(x: Tensor): Tensor {
    const { b, h, w } = x.dims("b f h w c");
    const padding = Math.floor(this.weight.shape[0] / 2);
    const y = x.rearrange("b f h w c -> (b h w) f c").conv(this.weight, { padding }).add(this.bias);
    return y.rearrange("(b h w) f c -> b f h w c", { b, h, w });
  }
}

/** A 1 x 1 kernel has no part over time: it is a change of channels. */
export class PseudoConv extends Module {
  readonly spatialConv: Conv;
  readonly temporalConv: TimeConv | null;

  constructor(inputs: number, outputs: number, kernel: number, taps = kernel) {
    super();
    this.spatialConv = new Conv(inputs, outputs, [kernel, kernel], { padding: Math.floor(kernel / 2) });
    this.temporalConv = kernel > 1 ? new TimeConv(outputs, taps) : null;
  }

  /** [b, f, h, w, inputs] -> [b, f, h, w, outputs] */
  forward(x: Tensor, { time = true }: TimeOptions = {}): Tensor {
    const y = perFrame(this.spatialConv, x);
    return time && this.temporalConv ? this.temporalConv.forward(y) : y;
  }
}

/** x / |x| sqrt(c) gamma over channels (Zhang & Sennrich 2019, without an epsilon inside the root). */
class ChannelNorm extends Module {
  readonly gamma: Parameter;

  constructor(channels: number) {
    super();
    this.gamma = parameter([channels], onesInit);
  }

  forward(x: Tensor): Tensor {
    return l2Normalize(x).mul(this.gamma.mul(Math.sqrt(this.gamma.shape[0])));
  }
}

/** Multi-head attention among the tokens of a row, normalised first; its last Linear starts at zero. */
class NormedAttention extends Module {
  readonly norm: ChannelNorm;
  readonly toQ: Linear;
  readonly toKv: Linear;
  readonly toOut: Linear;
  readonly #heads: number;

  constructor(channels: number, heads: number, dim: number) {
    super();
    const inner = heads * dim;
    this.norm = new ChannelNorm(channels);
    this.toQ = new Linear(channels, inner, { bias: false });
    this.toKv = new Linear(channels, 2 * inner, { bias: false });
    this.toOut = new Linear(inner, channels, { bias: false, init: zerosInit });
    this.#heads = heads;
  }

  /** tokens [rows, n, c], bias [heads, n, n] added to the scores. */
  forward(tokens: Tensor, bias: Tensor | undefined, causal: boolean): Tensor {
    const { b, n } = tokens.dims("b n c");
    const x = this.norm.forward(tokens);
    const split = (y: Tensor): Tensor => y.reshape([b, n, this.#heads, -1]);
    const q = this.toQ.forward(x);
    const kv = this.toKv.forward(x);
    const inner = q.shape[2];
    const [k, v] = [kv.slice(2, 0, inner), kv.slice(2, inner)];
    return this.toOut.forward(
      scaledDotProductAttention(split(q), split(k), split(v), { bias, causal }).reshape(q.shape),
    );
  }
}

/**
 * What attention adds to the score of two positions for lying where they do relative to each other: a perceptron of the
 * difference of their coordinates, one number per head (continuous position bias, Liu et al. 2022, without its logarithm).
 */
class PositionBias extends Module {
  /** Linear and SiLU twice, then Linear; files count the layers without weights. */
  readonly net: readonly [readonly [Linear], readonly [Linear], Linear];

  constructor(axes: number, width: number, heads: number) {
    super();
    this.net = [[new Linear(axes, width)], [new Linear(width, width)], new Linear(width, heads)];
  }

  /** Positions of a grid, as many axes as were said, in raster order: [heads, n, n]. */
  forward(...sizes: number[]): Tensor {
    const spans = sizes.map((n) => 2 * n - 1);
    const differences = grid(spans).map((at) => at.map((d, axis) => d - sizes[axis] + 1));
    const positions = grid(sizes);
    const index = positions.flatMap((i) =>
      positions.map((j) => i.reduce((flat, x, axis) => flat * spans[axis] + x - j[axis] + sizes[axis] - 1, 0)),
    );
    const [[first], [second], last] = this.net;
    const x = tensor(Float32Array.from(differences.flat()), [differences.length, sizes.length]);
    const bias = last.forward(second.forward(first.forward(x).silu()).silu());
    const n = positions.length;
    return bias.gatherRows(tensor(Int32Array.from(index))).rearrange("(i j) heads -> heads i j", { i: n, j: n });
  }
}

/** Every position of a grid, in raster order. */
function grid(sizes: readonly number[]): number[][] {
  return sizes.reduce<number[][]>(
    (all, n) => all.flatMap((at) => Array.from({ length: n }, (_, i) => [...at, i])),
    [[]],
  );
}

/** GEGLU perceptron in which half of the hidden channels come from the frame before: a look back at no cost. */
class ShiftedFeedForward extends Module {
  readonly projIn: readonly [Conv];
  readonly projOut: readonly [ChannelNorm, Conv];
  readonly #inner: number;

  constructor(channels: number, times: number) {
    super();
    this.#inner = Math.floor((channels * times * 2) / 3);
    this.projIn = [new Conv(channels, 2 * this.#inner, [1, 1, 1], { bias: false })];
    this.projOut = [new ChannelNorm(this.#inner), new Conv(this.#inner, channels, [1, 1, 1], { bias: false })];
  }

  forward(x: Tensor, { time = true }: TimeOptions): Tensor {
    const y = this.projIn[0].forward(x);
    const gated = y.slice(4, 0, this.#inner).mul(y.slice(4, this.#inner).gelu());
    return this.projOut[1].forward(this.projOut[0].forward(time ? this.#shifted(gated) : gated));
  }

  #shifted(x: Tensor): Tensor {
    const half = Math.ceil(this.#inner / 2);
    const before = x.slice(4, half).slice(1, 0, x.shape[1] - 1);
    return x.slice(4, 0, half).concat(
      [
        before.pad([
          [0, 0],
          [1, 0],
          [0, 0],
          [0, 0],
          [0, 0],
        ]),
      ],
      4,
    );
  }
}

export interface SpaceTimeAttentionConfig {
  readonly heads: number;
  readonly dim: number;
  /** Hidden channels of the perceptron: 2 / 3 of so many times the channels; null: no perceptron. */
  readonly feedForward: number | null;
  /** Whether scores depend on where positions lie relative to each other. */
  readonly positionBias: boolean;
  /** Whether a frame sees only those before it. */
  readonly causal: boolean;
}

/** Attention among the positions of each frame, then among the frames of each position, then a perceptron; all are added. */
export class SpaceTimeAttention extends Module {
  readonly spatialAttn: NormedAttention;
  readonly spatialRelPosBias: PositionBias | null;
  readonly temporalAttn: NormedAttention;
  readonly temporalRelPosBias: PositionBias | null;
  readonly ff: ShiftedFeedForward | null;
  readonly #causal: boolean;

  constructor(channels: number, { heads, dim, feedForward, positionBias, causal }: SpaceTimeAttentionConfig) {
    super();
    const width = Math.floor(channels / 2);
    this.spatialAttn = new NormedAttention(channels, heads, dim);
    this.spatialRelPosBias = positionBias ? new PositionBias(2, width, heads) : null;
    this.temporalAttn = new NormedAttention(channels, heads, dim);
    this.temporalRelPosBias = positionBias ? new PositionBias(1, width, heads) : null;
    this.ff = feedForward === null ? null : new ShiftedFeedForward(channels, feedForward);
    this.#causal = causal;
  }

  /** [b, f, h, w, c] -> the same shape. */
  forward(x: Tensor, { time = true }: TimeOptions = {}): Tensor {
    const { b, f, h, w, c } = x.dims("b f h w c");
    const places = x.reshape([b * f, h * w, c]);
    const within = this.spatialAttn.forward(places, this.spatialRelPosBias?.forward(h, w), false);
    const u = x.add(within.reshape(x.shape));
    const y = time ? u.add(this.#acrossFrames(u)) : u;
    return this.ff ? y.add(this.ff.forward(y, { time })) : y;
  }

  #acrossFrames(u: Tensor): Tensor {
    const { b, f, h, w } = u.dims("b f h w c");
    const tokens = u.rearrange("b f h w c -> (b h w) f c");
    const y = this.temporalAttn.forward(tokens, this.temporalRelPosBias?.forward(f), this.#causal);
    return y.rearrange("(b h w) f c -> b f h w c", { b, h, w });
  }
}

/** Pseudo-3-D convolution, norm, and what the diffusion time scales and shifts, SiLU. */
class PseudoBlock extends Module {
  readonly project: PseudoConv;
  readonly norm: ChannelNorm;

  constructor(inputs: number, outputs: number) {
    super();
    this.project = new PseudoConv(inputs, outputs, 3);
    this.norm = new ChannelNorm(outputs);
  }

  forward(x: Tensor, o: TimeOptions, change: (y: Tensor) => Tensor = (y) => y): Tensor {
    return change(this.norm.forward(this.project.forward(x, o))).silu();
  }
}

/** Two blocks added to x, the first one moved by the embedding of the diffusion time. */
export class PseudoResidualBlock extends Module {
  /** SiLU, Linear. */
  readonly timestepMlp: readonly [null, Linear];
  readonly block1: PseudoBlock;
  readonly block2: PseudoBlock;
  readonly resConv: PseudoConv | null;

  constructor(inputs: number, outputs: number, embedding: number) {
    super();
    this.timestepMlp = [null, new Linear(embedding, 2 * outputs)];
    this.block1 = new PseudoBlock(inputs, outputs);
    this.block2 = new PseudoBlock(outputs, outputs);
    this.resConv = inputs === outputs ? null : new PseudoConv(inputs, outputs, 1);
  }

  /** x [b, f, h, w, inputs], embedding [b, width] -> [b, f, h, w, outputs] */
  forward(x: Tensor, embedding: Tensor, o: TimeOptions = {}): Tensor {
    const both = this.timestepMlp[1].forward(embedding.silu()).reshape([embedding.shape[0], 1, 1, 1, -1]);
    const outputs = both.shape[4] / 2;
    const [scale, shift] = [both.slice(4, 0, outputs), both.slice(4, outputs)];
    const y = this.block2.forward(
      this.block1.forward(x, o, (z) => z.mul(scale.add(1)).add(shift)),
      o,
    );
    return y.add(this.resConv?.forward(x, o) ?? x);
  }
}

/** Which axes a change of resolution halves or doubles. */
export interface Resampled {
  readonly space: boolean;
  readonly time: boolean;
}

/** Halves: neighbours become channels, which a 1 x 1 convolution brings back to as many as there were. */
export class PseudoDownsample extends Module {
  readonly downSpace: readonly [null, Conv] | null;
  readonly downTime: readonly [null, Conv] | null;

  constructor(channels: number, { space, time }: Resampled) {
    super();
    this.downSpace = space ? [null, new Conv(4 * channels, channels, [1, 1], { bias: false })] : null;
    this.downTime = time ? [null, new Conv(2 * channels, channels, [1, 1, 1], { bias: false })] : null;
  }

  /** Throws ShapeError where a size that is halved is odd. */
  forward(x: Tensor): Tensor {
    const { f, h, w } = x.dims("b f h w c");
    if ((this.downSpace && (h % 2 || w % 2)) || (this.downTime && f % 2))
      throw new ShapeError(`PseudoDownsample: expected even sizes, got ${x}`);
    let y = x;
    if (this.downSpace)
      y = perFrame(this.downSpace[1], y.rearrange("b f (h p) (w q) c -> b f h w (c p q)", { p: 2, q: 2 }));
    return this.downTime ? this.downTime[1].forward(y.rearrange("b (f p) h w c -> b f h w (c p)", { p: 2 })) : y;
  }
}

/** Doubles: a 1 x 1 convolution makes the channels that become neighbours. */
export class PseudoUpsample extends Module {
  readonly upSpace: readonly [Conv] | null;
  readonly upTime: readonly [Conv] | null;

  constructor(channels: number, { space, time }: Resampled) {
    super();
    this.upSpace = space ? [new Conv(channels, 4 * channels, [1, 1])] : null;
    this.upTime = time ? [new Conv(channels, 2 * channels, [1, 1, 1])] : null;
  }

  forward(x: Tensor): Tensor {
    let y = x;
    if (this.upSpace)
      y = perFrame(this.upSpace[0], y).rearrange("b f h w (c p q) -> b f (h p) (w q) c", { p: 2, q: 2 });
    return this.upTime ? this.upTime[0].forward(y).rearrange("b f h w (c p) -> b (f p) h w c", { p: 2 }) : y;
  }
}

/** Row i = [sin(t_i w_0), ..., cos(t_i w_0), ...], w_j = 10000^(-j / (width / 2 - 1)), rounded where that code rounds. */
export function timeSinusoids(times: ArrayLike<number>, width: number): Tensor {
  const half = width / 2;
  const { exp, fround, log } = Math;
  const step = fround(-log(10000) / (half - 1));
  const frequency = Float32Array.from({ length: half }, (_, j) => exp(fround(j * step)));
  const rows = Array.from(times, (t) => {
    const angles = Array.from(frequency, (w) => fround(t * w));
    return [...angles.map(Math.sin), ...angles.map(Math.cos)];
  });
  return tensor(Float32Array.from(rows.flat()), [rows.length, width]);
}
