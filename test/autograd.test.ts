// Reverse mode itself: sums over paths, what is not reached, what must not be counted twice, and depth. The ops' own
// gradients are in ops.test.ts. Everything here is float64 on the host.

import { describe, expect, test } from "vitest";
import { grad, vjp } from "../engine/autograd.ts";
import { ShapeError } from "../engine/error.ts";
import { toposort } from "../engine/graph.ts";
import { maxAlong, maxPool, minAlong } from "../engine/nn/index.ts";
import { type Tensor, tensor } from "../engine/tensor.ts";
import { gradientProblem, hvpProblem, Inputs } from "../engine/testing/gradients.ts";
import { onEach } from "./device.ts";

const values = (inputs: Inputs, ...ts: Tensor[]): number[][] => inputs.evaluate(ts).map((v) => [...v]);

describe("micro cases", () => {
  const inputs = new Inputs(1);
  const x = inputs.make({ shape: [] }, [3, 3]);
  const y = inputs.make({ shape: [] }, [-2, -2]);
  const cases: [string, () => Tensor[], number[]][] = [
    ["a product", () => grad(x.mul(y), [x, y]), [-2, 3]],
    ["the same factor twice", () => grad(x.mul(x), [x]), [6]],
    ["two paths", () => grad(x.mul(y).add(x), [x, y]), [-1, 3]],
    ["a shared part", () => grad(x.mul(y).square().add(x.mul(y)), [x, y]), [22, -33]],
    ["what the loss does not depend on", () => grad(x.square(), [y, x]), [0, 6]],
    ["the loss itself", () => grad(x, [x]), [1]],
    ["a stop", () => grad(x.mul(x.detach()), [x]), [3]],
    ["only behind a stop", () => grad(x.detach().square(), [x]), [0]],
    ["through and at an intermediate", () => ((m) => grad(m.mul(x), [m, x]))(x.mul(y)), [3, -12]],
    ["a tie of max, shared", () => grad(x.maximum(x), [x]), [1]],
    ["a third derivative", () => grad(grad(grad(x.mul(x).mul(x), [x])[0], [x])[0], [x]), [6]],
  ];
  test.each(cases)("%s", (_, make, want) => {
    expect(values(inputs, ...make()).flat()).toEqual(want);
  });

  // As torch has them on the CPU: amax and amin share, max(dim) and pooling give all to the first, maximum halves.
  const tied = tensor([0.5, 0.5, 0]);
  const rows = tensor([0.5, 0.5, 0, 1, 1, 1], [2, 3]);
  const weights = tensor([3, 6]);
  const other = tensor([0.5, 0, 0]);
  const ties: [string, () => Tensor[], number[]][] = [
    ["max", () => grad(tied.max().mul(3), [tied]), [1.5, 1.5, 0]],
    ["min", () => grad(tied.neg().min().mul(3), [tied]), [-1.5, -1.5, -0]],
    ["max of rows", () => vjp(rows.max(1), [rows], weights), [1.5, 1.5, 0, 2, 2, 2]],
    ["min of rows", () => vjp(rows.neg().min(1), [rows], weights), [-1.5, -1.5, -0, -2, -2, -2]],
    ["maxAlong", () => vjp(maxAlong(rows, 1).values, [rows], weights), [3, 0, 0, 6, 0, 0]],
    ["minAlong", () => vjp(minAlong(rows.neg(), 1).values, [rows], weights), [-3, 0, 0, -6, 0, 0]],
    ["maxPool", () => vjp(maxPool(rows.reshape([2, 3, 1]), 3).reshape([2]), [rows], weights), [3, 0, 0, 6, 0, 0]],
    ["maximum", () => grad(tied.maximum(other).sum().mul(3), [tied, other]), [1.5, 3, 1.5, 1.5, 0, 1.5]],
    ["minimum", () => grad(tied.minimum(other).sum().mul(3), [tied, other]), [1.5, 0, 1.5, 1.5, 3, 1.5]],
  ];
  test.each(ties)("a tie of %s", (_, make, want) => {
    expect(values(inputs, ...make()).flat()).toEqual(want);
  });

  test("a loss that is not one number", () => {
    const v = inputs.make({ shape: [2, 3] });
    expect(() => grad(v, [v])).toThrow(
      new ShapeError("grad: the loss must be one number, got [2, 3] (take its mean or sum)"),
    );
  });
  test("zeros have the shape of what was asked for", () => {
    const unused = inputs.make({ shape: [2, 3] });
    expect(grad(x, [unused])[0].shape).toEqual([2, 3]);
  });
  test("vjp weighs the outputs", () => {
    const v = inputs.make({ shape: [3] }, [1, 2]);
    const g = inputs.make({ shape: [3] });
    const [a, b, got] = values(inputs, v, g, vjp(v.square(), [v], g)[0]);
    expect(got).toEqual(a.map((p, i) => b[i] * p + b[i] * p));
  });
});

