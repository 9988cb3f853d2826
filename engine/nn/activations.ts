// Activation functions beyond the everyday ones, which are methods: relu, silu, gelu, sigmoid, tanh, softplus. All are
// elementwise, so a chain of them is one kernel. Slopes at kinks are torch's. Nothing here has parameters.

import { ShapeError, show } from "../error.ts";
import type { Tensor } from "../tensor.ts";

/** x where x > 0, else slope x. */
export function leakyRelu(x: Tensor, slope = 0.01): Tensor {
  return x.greater(0).where(x, x.mul(slope));
}

/** x where x > 0, else alpha (exp(x) - 1) (Clevert et al. 2016). */
export function elu(x: Tensor, alpha = 1): Tensor {
  const positive = x.greater(0);
  // exp of what is not positive only: the other branch must stay finite for its gradient of zero to be zero.
  return positive.where(x, positive.where(0, x).exp().sub(1).mul(alpha));
}

/** scale * elu with the constants that keep mean and variance (Klambauer et al. 2017). */
export function selu(x: Tensor): Tensor {
  return elu(x, 1.6732632423543772).mul(1.0507009873554805);
}

/** min(max(x, 0), 6), with slope 0 at 0 and at 6. */
export function relu6(x: Tensor): Tensor {
  return x.greater(0).and(x.less(6)).where(x, x.clamp(0, 6).detach());
}

/** relu6(x + 3) / 6 (Howard et al. 2019). */
export function hardsigmoid(x: Tensor): Tensor {
  return relu6(x.add(3)).mul(1 / 6);
}

/** x relu6(x + 3) / 6 (Howard et al. 2019). */
export function hardswish(x: Tensor): Tensor {
  // Written by cases, so that large x stay as they are.
  const middle = x.mul(x.add(3)).mul(1 / 6);
  return x.greaterEqual(3).where(x, x.greater(-3).where(middle, 0));
}

/** min(max(x, low), high), with slope 0 at the bounds. */
export function hardtanh(x: Tensor, low = -1, high = 1): Tensor {
  return x.greater(low).and(x.less(high)).where(x, x.clamp(low, high).detach());
}

/** x tanh(softplus(x)) (Misra 2019). */
export function mish(x: Tensor): Tensor {
  return x.mul(x.softplus().tanh());
}

/** log(sigmoid(x)) */
export function logSigmoid(x: Tensor): Tensor {
  return x.neg().softplus().neg();
}

/** x / (1 + |x|) */
export function softsign(x: Tensor): Tensor {
  return x.div(x.abs().add(1));
}

/** The approximation of gelu by tanh: x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2 (Hendrycks & Gimpel 2016). */
export function geluTanh(x: Tensor): Tensor {
  const inner = x.square().mul(0.044715).add(1).mul(x);
  return x
    .mul(
      inner
        .mul(Math.sqrt(2 / Math.PI))
        .tanh()
        .add(1),
    )
    .mul(0.5);
}

/** The approximation of gelu that OpenAI's CLIP uses: x sigmoid(1.702 x). */
export function quickGelu(x: Tensor): Tensor {
  return x.mul(x.mul(1.702).sigmoid());
}

/** a gelu(b) for the halves [a, b] of the last axis (Shazeer 2020). */
export function geglu(x: Tensor): Tensor {
  const [a, b] = halves("geglu", x, -1);
  return a.mul(b.gelu());
}

/** a sigmoid(b) for the halves [a, b] of an axis (Dauphin et al. 2017). */
export function glu(x: Tensor, axis = -1): Tensor {
  const [a, b] = halves("glu", x, axis);
  return a.mul(b.sigmoid());
}

function halves(op: string, x: Tensor, axis: number): [Tensor, Tensor] {
  const n = x.shape.at(axis) ?? 1;
  if (n % 2 !== 0) throw new ShapeError(`${op}: axis ${axis} of ${show(x.shape)} has no two halves`);
  return [x.slice(axis, 0, n / 2), x.slice(axis, n / 2)];
}
