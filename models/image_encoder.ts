// CLIP's image encoder: a vision transformer (Dosovitskiy et al. 2021) with a norm before its layers (Radford et al. 2021,
// section 2.4). Used by clip.ts and, with its projection, as I2VGen-XL's guide. Attribute names are those of the published
// weight files, their spelling of "pre_layrnorm" included. Resizing and normalising images is data/clip_preprocess.ts.

import { type Parameter, ShapeError, type Tensor } from "../engine/index.ts";
import { Conv, Embedding, LayerNorm, Linear, Module, normalInit, parameter } from "../engine/nn/index.ts";
import { Layers, type LayersConfig } from "./clip_layers.ts";

export interface VisionConfig extends LayersConfig {
  /** Side of the square images, and of the square patches they are cut into, in pixels. */
  readonly size: number;
  readonly patch: number;
  /** Channels of an image; absent: 3. */
  readonly inputs?: number;
  /** Width of the space shared with captions; absent: no projection. */
  readonly projection?: number;
}

class Embeddings extends Module {
  readonly classEmbedding: Parameter;
  readonly patchEmbedding: Conv;
  readonly positionEmbedding: Embedding;

  constructor({ size, patch, width, inputs = 3 }: VisionConfig) {
    super();
    this.classEmbedding = parameter([width], normalInit(width ** -0.5));
    this.patchEmbedding = new Conv(inputs, width, [patch, patch], { stride: patch, bias: false });
    this.positionEmbedding = new Embedding(1 + Math.floor(size / patch) ** 2, width, 0.02);
  }

  /** [b, size, size, 3] -> [b, 1 + patches, width], the class token first, patches row by row. */
  forward(x: Tensor): Tensor {
    const patches = this.patchEmbedding.forward(x);
    const { b, h, w, c } = patches.dims("b h w c");
    const first = this.classEmbedding.expand([b, 1, c]);
    return first.concat([patches.reshape([b, h * w, c])], 1).add(this.positionEmbedding.weight);
  }
}

class VisionModel extends Module {
  readonly embeddings: Embeddings;
  readonly preLayrnorm: LayerNorm;
  readonly encoder: Layers;
  readonly postLayernorm: LayerNorm;

  constructor(config: VisionConfig) {
    super();
    this.embeddings = new Embeddings(config);
    this.preLayrnorm = new LayerNorm(config.width, config.epsilon);
    this.encoder = new Layers(config, "image encoder");
    this.postLayernorm = new LayerNorm(config.width, config.epsilon);
  }
}

export class ImageEncoder extends Module {
  readonly visionModel: VisionModel;
  /** Into the space shared with captions, without bias; null where the configuration has no projection. */
  readonly visualProjection: Linear | null;
  readonly config: VisionConfig;

  /** Throws ShapeError when the heads do not divide the width. */
  constructor(config: VisionConfig) {
    super();
    this.config = config;
    this.visionModel = new VisionModel(config);
    const { width, projection } = config;
    this.visualProjection =
      projection === undefined ? null : new Linear(width, projection, { bias: false, init: normalInit(width ** -0.5) });
  }

  /** Normalised images [b, size, size, 3] -> tokens [b, 1 + patches, width] of the last layer, without the last norm. */
  forward(x: Tensor): Tensor {
    const { h, w, c } = x.dims("b h w c");
    const { size, inputs = 3 } = this.config;
    if (h !== size || w !== size || c !== inputs)
      throw new ShapeError(`image encoder: expected images "b ${size} ${size} ${inputs}", got ${x}`);
    const { embeddings, preLayrnorm, encoder } = this.visionModel;
    return encoder.forward(preLayrnorm.forward(embeddings.forward(x)));
  }

  /** The one vector of each image: the class token of `tokens` [b, 1 + patches, width] behind the last norm -> [b, width]. */
  pooled(tokens: Tensor): Tensor {
    const { b, d } = tokens.dims("b n d");
    return this.visionModel.postLayernorm.forward(tokens.slice(1, 0, 1).reshape([b, d]));
  }

  /** Images in the space shared with captions, not normalised: [b, projection]. Throws without a projection. */
  embed(x: Tensor): Tensor {
    if (!this.visualProjection) throw new ShapeError("image encoder: there is no projection in its configuration");
    return this.visualProjection.forward(this.pooled(this.forward(x)));
  }
}
