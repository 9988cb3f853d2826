// Codes from a prior: one after another with remembered keys and values ("next"), or all at once in a few rounds that keep
// the most confident ("masked"). Codes stay on the device until all are chosen. Called by train/sample_videogpt.ts.

import { compile, type Feed, type Named, Parameter, type Step, type Tensor, tensor } from "../engine/index.ts";
import { argmax, gather, indexSelect, logSoftmax, topk } from "../engine/nn/index.ts";
import { lowest, type Prior } from "./prior.ts";
import type { Memory } from "./videogpt_blocks.ts";

export interface ChoiceOptions {
  /** Always the likeliest code. */
  readonly greedy?: boolean;
  /** Only the k likeliest codes can be chosen; absent: all. */
  readonly topK?: number;
}

export interface DrawOptions {
  /** Logits are divided by this; above 0. Default 1. */
  readonly temperature?: number;
  /** i32 [b, slots], of a prior with tags. */
  readonly tags?: Tensor;
}

/**
 * One code per row of logits [m, codes] -> i32 [m]: the one in whose share of [0, 1) the number u [m] lies, where shares are
 * softmax(logits / temperature), in the order of the codes.
 */
export function choose(logits: Tensor, u: Tensor, temperature: Tensor, { greedy, topK }: ChoiceOptions): Tensor {
  const codes = logits.shape[1];
  if (greedy) return argmax(logits, 1);
  const scaled = logits.div(temperature);
  const least = topK && topK < codes ? topk(scaled, topK, 1).values.slice(1, topK - 1) : null;
  const kept = least ? scaled.greaterEqual(least).where(scaled, -1e30) : scaled;
  const ends = kept.softmax(1).cumsum(1);
  const at = u.reshape([-1, 1]).mul(ends.slice(1, codes - 1)); // rounding leaves the last end a little beside 1
  return ends
    .lessEqual(at)
    .cast("f32")
    .sum(1)
    .minimum(codes - 1)
    .cast("i32");
}

/**
 * Draws from a prior of objective "next". One compiled step adds one token: it reads the code before it, its slot's number
 * and what the layers remember, and costs the same in every slot. Tags come first, then the codes in raster order.
 */
export class NextSampler {
  readonly batch: number;
  readonly #slots: number;
  readonly #codes: Parameter;
  readonly #step: Step<Named, { chosen: Tensor }>;

