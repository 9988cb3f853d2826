// The text encoder: CLIP's causal transformer (Radford et al. 2021, section 2.4), as Stable Diffusion 2 (exact GELU, every
// token's features), I2VGen-XL (the same without the last layer) and CLIP itself (one vector per caption) use it. Attribute
// names are those of the published weight files. Tokenising is data/tokenizer.ts, the image tower image_encoder.ts.

import { ShapeError, type Tensor } from "../engine/index.ts";
import { argmax, Embedding, LayerNorm, Linear, Module, normalInit } from "../engine/nn/index.ts";
import { Layers } from "./clip_layers.ts";
import type { TextConfig } from "./config.ts";

class Embeddings extends Module {
  readonly tokenEmbedding: Embedding;
  readonly positionEmbedding: Embedding;

  constructor({ vocabulary, length, width }: TextConfig) {
    super();
    this.tokenEmbedding = new Embedding(vocabulary, width, 0.02);
    this.positionEmbedding = new Embedding(length, width, 0.01);
  }

  /** i32 [b, n] -> [b, n, width] */
  forward(ids: Tensor): Tensor {
    const { n } = ids.dims("b n");
    return this.tokenEmbedding.forward(ids).add(this.positionEmbedding.weight.slice(0, 0, n));
  }
}

class TextModel extends Module {
  readonly embeddings: Embeddings;
  readonly encoder: Layers;
  readonly finalLayerNorm: LayerNorm;

  constructor(config: TextConfig) {
    super();
    this.embeddings = new Embeddings(config);
    this.encoder = new Layers(config, "text encoder");
    this.finalLayerNorm = new LayerNorm(config.width, config.epsilon);
  }
}

export interface TextOptions {
  /** [b, n], 0 at tokens that no other may see. Absent: padding is attended to, as in Stable Diffusion. */
  readonly mask?: Tensor;
}

export class TextEncoder extends Module {
  readonly textModel: TextModel;
  /** Into the space shared with images, without bias; null where the configuration has no projection. */
  readonly textProjection: Linear | null;
  readonly config: TextConfig;

  /** Throws ShapeError when the heads do not divide the width. */
  constructor(config: TextConfig) {
    super();
    this.config = config;
    this.textModel = new TextModel(config);
    const { width, projection } = config;
    this.textProjection =
      projection === undefined ? null : new Linear(width, projection, { bias: false, init: normalInit(width ** -0.5) });
  }

  /** Token ids i32 [b, n], n <= length -> features [b, n, width] behind the final norm; `skip` layers are left out. */
  forward(ids: Tensor, options?: TextOptions): Tensor {
    const { layers, skip = 0 } = this.config;
    return this.textModel.finalLayerNorm.forward(this.hidden(ids, layers - skip, options));
  }

  /** Output of the first `layers` layers, before the final norm. */
  hidden(ids: Tensor, layers: number = this.config.layers, { mask }: TextOptions = {}): Tensor {
    const { n } = ids.dims("b n");
    if (n > this.config.length) throw new ShapeError(`text encoder: ${n} tokens, at most ${this.config.length}`);
    const { embeddings, encoder } = this.textModel;
    return encoder.forward(embeddings.forward(ids), { causal: true, mask }, layers);
  }

  /**
   * The one vector of each caption: `features` [b, n, width] of `ids` [b, n] at the first end token (without `endId` in the
   * configuration: at the first token of the highest id) -> [b, width].
   */
  pooled(features: Tensor, ids: Tensor): Tensor {
    const { b, n, d } = features.dims("b n d");
    const { endId } = this.config;
    const at = argmax((endId === undefined ? ids : ids.equal(endId)).cast("f32"), 1); // ids are whole numbers there too
    return features.reshape([b * n, d]).gatherRows(ids.arange(b).mul(n).add(at));
  }

  /** Captions i32 [b, n] in the space shared with images, not normalised: [b, projection]. Throws without a projection. */
  embed(ids: Tensor, options?: TextOptions): Tensor {
    if (!this.textProjection) throw new ShapeError("text encoder: there is no projection in its configuration");
    return this.textProjection.forward(this.pooled(this.forward(ids, options), ids));
  }
}
