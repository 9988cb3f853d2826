// The whole system (spec 2.4-2.14): stickers become latents, captions become text features, a video UNet learns to
// remove noise from the former given the latter. This file holds the loss, guidance and what trains when; the
// optimiser's loop is train/diffusion.ts, the sampling loop is diffusion.ts.

import { type Rng, type Shape, ShapeError, type Tensor, zeros } from "../engine/index.ts";
import { Module, mse } from "../engine/nn/index.ts";
import { Autoencoder } from "./autoencoder.ts";
import { downsampling, type SystemConfig } from "./config.ts";
import { guide, NoiseSchedule } from "./diffusion.ts";
import {
  dropPictures,
  type Guide,
  I2VGenXLUNet,
  type Picture,
  pictureFrames,
  pictureVector,
  thumbnail,
} from "./i2vgen_xl.ts";
import { ImageEncoder } from "./image_encoder.ts";
import { TextEncoder } from "./text_encoder.ts";
import { perFrame, TIME_STEPS } from "./unet_blocks.ts";
import { VideoUNet } from "./video_unet.ts";

/**
 * What training updates; everything else is frozen, the autoencoder always (spec 2.14).
 * - scratch: the UNet and the text encoder, where no pretrained image model exists.
 * - all: the whole UNet.
 * - temporal: all temporal layers of the UNet, on top of a pretrained image model, and what I2VGen-XL has for pictures.
 * - conv: only the layers at the places of the temporal convolutions, that is STI, and VideoFactory's attention
 *   behind them; the paper's own choice.
 */
export type Trained = "scratch" | "all" | "temporal" | "conv";

const TRAINED: Readonly<Record<Trained, RegExp>> = {
  scratch: /^(unet|text_encoder)\./,
  all: /^unet\./,
  temporal: /^unet\.(transformer_in|.*\.(temp_(convs|attentions)|swap_attention))\./,
  conv: /^unet\..*\.(temp_convs|swap_attention)\./,
};

/** What a picture goes through: new on top of an image model, whose first convolution grows channels for it. */
const GUIDES = /^unet\.(conv_in|image_latents_\w+|context_embedding|fps_embedding)\./;

export interface TrainingBatch {
  /** Scaled latents of clips, [b, f, h, w, latent]. */
  readonly latents: Tensor;
  /**
   * Token ids i32 [b, m] and those of the empty caption, i32 [m]; or the features of both, [b, m, context] and
   * [m, context], where the text encoder is frozen and has been run before.
   */
  readonly captions: Tensor;
  readonly empty: Tensor;
  /** Vectors of the first frames [b, embedding]: where pictures guide training and there is an image encoder. */
  readonly vectors?: Tensor;
}

export interface LossOptions {
  /** Share of captions replaced by the empty one, so that guidance has something to move away from. */
  readonly drop?: number;
}

/** What a guided prediction needs besides x and the step. A type, not an interface, so that it can be a step's feed. */
export type Guidance = {
  /** Text features [b, m, context] of the captions, and of what to move away from: the empty caption or a negative one. */
  readonly text: Tensor;
  readonly plain: Tensor;
  /** 1: no guidance. The paper gives none; its authors' later work uses 7.5. */
  readonly scale: Tensor;
  /** Of I2VGen-XL, from `picture`; without them it goes by the text alone. */
  readonly latents?: Tensor;
  readonly vector?: Tensor;
};

export class LatentDiffusion extends Module {
  readonly autoencoder: Autoencoder;
  readonly textEncoder: TextEncoder;
  readonly unet: VideoUNet | I2VGenXLUNet;
  /** Frozen; only I2VGen-XL at the preset `paper` has one. */
  readonly imageEncoder: ImageEncoder | null;
  readonly config: SystemConfig;
  readonly noiseSchedule: NoiseSchedule;

  /** Throws ShapeError when the parts of the configuration do not fit each other. */
  constructor(config: SystemConfig) {
    super();
    const { autoencoder, text, unet } = config;
    if (autoencoder.latent !== unet.latent || text.width !== unet.context) {
      const parts = `autoencoder ${autoencoder.latent} latents, text ${text.width} wide`;
      throw new ShapeError(
        `LatentDiffusion: the UNet expects ${unet.latent} latents and text ${unet.context} wide, got ${parts}`,
      );
    }
    this.config = config;
    this.autoencoder = new Autoencoder(autoencoder);
    this.textEncoder = new TextEncoder(text);
    this.unet = unet.image ? new I2VGenXLUNet(unet) : new VideoUNet(unet);
    this.imageEncoder = config.imageEncoder ? new ImageEncoder(config.imageEncoder) : null;
    this.noiseSchedule = new NoiseSchedule({ ...config.schedule, steps: TIME_STEPS });
    this.train("scratch");
  }

  /** Chooses what `parameters()` returns. */
  train(what: Trained): this {
    const guided = what === "temporal" && this.config.unet.image !== null;
    for (const [name, p] of this.state()) p.trainable = TRAINED[what].test(name) || (guided && GUIDES.test(name));
    return this;
  }

