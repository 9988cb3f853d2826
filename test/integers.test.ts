// Sums and extremes of whole numbers are exact, wrap as 32 bits do, and have no gradient; what is wrong with the shape or dtype
// of something that is made is named where it is made.

import { describe, expect, test } from "vitest";
import {
  apply,
  compile,
  type DType,
  DTypeError,
  defineOp,
  grad,
  Parameter,
  Rng,
  ShapeError,
  tensor,
} from "../engine/index.ts";
import type { Family } from "../kernels/wgsl.ts";
import { onEach } from "./device.ts";

/** Words far apart, so that sums of three of them leave 32 bits. */
const words = (n: number): number[] => Array.from({ length: n }, (_, i) => (i * 2654435761) >>> 0);

const exact = {
  i32: { wrap: (s: bigint) => Number(BigInt.asIntN(32, s)), of: (w: number[]) => Int32Array.from(w, (x) => x | 0) },
  u32: { wrap: (s: bigint) => Number(BigInt.asUintN(32, s)), of: (w: number[]) => Uint32Array.from(w) },
};

/** Shapes and an axis for each layout and both numbers of passes of the reduction's kernel. */
const CASES: readonly (readonly [shape: [number, number], axis: 0 | 1])[] = [
  [[5, 300], 1],
  [[7, 5], 1],
  [[2, 20_000], 1],
  [[9000, 4], 0],
];

describe.each(["i32", "u32"] as const)("%s", (dtype) => {
  onEach("sums, largest and smallest are exact, along rows and columns, short and long", async () => {
    const { wrap, of } = exact[dtype];
    for (const [[rows, columns], axis] of CASES) {
      const values = of(words(rows * columns));
      const x = tensor(values, [rows, columns]);
      const groups = Array.from({ length: axis === 0 ? columns : rows }, (_, k) =>
        [...values].filter((_, i) => (axis === 0 ? i % columns : Math.floor(i / columns)) === k),
      );
      const sums = groups.map((g) => wrap(g.reduce((a, b) => a + BigInt(b), BigInt(0))));
      const what = `${rows} x ${columns} over ${axis}`;
      expect([...(await x.sum(axis).data())], what).toEqual(sums);
      expect([...(await x.max(axis).data())], what).toEqual(groups.map((g) => g.reduce((a, b) => Math.max(a, b))));
      expect([...(await x.min(axis).data())], what).toEqual(groups.map((g) => g.reduce((a, b) => Math.min(a, b))));
      if (columns > 10) continue;
      const after = await x.sum(axis).add(1).cast("f32").mul(0.5).data(); // fused behind it
      expect([...after], what).toEqual(sums.map((s) => Math.fround(wrap(BigInt(s) + BigInt(1)) / 2)));
    }
  });
});

onEach("plain numbers are kept to all 32 bits", async () => {
  const whole = [16777217, 2147483647, -2147483648, -5];
  expect([...(await tensor(whole, [4], "i32").add(0).data())]).toEqual(whole);
  expect([...(await tensor([4294967295, 16777219], [2], "u32").add(0).data())]).toEqual([4294967295, 16777219]);
  expect(await tensor(16777217, [], "i32").item()).toBe(16777217);
});

onEach("a count of what is true", async () => {
  const x = tensor([1, -2, 3, 4, -5], [5]);
  expect(await x.greater(0).cast("i32").sum().item()).toBe(3);
});

/** An op with a kernel of its own, of which only the record is looked at. */
const scaled = defineOp<{ by: unknown }>({
  name: "scaled",
  shape: ([x]) => x,
  reference: ([x], out) => void out.data.set(x.data),
  vjp: (g) => [g],
  lower: { kind: "kernel", family: {} as Family<unknown>, spec: () => ({}) },
  draw: () => ({ inputs: [{ shape: [2] }], attrs: { by: 1 } }),
  rtol: 0,
  why: "never computed",
});

describe("refused", () => {
  const p = new Parameter([3], [1, 2, 3]);
  const whole = p.cast("i32");
  test("gradients of whole numbers, and with respect to them", () => {
    expect(() => grad(whole.sum(), [p])).toThrow(DTypeError);
    expect(() => grad(whole.sum(), [p])).toThrow("grad: gradients are of f32 and f16, and this is Tensor i32[]");
    expect(() => grad(p.sum(), [whole])).toThrow("number 0 is Tensor i32[3]");
  });
  test("sums of bools and means of whole numbers, with what to do", () => {
    expect(() => p.less(2).sum()).toThrow(
      'sum: expected numbers, got bool (cast it: x.cast("i32") counts what is true)',
    );
    expect(() => whole.mean()).toThrow('mean: expected f32 or f16, got i32 (cast it: x.cast("f32"))');
  });
  test.each([[[-1]], [[2.5]], [[Number.NaN, 2]]])("shapes such as %j", (shape) => {
    for (const make of [
      () => new Rng(1).normal(shape),
      () => new Rng(1).uniform(shape),
      () => compile(() => ({ x: new Rng(1).normal(shape) }))({}),
      () => new Parameter(shape, () => new Float32Array(1)),
    ])
      expect(make).toThrow(ShapeError);
    expect(() => new Rng(1).normal(shape)).toThrow(/^normal: /);
    expect(() => new Parameter(shape, [1])).toThrow(/^Parameter: /);
  });
  test("attributes that are no plain data, which would make unlike nodes one", () => {
    for (const by of [new Map([["k", 2]]), (x: number) => x, 2n])
      expect(() => apply(scaled, [p], { by })).toThrow(/^scaled: attribute by: expected plain data \(JSON\), got /);
  });
  test("whole numbers for a kernel that says nothing of dtypes", () => {
    expect(() => apply(scaled, [whole], { by: 2 })).toThrow("scaled: expected f32, got i32");
  });
  test("dtypes that there are not, and initialisers that make something else", () => {
    expect(() => new Parameter([1], [1], { dtype: "f64" as DType })).toThrow('Parameter: "f64" is not a dtype');
    const short = new Parameter([2, 2], () => new Float32Array(3));
    expect(() => short.storage.host()).toThrow("Parameter: the initialiser of f32[2, 2] made 3 values");
    const whole = new Parameter([1], () => new Int32Array(1));
    expect(() => whole.storage.host()).toThrow("the initialiser of f32[1] must make a Float32Array");
  });
});
