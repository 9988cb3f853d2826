// I2VGen-XL (Zhang et al. 2023, arXiv 2311.04145; spec 3.4): a picture beside the caption says what the sticker shows. This
// file holds what it adds to the video UNet; the image encoder is image_encoder.ts, loss and guidance latent_diffusion.ts.
// Attribute names spell the keys of diffusers' I2VGenXLUNet checkpoints; the authors' own names are in checkpoints/vgen.ts.

import { full, type Rng, type Shape, ShapeError, type Tensor, tensor, zeros } from "../engine/index.ts";
import { Attention, adaptiveAvgPool, Conv, LayerNorm, Linear, Module } from "../engine/nn/index.ts";
import { type ImageGuidanceConfig, THUMBNAIL, type UNetConfig } from "./config.ts";
import type { ImageEncoder } from "./image_encoder.ts";
import { perFrame, sinusoids, TIME_STEPS } from "./unet_blocks.ts";
import { type ForwardOptions, VideoUNet, type VideoUNetOptions } from "./video_unet.ts";

/** Frames per second that the paper's comparison feeds, text only. */
const TEXT_ONLY_FPS = 8;

/** A picture that guides. A type, not an interface, so that it can be part of a step's feed. */
export type Picture = {
  /** Its scaled latents, [b, h, w, latent]. */
  readonly latents: Tensor;
  /** One vector for the whole of it, [b, embedding]. */
  readonly vector: Tensor;
};

// ---- what a picture is to the network

/**
 * The vector of pictures with scaled latents [b, h, w, c]: that of the image encoder, [b, projection], which reads them as
 * `prepared` [b, size, size, 3] (data/clip_preprocess.ts). Without an encoder, as in the smaller presets, the latents
 * averaged to 4 x 4 cells stand for it, [b, 16 c]: what is where, roughly, not what it is. An encoder that nothing has
 * trained would not say more. Throws ShapeError where there is an encoder and nothing prepared for it.
 */
export function pictureVector(encoder: ImageEncoder | null, latents: Tensor, prepared?: Tensor): Tensor {
  if (!encoder) return thumbnail(latents);
  if (!prepared) throw new ShapeError("the image encoder needs the picture as CLIP reads it");
  return encoder.embed(prepared);
}

export function thumbnail(latents: Tensor): Tensor {
  return adaptiveAvgPool(latents, THUMBNAIL).reshape([latents.shape[0], -1]);
}

/** The picture's frames and its vector, as the network reads them. */
export interface Guide {
  /** [b, f, h, w, latent] */
  readonly frames: Tensor;
  /** [b, embedding] */
  readonly vector: Tensor;
}

/**
 * What the picture's latents [b, h, w, c] become before the network sees them: frame 0 is the picture, frame k > 0 holds
 * k / (f - 1) everywhere, its place in time. [b, f, h, w, c].
 */
export function pictureFrames(latents: Tensor, frames: number): Tensor {
  const { b, h, w, c } = latents.dims("b h w c");
  const first = latents.reshape([b, 1, h, w, c]);
  if (frames === 1) return first;
  const places = Float32Array.from({ length: frames - 1 }, (_, k) => (k + 1) / (frames - 1));
  return first.concat([tensor(places, [1, frames - 1, 1, 1, 1]).expand([b, frames - 1, h, w, c])], 1);
}

/**
 * For training: a share `drop` of the pictures is all zeros, which is the mode without a picture, and as many more lose
 * their vector alone, which is what guidance moves away from.
 */
export function dropPictures({ frames, vector }: Guide, rng: Rng, drop: number): Guide {
  const u = rng.uniform([frames.shape[0]]);
  return {
    frames: u.less(drop).reshape([-1, 1, 1, 1, 1]).where(0, frames),
    vector: u
      .less(2 * drop)
      .reshape([-1, 1])
      .where(0, vector),
  };
}

// ---- the network