describe("composites without a gradient of their own", () => {
  const shape = [1, 3, 2, 4];
  const forms: [string, (x: Tensor, y: Tensor) => Tensor][] = [
    ["given one tensor three times", (x) => x.attention(x, x)],
    ["keys that depend on the queries", (x, y) => x.attention(x.mul(y), y)],
    ["an output that is used twice", (x, y) => ((a) => a.mul(a))(x.attention(y, y, { causal: true }))],
  ];
  test.each(forms)("%s", (_, f) => {
    const inputs = new Inputs(3);
    const [x, y] = [inputs.make({ shape }), inputs.make({ shape })];
    expect(gradientProblem(f(x, y), [x, y], inputs, 3)).toBeNull();
  });
});

test("a function of many ops, first and second derivatives along random directions", () => {
  const inputs = new Inputs(5);
  const x = inputs.make({ shape: [2, 4, 4, 3] });
  const w = inputs.make({ shape: [3, 3, 3, 2] });
  const v = inputs.make({ shape: [2, 5] });
  const h = x.conv(w, { padding: 1 }).silu();
  const out = h
    .reshape([2, 16, 1, 2])
    .moments(1e-2)
    .reshape([2, 2])
    .add(h.mean([1, 2]))
    .matmul(v)
    .softmax();
  expect(gradientProblem(out, [x, w, v], inputs, 5)).toBeNull();
  expect(hvpProblem(out, [x, w, v], inputs, { tolerance: 1e-5 })).toBeNull();
});

test("a chain of 5,000 ops", () => {
  const inputs = new Inputs(1);
  const x = inputs.make({ shape: [2] }, [1, 2]);
  let y = x;
  for (let i = 0; i < 5000; i++) y = i % 2 === 0 ? y.mul(1.001) : y.add(0.01);
  const [g] = grad(y.sum(), [x]);
  expect(toposort([g.node]).length).toBeGreaterThan(2000);
  const [got] = values(inputs, g);
  for (const v of got) expect(v / 1.001 ** 2500).toBeCloseTo(1, 10);
});

onEach("values that have been read", async () => {
  const x = tensor([1, 2, 3]);
  const y = x.square();
  const loss = y.sum();
  expect(await loss.item()).toBe(14);
  expect([...(await grad(loss, [x])[0].data())]).toEqual([2, 4, 6]);
  await y.data();
  expect([...(await grad(loss, [y])[0].data())]).toEqual([1, 1, 1]);
  const later = y.mul(3).sum(); // of the value, which is a constant now
  expect([...(await grad(later, [y])[0].data())]).toEqual([3, 3, 3]);
  expect(() => grad(later, [x])).toThrow(/a value on the way to it was read.*take the gradient first/is);
  expect([...(await grad(later.add(x.sum()), [x])[0].data())]).toEqual([1, 1, 1]);
  expect([...(await grad(tensor([1, 2]).sum(), [x])[0].data())]).toEqual([0, 0, 0]);
});
