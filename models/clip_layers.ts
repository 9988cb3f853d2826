// The pre-norm transformer that both towers of CLIP are made of (Radford et al. 2021, section 2.4): attention and an MLP,
// each behind a layer norm and added to its input. Attribute names are those of the files that transformers publishes.
// The towers are text_encoder.ts and image_encoder.ts.

import { ShapeError, type Tensor } from "../engine/index.ts";
import { geluTanh, LayerNorm, Linear, Module, quickGelu, scaledDotProductAttention } from "../engine/nn/index.ts";
import type { Activation } from "./config.ts";

/** What a tower's configuration says of its transformer. */
export interface LayersConfig {
  readonly width: number;
  readonly layers: number;
  readonly heads: number;
  /** Inner width of the MLPs. */
  readonly mlp: number;
  readonly activation?: Activation;
  readonly epsilon?: number;
}

export interface Sight {
  /** Position i sees positions up to i. */
  readonly causal?: boolean;
  /** [b, n], not zero where a position may be seen; absent: everywhere. */
  readonly mask?: Tensor;
}

export const ACTIVATIONS: Readonly<Record<Activation, (x: Tensor) => Tensor>> = {
  gelu: (x) => x.gelu(),
  quick_gelu: quickGelu,
  gelu_new: geluTanh,
  gelu_pytorch_tanh: geluTanh,
  relu: (x) => x.relu(),
  silu: (x) => x.silu(),
};

class SelfAttention extends Module {
  readonly qProj: Linear;
  readonly kProj: Linear;
  readonly vProj: Linear;
  readonly outProj: Linear;
  readonly #heads: number;

  constructor({ width, heads }: LayersConfig) {
    super();
    this.qProj = new Linear(width, width);
    this.kProj = new Linear(width, width);
    this.vProj = new Linear(width, width);
    this.outProj = new Linear(width, width);
    this.#heads = heads;
  }

  forward(x: Tensor, { causal, mask }: Sight): Tensor {
    const { b, n, d } = x.dims("b n d");
    const [q, k, v] = [this.qProj, this.kProj, this.vProj].map((project) =>
      project.forward(x).reshape([b, n, this.#heads, d / this.#heads]),
    );
    const y = scaledDotProductAttention(q, k, v, { causal, mask: mask?.reshape([b, 1, 1, n]) });
    return this.outProj.forward(y.reshape(x.shape));
  }
}

class Mlp extends Module {
  readonly fc1: Linear;
  readonly fc2: Linear;
  readonly #activation: Activation;

  constructor({ width, mlp, activation = "gelu" }: LayersConfig) {
    super();
    this.fc1 = new Linear(width, mlp);
    this.fc2 = new Linear(mlp, width);
    this.#activation = activation;
  }

  forward(x: Tensor): Tensor {
    return this.fc2.forward(ACTIVATIONS[this.#activation](this.fc1.forward(x)));
  }
}

class Layer extends Module {
  readonly layerNorm1: LayerNorm;
  readonly selfAttn: SelfAttention;
  readonly layerNorm2: LayerNorm;
  readonly mlp: Mlp;

  constructor(config: LayersConfig) {
    super();
    this.layerNorm1 = new LayerNorm(config.width, config.epsilon);
    this.selfAttn = new SelfAttention(config);
    this.layerNorm2 = new LayerNorm(config.width, config.epsilon);
    this.mlp = new Mlp(config);
  }

  forward(x: Tensor, sight: Sight): Tensor {
    const h = x.add(this.selfAttn.forward(this.layerNorm1.forward(x), sight));
    return h.add(this.mlp.forward(this.layerNorm2.forward(h)));
  }
}

export class Layers extends Module {
  readonly layers: readonly Layer[];

  /** Throws ShapeError when the heads do not divide the width; `tower` names it. */
  constructor(config: LayersConfig, tower: string) {
    super();
    if (config.width % config.heads !== 0)
      throw new ShapeError(`${tower}: a width of ${config.width} does not divide into ${config.heads} heads`);
    this.layers = Array.from({ length: config.layers }, () => new Layer(config));
  }

  /** The first `count` layers, all when absent: [b, n, width] -> the same shape. */
  forward(x: Tensor, sight: Sight = {}, count: number = this.layers.length): Tensor {
    return this.layers.slice(0, count).reduce((y, layer) => layer.forward(y, sight), x);
  }
}
