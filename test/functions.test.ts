// The functions of nn and einsum against plain loops in float64, at drawn sizes, and their gradients against central
// differences. What torch computes of the same functions is checked by golden_runner.test.ts; here are the definitions.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  DTypeError,
  defineOp,
  einsum,
  grad,
  openDevice,
  ShapeError,
  type Tensor,
  tensor,
  zeros,
} from "../engine/index.ts";
import * as nn from "../engine/nn/index.ts";
import type { Array64 } from "../engine/ops/op.ts";
import { numel } from "../engine/shape.ts";
import { drawer } from "../engine/testing/draw.ts";
import { gradientProblem, Inputs } from "../engine/testing/gradients.ts";
import { difference, expectClose } from "./close.ts";
import { onEach } from "./device.ts";
import { argsortOf, type Case, type Cases, filled, range, reader } from "./function_case.ts";
import { computing } from "./functions_computing.ts";
import { moving } from "./functions_moving.ts";

const cases: Cases = { ...computing, ...moving };

function problemOf(one: Case, seed: number): string | null {
  const inputs = new Inputs(seed);
  const ins = one.inputs.map((wanted) => inputs.make(wanted, one.domain));
  const out = one.call(...ins);
  if (out.shape.join() !== one.shape.join()) return `shape [${out.shape}], expected [${one.shape}]`;
  const want = filled(one.shape, one.at(...ins.map((t) => reader(inputs.values.get(t.node) as Array64))));
  const [got] = inputs.evaluate([out]);
  const floats = ins.filter((t) => t.dtype === "f32");
  const problem = difference(got, want, { rtol: 1e-12, scale: 1 });
  return problem ?? (one.constant ? null : gradientProblem(out, floats, inputs, seed));
}

test.each(Object.entries(cases))("%s: loops and central differences", (_, draw) => {
  let last = "";
  const result = fc.check(
    fc.property(fc.gen(), fc.integer({ min: 0, max: 2 ** 31 - 1 }), (g, seed) => {
      const one = draw(drawer(g));
      const problem = problemOf(one, seed);
      last = `${one.inputs.map((i) => `[${i.shape}]`).join(" ")}: ${problem}`;
      return problem === null;
    }),
    { seed: 1, numRuns: 60 },
  );
  expect(result.failed ? last : "").toBe("");
});

describe("planted bugs are found:", () => {
  test.each<[string, string, (...x: Tensor[]) => Tensor]>([
    ["the first of several wins", "scatter", (x, i, src) => nn.scatter(x, 1, i.flip([1]), src.flip([1]))],
    ["sorted by values without their gradient", "sort", (x) => nn.sort(x).values.detach()],
    ["a product that divides by its factors", "cumprod", (x) => x.abs().log().cumsum(-2).exp()],
  ])("%s", (_, name, call) => {
    const property = fc.property(fc.gen(), fc.nat(), (g, seed) => {
      expect(problemOf({ ...cases[name](drawer(g)), call }, seed)).toBeNull();
    });
    expect(fc.check(property, { seed: 1, numRuns: 60 }).failed).toBe(true);
  });
});

const f = (...values: number[]): Tensor => tensor(values);

onEach("positions of extremes: the first of several, and their gradient", async () => {
  const x = tensor([3, 1, 3, 2, 0, 0], [2, 3]);
  expect([...(await nn.argmax(x, 1).data())]).toEqual([0, 0]);
  expect([...(await nn.argmin(x, -1).data())]).toEqual([1, 1]);
  expect(await nn.argmax(x).item()).toBe(0);
  const { values, indices } = nn.maxAlong(x, 0, { keepdims: true });
  expect([...(await values.data()), ...(await indices.data())]).toEqual([3, 1, 3, 0, 0, 0]);
});

onEach("gradients of products with zeros: nothing is divided", async () => {
  const slope = async (values: number[], of: (x: Tensor) => Tensor): Promise<number[]> => {
    const x = f(...values);
    return [...(await grad(of(x), [x])[0].data())].map((v) => v + 0);
  };
  expect(await slope([2, 0, 3], (x) => nn.prod(x))).toEqual([0, 6, 0]);
  expect(await slope([2, 0, 0], (x) => nn.prod(x))).toEqual([0, 0, 0]);
  expect(await slope([2, 0, 3], (x) => nn.cumprod(x, 0).sum())).toEqual([1, 8, 0]);
  expect(await slope([0, 0], (x) => nn.norm(x).add(nn.std(x)))).toEqual([0, 0]);
});

