// The 3-D VQ-VAE of VideoGPT (Yan et al. 2021, section 3.1; spec 4.1): videos become a small grid of discrete codes and
// come back. Attribute names are those of the authors' files (`currentName`). Trained by train/vqvae.ts; the prior over the
// codes is prior.ts.

import { type Shape, ShapeError, type Tensor } from "../engine/index.ts";
import { BatchNorm, Conv, ConvTranspose, Module, mse } from "../engine/nn/index.ts";
import { Codebook, type Quantised, type Restarts } from "./codebook.ts";
import { MultiHeadAttention } from "./videogpt_blocks.ts";

export interface VqVaeConfig {
  /** Channels of all layers; even. */
  readonly hidden: number;
  /** Attention residual blocks, on each side. */
  readonly layers: number;
  /** How many codes there are, and their features. */
  readonly codes: number;
  readonly embedding: number;
  /** Frames, rows and columns of pixels per code: powers of two. */
  readonly strides: readonly [t: number, h: number, w: number];
}

const HEADS = 2;
const KERNEL = 4;
/** Variance of the pixels that the squared error is measured by. */
const VARIANCE = 0.06;

type Mode = { readonly training: boolean };

/** Padding that makes n / stride of n; the odd one of it comes first. */
function same(kernel: number, stride: readonly number[]): [number, number][] {
  return stride.map((s) => [Math.ceil((kernel - s) / 2), Math.floor((kernel - s) / 2)]);
}

/** A convolution under the name it has in the files. */
class Conv3d extends Module {
  readonly conv: Conv;

  constructor(inputs: number, outputs: number, kernel: number, { stride = [1, 1, 1], bias = true } = {}) {
    super();
    this.conv = new Conv(inputs, outputs, [kernel, kernel, kernel], { stride, bias, padding: same(kernel, stride) });
  }

  forward(x: Tensor): Tensor {
    return this.conv.forward(x);
  }
}

/** Its transpose: the files pad the input, which is so much padding less of the output. */
class ConvTranspose3d extends Module {
  readonly convt: ConvTranspose;

  constructor(inputs: number, outputs: number, stride: readonly number[]) {
    super();
    const padding = same(KERNEL, stride).map((sides, i): [number, number] => {
      const [before, after] = sides.map((p) => KERNEL - 1 - p * stride[i]);
      return [before, after];
    });
    this.convt = new ConvTranspose(inputs, outputs, [KERNEL, KERNEL, KERNEL], { stride, padding });
  }

  forward(x: Tensor): Tensor {
    return this.convt.forward(x);
  }
}

/** Attention along columns, rows and frames, summed: every position sees those that differ from it in one coordinate. */
class AxialBlock extends Module {
  readonly attnW: MultiHeadAttention;
  readonly attnH: MultiHeadAttention;
  readonly attnT: MultiHeadAttention;

  constructor(channels: number) {
    super();
    this.attnW = new MultiHeadAttention(channels, HEADS);
    this.attnH = new MultiHeadAttention(channels, HEADS);
    this.attnT = new MultiHeadAttention(channels, HEADS);
  }

  forward(x: Tensor): Tensor {
    return this.attnW.along(x, "w").add(this.attnH.along(x, "h")).add(this.attnT.along(x, "t"));
  }
}

/** x + axial(relu(norm(conv1(relu(norm(conv3(relu(norm x)))))))), half as wide between the convolutions. */
class AttentionResidualBlock extends Module {
  /** Files count the ReLUs. */
  readonly block: readonly [BatchNorm, null, Conv3d, BatchNorm, null, Conv3d, BatchNorm, null, AxialBlock];

  constructor(channels: number) {
    super();
    const half = channels / 2;
    const plain = { bias: false };
    this.block = [
      ...([new BatchNorm(channels), null, new Conv3d(channels, half, 3, plain)] as const),
      ...([new BatchNorm(half), null, new Conv3d(half, channels, 1, plain)] as const),
      ...([new BatchNorm(channels), null, new AxialBlock(channels)] as const),
    ];
  }

  forward(x: Tensor, mode: Mode): Tensor {
    const [norm1, , conv1, norm2, , conv2, norm3, , axial] = this.block;
    const wide = conv1.forward(norm1.forward(x, mode).relu());
    const y = conv2.forward(norm2.forward(wide, mode).relu());
    return x.add(axial.forward(norm3.forward(y, mode).relu()));
  }
}

/** Residual blocks, then a norm and a ReLU. */
class ResidualStack extends Module {
  readonly resStack: readonly (AttentionResidualBlock | BatchNorm)[];

  constructor({ hidden, layers }: VqVaeConfig) {
    super();
    const blocks = Array.from({ length: layers }, () => new AttentionResidualBlock(hidden));
    this.resStack = [...blocks, new BatchNorm(hidden)];
  }

  residual(x: Tensor, mode: Mode): Tensor {
    return this.resStack.reduce((y, layer) => layer.forward(y, mode), x).relu();
  }
}

/** Strides of each halving convolution, the encoder's order: an axis that is done has 1. */
function halvings(strides: readonly number[]): number[][] {
  const times = strides.map(Math.log2);
  return Array.from({ length: Math.max(...times) }, (_, i) => times.map((n) => (n > i ? 2 : 1)));
}

class Encoder extends ResidualStack {
  readonly convs: readonly Conv3d[];
  readonly convLast: Conv3d;

