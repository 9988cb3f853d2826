// The blocks of the per-frame network, Stable Diffusion 2's: residual, spatial transformer, resampling, time embedding (spec
// 2.6, 2.7). Every block maps a video [b, f, h, w, c] to a video and sees its frames as a batch. Attribute names, and the
// gaps in some lists, spell the keys of diffusers' checkpoints. How blocks are put together is video_unet.ts; the layers
// between frames are in the files of the systems, make_a_video.ts first.

import { type Tensor, tensor } from "../engine/index.ts";
import { Attention, Conv, GroupNorm, interpolate, LayerNorm, Linear, Module } from "../engine/nn/index.ts";

/** Applies an image layer to every frame: [b, f, h, w, c] -> [b, f, h', w', c']. */
export function perFrame(layer: { forward(x: Tensor): Tensor }, x: Tensor): Tensor {
  const [b, f, ...image] = x.shape;
  const y = layer.forward(x.reshape([b * f, ...image]));
  return y.reshape([b, f, ...y.shape.slice(1)]);
}

// ---- diffusion time -------------------------------------------------------------------------------------------------

/**
 * Row t = [cos(t w_0), ..., sin(t w_0), ...] with w_i = 10000^(-2i / width). Made on the host: WGSL does not promise an
 * accurate sine of a large angle. Rounded to float32 where the published networks round, because they were trained so:
 * at t = 1000 an angle is then off by up to 3e-5.
 */
export function sinusoids(steps: number, width: number): Tensor {
  const half = width / 2;
  const { exp, fround, log } = Math;
  const frequency = Float32Array.from({ length: half }, (_, i) => exp(fround(fround(fround(-log(10000)) * i) / half)));
  const rows = Float32Array.from({ length: steps * width }, (_, at) => {
    const [t, i] = [Math.floor(at / width), at % width];
    const angle = fround(t * frequency[i % half]);
    return i < half ? Math.cos(angle) : Math.sin(angle);
  });
  return tensor(rows, [steps, width]);
}

/** Diffusion times a network may be asked about: 0 <= step < TIME_STEPS. */
export const TIME_STEPS = 1000;

/** Sinusoids of the diffusion step through a two-layer perceptron: i32 [b] -> [b, outputs]. */
export class TimeEmbedding extends Module {
  readonly linear_1: Linear;
  readonly linear_2: Linear;
  readonly #width: number;
  #table: Tensor | undefined;

  constructor(width: number, outputs: number) {
    super();
    this.linear_1 = new Linear(width, outputs);
    this.linear_2 = new Linear(outputs, outputs);
    this.#width = width;
  }

  forward(step: Tensor): Tensor {
    this.#table ??= sinusoids(TIME_STEPS, this.#width);
    return this.linear_2.forward(
      this.linear_1.forward(this.#table.gatherRows(step).cast(this.linear_1.weight.dtype)).silu(),
    );
  }
}

// ---- per frame ------------------------------------------------------------------------------------------------------

/** Two 3x3 convolutions with the diffusion time added between them (spec 2.7). */
export class ResidualBlock extends Module {
  readonly norm1: GroupNorm;
  readonly conv1: Conv;
  readonly timeEmbProj: Linear;
  readonly norm2: GroupNorm;
  readonly conv2: Conv;
  readonly convShortcut: Conv | null;

  constructor(inputs: number, outputs: number, time: number, groups: number) {
    super();
    this.norm1 = new GroupNorm(groups, inputs);
    this.conv1 = new Conv(inputs, outputs, [3, 3], { padding: 1 });
    this.timeEmbProj = new Linear(time, outputs);
    this.norm2 = new GroupNorm(groups, outputs);
    this.conv2 = new Conv(outputs, outputs, [3, 3], { padding: 1 });
    this.convShortcut = inputs === outputs ? null : new Conv(inputs, outputs, [1, 1]);
  }

  /** x [b, f, h, w, inputs], time [b, time]: one embedding per clip, shared by its frames. */
  forward(x: Tensor, time: Tensor): Tensor {
    const shift = this.timeEmbProj.forward(time.silu());
    const h = perFrame(this.conv1, perFrame(this.norm1, x).silu()).add(shift.reshape([x.shape[0], 1, 1, 1, -1]));
    const y = perFrame(this.conv2, perFrame(this.norm2, h).silu());
    return y.add(this.convShortcut ? perFrame(this.convShortcut, x) : x);
  }
}

/** Halves height and width, rounding up. */
export class Downsample extends Module {
  readonly conv: Conv;

