// In the order in which one would bring up a new machine: a constant, a sum of two, a reduction, a product, a gradient, a
// compiled step, twenty steps of training. The first thing to run when something is badly wrong.

import { expect } from "vitest";
import { compile, full, grad, Parameter, Rng, type Tensor, tensor } from "../engine/index.ts";
import { onEach } from "./device.ts";

const list = async (t: Tensor): Promise<number[]> => [...(await t.data())];

onEach("a constant", async () => expect(await list(full([2], 3))).toEqual([3, 3]));
onEach("an addition", async () => expect(await list(tensor([1, 2]).add(tensor([10, 20])))).toEqual([11, 22]));
onEach("a reduction", async () => expect(await tensor([1, 2, 3, 4], [2, 2]).sum().item()).toBe(10));
onEach("a product", async () =>
  expect(await list(tensor([1, 2, 3, 4], [2, 2]).matmul(tensor([0, 1, 1, 0], [2, 2])))).toEqual([2, 1, 4, 3]),
);
onEach("a gradient", async () => {
  const x = tensor([1, 2, 3]);
  expect(await list(grad(x.square().sum(), [x])[0])).toEqual([2, 4, 6]);
});
onEach("a compiled step", async () => {
  const double = compile(({ x }: { x: Tensor }) => ({ y: x.mul(2) }));
  expect(await list(double({ x: tensor([1, 2]) }).y)).toEqual([2, 4]);
  expect(await list(double({ x: tensor([3, 4]) }).y)).toEqual([6, 8]);
});
onEach("training: exclusive or, learnt by two layers", async () => {
  const rng = new Rng(1);
  const init = async (shape: number[]): Promise<Parameter> =>
    new Parameter(shape, (await rng.normal(shape).data()) as Float32Array);
  const weights = [await init([2, 8]), await init([8]), await init([8, 1])];
  const [w1, b1, w2] = weights;
  const x = tensor([0, 0, 0, 1, 1, 0, 1, 1], [4, 2]);
  const target = tensor([0, 1, 1, 0], [4, 1]);
  const step = compile(() => {
    const loss = x.matmul(w1).add(b1).tanh().matmul(w2).sub(target).square().mean();
    grad(loss, weights).forEach((g, i) => {
      weights[i].assign(weights[i].sub(g.mul(0.3)));
    });
    return { loss };
  });
  const losses: number[] = [];
  for (let i = 0; i < 20; i++) losses.push(await step({}).loss.item());
  expect(losses[19]).toBeLessThan(0.2 * losses[0]);
  expect(losses[19]).toBeLessThan(0.25); // answering one half everywhere
});
