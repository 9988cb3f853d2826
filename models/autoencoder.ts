// The KL autoencoder of latent diffusion (Rombach et al. 2022, section 3.1 and appendix G; the network of Stable Diffusion).
// Images become latents of 1 / 2^(levels - 1) their side. Attribute names are those of the published weight files. Trained
// by train/autoencoder.ts; the diffusion systems use `latents` and `images` and see nothing else.

import { type Rng, ShapeError, Tensor } from "../engine/index.ts";
import { Attention, Conv, GroupNorm, interpolate, Module, mse } from "../engine/nn/index.ts";
import { type AutoencoderConfig, downsampling } from "./config.ts";

/** Latents of Stable Diffusion times this have unit variance. */
const SD_SCALE = 0.18215;

const NORM_EPS = 1e-6;

/** x + conv(SiLU(norm(conv(SiLU(norm(x)))))), with a 1x1 convolution on x where the number of channels changes. */
class ResidualBlock extends Module {
  readonly norm1: GroupNorm;
  readonly conv1: Conv;
  readonly norm2: GroupNorm;
  readonly conv2: Conv;
  readonly convShortcut: Conv | null;

  constructor(inputs: number, outputs: number, groups: number) {
    super();
    this.norm1 = new GroupNorm(groups, inputs, NORM_EPS);
    this.conv1 = new Conv(inputs, outputs, [3, 3], { padding: 1 });
    this.norm2 = new GroupNorm(groups, outputs, NORM_EPS);
    this.conv2 = new Conv(outputs, outputs, [3, 3], { padding: 1 });
    this.convShortcut = inputs === outputs ? null : new Conv(inputs, outputs, [1, 1]);
  }

  forward(x: Tensor): Tensor {
    const h = this.conv1.forward(this.norm1.forward(x).silu());
    const y = this.conv2.forward(this.norm2.forward(h).silu());
    return y.add(this.convShortcut?.forward(x) ?? x);
  }
}

/** Self-attention of one head among the pixels of an image, added to it. */
class PixelAttention extends Attention {
  readonly groupNorm: GroupNorm;

  constructor(channels: number, groups: number) {
    super(channels, { heads: 1, dim: channels, bias: true });
    this.groupNorm = new GroupNorm(groups, channels, NORM_EPS);
  }

  override forward(x: Tensor): Tensor {
    const { n, h, w, c } = x.dims("n h w c");
    const tokens = this.groupNorm.forward(x).reshape([n, h * w, c]);
    return super.forward(tokens).reshape(x.shape).add(x);
  }
}

class MiddleBlock extends Module {
  readonly resnets: readonly [ResidualBlock, ResidualBlock];
  readonly attentions: readonly [PixelAttention];

  constructor(channels: number, groups: number) {
    super();
    this.resnets = [new ResidualBlock(channels, channels, groups), new ResidualBlock(channels, channels, groups)];
    this.attentions = [new PixelAttention(channels, groups)];
  }

  forward(x: Tensor): Tensor {
    return this.resnets[1].forward(this.attentions[0].forward(this.resnets[0].forward(x)));
  }
}

/** Halves height and width. Padding is on the right and bottom only, as the published weights expect. */
class Downsampler extends Module {
  readonly conv: Conv;

  constructor(channels: number) {
    super();
    const padding = [[0, 1] as const, [0, 1] as const];
    this.conv = new Conv(channels, channels, [3, 3], { stride: 2, padding });
  }

  forward(x: Tensor): Tensor {
    return this.conv.forward(x);
  }
}

/** Doubles height and width. */
class Upsampler extends Module {
  readonly conv: Conv;

  constructor(channels: number) {
    super();
    this.conv = new Conv(channels, channels, [3, 3], { padding: 1 });
  }

  forward(x: Tensor): Tensor {
    const { h, w } = x.dims("n h w c");
    return this.conv.forward(interpolate(x, { size: [2 * h, 2 * w] }));
  }
}

/** `count` residual blocks, the first of which changes the number of channels. */
function residualBlocks(inputs: number, outputs: number, count: number, groups: number): ResidualBlock[] {
  return Array.from({ length: count }, (_, i) => new ResidualBlock(i === 0 ? inputs : outputs, outputs, groups));
}

