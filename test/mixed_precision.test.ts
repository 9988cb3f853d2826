// Mixed precision: a network that is trained on f16 casts of f32 weights learns what it learns in f32; overflow is survived,
// underflow prevented, and a resumed run goes on to the same bits.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { load, save } from "../engine/checkpoint.ts";
import { compile, grad, joinState, Parameter, Rng, type Tensor, tensor } from "../engine/index.ts";
import { BatchNorm, LayerNorm, Linear, Module, mse } from "../engine/nn/index.ts";
import { AdamW, clipGradNorm, inHalf, LossScaler, type LossScalerOptions, Sgd } from "../engine/optim/index.ts";
import { expectClose } from "./close.ts";
import { onEach, onGpu } from "./device.ts";

class Net extends Module {
  readonly first = new Linear(2, 16);
  readonly norm = new LayerNorm(16);
  readonly second = new Linear(16, 1);
  forward(x: Tensor): Tensor {
    return this.second.forward(this.norm.forward(this.first.forward(x)).silu());
  }
}

interface Run {
  readonly losses: number[];
  readonly scales: number[];
  readonly state: Map<string, Parameter>;
  go(steps: number): Promise<void>;
}

/** Learns whether a point lies in a disc. `half`: the forward and backward passes are in f16. */
function start({ half, scaling }: { half: boolean; scaling?: LossScalerOptions }): Run {
  const net = new Net().seed(1);
  const adam = new AdamW(net.state());
  const scaler = new LossScaler(scaling);
  const rng = new Rng(1);
  const forward = (x: Tensor): Tensor => (half ? inHalf(() => net.forward(x.cast("f16"))) : net.forward(x));
  const step = compile(() => {
    const x = rng.uniform([64, 2]).mul(2).sub(1);
    const y = x.square().sum(-1, { keepdims: true }).less(0.5).cast("f32");
    const loss = mse(forward(x).cast("f32"), y);
    const { value } = scaler;
    const used = value.mul(1);
    const { grads, finite } = scaler.unscale(grad(scaler.scale(loss), adam.targets));
    adam.step(clipGradNorm(grads, 1).grads, { lr: 0.02, when: finite });
    return { loss, used };
  });
  const run: Run = {
    losses: [],
    scales: [],
    state: joinState({ net: net.state(), adam: adam.state(), scaler: scaler.state(), rng: rng.state }),
    async go(steps) {
      for (let i = 0; i < steps; i++) {
        const { loss, used } = step({});
        run.losses.push(await loss.item());
        run.scales.push(await used.item());
      }
    },
  };
  return run;
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

onEach("training in f16 follows training in f32", async () => {
  const [half, single] = [start({ half: true }), start({ half: false })];
  for (const run of [half, single]) await run.go(60);
  // The first steps differ by rounding only: f16 keeps 11 bits, and a few roundings happen on the way to the loss.
  half.losses.slice(0, 5).forEach((loss, i) => {
    expect(Math.abs(loss - single.losses[i])).toBeLessThan(0.01 * single.losses[i]);
  });
  const ends = [half, single].map((run) => mean(run.losses.slice(-10)));
  expect(ends[1]).toBeLessThan(0.5 * single.losses[0]); // it does learn
  expect(Math.abs(ends[0] - ends[1])).toBeLessThan(0.1 * ends[1]);
});

onEach(
  "overflow is survived: steps are left out until the scale fits, and the rest of the run is as good",
  async () => {
    const run = start({ half: true, scaling: { initial: 2 ** 24, interval: 1000 } });
    const weights = run.state.get("net.first.weight") as Parameter;
    const before = await weights.data();
    await run.go(1);
    expect(await weights.data()).toEqual(before); // the first step overflowed
    await run.go(69);
    const [first, last] = [run.scales[0], run.scales[run.scales.length - 1]];
    expect(last).toBeLessThan(first);
    expect(run.scales.every((s, i) => i === 0 || s === run.scales[i - 1] || s === run.scales[i - 1] / 2)).toBe(true);
    expect(run.losses.every(Number.isFinite)).toBe(true);
    expect(mean(run.losses.slice(-10))).toBeLessThan(0.5 * run.losses[0]);
  },
);

onGpu("a resumed run goes on to the same bits", async () => {
  const folder = await mkdtemp(join(tmpdir(), "gifgrad-scaler-"));
  try {
    const scaling = { initial: 2 ** 24, interval: 5 };
    const [whole, begun, resumed] = [0, 1, 2].map(() => start({ half: true, scaling }));
    await whole.go(24);
    await begun.go(12);
    await save(join(folder, "run.safetensors"), begun.state);
    await load(join(folder, "run.safetensors"), resumed.state);
    await resumed.go(12);
    expect(resumed.losses).toEqual(whole.losses.slice(12));
    expect(resumed.scales).toEqual(whole.scales.slice(12));
    for (const [name, p] of whole.state)
      expect([name, ...(await p.data())]).toEqual([name, ...(await resumed.state.get(name)!.data())]);
  } finally {
    await rm(folder, { recursive: true });
  }
});

onEach("gradients too small for f16 arrive when they are scaled, and not when they are not", async () => {
  const moved: number[] = [];
  for (const initial of [1, 2 ** 16]) {
    const w = new Parameter([1], Float32Array.of(1));
    const [sgd, scaler] = [new Sgd(new Map([["w", w]])), new LossScaler({ initial })];
    const step = compile(() => {
      const loss = inHalf(() => w.mul(1))
        .cast("f32")
        .mul(2 ** -27)
        .sum(); // its gradient is 2^-27: half has none below 2^-24
      const { grads, finite } = scaler.unscale(grad(scaler.scale(loss), [w]));
      sgd.step(grads, { lr: 2 ** 20, when: finite });
      return {};
    });
    step({});
    moved.push(1 - (await w.item()));
  }
  expect(moved).toEqual([0, 2 ** -7]);
});

onEach("the scale doubles after so many good steps in a row, within its bounds, and halves at a bad one", async () => {
  const scaler = new LossScaler({ initial: 4, interval: 2, max: 8, min: 2 });
  const step = compile(({ g }: { g: Tensor }) => {
    const { grads, finite } = scaler.unscale([g]);
    return { g: grads[0], ok: finite.cast("f32"), next: scaler.value.mul(1) };
  });
  const [good, bad] = [1, Number.POSITIVE_INFINITY];
  const next: number[] = [];
  const ok: number[] = [];
  for (const g of [good, good, good, good, good, bad, good, good, bad, bad, bad, Number.NaN, good]) {
    const out = step({ g: tensor([g]) });
    next.push(await out.next.item());
    ok.push(await out.ok.item());
  }
  expect(next).toEqual([4, 8, 8, 8, 8, 4, 4, 8, 4, 2, 2, 2, 2]);
  expect(ok).toEqual([1, 1, 1, 1, 1, 0, 1, 1, 0, 0, 0, 0, 1]);
});

onEach(
  "inside inHalf trainable parameters read as f16 and others as they are; outside all are what they were",
  async () => {
    const [weight, buffer] = [true, false].map(
      (trainable) => new Parameter([1], Float32Array.of(1 / 3), { trainable }),
    );
    const inside = inHalf(() => [weight.mul(1).dtype, buffer.mul(1).dtype, weight.dtype]);
    expect(inside).toEqual(["f16", "f32", "f16"]);
    expect([weight.dtype, weight.mul(1).dtype]).toEqual(["f32", "f32"]);
    expect(() => inHalf(() => weight.assign(weight.mul(2)))).toThrow("cannot hold f16");
  },
);

onEach("batch normalisation keeps its statistics in f32 inside inHalf, and gives x's dtype", async () => {
  const run = async (half: boolean): Promise<number[][]> => {
    const norm = new BatchNorm(2, { momentum: 0.5 });
    const body = (x: Tensor, training: boolean): Tensor =>
      half ? inHalf(() => norm.forward(x.cast("f16"), { training })) : norm.forward(x, { training });
    const step = compile(({ x }: { x: Tensor }) => {
      const [y, still] = [body(x, true), body(x, false)];
      expect([y.dtype, still.dtype]).toEqual(half ? ["f16", "f16"] : ["f32", "f32"]);
      const [g] = grad(
        y
          .cast("f32")
          .square()
          .mul(tensor([1, 2]))
          .sum(),
        [norm.weight],
      );
      return { y: y.cast("f32"), still: still.cast("f32"), g };
    });
    const out = step({ x: tensor([300, 2, 301, 4, 303, 9], [3, 2]) }); // the variance, near 1, is nothing beside 300^2
    const all = [norm.runningMean, norm.runningVar, out.y, out.still, out.g];
    return Promise.all(all.map(async (t) => [...(await t.data())]));
  };
  const [half, single] = [await run(true), await run(false)];
  // Statistics are computed as in f32, from values that f16 has; results are rounded once, gradients twice.
  for (const i of [0, 1]) expectClose(half[i], single[i], `statistics ${i}`, { rtol: 1e-6 });
  for (const i of [2, 3, 4]) expectClose(half[i], single[i], `result ${i}`, { rtol: 2 ** -9 });
});

test("inside inHalf a frozen layer is read as f16 too, and thawing trains no buffers", () => {
  const [linear, norm] = [new Linear(2, 2).freeze(), new BatchNorm(2).freeze()];
  const y = inHalf(() => norm.forward(linear.forward(tensor([1, 2], [1, 2]).cast("f16"))));
  expect(y.dtype).toBe("f16");
  expect(norm.freeze(false).parameters()).toEqual([norm.weight, norm.bias]);
});
