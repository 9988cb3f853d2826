// The text encoder: CLIP's causal transformer (Radford et al. 2021, section 2.4) with the exact GELU, as Stable Diffusion 2
// uses it. Attribute names are those of the published weight files. Tokenising is data/tokenizer.ts.

import { ShapeError, type Tensor } from "../engine/index.ts";
import { Embedding, LayerNorm, Linear, Module } from "../engine/nn/index.ts";
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

/** Multi-head attention in which position i sees positions up to i. */
class CausalAttention extends Module {
  readonly qProj: Linear;
  readonly kProj: Linear;
  readonly vProj: Linear;
  readonly outProj: Linear;
  readonly #heads: number;

  constructor({ width, heads }: TextConfig) {
    super();
    this.qProj = new Linear(width, width);
    this.kProj = new Linear(width, width);
    this.vProj = new Linear(width, width);
    this.outProj = new Linear(width, width);
    this.#heads = heads;
  }

  forward(x: Tensor): Tensor {
    const { b, n, d } = x.dims("b n d");
    const heads = (y: Tensor): Tensor => y.reshape([b, n, this.#heads, d / this.#heads]);
    const [q, k, v] = [this.qProj, this.kProj, this.vProj].map((project) => heads(project.forward(x)));
    return this.outProj.forward(q.attention(k, v, { causal: true }).reshape(x.shape));
  }
}

class Mlp extends Module {
  readonly fc1: Linear;
  readonly fc2: Linear;

  constructor({ width, mlp }: TextConfig) {
    super();
    this.fc1 = new Linear(width, mlp);
    this.fc2 = new Linear(mlp, width);
  }

  forward(x: Tensor): Tensor {
    return this.fc2.forward(this.fc1.forward(x).gelu());
  }
}

/** A pre-norm transformer layer. */
class Layer extends Module {
  readonly layerNorm1: LayerNorm;
  readonly selfAttn: CausalAttention;
  readonly layerNorm2: LayerNorm;
  readonly mlp: Mlp;

  constructor(config: TextConfig) {
    super();
    this.layerNorm1 = new LayerNorm(config.width);
    this.selfAttn = new CausalAttention(config);
    this.layerNorm2 = new LayerNorm(config.width);
    this.mlp = new Mlp(config);
  }

  forward(x: Tensor): Tensor {
    const h = x.add(this.selfAttn.forward(this.layerNorm1.forward(x)));
    return h.add(this.mlp.forward(this.layerNorm2.forward(h)));
  }
}

class Layers extends Module {
  readonly layers: readonly Layer[];

  constructor(config: TextConfig) {
    super();
    this.layers = Array.from({ length: config.layers }, () => new Layer(config));
  }
}

class TextModel extends Module {
  readonly embeddings: Embeddings;
  readonly encoder: Layers;
  readonly finalLayerNorm: LayerNorm;

  constructor(config: TextConfig) {
    super();
    this.embeddings = new Embeddings(config);
    this.encoder = new Layers(config);
    this.finalLayerNorm = new LayerNorm(config.width);
  }
}

export class TextEncoder extends Module {
  readonly textModel: TextModel;
  readonly config: TextConfig;

  /** Throws ShapeError when the heads do not divide the width. */
  constructor(config: TextConfig) {
    super();
    if (config.width % config.heads !== 0) {
      throw new ShapeError(`text encoder: a width of ${config.width} does not divide into ${config.heads} heads`);
    }
    this.config = config;
    this.textModel = new TextModel(config);
  }

  /** Token ids i32 [b, n], n <= length -> features [b, n, width]. Padding is attended to, as in Stable Diffusion. */
  forward(ids: Tensor): Tensor {
    return this.textModel.finalLayerNorm.forward(this.hidden(ids));
  }

  /** Output of the first `layers` layers, before the final norm: systems on OpenCLIP leave out the last one. */
  hidden(ids: Tensor, layers: number = this.config.layers): Tensor {
    const { n } = ids.dims("b n");
    if (n > this.config.length) throw new ShapeError(`text encoder: ${n} tokens, at most ${this.config.length}`);
    const { embeddings, encoder } = this.textModel;
    return encoder.layers.slice(0, layers).reduce((x, layer) => layer.forward(x), embeddings.forward(ids));
  }
}
