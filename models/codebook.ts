// The discrete half of a VQ-VAE (van den Oord et al. 2017): vectors become the nearest of K codes, and gradients pass
// straight through. The codes are no parameters: they are moving averages of the vectors that chose them (appendix A.1
// there), and codes that die are put back among the living. All of that is state, moved by training steps alone.

import { type Parameter, type Rng, ShapeError, type Tensor } from "../engine/index.ts";
import { argmin, Module, mse, normalInit, oneHot, parameter, zerosInit } from "../engine/nn/index.ts";

/** Share of the old in counts and sums. */
const DECAY = 0.99;
/** Laplace smoothing of counts: codes without vectors divide by something. */
const SMOOTHING = 1e-7;
/** A code whose running count is below this is dead. */
const ALIVE = 1;
const COMMITMENT = 0.25;
/** Of the noise that tells copies of a vector apart, times sqrt(dimension). */
const TILE_NOISE = 0.01;

/** Rows of a batch to put dead codes at: a generator, or their order as i32 [rows] (to repeat another run's choice). */
export interface Restarts {
  readonly restart: Rng | Tensor;
  /** For the first batch of all, which makes the codes. */
  readonly init: Rng | Tensor;
}

export interface Quantised {
  /** Straight through: the value of the codes, the gradient of z. As z. */
  readonly vectors: Tensor;
  /** i32, z without its last axis. */
  readonly codes: Tensor;
  /** 0.25 mean (z - sg(e))^2: pulls the encoder towards the codes. */
  readonly commitment: Tensor;
  /** exp of the entropy of this batch's use of the codes: K when all are used equally, 1 when all vectors have one code. */
  readonly perplexity: Tensor;
  /** Share of the codes that are alive: at least one vector of a batch chooses them on average (running). */
  readonly alive: Tensor;
}

/**
 * K codes e_k with running counts N_k and sums m_k. A training batch with n_k vectors z of code k, of sum s_k, moves
 *
 *     N_k = 0.99 N_k + 0.01 n_k,    m_k = 0.99 m_k + 0.01 s_k
 *     e_k = m_k / ((N_k + 1e-7) / (N + K 1e-7) N),    N = sum N_k
 *     e_k = a vector of the batch, where N_k < 1
 *
 * behind its own use: the batch is quantised with the codes before. The first batch makes codes of its vectors, with counts
 * of one; counts of zero are how a new codebook is known.
 */
export class Codebook extends Module {
  /** [K, d] */
  readonly embeddings: Parameter;
  /** N, [K] */
  readonly counts: Parameter;
  /** m, [K, d] */
  readonly sums: Parameter;

  constructor(codes: number, dim: number) {
    super();
    const buffer = { trainable: false };
    this.embeddings = parameter([codes, dim], normalInit(1), buffer);
    this.counts = parameter([codes], zerosInit, buffer);
    this.sums = parameter([codes, dim], zerosInit, buffer);
  }

  /** Codes i32 [...] -> their vectors [..., d]. */
  lookup(codes: Tensor): Tensor {
    return this.embeddings.gatherRows(codes);
  }

  /** z [..., d] -> the nearest codes and what follows from them; with `training` the codes move. */
  forward(z: Tensor, training?: Restarts): Quantised {
    const [codes, dim] = this.embeddings.shape;
    if (z.shape[z.rank - 1] !== dim) throw new ShapeError(`codebook: expected vectors of ${dim} features, got ${z}`);
    const flat = z.detach().reshape([-1, dim]);
    if (training) this.#start(flat, training.init);
    const table = this.embeddings;
    const products = flat.matmul(table.transpose());
    const distances = table.square().sum(1).sub(products.mul(2)); // less |z|^2, which is the same for all codes
    const nearest = argmin(distances, 1);
    const chosen = oneHot(nearest, codes).cast("f32");
    const quantised = table.gatherRows(nearest).reshape(z.shape);
    if (training) this.#move(flat, chosen, training.restart);
    const share = chosen.mean(0);
    return {
      vectors: z.add(quantised.sub(z).detach()),
      codes: nearest.reshape(z.shape.slice(0, -1)),
      commitment: mse(z, quantised.detach()).mul(COMMITMENT),
      perplexity: share.mul(share.add(1e-10).log()).sum().neg().exp(),
      alive: this.counts.greaterEqual(ALIVE).cast("f32").mean(),
    };
  }

  /** The first batch of all: codes are vectors of it. Later ones change nothing here. */
  #start(flat: Tensor, rows: Rng | Tensor): void {
    const fresh = this.counts.sum().lessEqual(0);
    const picked = this.#pick(flat, rows);
    this.embeddings.assign(fresh.where(picked, this.embeddings));
    this.sums.assign(fresh.where(picked, this.sums));
    this.counts.assign(fresh.where(1, this.counts));
  }

  #move(flat: Tensor, chosen: Tensor, rows: Rng | Tensor): void {
    const towards = (old: Tensor, value: Tensor): Tensor => old.mul(DECAY).add(value.mul(1 - DECAY));
    const counts = towards(this.counts, chosen.sum(0));
    const sums = towards(this.sums, chosen.transpose().matmul(flat));
    const total = counts.sum();
    const smoothed = counts
      .add(SMOOTHING)
      .div(total.add(counts.shape[0] * SMOOTHING))
      .mul(total);
    const means = sums.div(smoothed.reshape([-1, 1]));
    const alive = counts.greaterEqual(ALIVE).reshape([-1, 1]);
    this.embeddings.assign(alive.where(means, this.#pick(flat, rows)));
    this.counts.assign(counts);
    this.sums.assign(sums);
  }

  /** One vector of the batch for each code, none twice; copies with noise where there are fewer vectors than codes. */
  #pick(flat: Tensor, rows: Rng | Tensor): Tensor {
    const [codes, dim] = this.embeddings.shape;
    const n = flat.shape[0];
    const copies = Math.ceil(codes / n);
    if (!("uniform" in rows)) return flat.gatherRows(rows.slice(0, 0, codes));
    const order = rows
      .uniform([n * copies])
      .argsort()
      .slice(0, 0, codes);
    if (copies === 1) return flat.gatherRows(order);
    const row = order.sub(order.cast("f32").add(0.5).div(n).floor().cast("i32").mul(n));
    return flat.gatherRows(row).add(rows.normal([codes, dim]).mul(TILE_NOISE / Math.sqrt(dim)));
  }
}
