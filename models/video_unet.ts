// The denoising network: a 2-D UNet applied to every frame, with temporal layers between its own (spec 2.7-2.10). Without
// temporal layers it is that of Stable Diffusion 2; which layers a system puts in is `temporalConv`, `temporalTransformer`
// and `Stage.swap`. What they compute is in the systems' files. State names are those of diffusers' UNet3DConditionModel.

import { type Rng, ShapeError, type Tensor } from "../engine/index.ts";
import { Conv, GroupNorm, Module } from "../engine/nn/index.ts";
import type { UNetConfig } from "./config.ts";
import { TemporalConv, TemporalTransformer } from "./make_a_video.ts";
import { SpatialTemporalInteraction } from "./sti.ts";
import { Downsample, perFrame, ResidualBlock, SpatialTransformer, TimeEmbedding, Upsample } from "./unet_blocks.ts";
import { SwapAttention } from "./videofactory.ts";
import { MixedTemporalConv, MixedTemporalTransformer } from "./videoldm.ts";

export interface VideoUNetOptions {
  /** false: the per-frame network alone. */
  readonly temporal?: boolean;
}

export interface ForwardOptions {
  /** Given in training: dropout acts. */
  readonly rng?: Rng;
  /** [b, 4 channels[0]]: added to the embedding of the diffusion step (the frame rate of I2VGen-XL). */
  readonly time?: Tensor;
}

/** What every layer may look at besides the features. */
interface Condition {
  /** [b, time] */
  readonly time: Tensor;
  /** Text features [b, m, context] */
  readonly text: Tensor;
  /** Given in training: dropout acts. */
  readonly rng?: Rng;
}

interface StageShape {
  /** Input and output channels of the residual block of each layer. */
  readonly layers: readonly (readonly [inputs: number, outputs: number])[];
  /** How many of the layers, from the first on, have attention. */
  readonly attended: number;
  readonly heads: number;
  /** Whether the resolution changes behind the last layer. */
  readonly resample: boolean;
  readonly swapPlace: SwapPlace;
}

/** Behind which of a layer's temporal layers VideoFactory's attention stands. */
type SwapPlace = "convolution" | "attention";

/** Channels of every layer. Going up, a layer also reads what the way down left for it. */
function stageShapes({ channels, layers, attended }: UNetConfig, heads: readonly number[]) {
  const top = channels.length - 1;
  const attends = (level: number): boolean => attended?.[level] ?? level !== top;
  const skips = [channels[0]];
  let width = channels[0];
  const stage = (level: number, count: number, resample: boolean, inputs: () => number): StageShape => {
    const pairs = Array.from({ length: count }, (): [number, number] => {
      const pair: [number, number] = [inputs(), channels[level]];
      width = channels[level];
      return pair;
    });
    return {
      layers: pairs,
      attended: attends(level) ? count : 0,
      heads: heads[level],
      resample,
      swapPlace: "convolution",
    };
  };
  const down = channels.map((c, level) => {
    skips.push(...new Array<number>(level === top ? layers : layers + 1).fill(c));
    return stage(level, layers, level !== top, () => width);
  });
  const two = stage(top, 2, false, () => width);
  const up = channels.map((_, i) => stage(top - i, layers + 1, i !== top, () => width + (skips.pop() as number)));
  return { down, middle: { ...two, attended: 1, swapPlace: "attention" as const }, up };
}

function temporalConv(channels: number, config: UNetConfig): TemporalConv | SpatialTemporalInteraction {
  const { groups, dropout, sti, mixing } = config;
  if (sti) return new SpatialTemporalInteraction(channels, sti, groups, dropout);
  return mixing ? new MixedTemporalConv(channels, groups, dropout) : new TemporalConv(channels, groups, dropout);
}

function temporalTransformer(channels: number, heads: number, { groups, mixing }: UNetConfig): TemporalTransformer {
  const Transformer = mixing ? MixedTemporalTransformer : TemporalTransformer;
  return new Transformer(channels, heads, channels / heads, groups);
}

