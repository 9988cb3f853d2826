// What the two networks of VideoGPT (Yan et al. 2021) share: its multi-head attention, plain, along one axis of a video, or
// with remembered keys and values; its layer norm and its table of positions. Attribute names are those of the authors'
// files. Called by vqvae.ts and prior.ts.

import { type Parameter, type Rng, ShapeError, type Tensor } from "../engine/index.ts";
import {
  dropout,
  Linear,
  Module,
  maskedFill,
  normalInit,
  onesInit,
  parameter,
  scaledDotProductAttention,
  zerosInit,
} from "../engine/nn/index.ts";

/** Keys and values of the tokens so far: state of a sampler, filled one token at a time. */
export interface Memory {
  /** [b, slots, heads, d] each. */
  readonly keys: Parameter;
  readonly values: Parameter;
}

export interface AttentionOptions {
  /** Position i sees positions 0 to i. */
  readonly causal?: boolean;
  /** Share of the attention weights that is dropped, where a generator is given (training). */
  readonly dropout?: number;
  readonly rng?: Rng;
  /** x is one token, of slot `at` (i32 []): it sees itself and what is remembered of slots before it. */
  readonly memory?: Memory;
  readonly at?: Tensor;
}

/** Multi-head attention (Vaswani et al. 2017): queries, keys and values without bias, the output with one. */
export class MultiHeadAttention extends Module {
  readonly wQs: Linear;
  readonly wKs: Linear;
  readonly wVs: Linear;
  readonly fc: Linear;
  readonly #heads: number;

  /**
   * `features` of the queries and the result, `source` of what is attended to; the output's initial weights shrink with the
   * number of `layers` of the network. Throws ShapeError when the heads do not divide the features.
   */
  constructor(features: number, heads: number, { source = features, layers = 1 } = {}) {
    super();
    if (features % heads !== 0 || source % heads !== 0)
      throw new ShapeError(`attention: ${features} and ${source} features do not divide into ${heads} heads`);
    const normal = (inputs: number, outputs: number): Linear =>
      new Linear(inputs, outputs, { bias: false, init: normalInit(inputs ** -0.5) });
    this.wQs = normal(features, features);
    this.wKs = normal(source, features);
    this.wVs = normal(source, source);
    this.fc = new Linear(source, features, { init: normalInit((features * layers) ** -0.5) });
    this.#heads = heads;
  }

  /** x [b, n, features], source [b, m, width] (x itself when absent) -> [b, n, features]. */
  forward(x: Tensor, source: Tensor = x, o: AttentionOptions = {}): Tensor {
    const split = (y: Tensor): Tensor => y.reshape([y.shape[0], y.shape[1], this.#heads, -1]);
    const [q, k, v] = [this.wQs.forward(x), this.wKs.forward(source), this.wVs.forward(source)].map(split);
    return this.fc.forward(attend(q, k, v, o).reshape([x.shape[0], x.shape[1], -1]));
  }

  /** Every row of one axis of a video x [b, t, h, w, c] by itself. */
  along(x: Tensor, axis: "t" | "h" | "w"): Tensor {
    const { b, t, h, w } = x.dims("b t h w c");
    const others = ["b", "t", "h", "w"].filter((name) => name !== axis).join(" ");
    const rows = this.forward(x.rearrange(`b t h w c -> (${others}) ${axis} c`));
    return rows.rearrange(`(${others}) ${axis} c -> b t h w c`, { b, t, h, w });
  }
}

function attend(q: Tensor, k: Tensor, v: Tensor, { causal, memory, at, ...o }: AttentionOptions): Tensor {
  if (memory && at) {
    const slot = k.arange(memory.keys.shape[1]);
    const here = slot.equal(at).reshape([-1, 1, 1]);
    memory.keys.assign(here.where(k, memory.keys));
    memory.values.assign(here.where(v, memory.values));
    return scaledDotProductAttention(q, memory.keys, memory.values, { mask: slot.lessEqual(at) });
  }
  if (!o.rng || !o.dropout) return scaledDotProductAttention(q, k, v, { causal });
  // Dropping weights needs them written out.
  const byHead = (x: Tensor): Tensor => x.permute([0, 2, 1, 3]);
  const scores = byHead(q)
    .matmul(byHead(k).transpose())
    .mul(q.shape[3] ** -0.5);
  const future = k.arange(k.shape[1]).greater(k.arange(q.shape[1]).reshape([-1, 1]));
  const weights = (causal ? maskedFill(scores, future, -1e30) : scores).softmax();
  return byHead(dropout(weights, o.dropout, o.rng).matmul(byHead(v)));
}

/**
 * Layer normalisation as VideoGPT has it: (x - mean) (1e-5 + 1 / sqrt(var)) g + b. The 1e-5 stands outside of the root, so
 * that features which are all equal give NaN where others give b.
 */
export class OuterLayerNorm extends Module {
  readonly g: Parameter;
  readonly b: Parameter;

  constructor(features: number) {
    super();
    this.g = parameter([features], onesInit);
    this.b = parameter([features], zerosInit);
  }

  forward(x: Tensor): Tensor {
    const centred = x.sub(x.mean(-1, { keepdims: true }));
    const scale = centred.square().mean(-1, { keepdims: true }).rsqrt().add(1e-5);
    return centred.mul(scale).mul(this.g).add(this.b);
  }
}

/** A learned vector per position of a grid [t, h, w]: those of its frame, row and column side by side. */
export class PositionTables extends Module {
  /** d_0 [t, features / 3], d_1 [h, features / 3], d_2 [w, features / 3]. */
  readonly emb: Readonly<Record<string, Parameter>>;
  readonly #grid: readonly number[];

  /** Throws ShapeError when the features do not divide into as many parts as the grid has axes. */
  constructor(grid: readonly number[], features: number) {
    super();
    if (features % grid.length !== 0)
      throw new ShapeError(`positions: ${features} features do not divide among ${grid.length} axes`);
    const table = (n: number): Parameter => parameter([n, features / grid.length], normalInit(0.01));
    this.emb = Object.fromEntries(grid.map((n, axis) => [`d_${axis}`, table(n)]));
    this.#grid = grid;
  }

  /** [t h w, features], positions in raster order. */
  forward(): Tensor {
    const [first, ...others] = this.#grid.map((n, axis) => {
      const table = this.#table(axis);
      const shape = this.#grid.map((_, i) => (i === axis ? n : 1));
      return table.reshape([...shape, -1]).expand([...this.#grid, table.shape[1]]);
    });
    return first.concat(others, -1).reshape([this.#grid.reduce((a, b) => a * b, 1), -1]);
  }

  /** Those of some positions: their numbers in raster order, i32 [m] -> [m, features]. */
  at(positions: Tensor): Tensor {
    let rest = positions.cast("f32");
    const parts = this.#grid.map((n, axis) => ({ n, axis })).reverse();
    const [last, ...before] = parts.map(({ n, axis }) => {
      const above = rest.add(0.5).div(n).floor(); // half a place: division is not exact
      const row = rest.sub(above.mul(n)).cast("i32");
      rest = above;
      return this.#table(axis).gatherRows(row);
    });
    return [...before.reverse(), last].reduce((x, y) => x.concat([y], 1));
  }

  #table(axis: number): Parameter {
    return this.emb[`d_${axis}`];
  }
}
