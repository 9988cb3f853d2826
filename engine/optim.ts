// Optimisers. Their state (moments, step-dependent factors) is Parameters, updated in place by the compiled step and saved
// with a checkpoint; the update of one parameter is one fused kernel.

import { Parameter } from "./state.ts";
import { full, type Tensor } from "./tensor.ts";

export interface AdamWOptions {
  readonly beta1?: number;
  readonly beta2?: number;
  readonly eps?: number;
  readonly weightDecay?: number;
}

const zerosLike = (p: Parameter): Parameter =>
  new Parameter(p.shape, () => new Float32Array(p.shape.reduce((a, b) => a * b, 1)), { trainable: false });

/** Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2), bias-corrected. */
export class AdamW {
  readonly #params: ReadonlyMap<string, Parameter>;
  readonly #m = new Map<string, Parameter>();
  readonly #v = new Map<string, Parameter>();
  // 1 - beta^t, kept as itself: computed from beta^t it would lose its digits in the first steps.
  readonly #c1 = new Parameter([], new Float32Array(1), { trainable: false });
  readonly #c2 = new Parameter([], new Float32Array(1), { trainable: false });
  readonly #o: Required<AdamWOptions>;

  /** `params` by name: frozen ones are left out and get no moments. */
  constructor(params: ReadonlyMap<string, Parameter>, o: AdamWOptions = {}) {
    this.#params = new Map([...params].filter(([, p]) => p.trainable));
    this.#o = {
      beta1: o.beta1 ?? 0.9,
      beta2: o.beta2 ?? 0.999,
      eps: o.eps ?? 1e-8,
      weightDecay: o.weightDecay ?? 0.01,
    };
    for (const [name, p] of this.#params) {
      this.#m.set(name, zerosLike(p));
      this.#v.set(name, zerosLike(p));
    }
  }

  /** What `grad` should be taken with respect to, in the order `step` expects. */
  get targets(): Parameter[] {
    return [...this.#params.values()];
  }

  /** One update. `lr` as a tensor (fed to the step) varies without a new trace. */
  step(grads: readonly Tensor[], { lr }: { lr: Tensor | number }): void {
    const { beta1, beta2, eps, weightDecay } = this.#o;
    const rate = typeof lr === "number" ? full([], lr) : lr;
    this.#c1.assign(this.#c1.mul(beta1).add(1 - beta1));
    this.#c2.assign(this.#c2.mul(beta2).add(1 - beta2));
    const size = rate.div(this.#c1);
    const correction = this.#c2.rsqrt();
    const decay = rate.mul(-weightDecay).add(1);
    let i = 0;
    for (const [name, p] of this.#params) {
      const g = grads[i++];
      const m = this.#m.get(name) as Parameter;
      const v = this.#v.get(name) as Parameter;
      m.assign(m.mul(beta1).add(g.mul(1 - beta1)));
      v.assign(v.mul(beta2).add(g.mul(g).mul(1 - beta2)));
      p.assign(p.mul(decay).sub(m.mul(size).div(v.sqrt().mul(correction).add(eps))));
    }
  }

  /** Everything a resumed run needs, by name. */
  state(): Map<string, Parameter> {
    const named = (prefix: string, of: ReadonlyMap<string, Parameter>): [string, Parameter][] =>
      [...of].map(([n, p]) => [`${prefix}.${n}`, p]);
    return new Map([...named("m", this.#m), ...named("v", this.#v), ["c1", this.#c1], ["c2", this.#c2]]);
  }
}

/** Scales gradients down so that their joint L2 norm is at most `max`; also returns the norm before. */
export function clipGradNorm(grads: readonly Tensor[], max: number): { grads: Tensor[]; norm: Tensor } {
  const norm = grads
    .map((g) => g.square().sum())
    .reduce((a, b) => a.add(b))
    .sqrt();
  const scale = norm.add(1e-6).reciprocal().mul(max).minimum(1);
  return { grads: grads.map((g) => g.mul(scale)), norm };
}

/** Exponential moving average of parameters: shadow <- decay shadow + (1 - decay) parameter. */
export class Ema {
  readonly #params: ReadonlyMap<string, Parameter>;
  readonly #shadow = new Map<string, Parameter>();
  readonly #decay: number;

  constructor(params: ReadonlyMap<string, Parameter>, decay: number) {
    this.#params = new Map([...params].filter(([, p]) => p.trainable));
    this.#decay = decay;
    for (const [name, p] of this.#params) this.#shadow.set(name, zerosLike(p));
  }

  /** Call in the step, after the optimiser. `warmup` (fed; 1 on the first step, then 0) starts the average at the parameters. */
  update(warmup: Tensor): void {
    for (const [name, p] of this.#params) {
      const s = this.#shadow.get(name) as Parameter;
      const keep = warmup.neg().add(1).mul(this.#decay);
      s.assign(p.add(s.sub(p).mul(keep)));
    }
  }

  state(): Map<string, Parameter> {
    return new Map([...this.#shadow].map(([n, p]) => [n, p]));
  }
}