  /** Shape of the latents [b, f, h, w, latent] of frames [b, f, H, W, 3]. */
  latentShape(frames: Tensor): Shape {
    const { b, f, h, w } = frames.dims("b f h w c");
    const by = downsampling(this.config.autoencoder);
    return [b, f, h / by, w / by, this.config.autoencoder.latent];
  }

  /** Frames [b, f, H, W, 3] in [-1, 1] -> scaled latents; `noise` N(0, I) has their shape, or ShapeError. */
  encode(frames: Tensor, noise: Tensor): Tensor {
    const shape = this.latentShape(frames);
    // Noise of another shape might broadcast, and frames would then share it.
    if (noise.shape.join() !== shape.join()) {
      throw new ShapeError(`encode: ${frames} needs noise of the latents' shape [${shape.join(", ")}], got ${noise}`);
    }
    const images = noise.reshape([-1, ...shape.slice(2)]);
    return perFrame({ forward: (x) => this.autoencoder.latents(x, images) }, frames);
  }

  /** Scaled latents [b, f, h, w, latent] -> frames [b, f, H, W, 3] in [-1, 1]. */
  decode(latents: Tensor): Tensor {
    return perFrame({ forward: (z) => this.autoencoder.images(z) }, latents);
  }

  /** Token ids i32 [b, m] -> text features [b, m, context]. */
  embed(captions: Tensor): Tensor {
    return this.textEncoder.forward(captions);
  }

  /**
   * Eq. 2 of the paper: E || eps - eps_theta(x_t, t, tau(c)) ||^2 over t ~ U{0 .. T - 1} and eps ~ N(0, I), as the mean
   * over elements (or the same for v, as configured). One t per clip.
   */
  loss({ latents, captions, empty, vectors }: TrainingBatch, rng: Rng, { drop = 0.1 }: LossOptions = {}): Tensor {
    const b = latents.shape[0];
    const step = rng.integers([b], this.noiseSchedule.steps);
    const noise = rng.normal(latents.shape);
    const dropped = rng.uniform([b, 1]).less(drop);
    const text =
      captions.rank === 2
        ? this.embed(dropped.where(empty, captions))
        : dropped.reshape([b, 1, 1]).where(empty, captions);
    const xt = this.noiseSchedule.addNoise(latents, noise, step);
    const target = this.noiseSchedule.target(this.config.prediction, latents, noise, step);
    const picture = this.config.pictures ? dropPictures(this.#firstFrames(latents, vectors), rng, drop) : undefined;
    return mse(this.#network(xt, step, text, { rng, picture }), target);
  }

  /** The network's answer at x [b, f, h, w, latent], step i32 [b], guided by the caption: `predict` of a sampler. */
  guided(x: Tensor, step: Tensor, { text, plain, scale, latents, vector }: Guidance): Tensor {
    if (!latents || !vector) {
      const predict = (y: Tensor, t: Tensor, c: { readonly text: Tensor }): Tensor => this.#network(y, t, c.text);
      return guide(predict, x, step, { on: { text }, off: { text: plain }, scale });
    }
    type Both = { readonly text: Tensor; readonly frames: Tensor; readonly vector: Tensor };
    const predict = (y: Tensor, t: Tensor, c: Both): Tensor => this.#network(y, t, c.text, { picture: c });
    const frames = pictureFrames(latents, x.shape[1]);
    // What is moved away from shows the picture too, but does not say what it is.
    return guide(predict, x, step, {
      on: { text, frames, vector },
      off: { text: plain, frames, vector: zeros(vector.shape) },
      scale,
    });
  }

  /**
   * Pictures [b, H, W, 3] in [-1, 1], of the frames' size, as guides of I2VGen-XL; for its image encoder also as CLIP reads
   * them (data/clip_preprocess.ts). Throws ShapeError for other systems.
   */
  picture(images: Tensor, prepared?: Tensor): Picture {
    const { unet, system } = this.config;
    if (!unet.image) throw new ShapeError(`${system} is not guided by pictures`);
    const latents = this.autoencoder.encode(images).mean.mul(this.autoencoder.scale);
    const vector = pictureVector(this.imageEncoder, latents, prepared);
    if (vector.shape[1] === unet.image.embedding) return { latents, vector };
    const made = this.imageEncoder ? "its image encoder makes" : "without an image encoder there are";
    throw new ShapeError(`the UNet reads a picture as ${unet.image.embedding} numbers, and ${made} ${vector.shape[1]}`);
  }

  #firstFrames(latents: Tensor, vectors: Tensor | undefined): Guide {
    const { b, f, h, w, c } = latents.dims("b f h w c");
    const first = latents.slice(1, 0, 1).reshape([b, h, w, c]);
    if (this.imageEncoder && !vectors) throw new ShapeError("training by pictures needs the image encoder's vectors");
    return { frames: pictureFrames(first, f), vector: vectors ?? thumbnail(first) };
  }

  #network(
    x: Tensor,
    step: Tensor,
    text: Tensor,
    { picture, ...o }: { readonly rng?: Rng; readonly picture?: Guide } = {},
  ): Tensor {
    return this.unet instanceof I2VGenXLUNet
      ? this.unet.forward(x, step, text, { picture, ...o })
      : this.unet.forward(x, step, text, o);
  }
}