  constructor(channels: number) {
    super();
    this.conv = new Conv(channels, channels, [3, 3], { stride: 2, padding: 1 });
  }

  forward(x: Tensor): Tensor {
    return perFrame(this.conv, x);
  }
}

/** Nearest neighbour to the size of the skip connection that comes next (twice as large, less one where it is odd). */
export class Upsample extends Module {
  readonly conv: Conv;

  constructor(channels: number) {
    super();
    this.conv = new Conv(channels, channels, [3, 3], { padding: 1 });
  }

  forward(x: Tensor, height: number, width: number): Tensor {
    return perFrame(this.conv, perFrame({ forward: (image) => interpolate(image, { size: [height, width] }) }, x));
  }
}

// ---- transformers ---------------------------------------------------------------------------------------------------

/** Linear to twice the width; one half, through GELU, gates the other (Shazeer 2020). */
class Geglu extends Module {
  readonly proj: Linear;
  readonly #width: number;

  constructor(inputs: number, width: number) {
    super();
    this.proj = new Linear(inputs, 2 * width);
    this.#width = width;
  }

  forward(x: Tensor): Tensor {
    const y = this.proj.forward(x);
    return y.slice(-1, 0, this.#width).mul(y.slice(-1, this.#width).gelu());
  }
}

class FeedForward extends Module {
  /** GEGLU, dropout (none here; the files count it), Linear. */
  readonly net: readonly [Geglu, null, Linear];

  constructor(features: number) {
    super();
    this.net = [new Geglu(features, 4 * features), null, new Linear(4 * features, features)];
  }

  forward(x: Tensor): Tensor {
    return this.net[2].forward(this.net[0].forward(x));
  }
}

/** Two attentions and a feed-forward layer, each behind a LayerNorm and a residual sum. */
export class TransformerBlock extends Module {
  readonly norm1: LayerNorm;
  readonly attn1: Attention;
  readonly norm2: LayerNorm;
  readonly attn2: Attention;
  readonly norm3: LayerNorm;
  readonly ff: FeedForward;

  /** `context`: width of the text that the second attention reads; null: it reads the tokens, like the first. */
  constructor(features: number, heads: number, dim: number, context: number | null) {
    super();
    this.norm1 = new LayerNorm(features);
    this.attn1 = new Attention(features, { heads, dim });
    this.norm2 = new LayerNorm(features);
    this.attn2 = new Attention(features, { heads, dim, context: context ?? features });
    this.norm3 = new LayerNorm(features);
    this.ff = new FeedForward(features);
  }

  /** tokens [n, tokens, features]; context [b, m, width] with b a divisor of n. */
  forward(tokens: Tensor, context?: Tensor): Tensor {
    let u = tokens.add(this.attn1.forward(this.norm1.forward(tokens)));
    u = u.add(this.#second(this.norm2.forward(u), context));
    return u.add(this.ff.forward(this.norm3.forward(u)));
  }

  // Queries do not see each other, so the frames of a clip can ask as one long sequence: the text's keys and values are
  // then computed once per clip and repeated for no frame.
  #second(u: Tensor, context: Tensor | undefined): Tensor {
    if (!context) return this.attn2.forward(u);
    return this.attn2.forward(u.reshape([context.shape[0], -1, u.shape[2]]), context).reshape(u.shape);
  }
}

/** Attention within each frame, then to the text (spec 2.7). */
export class SpatialTransformer extends Module {
  readonly norm: GroupNorm;
  readonly projIn: Linear;
  readonly transformerBlocks: readonly [TransformerBlock];
  readonly projOut: Linear;

  constructor(channels: number, heads: number, context: number, groups: number) {
    super();
    this.norm = new GroupNorm(groups, channels, 1e-6);
    this.projIn = new Linear(channels, channels);
    this.transformerBlocks = [new TransformerBlock(channels, heads, channels / heads, context)];
    this.projOut = new Linear(channels, channels);
  }

  /** x [b, f, h, w, c], context [b, m, width]. */
  forward(x: Tensor, context: Tensor): Tensor {
    const { b, f, h, w, c } = x.dims("b f h w c");
    const tokens = this.projIn.forward(perFrame(this.norm, x)).reshape([b * f, h * w, c]);
    const y = this.transformerBlocks[0].forward(tokens, context);
    return x.add(this.projOut.forward(y).reshape(x.shape));
  }
}
