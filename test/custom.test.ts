// customVjp and checkpoint: gradients as declared, the same bits with and without recomputation, and what it costs and saves
// in a planned step. Hessian-vector products of small networks are here too.

import { describe, expect, test } from "vitest";
import { grad, hvp, valueAndGrad, vjp } from "../engine/autograd.ts";
import { compile, trace } from "../engine/compile.ts";
import { checkpoint, customVjp } from "../engine/custom.ts";
import type { Program } from "../engine/device.ts";
import { ShapeError } from "../engine/error.ts";
import { LayerNorm, Linear, Module } from "../engine/nn/index.ts";
import { inHalf } from "../engine/optim/index.ts";
import { makePlan } from "../engine/plan/plan.ts";
import { Parameter, Rng } from "../engine/state.ts";
import { type Tensor, tensor } from "../engine/tensor.ts";
import { directional, hvpProblem, Inputs } from "../engine/testing/gradients.ts";
import { MINIMUM_CAPS } from "../kernels/wgsl.ts";
import { difference } from "./close.ts";
import { onEach, onGpu } from "./device.ts";

const wave = (...shape: number[]): Tensor =>
  tensor(
    Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i * 0.7 + shape.length)),
    shape,
  );

describe("valueAndGrad, hvp", () => {
  test("the value and the gradients of grad", () => {
    const inputs = new Inputs(1);
    const [x, y] = [inputs.make({ shape: [3] }), inputs.make({ shape: [3] })];
    const { value, grads } = valueAndGrad((a, b) => a.mul(b).square().sum(), [x, y] as const);
    expect([value, ...grads].map((t) => t.node)).toEqual(
      [x.mul(y).square().sum(), ...grad(x.mul(y).square().sum(), [x, y])].map((t) => t.node),
    );
  });
  test("x^T A x has the Hessian A + A^T", () => {
    const inputs = new Inputs(2);
    const [a, x, v] = [
      [3, 3],
      [3, 1],
      [3, 1],
    ].map((shape) => inputs.make({ shape }));
    const quadratic = x.transpose().matmul(a).matmul(x).sum();
    const [got, want] = inputs.evaluate([hvp(quadratic, [x], [v])[0], a.add(a.transpose()).matmul(v)]);
    got.forEach((g, i) => {
      expect(g).toBeCloseTo(want[i], 12);
    });
  });
  test("directions of another count or shape are refused", () => {
    const x = wave(3);
    expect(() => hvp(x.square().sum(), [x], [])).toThrow(
      new ShapeError("hvp: 1 tensors and 0 directions (give one of each shape)"),
    );
    expect(() => hvp(x.square().sum(), [x], [wave(2)])).toThrow("hvp: direction 0 has shape [2], its tensor [3]");
    expect(() => vjp(x, [x], wave(2))).toThrow("vjp: the cotangent has shape [2], the output [3]");
  });
  test("of a network with attention and a norm", async () => {
    class Net extends Module {
      readonly norm = new LayerNorm(8);
      readonly qkv = new Linear(8, 24);
      readonly out = new Linear(8, 2);
    }
    const net = new Net().seed(3);
    const x = wave(2, 5, 8);
    const parts = net.qkv.forward(net.norm.forward(x)).reshape([2, 5, 3, 2, 4]);
    const [q, k, v] = [0, 1, 2].map((i) => parts.slice(2, i, i + 1).reshape([2, 5, 2, 4]));
    const loss = net.out
      .forward(q.attention(k, v).reshape([2, 5, 8]).gelu())
      .square()
      .mean();
    await directional(loss, net.parameters(), { second: true });
  });
  test("a gradient that is wrong by a thousandth is noticed along a random direction", async () => {
    const w = new Parameter(
      [4, 4],
      Float32Array.from({ length: 16 }, (_, i) => Math.cos(i)),
    );
    const almost = customVjp(
      (x: Tensor) => x.tanh(),
      (g, [x]) => [g.mul(x.tanh().square().neg().add(1.001))],
    );
    await expect(directional(almost(wave(3, 4).matmul(w)), [w])).rejects.toThrow(
      /^direction 0 \(seed 1\): slope over 1 tensors: expected [-.\d]+, got [-.\d]+/,
    );
  });
});