/** LayerNorm, attention among the frames of each position, GELU perceptron (without a norm of its own); both are added. */
class TemporalEncoder extends Module {
  readonly norm1: LayerNorm;
  readonly attn1: Attention;
  readonly ff: { readonly net: readonly [{ readonly proj: Linear }, null, Linear] };

  constructor(channels: number) {
    super();
    this.norm1 = new LayerNorm(channels);
    this.attn1 = new Attention(channels, { heads: 2, dim: channels });
    this.ff = { net: [{ proj: new Linear(channels, 4 * channels) }, null, new Linear(4 * channels, channels)] };
  }

  /** [b, f, h, w, c] -> the same shape. */
  forward(x: Tensor): Tensor {
    const { b, h, w } = x.dims("b f h w c");
    const tokens = x.rearrange("b f h w c -> (b h w) f c");
    const u = tokens.add(this.attn1.forward(this.norm1.forward(tokens)));
    const [{ proj }, , last] = this.ff.net;
    return u.add(last.forward(proj.forward(u).gelu())).rearrange("(b h w) f c -> b f h w c", { b, h, w });
  }
}

/** Frames per second, i32 [b], through sinusoids and two layers, like the diffusion step: [b, 4 width]. */
export class FrameRateEmbedding extends Module {
  /** Linear, SiLU, Linear; files count the layer without weights. */
  readonly fpsEmbedding: readonly [Linear, null, Linear];
  readonly #width: number;

  constructor(width: number) {
    super();
    this.fpsEmbedding = perceptron(width, 4 * width, 4 * width);
    this.#width = width;
  }

  forward(fps: Tensor): Tensor {
    const waves = sinusoids(TIME_STEPS, this.#width).gatherRows(fps);
    return throughPerceptron(this.fpsEmbedding, waves.cast(this.fpsEmbedding[0].weight.dtype));
  }
}

function perceptron(inputs: number, hidden: number, outputs: number): [Linear, null, Linear] {
  return [new Linear(inputs, hidden), null, new Linear(hidden, outputs)];
}

function throughPerceptron([first, , second]: readonly [Linear, null, Linear], x: Tensor): Tensor {
  return second.forward(first.forward(x).silu());
}

const conv = (inputs: number, outputs: number, stride = 1): Conv =>
  new Conv(inputs, outputs, [3, 3], { padding: 1, stride });

export interface GuidedForwardOptions extends ForwardOptions {
  /** Absent: text only, with zeros for the picture's frames and vector, as the paper's comparison has it. */
  readonly picture?: Guide;
  /** Frames per second, i32 [b]; absent: 8. */
  readonly fps?: Tensor;
}

/**
 * With z the picture's latents (behind `pictureFrames`), e its vector, y the caption's tokens and r the frame rate:
 *
 *     eps_theta(x_t, t, y, z, e, r) = UNet([x_t, g(z)], time(t) + rate(r), [y, local(z_0), global(e)])
 *
 * - g: three convolutions per frame, then attention over frames; its 4 channels stand beside those of x_t, so that every
 *   pixel of every frame sees the picture's pixel at its place.
 * - local: the picture itself, pooled to side x side and halved twice by convolutions, is (side / 4)^2 tokens of context.
 * - global: a perceptron of the vector gives 4 more tokens: what the picture shows, wherever in the sticker it goes.
 */
export class I2VGenXLUNet extends VideoUNet {
  readonly imageLatentsProjIn: readonly [Conv, null, Conv, null, Conv];
  readonly imageLatentsTemporalEncoder: TemporalEncoder;
  readonly imageLatentsContextEmbedding: readonly [Conv, null, null, Conv, null, Conv];
  readonly contextEmbedding: readonly [Linear, null, Linear];
  readonly fpsEmbedding: FrameRateEmbedding["fpsEmbedding"];
  readonly image: ImageGuidanceConfig;
  readonly #rate: FrameRateEmbedding;

