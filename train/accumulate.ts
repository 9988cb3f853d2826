// Gradients of several small batches added up before the optimiser moves: the paper's batch of six on a device that holds
// one. Called by diffusion.ts.

import { compile, type Feed, grad, type Named, Parameter, type Tensor } from "../engine/index.ts";
import type { LossScaler } from "../engine/optim/index.ts";

export interface StepParts<I extends Named, U extends Named> {
  readonly name: string;
  /** Batches per step. */
  readonly parts: number;
  /** What gradients are taken of: the optimiser's targets. */
  readonly targets: readonly Parameter[];
  /** Mean loss of a batch, []. */
  loss(batch: I): Tensor;
  /** Scales the loss, for gradients in half precision; absent: none. */
  readonly scaler?: LossScaler;
  /**
   * Moves the parameters by gradients in the order of `targets`, given what is fed once per step; where `finite` is false it
   * must move nothing. Returns the gradient's norm.
   */
  update(grads: readonly Tensor[], once: U, finite?: Tensor): Tensor;
}

export interface StepValues {
  /** Mean over the batches, and the norm of the mean gradient before clipping. */
  readonly loss: Tensor;
  readonly norm: Tensor;
}

/**
 * A training step on `parts` batches. One batch is one compiled program; several are a call each of a program that adds up
 * gradients, whose sums are the only further memory, and a call of one that updates. A step begins with new sums, so a run
 * that is resumed between steps needs none of them.
 */
export function trainingStep<I extends Named, U extends Named>(
  o: StepParts<I, U>,
): (batches: readonly Feed<I>[], once: Feed<U>) => StepValues {
  const { scaler } = o;
  const gradients = (loss: Tensor): Tensor[] => grad(scaler ? scaler.scale(loss) : loss, o.targets);
  const move = (scaled: readonly Tensor[], once: U): Tensor => {
    if (!scaler) return o.update(scaled, once);
    const { grads, finite } = scaler.unscale(scaled);
    return finite.where(o.update(grads, once, finite), 0); // a step that is left out has no norm
  };
  if (o.parts === 1) {
    const whole = compile(
      (inputs: I & U) => {
        const loss = o.loss(inputs);
        return { loss, norm: move(gradients(loss), inputs) };
      },
      { name: o.name },
    );
    return ([batch], once) => whole({ ...batch, ...once } as Feed<I & U>);
  }
  const zeros = (shape: readonly number[]): Parameter =>
    new Parameter(shape, () => new Float32Array(shape.reduce((a, b) => a * b, 1)), { trainable: false });
  const sums = o.targets.map((p) => zeros(p.shape));
  const total = zeros([]);
  const add = compile(
    ({ first, ...batch }: Named) => {
      const loss = o.loss(batch as I);
      const begin = first.greater(0.5);
      const plus = (sum: Parameter, x: Tensor): void => sum.assign(begin.where(x, sum.add(x)));
      gradients(loss).forEach((g, i) => {
        plus(sums[i], g.cast("f32"));
      });
      plus(total, loss);
      return {};
    },
    { name: o.name },
  );
  const update = compile(
    (once: U) => {
      const share = 1 / o.parts;
      const norm = move(
        sums.map((sum) => sum.mul(share)),
        once,
      );
      return { loss: total.mul(share), norm };
    },
    { name: `${o.name} update` },
  );
  return (batches, once) => {
    batches.forEach((batch, i) => {
      add({ ...batch, first: Number(i === 0) } as Feed<Named>);
    });
    return update(once);
  };
}