class DownBlock extends Module {
  readonly resnets: readonly ResidualBlock[];
  readonly downsamplers: readonly Downsampler[];

  constructor(inputs: number, outputs: number, last: boolean, { layers, groups }: AutoencoderConfig) {
    super();
    this.resnets = residualBlocks(inputs, outputs, layers, groups);
    this.downsamplers = last ? [] : [new Downsampler(outputs)];
  }

  forward(x: Tensor): Tensor {
    return [...this.resnets, ...this.downsamplers].reduce((h, layer) => layer.forward(h), x);
  }
}

class UpBlock extends Module {
  readonly resnets: readonly ResidualBlock[];
  readonly upsamplers: readonly Upsampler[];

  constructor(inputs: number, outputs: number, last: boolean, { layers, groups }: AutoencoderConfig) {
    super();
    this.resnets = residualBlocks(inputs, outputs, layers + 1, groups);
    this.upsamplers = last ? [] : [new Upsampler(outputs)];
  }

  forward(x: Tensor): Tensor {
    return [...this.resnets, ...this.upsamplers].reduce((h, layer) => layer.forward(h), x);
  }
}

class Encoder extends Module {
  readonly convIn: Conv;
  readonly downBlocks: readonly DownBlock[];
  readonly midBlock: MiddleBlock;
  readonly convNormOut: GroupNorm;
  readonly convOut: Conv;

  constructor(config: AutoencoderConfig) {
    super();
    const { channels, groups, latent } = config;
    const top = channels.length - 1;
    this.convIn = new Conv(3, channels[0], [3, 3], { padding: 1 });
    this.downBlocks = channels.map((c, i) => new DownBlock(channels[Math.max(i - 1, 0)], c, i === top, config));
    this.midBlock = new MiddleBlock(channels[top], groups);
    this.convNormOut = new GroupNorm(groups, channels[top], NORM_EPS);
    this.convOut = new Conv(channels[top], 2 * latent, [3, 3], { padding: 1 });
  }

  forward(x: Tensor): Tensor {
    const h = this.downBlocks.reduce((y, block) => block.forward(y), this.convIn.forward(x));
    return this.convOut.forward(this.convNormOut.forward(this.midBlock.forward(h)).silu());
  }
}

class Decoder extends Module {
  readonly convIn: Conv;
  readonly midBlock: MiddleBlock;
  readonly upBlocks: readonly UpBlock[];
  readonly convNormOut: GroupNorm;
  readonly convOut: Conv;

  constructor(config: AutoencoderConfig) {
    super();
    const { groups, latent } = config;
    const channels = [...config.channels].reverse();
    const top = channels.length - 1;
    this.convIn = new Conv(latent, channels[0], [3, 3], { padding: 1 });
    this.midBlock = new MiddleBlock(channels[0], groups);
    this.upBlocks = channels.map((c, i) => new UpBlock(channels[Math.max(i - 1, 0)], c, i === top, config));
    this.convNormOut = new GroupNorm(groups, channels[top], NORM_EPS);
    this.convOut = new Conv(channels[top], 3, [3, 3], { padding: 1 });
  }

  forward(z: Tensor): Tensor {
    const h = this.midBlock.forward(this.convIn.forward(z));
    const y = this.upBlocks.reduce((x, block) => block.forward(x), h);
    return this.convOut.forward(this.convNormOut.forward(y).silu());
  }
}

/** A diagonal normal distribution over latents: mean and logarithm of the variance, each [n, h, w, latent]. */
export interface Posterior {
  readonly mean: Tensor;
  readonly logvar: Tensor;
}

/** mean + exp(logvar / 2) noise (Kingma & Welling 2014, eq. 10). */
export function samplePosterior({ mean, logvar }: Posterior, noise: Tensor): Tensor {
  return mean.add(logvar.mul(0.5).exp().mul(noise));
}

/** Kullback-Leibler divergence to N(0, 1) in nats per image, [n] (Kingma & Welling 2014, appendix B). */
export function klDivergence({ mean, logvar }: Posterior): Tensor {
  return mean.square().add(logvar.exp()).sub(1).sub(logvar).sum([1, 2, 3]).mul(0.5);
}