  /** `table` [codes, embedding]: the codes' vectors. Throws Error for a prior of another objective, or with given frames. */
  constructor(prior: Prior, table: Tensor, batch: number, o: ChoiceOptions = {}) {
    const { width, heads, tags, objective, frames } = prior.config;
    if (objective !== "next" || frames !== null)
      throw new Error('NextSampler: expected a prior of objective "next" without given frames');
    const [n, prefix] = [prior.length, tags?.slots ?? 0];
    this.batch = batch;
    this.#slots = prefix + n;
    const codes = new Parameter([batch, n], () => new Int32Array(batch * n), { dtype: "i32", trainable: false });
    this.#codes = codes;
    const shape = [batch, this.#slots, heads, width / heads];
    const zeros = (): Parameter =>
      new Parameter(shape, () => new Float32Array(batch * this.#slots * width), { trainable: false });
    const memories = prior.attnStack.attnNets.map((): Memory => ({ keys: zeros(), values: zeros() }));

    this.#step = compile(
      ({ slot, uniform, temperature, tags: named }: Named) => {
        const at = slot.cast("i32");
        const place = at.sub(prefix);
        const column = (x: Tensor, i: Tensor): Tensor => indexSelect(x, 1, i.reshape([1])); // [b, 1]
        const before = column(codes, place.sub(1).maximum(0));
        const shifted = place.greater(0).where(prior.fcIn.forward(table.gatherRows(before)), prior.attnStack.start);
        const position = prior.attnStack.posEmbd.at(place.maximum(0).reshape([1]));
        const token = shifted.add(position);
        const tag = named && prior.embedTags(column(named, at.minimum(prefix - 1)));
        const here = tag ? place.less(0).where(tag, token) : token;
        const logits = prior.logits(prior.attnStack.next(here, at, memories)).reshape([batch, -1]);
        const chosen = choose(logits, column(uniform, place.maximum(0)).reshape([batch]), temperature, o);
        const now = codes.arange(n).equal(place);
        codes.assign(now.where(chosen.reshape([batch, 1]), codes));
        return { chosen };
      },
      { name: "next code" },
    );
  }

  /**
   * Draws all codes; yields the number of tokens done after each, of `length`. `uniform` f32 [b, n] has a number in [0, 1)
   * per code; rows do not see each other, so each gives what it would give alone.
   */
  async *draw(uniform: Tensor, { temperature = 1, tags }: DrawOptions = {}): AsyncGenerator<number> {
    for (let slot = 0; slot < this.#slots; slot++) {
      const { chosen } = this.#step({ slot, uniform, temperature, ...(tags ? { tags } : {}) });
      if (slot % WAIT_EVERY === WAIT_EVERY - 1) await chosen.data();
      yield slot + 1;
    }
  }

  /** Tokens of a draw: tags and codes. */
  get length(): number {
    return this.#slots;
  }

  /** What the last draw chose: i32 [b, n]. */
  get codes(): Tensor {
    return this.#codes;
  }
}

/** Tokens between waits for the device: the host must not run ahead without end. */
const WAIT_EVERY = 32;

/**
 * Draws from a prior of objective "masked" (MaskGIT's sampler, Chang et al. 2022): all places start masked. Each of K rounds
 * draws a code for every masked place and keeps those it is most confident of, so that floor(n cos(pi r / 2 K)) stay masked
 * after round r.
 */
export class MaskedSampler {
  readonly rounds: number;
  readonly #prior: Prior;
  readonly #step: Step<Named, { codes: Tensor }>;

  /** Throws Error for a prior of another objective. */
  constructor(prior: Prior, table: Tensor, rounds = 12, o: ChoiceOptions = {}) {
    if (prior.config.objective !== "masked") throw new Error('MaskedSampler: expected a prior of objective "masked"');
    this.rounds = rounds;
    this.#prior = prior;
    this.#step = compile(
      ({ codes, uniform, left, temperature, tags }: Named) => {
        const { b, n } = codes.dims("b n");
        const masked = codes.less(0);
        const logits = prior.forward(prior.corrupt(codes.maximum(0), table, masked), { tags }).reshape([b * n, -1]);
        const drawn = choose(logits, uniform.reshape([b * n]), temperature, o);
        const logs = gather(logSoftmax(logits), 1, drawn.reshape([-1, 1])).reshape([b, n]);
        const confidence = masked.where(logs, 1); // known codes are surer than any logarithm
        const now = masked.where(drawn.reshape([b, n]), codes);
        return { codes: lowest(confidence, left).where(-1, now) };
      },
      { name: "masked round" },
    );
  }

  /** Yields i32 [b, n] after each round, -1 where still masked. `uniform` f32 [rounds, b, n]. */
  async *draw(uniform: Tensor, { temperature = 1, tags }: DrawOptions = {}): AsyncGenerator<Tensor> {
    const { b, n } = uniform.dims("rounds b n");
    let codes = tensor(new Int32Array(b * n).fill(-1), [b, n]);
    for (let r = 1; r <= this.rounds; r++) {
      const u = uniform.slice(0, r - 1, r).reshape([b, n]);
      const left = r === this.rounds ? 0 : Math.floor(n * Math.cos((Math.PI * r) / (2 * this.rounds)));
      const feed: Feed<Named> = { codes, uniform: u, left, temperature, ...(tags ? { tags } : {}) };
      codes = this.#step(feed).codes;
      yield codes;
    }
  }

  get length(): number {
    return this.#prior.length;
  }
}
