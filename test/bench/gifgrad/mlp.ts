// W8 in Gifgrad: a multilayer perceptron with cross entropy. Called by gifgrad/index.ts.

import { type Device, type Tensor, tensor } from "../../../engine/index.ts";
import { crossEntropy, Linear, Module } from "../../../engine/nn/index.ts";
import { I, R } from "../data.ts";
import type { Subject } from "../subject.ts";
import { loadInto, training } from "./run.ts";

class Mlp extends Module {
  readonly l1 = new Linear(784, 512);
  readonly l2 = new Linear(512, 512);
  readonly l3 = new Linear(512, 10);

  forward(x: Tensor): Tensor {
    return this.l3.forward(this.l2.forward(this.l1.forward(x).relu()).relu());
  }
}

export function mlp(device: Device): Subject {
  const model = new Mlp();
  loadInto(model, "mlp");
  const batch = { x: tensor(R([256, 784], 1), [256, 784]).keep(), label: tensor(I(256, 10, 2)).keep() };
  return training(device, model, batch, ({ x, label }) => crossEntropy(model.forward(x), label), 0);
}
