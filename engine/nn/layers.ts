// The layers models are made of. Tensors are channels last; weights lie as the kernels want them: Linear as [out, in] (like
// PyTorch), convolutions as [...kernel, in, out].

import { ShapeError } from "../error.ts";
import type { Parameter, Rng } from "../state.ts";
import type { ConvOptions, ConvTransposeOptions, Tensor } from "../tensor.ts";
import { fanInInit, type Initializer, normalInit, onesInit, zerosInit } from "./init.ts";
import { Module, parameter } from "./module.ts";
import { batchNorm, groupNorm, layerNorm, rmsNorm } from "./norms.ts";
import { linear } from "./products.ts";

export interface LinearOptions {
  readonly bias?: boolean;
  readonly init?: Initializer;
}

/** y = x W^T + b: [..., in] -> [..., out]. */
export class Linear extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter | null;

  constructor(inputs: number, outputs: number, o: LinearOptions = {}) {
    super();
    this.weight = parameter([outputs, inputs], o.init ?? fanInInit(inputs));
    this.bias = o.bias === false ? null : parameter([outputs], o.init === zerosInit ? zerosInit : fanInInit(inputs));
  }

  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }
}

export interface ConvLayerOptions extends ConvOptions {
  readonly bias?: boolean;
  readonly init?: Initializer;
}

/** Convolution over one to three spatial axes: [b, ...spatial, in] -> [b, ...spatial', out]. */
export class Conv extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter | null;
  readonly #options: ConvOptions;

  /** `kernel` has one size per spatial axis: [3, 3] for images, [3, 1, 1] for a convolution over frames. */
  constructor(inputs: number, outputs: number, kernel: readonly number[], o: ConvLayerOptions = {}) {
    super();
    const channels = perGroup("Conv", "inputs", inputs, o.groups);
    perGroup("Conv", "outputs", outputs, o.groups);
    const fanIn = kernel.reduce((a, b) => a * b, channels);
    this.weight = parameter([...kernel, channels, outputs], o.init ?? fanInInit(fanIn), { layout: "conv" });
    this.bias = o.bias === false ? null : parameter([outputs], o.init === zerosInit ? zerosInit : fanInInit(fanIn));
    this.#options = o;
  }

  forward(x: Tensor): Tensor {
    const y = x.conv(this.weight, this.#options);
    return this.bias ? y.add(this.bias) : y;
  }
}

export interface ConvTransposeLayerOptions extends ConvTransposeOptions {
  readonly bias?: boolean;
  readonly init?: Initializer;
}

/**
 * Transposed convolution over one to three spatial axes: [b, ...spatial, in] -> [b, ...spatial', out]. The weight is
 * [...kernel, out / groups, in], which PyTorch files hold as [in, out / groups, ...kernel].
 */
export class ConvTranspose extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter | null;
  readonly #options: ConvTransposeOptions;

  constructor(inputs: number, outputs: number, kernel: readonly number[], o: ConvTransposeLayerOptions = {}) {
    super();
    perGroup("ConvTranspose", "inputs", inputs, o.groups);
    const filters = perGroup("ConvTranspose", "outputs", outputs, o.groups);
    // PyTorch counts the second axis of its weight, the outputs, as fan-in here too.
    const fanIn = kernel.reduce((a, b) => a * b, filters);
    this.weight = parameter([...kernel, filters, inputs], o.init ?? fanInInit(fanIn), { layout: "conv" });
    this.bias = o.bias === false ? null : parameter([outputs], o.init === zerosInit ? zerosInit : fanInInit(fanIn));
    this.#options = o;
  }

  forward(x: Tensor): Tensor {
    const y = x.convTranspose(this.weight, this.#options);
    return this.bias ? y.add(this.bias) : y;
  }
}

function perGroup(layer: string, what: string, count: number, groups = 1): number {
  if (count % groups !== 0) throw new ShapeError(`${layer}: ${count} ${what} do not divide into ${groups} groups`);
  return count / groups;
}

/** Group normalisation (Wu & He 2018): statistics per first axis and group, over every axis in between. */
export class GroupNorm extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter;
  readonly #groups: number;
  readonly #eps: number;

  constructor(groups: number, channels: number, eps = 1e-5) {
    super();
    if (channels % groups !== 0)
      throw new ShapeError(`GroupNorm: ${channels} channels do not divide into ${groups} groups`);
    this.weight = parameter([channels], onesInit);
    this.bias = parameter([channels], zerosInit);
    this.#groups = groups;
    this.#eps = eps;
  }

  /** [b, ..., channels] -> the same shape. */
  forward(x: Tensor): Tensor {
    return groupNorm(x, this.#groups, { weight: this.weight, bias: this.bias, eps: this.#eps });
  }
}

