// Mixed precision (Micikevicius et al. 2018): weights and moments stay f32, the model computes on f16 casts of them, and the
// loss is scaled so that small gradients do not vanish in f16. The scale follows what the gradients allow.

import { Parameter } from "../state.ts";
import type { Tensor } from "../tensor.ts";
import { withHalves } from "../trace.ts";
import { globalNorm } from "./clip.ts";

/**
 * Runs `forward` with every f32 parameter, frozen or not, read as its f16 cast; gradients arrive at the f32 parameter.
 * Buffers (`Parameter.buffer`: running statistics, say) stay f32. Inputs must be f16 too (`x.cast("f16")`), because dtypes
 * do not mix unasked. Take the loss in f32, and the optimiser's step, outside.
 */
export function inHalf<T>(forward: () => T): T {
  return withHalves(forward);
}

export interface LossScalerOptions {
  readonly initial?: number;
  /** Steps without overflow after which the scale doubles. */
  readonly interval?: number;
  /** The scale stays within these. */
  readonly min?: number;
  readonly max?: number;
}

/**
 * Dynamic loss scaling. A step whose gradients are not all finite is left out, and the scale halved; after `interval` good
 * ones it doubles. Scale and count are state: save them with the optimiser, and a resumed run goes on to the same bits.
 */
export class LossScaler {
  readonly #scale: Parameter;
  /** Good steps since the scale last changed. */
  readonly #good = new Parameter([], new Float32Array(1), { trainable: false });
  readonly #o: Required<LossScalerOptions>;

  constructor({ initial = 2 ** 16, interval = 2000, min = 1, max = 2 ** 24 }: LossScalerOptions = {}) {
    if (!(min > 0 && min <= initial && initial <= max))
      throw new RangeError(`expected 0 < ${min} <= ${initial} <= ${max}`);
    this.#o = { initial, interval, min, max };
    this.#scale = new Parameter([], Float32Array.of(initial), { trainable: false });
  }

  /** What to take the gradient of instead of `loss` (f32). */
  scale(loss: Tensor): Tensor {
    return loss.mul(this.#scale);
  }

  /**
   * From gradients of the scaled loss to those of the loss, in f32, and whether all are finite (bool []): give it to the
   * optimiser's `when`. Sets the scale of the next step, so call it once per step.
   */
  unscale(scaled: readonly Tensor[]): { grads: Tensor[]; finite: Tensor } {
    const { interval, min, max } = this.#o;
    const inverse = this.#scale.reciprocal();
    const grads = scaled.map((g) => g.cast("f32").mul(inverse));
    // One number that is not finite makes the norm so; clipGradNorm computes the same norm, once.
    const finite = globalNorm(grads).isFinite();
    const good = this.#good.add(1);
    const due = good.greaterEqual(interval);
    const grown = due.where(this.#scale.mul(2).minimum(max), this.#scale);
    const next = finite.where(grown, this.#scale.mul(0.5).maximum(min));
    const count = finite.where(due.where(0, good), 0);
    this.#scale.assign(next);
    this.#good.assign(count);
    return { grads, finite };
  }

  /** The present scale: []. */
  get value(): Tensor {
    return this.#scale;
  }

  /** Everything a resumed run needs, by name. */
  state(): Map<string, Parameter> {
    return new Map([
      ["scale", this.#scale],
      ["good", this.#good],
    ]);
  }
}
