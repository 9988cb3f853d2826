// Methods that multiply and add: matrix products, convolutions, attention. Leading axes are folded and options checked here;
// the op records are in ops/matmul.ts, conv.ts and composite.ts.

import { got, ShapeError, show } from "../error.ts";
import * as composite from "../ops/composite.ts";
import * as convolution from "../ops/conv.ts";
import type { ConvOptions, ConvTransposeOptions } from "../ops/conv_options.ts";
import * as convolve from "../ops/conv_options.ts";
import { convolveBack, convolve as convolveParts } from "../ops/conv_parts.ts";
import { type MatmulAttrs, matmul as matmulOp } from "../ops/matmul.ts";
import { broadcast, numel } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { none } from "./apply.ts";
import { Reduction } from "./reduction.ts";

export abstract class Product extends Reduction {
  /**
   * [..., m, k] @ [..., k, n]; leading axes broadcast, and a vector is a row on the left, a column on the right. `halves`:
   * f16 holds every element of both exactly, so that f16 matrix units may multiply them (f16 tensors say so themselves).
   * `triangle`: which half of the left matrices, or of the result, counts; what lies in the other is taken for, or made, zero.
   */
  matmul(y: Tensor, o: MatmulAttrs = none): Tensor {
    if (!(y instanceof Product)) throw new TypeError(`matmul: expected a tensor, got ${got(y)}`);
    if (this.rank === 1 && y.rank > 0) return dropAxis(this.reshape([1, -1]).matmul(y, o), y.rank === 1 ? -1 : -2);
    if (y.rank === 1 && this.rank > 0) return dropAxis(this.matmul(y.reshape([-1, 1]), o), -1);
    const [m, k] = this.shape.slice(-2);
    const n = y.shape[y.rank - 1];
    if (this.rank < 2 || y.rank < 2 || k !== y.shape[y.rank - 2]) {
      throw new ShapeError(
        `matmul: inner dimensions differ: ${show(this.shape)} @ ${show(y.shape)} (${k} vs ${y.shape[y.rank - 2]})`,
      );
    }
    if (y.rank === 2 && !(o.triangle && this.rank > 2))
      return this.apply(matmulOp, [this.reshape([numel(this.shape.slice(0, -1)), k]), y], o).reshape([
        ...this.shape.slice(0, -1),
        n,
      ]);
    const batch = broadcast("matmul", this.shape.slice(0, -2), y.shape.slice(0, -2));
    const folded = batch.length <= 2 ? batch : [numel(batch.slice(0, -1)), batch[batch.length - 1]];
    const a = this.expand([...batch, m, k]).reshape([...folded, m, k]);
    const b = y.expand([...batch, k, n]).reshape([...folded, k, n]);
    return this.apply(matmulOp, [a, b], o).reshape([...batch, m, n]);
  }
  /**
   * Channels-last convolution: x [b, ...spatial, c], w [...kernel, c / groups, o] -> [b, ...spatial', o], with one to three
   * spatial axes. Throws ShapeError where shapes or options disagree.
   */
  conv(w: Tensor, o: ConvOptions = {}): Tensor {
    const attrs = convolve.convAttrs("conv", this.shape, w.shape, o);
    if (convolve.isPointwise(w.shape, attrs)) return this.matmul(w.reshape(w.shape.slice(-2)));
    if (convolve.isPatches(w.shape, attrs)) {
      const { keep, split, order, merge } = convolve.patches(this.shape, w.shape);
      const cut = this.sliceWith({ start: keep.map(() => 0), size: keep, step: keep.map(() => 1) });
      const blocks = cut.reshape(split).permute(order).reshape(merge);
      return blocks.matmul(w.reshape([-1, w.shape[w.rank - 1]]));
    }
    const lifted = this.reshape(convolve.withUnits(this.shape, 1));
    const y = convolveParts(lifted, w.reshape(convolve.withUnits(w.shape, 0)), attrs);
    return y.reshape(convolve.withoutUnits(y.shape, this.rank));
  }
  /**
   * Transposed convolution (torch's conv_transpose1d to 3d): x [b, ...spatial, c], w [...kernel, o / groups, c] ->
   * [b, ...spatial', o] with sizes (n - 1) stride - padding + dilation (kernel - 1) + outputPadding + 1. It is the gradient
   * of the convolution of that weight and these options with respect to its input.
   */
  convTranspose(w: Tensor, o: ConvTransposeOptions = {}): Tensor {
    const attrs = convolve.transposeAttrs("convTranspose", this.shape, w.shape, o);
    const lifted = this.reshape(convolve.withUnits(this.shape, 1));
    const y = convolveBack(lifted, w.reshape(convolve.withUnits(w.shape, 0)), attrs);
    return y.reshape(convolve.withoutUnits(y.shape, this.rank));
  }
  /** The convolution on three spatial axes that `conv` comes to: x [b, d, h, w, c], w [kd, kh, kw, c / groups, o]. */
  convWith(w: Tensor, attrs: convolution.ConvAttrs): Tensor {
    return this.apply(convolution.conv, [this, w], attrs);
  }
  /** this = gradient of a convolution's output. */
  convInputGrad(w: Tensor, attrs: convolution.InputGradAttrs): Tensor {
    return this.apply(convolution.convInputGrad, [this, w], attrs);
  }
  /** this = input of a convolution, g = gradient of its output. */
  convWeightGrad(g: Tensor, attrs: convolution.WeightGradAttrs): Tensor {
    return this.apply(convolution.convWeightGrad, [this, g], attrs);
  }
  /** softmax(scale q k^T) v per head; q [b, n, heads, d], k and v [b, m, heads, d]. */
  attention(k: Tensor, v: Tensor, o: { scale?: number; causal?: boolean } = {}): Tensor {
    return this.apply(composite.attention, [this, k, v], {
      scale: o.scale ?? this.shape[3] ** -0.5,
      causal: o.causal ?? false,
    });
  }
}

/** Without an axis of size 1. */
function dropAxis(x: Tensor, axis: number): Tensor {
  return x.reshape(x.shape.filter((_, i) => i !== axis + x.rank));
}
