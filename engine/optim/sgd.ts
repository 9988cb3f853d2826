// Stochastic gradient descent with momentum, plain or Nesterov's (Sutskever et al. 2013), as torch.optim.SGD defines it:
// the momentum starts at the first gradient, and the rate multiplies the momentum, not what goes into it.

import type { Parameter } from "../state.ts";
import type { Tensor } from "../tensor.ts";
import { fraction, Optimizer, type OptimizerOptions } from "./optimizer.ts";

export interface SgdOptions extends OptimizerOptions {
  /** 0 keeps no state. */
  readonly momentum?: number;
  /** Share of each gradient but the first that is kept out of the momentum. */
  readonly dampening?: number;
  readonly nesterov?: boolean;
}

/** b <- momentum b + (1 - dampening) g; p <- p - lr b, or with `nesterov` p <- p - lr (g + momentum b). */
export class Sgd extends Optimizer {
  readonly #momentum: number;
  readonly #dampening: number;
  readonly #nesterov: boolean;
  readonly #b: ReadonlyMap<string, Parameter> | undefined;
  /** 0 before the first step, then 1: the first gradient is taken whole. */
  readonly #started: Parameter | undefined;

  constructor(params: ReadonlyMap<string, Parameter>, o: SgdOptions = {}) {
    super(params, o);
    this.#momentum = fraction("momentum", o.momentum ?? 0);
    this.#dampening = o.dampening ?? 0;
    this.#nesterov = o.nesterov ?? false;
    if (this.#nesterov && (this.#momentum === 0 || this.#dampening !== 0))
      throw new RangeError("nesterov needs a momentum above 0 and no dampening");
    if (this.#momentum > 0) this.#b = this.slots("momentum");
    if (this.#momentum > 0 && this.#dampening !== 0) this.#started = this.scalar("started");
  }

  protected override update(grads: readonly Tensor[], rates: readonly Tensor[]): void {
    const share = this.#started?.mul(-this.#dampening).add(1);
    this.entries.forEach(({ name, parameter, weightDecay }, i) => {
      const g = weightDecay === 0 ? grads[i] : grads[i].add(parameter.mul(weightDecay));
      const direction = this.#direction(name, g, share);
      this.set(parameter, parameter.sub(direction.mul(rates[i])));
    });
    if (this.#started) this.set(this.#started, this.#started.mul(0).add(1));
  }

  #direction(name: string, g: Tensor, share: Tensor | undefined): Tensor {
    const b = this.#b?.get(name);
    if (!b) return g;
    this.set(b, b.mul(this.#momentum).add(share ? g.mul(share) : g));
    return this.#nesterov ? g.add(b.mul(this.#momentum)) : b;
  }
}
