// CLIP (Radford et al. 2021): a text and an image encoder with a common space, in which the cosine of a caption and an image
// says how well they agree. This file holds what is made of both; where weights come from is clip_names.ts, the score
// CLIPSIM and its relatives are eval's.

import { type Parameter, ShapeError, type Tensor } from "../engine/index.ts";
import { constantInit, crossEntropy, type Linear, l2Normalize, Module, parameter } from "../engine/nn/index.ts";
import type { TextConfig } from "./config.ts";
import { ImageEncoder, type VisionConfig } from "./image_encoder.ts";
import { TextEncoder, type TextOptions } from "./text_encoder.ts";

/** Both have the same `projection`. */
export interface ClipConfig {
  readonly text: TextConfig;
  readonly vision: VisionConfig;
}

export class Clip extends Module {
  readonly textModel: TextEncoder["textModel"];
  readonly textProjection: Linear;
  readonly visionModel: ImageEncoder["visionModel"];
  readonly visualProjection: Linear;
  /** Logarithm of the factor between cosines and logits, []. */
  readonly logitScale: Parameter;
  readonly config: ClipConfig;
  // The encoders' parts stand above under the names of the published files; #private fields are no state of their own.
  readonly #text: TextEncoder;
  readonly #image: ImageEncoder;

  /** Throws ShapeError when the two do not project into one space. */
  constructor(config: ClipConfig) {
    super();
    const [text, image] = [new TextEncoder(config.text), new ImageEncoder(config.vision)];
    const { projection } = config.text;
    if (!text.textProjection || !image.visualProjection || projection !== config.vision.projection)
      throw new ShapeError(`CLIP: text projects to ${projection}, images to ${config.vision.projection}`);
    this.config = config;
    this.#text = text;
    this.#image = image;
    this.textModel = text.textModel;
    this.textProjection = text.textProjection;
    this.visionModel = image.visionModel;
    this.visualProjection = image.visualProjection;
    this.logitScale = parameter([], constantInit(Math.log(1 / 0.07)));
  }

  get text(): TextEncoder {
    return this.#text;
  }
  get image(): ImageEncoder {
    return this.#image;
  }

  /** Captions i32 [b, n] as vectors of length 1, [b, projection]. */
  embedText(ids: Tensor, options?: TextOptions): Tensor {
    return l2Normalize(this.#text.embed(ids, options));
  }

  /** Normalised images [b, size, size, 3] as vectors of length 1, [b, projection]. */
  embedImages(x: Tensor): Tensor {
    return l2Normalize(this.#image.embed(x));
  }

  /** exp(logitScale) times the cosines of every image [b, d] with every caption [c, d]: [b, c]. */
  logits(images: Tensor, captions: Tensor): Tensor {
    return images.matmul(captions.transpose()).mul(this.logitScale.exp());
  }

  /** The loss that CLIP is trained with: which caption is the image's, and which image the caption's; pair i matches. */
  loss(images: Tensor, captions: Tensor): Tensor {
    const logits = this.logits(images, captions);
    const own = logits.arange(logits.shape[0]);
    return crossEntropy(logits, own).add(crossEntropy(logits.transpose(), own)).mul(0.5);
  }
}