/**
 * The layers of one resolution. A layer is residual -> temporal convolution -> spatial transformer -> temporal transformer
 * (spec 2.10). VideoFactory's attention between spatial and temporal features stands behind the convolution, in the middle
 * of the network behind the temporal transformer.
 */
class Stage extends Module {
  readonly resnets: readonly ResidualBlock[];
  readonly tempConvs: readonly (TemporalConv | SpatialTemporalInteraction)[];
  readonly attentions: readonly SpatialTransformer[];
  readonly tempAttentions: readonly TemporalTransformer[];
  readonly swapAttention: SwapAttention | null;
  readonly #swapPlace: SwapPlace;

  constructor(config: UNetConfig, { layers, attended, heads, swapPlace }: StageShape, temporal: boolean) {
    super();
    const { groups, context, swap } = config;
    const time = 4 * config.channels[0];
    const widths = layers.map(([, outputs]) => outputs);
    const texts = widths.slice(0, attended);
    this.resnets = layers.map(([inputs, outputs]) => new ResidualBlock(inputs, outputs, time, groups));
    this.tempConvs = temporal ? widths.map((c) => temporalConv(c, config)) : [];
    this.attentions = texts.map((c) => new SpatialTransformer(c, heads, context, groups));
    this.tempAttentions = temporal ? texts.map((c) => temporalTransformer(c, heads, config)) : [];
    const swaps = temporal && swap !== null && (swap.heads === null || attended > 0);
    this.swapAttention = swaps ? new SwapAttention(widths[0], swap) : null;
    this.#swapPlace = swapPlace;
  }

  layer(i: number, x: Tensor, { time, text, rng }: Condition): Tensor {
    const residual = this.resnets[i].forward(x, time);
    const moved = this.tempConvs[i]?.forward(residual, rng) ?? residual;
    const y = this.#swap("convolution", i, residual, moved);
    const attended = this.attentions[i]?.forward(y, text) ?? y;
    const over = this.tempAttentions[i]?.forward(attended);
    return over ? this.#swap("attention", i, attended, over) : attended;
  }

  /** The features behind a temporal layer, once they have asked, or been asked by, those in front of it. */
  #swap(place: SwapPlace, i: number, spatial: Tensor, temporal: Tensor): Tensor {
    if (!this.swapAttention || place !== this.#swapPlace) return temporal;
    return this.swapAttention.forward(spatial, temporal, i % 2 === 1);
  }
}

class DownStage extends Stage {
  readonly downsamplers: readonly Downsample[];

  constructor(config: UNetConfig, shape: StageShape, temporal: boolean) {
    super(config, shape, temporal);
    this.downsamplers = shape.resample ? [new Downsample(shape.layers[0][1])] : [];
  }

  /** Appends what the way up will concatenate to `skips`. */
  forward(x: Tensor, condition: Condition, skips: Tensor[]): Tensor {
    let y = x;
    for (let i = 0; i < this.resnets.length; i++) {
      y = this.layer(i, y, condition);
      skips.push(y);
    }
    for (const down of this.downsamplers) {
      y = down.forward(y);
      skips.push(y);
    }
    return y;
  }
}

class MiddleStage extends Stage {
  forward(x: Tensor, condition: Condition): Tensor {
    return this.layer(1, this.layer(0, x, condition), condition);
  }
}

class UpStage extends Stage {
  readonly upsamplers: readonly Upsample[];

  constructor(config: UNetConfig, shape: StageShape, temporal: boolean) {
    super(config, shape, temporal);
    this.upsamplers = shape.resample ? [new Upsample(shape.layers[0][1])] : [];
  }