/** Layer normalisation over the last axis (Ba et al. 2016). */
export class LayerNorm extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter;
  readonly #eps: number;

  constructor(features: number, eps = 1e-5) {
    super();
    this.weight = parameter([features], onesInit);
    this.bias = parameter([features], zerosInit);
    this.#eps = eps;
  }

  forward(x: Tensor): Tensor {
    return layerNorm(x, { weight: this.weight, bias: this.bias, eps: this.#eps });
  }
}

/** Root mean square normalisation over the last axis (Zhang & Sennrich 2019). */
export class RmsNorm extends Module {
  readonly weight: Parameter;
  readonly #eps: number;

  constructor(features: number, eps = 1e-6) {
    super();
    this.weight = parameter([features], onesInit);
    this.#eps = eps;
  }

  forward(x: Tensor): Tensor {
    return rmsNorm(x, { weight: this.weight, eps: this.#eps });
  }
}

/** Batch normalisation (Ioffe & Szegedy 2015) of [b, ..., channels]. The running statistics are state that is not trained. */
export class BatchNorm extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter;
  readonly runningMean: Parameter;
  readonly runningVar: Parameter;
  readonly #options: { readonly eps: number; readonly momentum: number };

  constructor(channels: number, { eps = 1e-5, momentum = 0.1 } = {}) {
    super();
    this.weight = parameter([channels], onesInit);
    this.bias = parameter([channels], zerosInit);
    this.runningMean = parameter([channels], zerosInit, { trainable: false });
    this.runningVar = parameter([channels], onesInit, { trainable: false });
    this.#options = { eps, momentum };
  }

  /** In training it normalises with the batch's statistics and assigns the running ones; else it changes nothing. */
  forward(x: Tensor, { training = false } = {}): Tensor {
    const running = { mean: this.runningMean, variance: this.runningVar };
    const o = { weight: this.weight, bias: this.bias, ...this.#options, training };
    const { y, mean, variance } = batchNorm(x, running, o);
    if (training) {
      this.runningMean.assign(mean);
      this.runningVar.assign(variance);
    }
    return y;
  }
}

/** Rows of a learned table: i32 [...] -> [..., features]. */
export class Embedding extends Module {
  readonly weight: Parameter;

  constructor(rows: number, features: number, std = 0.02) {
    super();
    this.weight = parameter([rows, features], normalInit(std));
  }

  forward(index: Tensor): Tensor {
    return this.weight.gatherRows(index);
  }
}

/** Zeroes a share `p` of the elements and scales the rest by 1 / (1 - p); the identity without a generator (evaluation). */
export function dropout(x: Tensor, p: number, rng: Rng | undefined): Tensor {
  if (!rng || p === 0) return x;
  const dropped = rng.uniform(x.shape).less(p);
  return dropped.where(0, x.mul(1 / (1 - p)));
}

export interface AttentionLayerOptions {
  readonly heads: number;
  /** Features per head; heads * dim is the inner width. */
  readonly dim: number;
  /** Width of the keys' and values' source; that of the queries when absent. */
  readonly context?: number;
  readonly bias?: boolean;
}

/** Multi-head attention, q, k, v without bias, output with bias: the CrossAttention of latent diffusion models. */
export class Attention extends Module {
  readonly toQ: Linear;
  readonly toK: Linear;
  readonly toV: Linear;
  readonly toOut: readonly [Linear];
  readonly #heads: number;

  constructor(features: number, o: AttentionLayerOptions) {
    super();
    const inner = o.heads * o.dim;
    const bias = o.bias ?? false;
    this.toQ = new Linear(features, inner, { bias });
    this.toK = new Linear(o.context ?? features, inner, { bias });
    this.toV = new Linear(o.context ?? features, inner, { bias });
    this.toOut = [new Linear(inner, features)];
    this.#heads = o.heads;
  }

  /** x [b, n, features], context [b, m, width] (x itself when absent) -> [b, n, features]. */
  forward(x: Tensor, context: Tensor = x, o: { causal?: boolean } = {}): Tensor {
    const split = (y: Tensor): Tensor => y.reshape([y.shape[0], y.shape[1], this.#heads, -1]);
    const y = split(this.toQ.forward(x)).attention(
      split(this.toK.forward(context)),
      split(this.toV.forward(context)),
      o,
    );
    return this.toOut[0].forward(y.reshape([y.shape[0], y.shape[1], -1]));
  }
}
