// Nothing grows: a thousand training steps leave buffers, bytes and the process as they were, programs that are dropped give
// everything back, and eager loops keep what they hold and no more.

import { expect } from "vitest";
import { compile, grad, Rng, type Tensor, tensor } from "../engine/index.ts";
import { Parameter } from "../engine/state.ts";
import { collected } from "./collect.ts";
import { onGpu } from "./device.ts";

const sines = (shape: number[], s: number): Float32Array =>
  Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(s * i + s) / 4);
const weight = (...shape: number[]): Parameter => new Parameter(shape, () => sines(shape, shape.length));

/** A block as in a UNet (norm, SiLU, convolution, residual), pooled into a perceptron; AdamW-like updates; noise. */
function trainingStep() {
  const [k, w1, w2] = [weight(3, 3, 4, 4), weight(4, 8), weight(8, 1)];
  const weights = [k, w1, w2];
  const momenta = weights.map((w) => weight(...w.shape));
  const rng = new Rng(1);
  return compile(
    ({ x, lr }: { x: Tensor; lr: Tensor }) => {
      const noisy = x.add(rng.normal(x.shape).mul(0.01));
      const m = noisy.reshape([2, 36, 2, 2]).moments(1e-5);
      const part = (i: number): Tensor => m.slice(2, i, i + 1).reshape([2, 1, 2, 1]);
      const normed = noisy.reshape([2, 36, 2, 2]).sub(part(0)).mul(part(1)).reshape(x.shape);
      const hidden = normed.silu().conv(k, { padding: 1 }).add(x).mean([1, 2]); // [2, 4]
      const loss = hidden.matmul(w1).tanh().matmul(w2).square().mean();
      grad(loss, weights).forEach((g, i) => {
        momenta[i].assign(momenta[i].mul(0.9).add(g));
        weights[i].assign(weights[i].sub(momenta[i].mul(lr)));
      });
      return { loss };
    },
    { name: "growth" },
  );
}

const BLOCK = 250;

onGpu("a thousand training steps leave device memory and the process as they were", async (device) => {
  const step = trainingStep();
  const shape = [2, 6, 6, 4];
  const run = async (onStep: (loss: Tensor) => void = () => {}): Promise<number> => {
    for (let i = 0; i < BLOCK; i++) {
      const { loss } = step({ x: tensor(sines(shape, i % 7), shape), lr: 1e-3 });
      onStep(loss);
      if (i % 10 === 9) expect(await loss.item()).toBeGreaterThan(0);
    }
    await collected();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  let held = await run();
  const before = device.memory();
  const growth: number[] = [];
  for (let block = 0; block < 4; block++) {
    const now = await run();
    growth.push((now - held) / BLOCK);
    held = now;
  }
  // Not more, that is: what earlier tests dropped may be collected in between.
  expect(device.memory().buffers).toBeLessThanOrEqual(before.buffers);
  expect(device.memory().bytes).toBeLessThanOrEqual(before.bytes);
  // Of the process what JavaScript holds, wrappers of buffers included: the driver's own allocations come and go with other
  // load. The heap settles slowly, so the block that grew least counts: what leaks grows in each.
  expect(Math.min(...growth), `bytes per step: ${growth.map(Math.round)}`).toBeLessThan(200);
  const kept: Tensor[] = [];
  await run((loss) => void kept.push(loss.keep()));
  expect(device.memory().buffers).toBeGreaterThan(before.buffers + BLOCK / 2);
});

onGpu("programs that are dropped give everything back", async (device) => {
  const use = async (n: number): Promise<void> => {
    for (let i = 0; i < n; i++) {
      const step = compile(({ x }: { x: Tensor }) => ({ y: x.mul(2).sum(), z: x.add(1) }), { name: "dropped" });
      for (let call = 0; call < 3; call++) await step({ x: tensor([1, 2, 3]) }).y.item();
    }
    await collected();
  };
  await use(5);
  const before = device.memory();
  await use(25);
  expect(device.memory().buffers - before.buffers).toBeLessThanOrEqual(2); // one program holds 7
});

onGpu("a result outlives the step that made it, and its memory outlives the step's", async () => {
  const y = await (async () => {
    const step = compile(({ x }: { x: Tensor }) => ({ y: x.add(1) }), { name: "gone" });
    return step({ x: tensor([1, 2, 3, 4]) }).y;
  })();
  await collected();
  for (let i = 0; i < 5; i++) await tensor([9, 9, 9, 9]).mul(i).data(); // would overwrite memory that was returned
  expect([...(await y.data())]).toEqual([2, 3, 4, 5]);
});

onGpu("an eager loop that awaits holds a bounded number of buffers", async (device) => {
  const before = device.memory().buffers;
  let most = 0;
  let x = tensor(new Float32Array(256));
  for (let i = 0; i < 600; i++) {
    x = x.mul(0.9).add(1);
    await x.data();
    most = Math.max(most, device.memory().buffers - before);
    if (i % 50 === 49) await collected();
  }
  expect(most).toBeLessThan(150);
});