  /** Takes one of `skips` from its end for each layer; the one left there gives the size to resize to. */
  forward(x: Tensor, condition: Condition, skips: Tensor[]): Tensor {
    let y = x;
    for (let i = 0; i < this.resnets.length; i++) y = this.layer(i, y.concat([skips.pop() as Tensor], 4), condition);
    for (const up of this.upsamplers) {
      const { h, w } = (skips.at(-1) as Tensor).dims("b f h w c");
      y = up.forward(y, h, w);
    }
    return y;
  }
}

/** Predicts the noise (or v) in the latents of a clip from them, the diffusion step and the caption. */
export class VideoUNet extends Module {
  readonly convIn: Conv;
  readonly timeEmbedding: TimeEmbedding;
  readonly transformerIn: TemporalTransformer | null;
  readonly downBlocks: readonly DownStage[];
  readonly midBlock: MiddleStage;
  readonly upBlocks: readonly UpStage[];
  readonly convNormOut: GroupNorm;
  readonly convOut: Conv;
  readonly config: UNetConfig;

  constructor(config: UNetConfig, o: VideoUNetOptions = {}) {
    super();
    this.config = config;
    const { channels, groups, latent, inputs = latent, transformerIn } = config;
    const temporal = o.temporal ?? config.temporal ?? true;
    const heads = config.heads ?? channels.map((c) => c / config.headDim);
    for (const [i, c] of channels.entries()) checkHeads(c, heads[i]);

    const first = channels[0];
    this.convIn = new Conv(inputs, first, [3, 3], { padding: 1 });
    this.timeEmbedding = new TimeEmbedding(first, 4 * first);
    this.transformerIn = temporal
      ? new TemporalTransformer(first, transformerIn.heads, transformerIn.dim, groups)
      : null;

    const shapes = stageShapes(config, heads);
    this.downBlocks = shapes.down.map((shape) => new DownStage(config, shape, temporal));
    this.midBlock = new MiddleStage(config, shapes.middle, temporal);
    this.upBlocks = shapes.up.map((shape) => new UpStage(config, shape, temporal));
    this.convNormOut = new GroupNorm(groups, first);
    this.convOut = new Conv(first, latent, [3, 3], { padding: 1 });
  }

  /** x [b, f, h, w, inputs], step i32 [b], text [b, m, context] with any number of tokens -> [b, f, h, w, latent]. */
  forward(x: Tensor, step: Tensor, text: Tensor, { rng, time }: ForwardOptions = {}): Tensor {
    this.#check(x, step, text);
    const { dtype } = this.convIn.weight;
    const embedded = this.timeEmbedding.forward(step);
    const condition = { time: time ? embedded.add(time.cast(dtype)) : embedded, text: text.cast(dtype), rng };
    let y = perFrame(this.convIn, x.cast(dtype));
    y = this.transformerIn?.forward(y) ?? y;
    const skips = [y];
    for (const stage of this.downBlocks) y = stage.forward(y, condition, skips);
    y = this.midBlock.forward(y, condition);
    for (const stage of this.upBlocks) y = stage.forward(y, condition, skips);
    return perFrame(this.convOut, perFrame(this.convNormOut, y).silu()).cast(x.dtype);
  }

  #check(x: Tensor, step: Tensor, text: Tensor): void {
    const { latent, inputs = latent, context } = this.config;
    const fits =
      x.rank === 5 && x.shape[4] === inputs && step.rank === 1 && text.rank === 3 && text.shape[2] === context;
    if (fits && step.shape[0] === x.shape[0] && text.shape[0] === x.shape[0]) return;
    const expected = `x "b f h w ${inputs}", step "b" and text "b m ${context}"`;
    throw new ShapeError(`VideoUNet: expected ${expected} of one b, got ${x}, ${step} and ${text}`);
  }
}

function checkHeads(channels: number, heads: number): void {
  if (!Number.isInteger(heads) || channels % heads !== 0) {
    throw new ShapeError(`VideoUNet: ${channels} channels do not divide into ${heads} attention heads`);
  }
}
