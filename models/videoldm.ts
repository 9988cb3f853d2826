// VideoLDM (Blattmann et al. 2023, arXiv 2304.08818): Make-A-Video's layers, each mixed with what the image network says.
// With x the features in front of a temporal layer T_l,
//
//     y = a_l x + (1 - a_l) T_l(x),   a_l = sigmoid(p_l)
//
// where p_l is one learned number per layer: 38 of them, for the 22 T_conv and the 16 T_attn, the first one behind the
// first convolution left out. p_l = 0 at the start: half and half, so that both sides get gradients from the first step
// on. T_l starts as the identity, hence y = x whatever the a_l are. Where the layers go is video_unet.ts.

import type { Parameter, Rng, Tensor } from "../engine/index.ts";
import { constantInit, parameter } from "../engine/nn/index.ts";
import { TemporalConv, TemporalTransformer } from "./make_a_video.ts";

/** p_l, called `mix` in files; the paper fixes neither its name nor that it is a logit. */
function mixingScalar(): Parameter {
  return parameter([1], constantInit(0));
}

/** a x + (1 - a) (x + change) as x + (1 - a) change, where no digits cancel. */
function mixed(p: Parameter, x: Tensor, change: Tensor): Tensor {
  return x.add(change.mul(p.neg().sigmoid()));
}

export class MixedTemporalConv extends TemporalConv {
  readonly mix = mixingScalar();

  override forward(x: Tensor, rng?: Rng): Tensor {
    return mixed(this.mix, x, this.change(x, rng));
  }
}

export class MixedTemporalTransformer extends TemporalTransformer {
  readonly mix = mixingScalar();

  override forward(x: Tensor): Tensor {
    return mixed(this.mix, x, this.change(x));
  }
}