describe("customVjp", () => {
  const round = customVjp(
    (x: Tensor) => x.add(0.5).floor(),
    (g) => [g],
  );
  onEach("a straight-through rounding", async () => {
    const x = tensor([0.2, 0.7, 1.6, -0.4]);
    const loss = round(x)
      .mul(tensor([1, 2, 3, 4]))
      .sum();
    expect([...(await round(x).data())]).toEqual([0, 1, 2, 0]);
    expect([...(await grad(loss, [x])[0].data())]).toEqual([1, 2, 3, 4]);
  });
  test("adds nothing to the plan", () => {
    const x = wave(8, 8);
    const kernels = (y: Tensor): number => planOf("one", () => ({ y })).dispatches.length;
    expect(kernels(round(x.mul(2)).add(1))).toBe(1);
  });
  test("is differentiated itself for second derivatives", () => {
    const cube = customVjp(
      (x: Tensor) => x.mul(x).mul(x),
      (g, [x]) => [g.mul(x).mul(x).mul(3)],
    );
    const inputs = new Inputs(1);
    const x = inputs.make({ shape: [4] });
    expect(hvpProblem(cube(x), [x], inputs)).toBeNull();
  });
  onEach("several inputs and results, one of them without a gradient", async () => {
    const split = customVjp(
      (x: Tensor, y: Tensor, index: Tensor) => [x.mul(y), y.sum(0), index.cast("f32")] as const,
      ([gp, gs, gi], [x, y], [product]) => [
        gp.mul(y),
        gp.mul(x).add(gs.expand(y.shape)).add(product.mul(0)).add(gi.sum().mul(0)),
        null,
      ],
    );
    const [x, y] = [wave(3, 2), wave(3, 2).add(2)];
    const index = tensor(new Int32Array([1, 2]));
    const [product, total, floats] = split(x, y, index);
    const loss = product.square().sum().add(total.mul(total).sum()).add(floats.sum());
    const plain = x.mul(y).square().sum().add(y.sum(0).square().sum());
    const [got, want] = [grad(loss, [x, y]), grad(plain, [x, y])];
    for (const i of [0, 1]) await expectSame(got[i], want[i], 1e-6);
    expect([...(await floats.data())]).toEqual([1, 2]);
  });
  onEach("operands of f16 and f32 as they are, gradients in the dtype of each", async () => {
    const scaled = customVjp(
      (x: Tensor, s: Tensor) => x.cast("f32").mul(s),
      (g, [x, s]) => [g.mul(s), g.mul(x.cast("f32"))],
    );
    const [x, s] = [tensor([1, 2]).cast("f16"), tensor([3, 5])];
    const gradients = grad(scaled(x, s).sum(), [x, s]);
    expect(gradients.map((t) => t.dtype)).toEqual(["f16", "f32"]);
    expect(await Promise.all(gradients.map(async (t) => [...(await t.data())]))).toEqual([
      [3, 5],
      [1, 2],
    ]);
  });
  test("gradients of the wrong number or shape are refused", () => {
    const few = customVjp(
      (x: Tensor, y: Tensor) => x.mul(y),
      (g) => [g],
    );
    const x = wave(3);
    expect(() => grad(few(x, wave(3).neg()).sum(), [x])).toThrow(/^customVjp \d+: 2 inputs and 1 gradients/);
    const turned = customVjp(
      (y: Tensor) => y.mul(2),
      (g) => [g.reshape([3, 1])],
    );
    expect(() => grad(turned(x).sum(), [x])).toThrow(/^customVjp \d+: gradient 0 has shape \[3, 1\], its input \[3\]/);
  });
});

async function expectSame(got: Tensor, want: Tensor, atol = 0): Promise<void> {
  const [a, b] = [await got.data(), await want.data()];
  expect(a.length).toBe(b.length);
  for (let i = 0; i < a.length; i++) expect(Math.abs(a[i] - b[i])).toBeLessThanOrEqual(atol);
}

function planOf(name: string, step: () => Readonly<Record<string, Tensor>>): ReturnType<typeof makePlan> {
  return makePlan(trace(name, step, {}), MINIMUM_CAPS);
}

/** A residual block of a deep network: norm, two products and an activation of four times the width. */
class Block extends Module {
  readonly norm = new LayerNorm(32);
  readonly up = new Linear(32, 128);
  readonly down = new Linear(128, 32);
  forward(x: Tensor): Tensor {
    return x.add(this.down.forward(this.up.forward(this.norm.forward(x)).gelu()));
  }
}
class Deep extends Module {
  readonly blocks: readonly Block[];
  constructor(depth: number) {
    super();
    this.blocks = Array.from({ length: depth }, () => new Block());
  }
  loss(x: Tensor, recompute: boolean): Tensor {
    const forward = (block: Block): ((h: Tensor) => Tensor) =>
      recompute ? checkpoint((h: Tensor) => block.forward(h)) : (h) => block.forward(h);
    return this.blocks
      .reduce((h, block) => forward(block)(h), x)
      .square()
      .mean();
  }
}

function deepStep(net: Deep, recompute: boolean): Program {
  const weights = net.parameters();
  const step = ({ x }: Readonly<Record<string, Tensor>>): Readonly<Record<string, Tensor>> => {
    const loss = net.loss(x, recompute);
    grad(loss, weights).forEach((g, i) => {
      weights[i].assign(weights[i].sub(g.mul(0.1)));
    });
    return { loss };
  };
  return trace("deep", step, { x: { shape: [256, 32], dtype: "f32" } });
}

