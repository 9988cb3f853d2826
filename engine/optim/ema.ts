// Exponential moving average of parameters, kept as state beside them. What samples better than the last weights of a
// diffusion model; who loads it into a model is the caller's business.

import type { Parameter } from "../state.ts";
import { full, type Tensor } from "../tensor.ts";
import { distinct, zerosLike } from "./optimizer.ts";

/** shadow <- decay shadow + (1 - decay) parameter. A tied weight has one shadow, under its first name. */
export class Ema {
  readonly #params: ReadonlyMap<string, Parameter>;
  readonly #shadow = new Map<string, Parameter>();
  readonly #decay: number;

  constructor(params: ReadonlyMap<string, Parameter>, decay: number) {
    this.#params = distinct(params);
    this.#decay = decay;
    for (const [name, p] of this.#params) this.#shadow.set(name, zerosLike(p));
  }

  /** Call in the step, after the optimiser. `warmup` (fed; 1 on the first step, then 0) starts the average at the parameters. */
  update(warmup: Tensor | number): void {
    const start = typeof warmup === "number" ? full([], warmup) : warmup;
    for (const [name, p] of this.#params) {
      const s = this.#shadow.get(name) as Parameter;
      const keep = start.neg().add(1).mul(this.#decay);
      s.assign(p.add(s.sub(p).mul(keep)));
    }
  }

  /** The averages by the names of their parameters: to save them beside those, see `joinState`. */
  state(): Map<string, Parameter> {
    return new Map(this.#shadow);
  }
}