export interface AutoencoderLoss {
  /** reconstruction + klWeight kl: what training minimises. */
  readonly loss: Tensor;
  /** mean((x - decode(z))^2) */
  readonly reconstruction: Tensor;
  /** Divergence in nats per image value, so that its weight does not depend on the image size. */
  readonly kl: Tensor;
}

export class Autoencoder extends Module {
  readonly encoder: Encoder;
  readonly decoder: Decoder;
  readonly quantConv: Conv;
  readonly postQuantConv: Conv;
  readonly config: AutoencoderConfig;
  /**
   * Latents are multiplied by this before diffusion, to have unit variance (appendix G, "rescaled latent space"). A number
   * and not part of `state()`: a recipe measures 1 / standard deviation after training and keeps it with its checkpoint.
   * Compiled steps hold the value they were traced with.
   */
  scale: number;

  constructor(config: AutoencoderConfig, scale: number = SD_SCALE) {
    super();
    this.config = config;
    this.scale = scale;
    this.encoder = new Encoder(config);
    this.decoder = new Decoder(config);
    this.quantConv = new Conv(2 * config.latent, 2 * config.latent, [1, 1]);
    this.postQuantConv = new Conv(config.latent, config.latent, [1, 1]);
  }

  /** Images [n, H, W, 3] in [-1, 1] -> mean and unclamped log-variance side by side, [n, H / f, W / f, 2 latent]. */
  moments(x: Tensor): Tensor {
    const { h, w, c } = x.dims("n h w c");
    const f = downsampling(this.config);
    if (c !== 3 || h % f !== 0 || w % f !== 0) {
      throw new ShapeError(`autoencoder: expected images "n h w 3" with sides divisible by ${f}, got ${x}`);
    }
    return this.quantConv.forward(this.encoder.forward(x.cast(this.quantConv.weight.dtype))).cast(x.dtype);
  }

  /** Images [n, H, W, 3] -> the distribution of their latents; log-variances are clamped to [-30, 20]. */
  encode(x: Tensor): Posterior {
    const moments = this.moments(x);
    const { latent } = this.config;
    return { mean: moments.slice(3, 0, latent), logvar: moments.slice(3, latent).maximum(-30).minimum(20) };
  }

  /** Unscaled latents [n, h, w, latent] -> images [n, f h, f w, 3], not clamped. */
  decode(z: Tensor): Tensor {
    return this.decoder.forward(this.postQuantConv.forward(z.cast(this.postQuantConv.weight.dtype))).cast(z.dtype);
  }

  /** Images -> scaled latents, as the diffusion model sees them. `noise` has the latents' shape. */
  latents(x: Tensor, noise: Tensor): Tensor {
    return samplePosterior(this.encode(x), noise).mul(this.scale);
  }

  /** Scaled latents -> images in [-1, 1]. */
  images(z: Tensor): Tensor {
    return this.decode(z.div(this.scale)).maximum(-1).minimum(1);
  }

  /**
   * Negative evidence lower bound of images [n, H, W, 3], per image value. The reconstruction term is the squared error:
   * without the perceptual and adversarial terms of the paper nothing would profit from L1, and predicting the mean then
   * scores the variance of the data. The paper's KL weight is 1e-6. `noise` is a generator or N(0, 1) of the latents' shape.
   */
  loss(x: Tensor, noise: Rng | Tensor, { klWeight = 1e-6 }: { klWeight?: number } = {}): AutoencoderLoss {
    const posterior = this.encode(x);
    const draw = noise instanceof Tensor ? noise : noise.normal(posterior.mean.shape);
    const reconstruction = mse(this.decode(samplePosterior(posterior, draw)), x);
    const { h, w, c } = x.dims("n h w c");
    const kl = klDivergence(posterior)
      .mean()
      .div(h * w * c);
    return { loss: reconstruction.add(kl.mul(klWeight)), reconstruction, kl };
  }
}

const CURRENT_NAMES: Readonly<Record<string, string>> = {
  query: "to_q",
  key: "to_k",
  value: "to_v",
  proj_attn: "to_out.0",
};

/** Current name of a weight in the files of Stable Diffusion 1 and 2, which name the attention's projections differently. */
export function currentName(name: string): string {
  return name.replace(
    /(\.attentions\.0\.)(query|key|value|proj_attn)\./,
    (_, path, old) => `${path}${CURRENT_NAMES[old]}.`,
  );
}