onEach("long rows, which kernels cut into parts", async () => {
  const [rows, n] = [2, 700];
  const values = Float32Array.from({ length: rows * n }, (_, i) => Math.sin(i * i));
  const x = tensor(values, [rows, n]);
  const running = (start: number, step: (h: number, v: number) => number, reverse = false): number[] =>
    range(rows).flatMap((r) => {
      const out: number[] = [];
      for (let i = 0, h = start; i < n; i++) {
        const at = reverse ? n - 1 - i : i;
        h = step(h, values[r * n + at]);
        out[at] = h;
      }
      return out;
    });
  const plus = (h: number, v: number): number => h + v;
  // Seven hundred f32 added one after another.
  expectClose(await x.cumsum(1).data(), running(0, plus), "cumsum", { rtol: 1e-5 });
  expectClose(await x.cumsum(1, { reverse: true }).data(), running(0, plus, true), "reverse", { rtol: 1e-5 });
  const product = running(1, (h, v) => h * (1 + v / 9));
  // Every one of the roundings, 6e-8 each, is a share of the product.
  expectClose(await nn.cumprod(x.mul(1 / 9).add(1), 1).data(), product, "cumprod", { rtol: 1e-4 });
  const order = range(rows).flatMap((r) => argsortOf([...values.subarray(r * n, (r + 1) * n)], -1));
  expect([...(await x.argsort(1, { descending: true }).data())]).toEqual(order);
});

onEach("order of equal values, zeros of both signs and large ones", async () => {
  const x = f(2, -0, 0, -1e30, 2, 1e30, -3);
  expect([...(await x.argsort().data())]).toEqual([3, 6, 1, 2, 0, 4, 5]);
  expect([...(await x.argsort(0, { descending: true }).data())]).toEqual([5, 0, 4, 1, 2, 6, 3]);
});

onEach("functions stay finite where the plain formulas overflow", async () => {
  const x = f(-200, -30, 0, 30, 200);
  expect([...(await x.softplus().data())].map((v) => Math.round(v * 1e4) / 1e4)).toEqual([
    0,
    0,
    Math.round(Math.LN2 * 1e4) / 1e4,
    30,
    200,
  ]);
  expect(await nn.logsumexp(f(1000, 1000)).item()).toBeCloseTo(1000 + Math.LN2, 3);
  expect(await nn.bceWithLogits(x, f(0, 0, 1, 1, 1), { reduction: "sum" }).item()).toBeCloseTo(Math.LN2, 5);
  expect(await nn.variance(f(1e4 + 1, 1e4 + 2, 1e4 + 3)).item()).toBeCloseTo(1, 5);
});

onEach("comparisons, logic and rounding", async () => {
  const [x, y] = [f(1, 2, 3, -2.5), f(2, 2, 2, -2.5)];
  const bits = async (t: Tensor): Promise<string> => [...(await t.data())].join("");
  expect(await bits(x.greater(y))).toBe("0010");
  expect(await bits(x.lessEqual(y).and(x.notEqual(y)))).toBe("1000");
  expect(await bits(x.greaterEqual(2).xor(x.less(0)).not())).toBe("1000");
  expect([...(await f(0.5, 1.5, 2.5, -0.5, -1.2).round().data())].map((v) => v + 0)).toEqual([0, 2, 2, 0, -1]);
  expect([...(await f(0.5, -0.5, 2).ceil().data())].map((v) => v + 0)).toEqual([1, 0, 2]);
  expect([...(await f(-2, 0.5, 3).clamp(-1, 1).data())]).toEqual([-1, 0.5, 1]);
  expect(
    [
      ...(await f(-2, 2, -2)
        .pow(f(3, -1, 2))
        .data()),
    ].map((v) => Math.round(v * 1e5) / 1e5),
  ).toEqual([-8, 0.5, 4]);
});

