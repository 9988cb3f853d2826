// Adam (Kingma & Ba 2015, algorithm 1), AdamW (Loshchilov & Hutter 2019, algorithm 2) and AMSGrad (Reddi et al. 2018,
// algorithm 2). They differ in where the weight decay goes in and in whose second moment divides.

import type { Parameter } from "../state.ts";
import type { Tensor } from "../tensor.ts";
import { fraction, Optimizer, type OptimizerOptions, type Target } from "./optimizer.ts";

export interface AdamOptions extends OptimizerOptions {
  readonly beta1?: number;
  readonly beta2?: number;
  readonly eps?: number;
  /** Divides by the largest second moment so far instead of the present one. */
  readonly amsgrad?: boolean;
}

export type AdamWOptions = AdamOptions;

/** Adam; weight decay, 0 unless given, is added to the gradient (an L2 penalty), as torch.optim.Adam has it. */
export class Adam extends Optimizer {
  readonly #m: ReadonlyMap<string, Parameter>;
  readonly #v: ReadonlyMap<string, Parameter>;
  readonly #largest: ReadonlyMap<string, Parameter> | undefined;
  // 1 - beta^t, kept as itself: computed from beta^t it would lose its digits in the first steps.
  readonly #c1: Parameter;
  readonly #c2: Parameter;
  readonly #beta1: number;
  readonly #beta2: number;
  readonly #eps: number;

  constructor(params: ReadonlyMap<string, Parameter>, o: AdamOptions = {}) {
    super(params, o);
    this.#beta1 = fraction("beta1", o.beta1 ?? 0.9);
    this.#beta2 = fraction("beta2", o.beta2 ?? 0.999);
    this.#eps = o.eps ?? 1e-8;
    this.#m = this.slots("m");
    this.#v = this.slots("v");
    this.#largest = o.amsgrad ? this.slots("vmax") : undefined;
    this.#c1 = this.scalar("c1");
    this.#c2 = this.scalar("c2");
  }

  protected override update(grads: readonly Tensor[], rates: readonly Tensor[]): void {
    const [beta1, beta2] = [this.#beta1, this.#beta2];
    this.set(this.#c1, this.#c1.mul(beta1).add(1 - beta1));
    this.set(this.#c2, this.#c2.mul(beta2).add(1 - beta2));
    this.entries.forEach((target, i) => {
      const { name, parameter } = target;
      const [m, v] = [this.#m.get(name) as Parameter, this.#v.get(name) as Parameter];
      const g = this.penalised(grads[i], target);
      this.set(m, m.mul(beta1).add(g.mul(1 - beta1)));
      this.set(v, v.mul(beta2).add(g.mul(g).mul(1 - beta2)));
      const largest = this.#largest?.get(name);
      if (largest) this.set(largest, largest.maximum(v));
      const width = (largest ?? v).sqrt().mul(this.#c2.rsqrt()).add(this.#eps);
      this.set(parameter, this.decayed(target, rates[i]).sub(m.mul(rates[i].div(this.#c1)).div(width)));
    });
  }

  /** The gradient that the moments see. */
  protected penalised(g: Tensor, { parameter, weightDecay }: Target): Tensor {
    return weightDecay === 0 ? g : g.add(parameter.mul(weightDecay));
  }

  /** The parameter that the step starts from. */
  protected decayed({ parameter }: Target, _rate: Tensor): Tensor {
    return parameter;
  }
}

/** Adam with decoupled weight decay, 0.01 unless given: p <- (1 - lr decay) p before the step. */
export class AdamW extends Adam {
  constructor(params: ReadonlyMap<string, Parameter>, o: AdamOptions = {}) {
    super(params, { ...o, weightDecay: o.weightDecay ?? 0.01 });
  }

  protected override penalised(g: Tensor): Tensor {
    return g;
  }

  protected override decayed({ parameter, weightDecay }: Target, rate: Tensor): Tensor {
    return weightDecay === 0 ? parameter : parameter.mul(rate.mul(-weightDecay).add(1));
  }
}