  /** Throws ShapeError for a configuration without image guidance, or whose first convolution does not read both. */
  constructor(config: UNetConfig, o: VideoUNetOptions = {}) {
    super(config, o);
    const { latent, inputs, image, channels, context } = config;
    if (!image || inputs !== 2 * latent) {
      throw new ShapeError(
        `I2VGenXLUNet: needs image guidance and ${2 * latent} inputs for ${latent} latents, got ${inputs}`,
      );
    }
    this.image = image;
    this.imageLatentsProjIn = [
      conv(latent, 4 * latent),
      null,
      conv(4 * latent, 4 * latent),
      null,
      conv(4 * latent, latent),
    ];
    this.imageLatentsTemporalEncoder = new TemporalEncoder(latent);
    // SiLU and the pooling stand between the first two.
    this.imageLatentsContextEmbedding = [
      conv(latent, 8 * latent),
      null,
      null,
      conv(8 * latent, 16 * latent, 2),
      null,
      conv(16 * latent, context, 2),
    ];
    this.contextEmbedding = perceptron(image.embedding, 4 * channels[0], image.tokens * context);
    this.#rate = new FrameRateEmbedding(channels[0]);
    this.fpsEmbedding = this.#rate.fpsEmbedding;
  }

  /** x [b, f, h, w, latent], step i32 [b], text [b, m, context] -> [b, f, h, w, latent]. */
  override forward(x: Tensor, step: Tensor, text: Tensor, o: GuidedForwardOptions = {}): Tensor {
    const { b } = x.dims("b f h w c");
    const guide = o.picture ?? { frames: zeros(x.shape), vector: zeros([b, this.image.embedding]) };
    checkGuide(guide.frames, guide.vector, x.shape, [b, this.image.embedding]);
    const { dtype } = this.convIn.weight;
    const [frames, vector] = [guide.frames.cast(dtype), guide.vector.cast(dtype)];
    const guided = x.cast(dtype).concat([this.#beside(frames)], 4);
    const rate = this.#rate.forward(o.fps ?? full([b], TEXT_ONLY_FPS, "i32"));
    const context = text.cast(dtype).concat([this.#local(frames), this.#global(vector)], 1);
    const time = o.time ? rate.add(o.time.cast(dtype)) : rate;
    return super.forward(guided, step, context, { rng: o.rng, time }).cast(x.dtype);
  }

  /** g: [b, f, h, w, latent] -> the same shape. */
  #beside(frames: Tensor): Tensor {
    const [first, , second, , third] = this.imageLatentsProjIn;
    const y = perFrame(third, perFrame(second, perFrame(first, frames).silu()).silu());
    return this.imageLatentsTemporalEncoder.forward(y).mul(this.image.gain ?? 1);
  }

  /** The first frame [b, 1, h, w, latent] of `frames` -> [b, (side / 4)^2, context]. */
  #local(frames: Tensor): Tensor {
    const { b, h, w, c } = frames.dims("b f h w c");
    const [first, , , second, , third] = this.imageLatentsContextEmbedding;
    const features = first.forward(frames.slice(1, 0, 1).reshape([b, h, w, c])).silu();
    const y = third.forward(second.forward(adaptiveAvgPool(features, this.image.side)).silu());
    return y.reshape([b, -1, y.shape[3]]);
  }

  /** [b, embedding] -> [b, tokens, context]. */
  #global(vector: Tensor): Tensor {
    const y = throughPerceptron(this.contextEmbedding, vector);
    return y.reshape([y.shape[0], this.image.tokens, this.config.context]);
  }
}

function checkGuide(frames: Tensor, vector: Tensor, latents: Shape, width: Shape): void {
  if (frames.shape.join() === latents.join() && vector.shape.join() === width.join()) return;
  const expected = `frames [${latents.join(", ")}] and a vector [${width.join(", ")}]`;
  throw new ShapeError(`I2VGenXLUNet: expected ${expected} of the picture, got ${frames} and ${vector}`);
}