describe("a call that makes no sense says so:", () => {
  const x = (...shape: number[]): Tensor => tensor(new Float32Array(numel(shape)), shape);
  const i = (...shape: number[]): Tensor => tensor(new Int32Array(numel(shape)), shape);
  const raw = (value: unknown): never => value as never; // what JavaScript lets through
  test.each<[string, () => unknown, RegExp, (new () => Error)?]>([
    ["gather", () => nn.gather(x(2, 3), 1, i(3, 3)), /^gather: an index \[3, 3\] does not fit \[2, 3\] along axis 1/],
    ["scatter", () => nn.scatter(x(2, 3), 1, i(2, 2), x(2, 1)), /^scatter: .* src at least as large, got \[2, 1\]/],
    ["topk", () => nn.topk(x(2, 3), 4), /^topk: 4 of the 3 elements/],
    ["einsum", () => einsum("ij,jk->ik", x(2, 3), x(2, 3)), /^einsum: "ij,jk->ik": label j is 3 and 2/],
    ["einsum, a label from nowhere", () => einsum("ij->ik", x(2, 3)), /label k is not in the operands/],
    ["einsum, too few operands", () => einsum("ij,jk", x(2, 3)), /2 operands are named, 1 given/],
    ["rearrange", () => x(2, 3).rearrange("a b -> a"), /^rearrange: "a b -> a" on \[2, 3\]: b is missing on the right/],
    ["repeat", () => x(2, 3).repeat("a b -> a b c"), /^repeat: .*give the size of c/],
    ["reduce", () => x(2, 3).reduce("a b -> a c", "sum"), /^reduce: .*c is new on the right/],
    ["layerNorm", () => nn.layerNorm(x(2, 3), { weight: x(2) }), /^layerNorm: expected weight and bias \[3\]/],
    [
      "crossEntropy",
      () => nn.crossEntropy(x(2, 3), i(3)),
      /^crossEntropy: .* i32 classes \[2\] or .* \[2, 3\], got i32\[3\]/,
    ],
    ["crossEntropy of floats", () => nn.crossEntropy(x(4, 3), x(4)), /i32 classes \[4\] .*\[4, 3\], got f32\[4\] \(/],
    ["embedding", () => nn.embedding(x(9, 3), i(4, 2)), /^embedding: .*in this order, got f32\[9, 3\] and i32\[4, 2\]/],
    ["gridSample", () => nn.gridSample(x(1, 2, 2, 1), x(1, 2, 2, 3)), /^gridSample: expected a grid/],
    ["unfold", () => nn.unfold(x(1, 2, 2, 1), { kernel: 3 }), /^unfold: a 3 x 3 patch does not fit/],
    [
      "interpolate",
      () => nn.interpolate(x(1, 2, 2, 1), { size: 4, mode: raw("bilinear") }),
      /"bilinear": one of nearest, .* area/,
      TypeError,
    ],
    [
      "nested values",
      () =>
        tensor(
          raw([
            [1, 2],
            [3, 4],
          ]),
        ),
      /^tensor: nested arrays: give flat values and a shape/,
    ],
    ["values that are texts", () => tensor(raw([1, "2"])), /^tensor: expected numbers, got "2" among them/, TypeError],
    ["no values", () => tensor(raw(undefined)), /^tensor: .*got undefined/, TypeError],
    ["values of another width", () => tensor(raw(new Float64Array(2))), /^tensor: .*got a Float64Array/, TypeError],
    [
      "a dtype",
      () => tensor([1], [1], raw("float32")),
      /^tensor: "float32" is not a dtype \(one of f32, i32, /,
      DTypeError,
    ],
    ["a dtype of a cast", () => x(2).cast(raw("f64")), /^cast: "f64" is not a dtype/, DTypeError],
    ["a size below zero", () => zeros([-1, 2]), /^zeros: \[-1, 2\] is not a shape/],
    ["a size that is not whole", () => zeros([1.5]), /^zeros: \[1.5\] is not a shape/],
    ["a size in place of a shape", () => zeros(raw(3)), /^zeros: expected a shape such as \[2, 3\], got 3/],
    [
      "a missing operand",
      () => x(2).mul(raw(undefined)),
      /^mul: expected a tensor or a number, got undefined/,
      TypeError,
    ],
    ["a missing branch", () => x(2).less(0).where(1, raw(undefined)), /^where: .*got undefined/, TypeError],
    ["a text as operand", () => x(2).add(raw("1")), /^add: expected a tensor or a number, got "1"/, TypeError],
    ["an array as operand", () => x(2).greater(raw([1])), /^greater: .*got an array/, TypeError],
    ["a number as matrix", () => x(2, 2).matmul(raw(2)), /^matmul: expected a tensor, got 2/, TypeError],
    ["grad", () => grad(x(), [x(2), i(3)]), /^grad: .*number 1 is Tensor i32\[3\]/, DTypeError],
    [
      "defineOp",
      () => defineOp(raw({ name: "half done", shape: () => [], lower: { kind: "parts" } })),
      /^defineOp: half done lacks reference, vjp, draw, rtol/,
      TypeError,
    ],
  ])("%s", (_, call, message, kind = ShapeError) => {
    expect(call).toThrow(kind);
    expect(call).toThrow(message);
  });
  test("openDevice", async () => {
    await expect(openDevice({ device: raw("cuda") })).rejects.toThrow(
      /^openDevice: device: "cuda" is no device \(gpu or /,
    );
  });
});
