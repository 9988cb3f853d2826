// W12 in Gifgrad: an autoencoder of clips with a codebook (van den Oord et al. 2017) and 3-D convolutions. Called by
// gifgrad/index.ts.

import { type Device, type Tensor, tensor } from "../../../engine/index.ts";
import { argmin, Conv, Embedding, Module, mse } from "../../../engine/nn/index.ts";
import { channelsLast, R } from "../data.ts";
import type { Subject } from "../subject.ts";
import { loadInto, training } from "./run.ts";

const cube = [3, 3, 3];

/** Nearest neighbour, twice the size along every axis: [b, d, h, w, c] -> [b, 2d, 2h, 2w, c] */
function double(x: Tensor): Tensor {
  const { b, d, h, w, c } = x.dims("b d h w c");
  return x
    .reshape([b, d, 1, h, 1, w, 1, c])
    .expand([b, d, 2, h, 2, w, 2, c])
    .reshape([b, 2 * d, 2 * h, 2 * w, c]);
}

class VqVae extends Module {
  readonly e1 = new Conv(3, 32, cube, { stride: 2, padding: 1 });
  readonly e2 = new Conv(32, 64, cube, { stride: 2, padding: 1 });
  readonly e3 = new Conv(64, 32, cube, { padding: 1 });
  readonly code = new Embedding(256, 32);
  readonly d1 = new Conv(32, 64, cube, { padding: 1 });
  readonly d2 = new Conv(64, 32, cube, { padding: 1 });
  readonly d3 = new Conv(32, 3, cube, { padding: 1 });

  /** x [b, d, h, w, 3] -> reconstruction error + codebook error + commitment. */
  loss(x: Tensor): Tensor {
    const z = this.e3.forward(this.e2.forward(this.e1.forward(x).silu()).silu());
    const q = this.quantize(z.detach().reshape([-1, 32])).reshape(z.shape);
    const through = z.add(q.sub(z).detach()); // straight-through: the decoder's gradient goes to z
    const y = this.d3.forward(double(this.d2.forward(double(this.d1.forward(through).silu())).silu()));
    return mse(y, x).add(mse(q, z.detach())).add(mse(z, q.detach()).mul(0.25));
  }

  /** The nearest code of each row: argmin |z|^2 - 2 z e + |e|^2. */
  quantize(z: Tensor): Tensor {
    const codes = this.code.weight.detach();
    const distance = z
      .square()
      .sum(-1, { keepdims: true })
      .sub(z.matmul(codes.transpose()).mul(2))
      .add(codes.square().sum(-1));
    return this.code.forward(argmin(distance, -1));
  }
}

export function vqvae(device: Device): Subject {
  const model = new VqVae();
  loadInto(model, "vqvae");
  const shape = [2, 3, 8, 32, 32];
  const batch = { x: tensor(channelsLast(R(shape, 1), shape), [2, 8, 32, 32, 3]).keep() };
  return training(device, model, batch, ({ x }) => model.loss(x));
}