  constructor(config: VqVaeConfig) {
    super(config);
    const { hidden, strides } = config;
    this.convs = halvings(strides).map((stride, i) => new Conv3d(i === 0 ? 3 : hidden, hidden, KERNEL, { stride }));
    this.convLast = new Conv3d(hidden, hidden, 3);
  }

  forward(x: Tensor, mode: Mode): Tensor {
    const h = this.convs.reduce((y, conv) => conv.forward(y).relu(), x);
    return this.residual(this.convLast.forward(h), mode);
  }
}

class Decoder extends ResidualStack {
  readonly convts: readonly ConvTranspose3d[];

  constructor(config: VqVaeConfig) {
    super(config);
    const { hidden, strides } = config;
    const steps = halvings(strides);
    const outputs = (i: number): number => (i === steps.length - 1 ? 3 : hidden);
    this.convts = steps.map((stride, i) => new ConvTranspose3d(hidden, outputs(i), stride));
  }

  forward(x: Tensor, mode: Mode): Tensor {
    const last = this.convts.length - 1;
    return this.convts.reduce(
      (y, convt, i) => (i === last ? convt.forward(y) : convt.forward(y).relu()),
      this.residual(x, mode),
    );
  }
}

export interface VqVaeOutput extends Quantised {
  /** [b, T, H, W, 3], not clamped. */
  readonly reconstruction: Tensor;
  /** mean (x - reconstruction)^2 / 0.06 */
  readonly error: Tensor;
  /** error + commitment: what training minimises. */
  readonly loss: Tensor;
}

/**
 *     z = E(x),   e = the nearest code to each vector of z,   x' = D(z + sg(e - z))
 *     L = mean (x - x')^2 / 0.06 + 0.25 mean (z - sg(e))^2
 */
export class VqVae extends Module {
  readonly encoder: Encoder;
  readonly decoder: Decoder;
  readonly preVqConv: Conv3d;
  readonly postVqConv: Conv3d;
  readonly codebook: Codebook;
  readonly config: VqVaeConfig;

  /** Throws ShapeError when a stride is no power of two, all are 1, or `hidden` is odd. */
  constructor(config: VqVaeConfig) {
    super();
    const { hidden, embedding, codes, strides } = config;
    if (strides.some((s) => !Number.isInteger(Math.log2(s)) || s < 1) || Math.max(...strides) < 2)
      throw new ShapeError(`VQ-VAE: strides [${strides.join(", ")}] must be powers of two, one of them above 1`);
    if (hidden % HEADS !== 0) throw new ShapeError(`VQ-VAE: ${hidden} channels are not even`);
    this.config = config;
    this.encoder = new Encoder(config);
    this.decoder = new Decoder(config);
    this.preVqConv = new Conv3d(hidden, embedding, 1);
    this.postVqConv = new Conv3d(embedding, hidden, 1);
    this.codebook = new Codebook(codes, embedding);
  }

  /** Grid [t, h, w] of the codes of a video of T frames of H x W pixels. */
  grid(video: readonly [T: number, H: number, W: number]): [number, number, number] {
    return gridOf(video, this.config.strides);
  }

  /** Videos [b, T, H, W, 3] in [-0.5, 0.5] -> vectors before quantisation, [b, t, h, w, embedding]. */
  vectors(x: Tensor, mode: Mode = { training: false }): Tensor {
    const { T, H, W, c } = x.dims("b T H W c");
    if (c !== 3) throw new ShapeError(`VQ-VAE: expected videos "b T H W 3", got ${x}`);
    this.grid([T, H, W]);
    return this.preVqConv.forward(this.encoder.forward(x, mode));
  }

  /** Videos [b, T, H, W, 3] -> codes i32 [b, t, h, w]. */
  encode(x: Tensor): Tensor {
    return this.codebook.forward(this.vectors(x)).codes;
  }

  /** Codes i32 [b, t, h, w] -> videos [b, T, H, W, 3], not clamped. */
  decode(codes: Tensor): Tensor {
    return this.render(this.codebook.lookup(codes));
  }

  /** Vectors [b, t, h, w, embedding] -> videos. */
  render(vectors: Tensor, mode: Mode = { training: false }): Tensor {
    return this.decoder.forward(this.postVqConv.forward(vectors), mode);
  }

  /** With `training`, norms use the batch's statistics, and they and the codebook move. */
  forward(x: Tensor, training?: Restarts): VqVaeOutput {
    const mode = { training: training !== undefined };
    const quantised = this.codebook.forward(this.vectors(x, mode), training);
    const reconstruction = this.render(quantised.vectors, mode);
    const error = mse(reconstruction, x).div(VARIANCE);
    return { ...quantised, reconstruction, error, loss: error.add(quantised.commitment) };
  }
}

/** @throws ShapeError when the strides do not divide the video. */
export function gridOf(video: Shape, strides: VqVaeConfig["strides"]): [number, number, number] {
  if (video.some((n, i) => n % strides[i] !== 0))
    throw new ShapeError(`VQ-VAE: strides [${strides.join(", ")}] do not divide a video of [${video.join(", ")}]`);
  return [video[0] / strides[0], video[1] / strides[1], video[2] / strides[2]];
}

/** Name here of a weight in the authors' files; null for what is not state here: masks and counters of batches. */
export function currentName(name: string): string | null {
  if (/\.num_batches_tracked$|\.attn\.mask$/.test(name)) return null;
  return name.replace(/(^|\.)codebook\.N$/, "$1codebook.counts").replace(/(^|\.)codebook\.z_avg$/, "$1codebook.sums");
}