describe("checkpoint", () => {
  test("lowers the planned peak of a deep network, for a forward pass more", () => {
    const net = new Deep(12).seed(1);
    const [plain, recomputed] = [false, true].map((on) => makePlan(deepStep(net, on), MINIMUM_CAPS));
    console.log(
      `12 blocks: arena ${plain.arena.bytes} -> ${recomputed.arena.bytes} bytes, dispatches ${plain.dispatches.length} -> ${recomputed.dispatches.length}`,
    );
    expect(recomputed.arena.bytes).toBeLessThan(0.4 * plain.arena.bytes);
    expect(recomputed.dispatches.length).toBeLessThan(1.5 * plain.dispatches.length);
  });

  onEach("gives the same loss and gradients, to the bit", async () => {
    const net = new Deep(2).seed(2);
    const weights = net.parameters();
    const x = wave(8, 32);
    const step = (recompute: boolean): Record<string, Tensor> => {
      const { value, grads } = valueAndGrad<readonly Tensor[]>(() => net.loss(x, recompute), weights);
      return Object.fromEntries([value, ...grads].map((t, i) => [`g${i}`, t]));
    };
    const [plain, recomputed] = [
      compile(() => step(false), { name: "plain" }),
      compile(() => step(true), { name: "again" }),
    ];
    const [want, got] = [plain({}), recomputed({})];
    for (const key of Object.keys(want)) await expectSame(got[key], want[key]);
  });

  onEach("gives the same within rounding around attention, which is one kernel in one of the two", async () => {
    const block = (h: Tensor): Tensor => h.attention(h.mul(0.5), h.flip([1])).tanh();
    const gradient = (f: (h: Tensor) => Tensor): Tensor => {
      const x = wave(1, 6, 2, 4);
      return grad(f(x).square().sum(), [x])[0];
    };
    await expectSame(gradient(checkpoint(block)), gradient(block), 1e-5);
  });

  onGpu("draws no new random numbers", async () => {
    const w = new Parameter(
      [6, 6],
      Float32Array.from({ length: 36 }, (_, i) => Math.sin(i)),
    );
    const gradient = (wrap: (f: (x: Tensor) => Tensor) => (x: Tensor) => Tensor): Promise<ArrayLike<number>> => {
      const rng = new Rng(5);
      const step = compile(() => {
        const dropped = wrap((x) =>
          x
            .matmul(w)
            .mul(rng.uniform([4, 6]))
            .tanh(),
        );
        return { g: grad(dropped(wave(4, 6)).square().sum(), [w])[0] };
      });
      return step({}).g.data();
    };
    expect(await gradient(checkpoint)).toEqual(await gradient((f) => f));
  });

  onEach("in half precision, and where f16 and f32 meet: the values and gradients of the function itself", async () => {
    const layer = new Linear(4, 3).seed(1);
    const x = wave(2, 4);
    const outer = wave(2, 3);
    const mixed = (h: Tensor): Tensor =>
      inHalf(() => layer.forward(h).tanh())
        .cast("f32")
        .add(outer);
    const pair = (h: Tensor): readonly [Tensor, Tensor] => inHalf(() => [layer.forward(h), h.square()] as const);
    const results = (again: typeof checkpoint): Record<string, Tensor> => {
      const half = x.cast("f16");
      const [one, two] = again(pair)(half);
      const each = [
        inHalf(() => again((h: Tensor) => layer.forward(h).tanh())(half)),
        again(mixed)(half),
        one.sum().add(two.sum()),
      ];
      // One loss each: gradients of several are added up in another order, which shows in f16.
      const all = each.map((y) => y.cast("f32").square().sum());
      const flat = all.flatMap((loss) => [loss, ...grad(loss, [x, outer, ...layer.parameters()])]);
      return Object.fromEntries(flat.map((t, i) => [i, t]));
    };
    const step = (again: typeof checkpoint): Record<string, Tensor> => compile(() => results(again))({});
    const [got, want] = [step(checkpoint), step(((f: unknown) => f) as typeof checkpoint)];
    for (const i of Object.keys(want)) await expectSame(got[i], want[i]);
  });

  test("passes gradients to what it captures, to several inputs, and again through itself", () => {
    const inputs = new Inputs(4);
    const [x, y, w] = [
      [2, 3],
      [2, 3],
      [3, 3],
    ].map((shape) => inputs.make({ shape }));
    const captured = w.tanh();
    const pair = checkpoint((a: Tensor, b: Tensor) => {
      const inner = checkpoint((h: Tensor) => h.matmul(captured).sigmoid());
      return [inner(a.mul(b)).add(b), inner(a).sum()] as const;
    });
    const [one, two] = pair(x, y.add(x));
    const out = one.mul(two);
    const plain = ((a: Tensor, b: Tensor) =>
      a.mul(b).matmul(captured).sigmoid().add(b).mul(a.matmul(captured).sigmoid().sum()))(x, y.add(x));
    const loss = (t: Tensor): Tensor => t.square().sum();
    const [got, want] = [grad(loss(out), [x, y, w]), grad(loss(plain), [x, y, w])];
    const values = inputs.evaluate([...got, ...want]);
    for (const i of [0, 1, 2]) expect(difference(values[i], values[i + 3], { rtol: 1e-13 })).toBeNull();
    expect(hvpProblem(out, [x, y, w], inputs, { tolerance: 1e-5 })).toBeNull();
  });
});
