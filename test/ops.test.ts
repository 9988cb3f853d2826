// Every op of the table, by loops over it: all that engine/testing knows to check of a record, with a small budget. A new op
// is tested by being in the table. Then clear errors for wrong shapes, and planted bugs that the checks must find.

import "../engine/index.ts";
import { describe, expect, test } from "vitest";
import { ShapeError } from "../engine/error.ts";
import { type AnyOp, allOps } from "../engine/ops/op.ts";
import { type Tensor, tensor } from "../engine/tensor.ts";
import { type Check, CheckError } from "../engine/testing/check.ts";
import { checkOp, opChecks } from "../engine/testing/ops.ts";
import { difference } from "./close.ts";
import { onGpu } from "./device.ts";

const ops = allOps().filter((op) => op.lower.kind !== "leaf");

/** Cases of each law that takes longer than most, and of those that compile kernels. */
const CASES: Readonly<Record<string, number>> = {
  "second derivative": 10,
  "kernel equals decomposition": 2,
  "on views equals the definition": 2,
  "with ops behind it equals the definition": 2,
};

async function expectHolds(check: Check): Promise<void> {
  const cases = CASES[check.law] ?? (check.needs === "gpu" ? 3 : 30);
  const { failure } = await check.run({ seed: 1, cases });
  expect(failure?.message ?? "").toBe("");
}

describe.each(ops.map((op): [string, AnyOp] => [op.name, op]))("%s", (_, op) => {
  for (const check of opChecks(op)) {
    if (check.needs === "gpu") onGpu(check.law, () => expectHolds(check));
    else test(check.law, () => expectHolds(check));
  }
});

describe("wrong shapes", () => {
  const attrs = { stride: [1, 1, 1], low: [0, 0, 0], high: [0, 0, 0], dilation: [1, 1, 1], groups: 1 };
  const wrong: [string, number[][], object][] = [
    ["add", [[2], [3]], {}],
    ["where", [[2], [2], [3]], {}],
    ["reshape", [[2, 3]], { to: [4, 2] }],
    ["permute", [[2, 3]], { order: [0, 0] }],
    ["expand", [[2, 3]], { to: [4, 3] }],
    ["slice", [[4]], { start: [1], size: [4], step: [1] }],
    ["pad", [[4]], { low: [-1], high: [0], holes: [0] }],
    [
      "concat",
      [
        [2, 3],
        [3, 4],
      ],
      { axis: 1 },
    ],
    [
      "matmul",
      [
        [2, 3],
        [4, 5],
      ],
      {},
    ],
    [
      "matmul",
      [
        [2, 2, 3],
        [3, 3, 5],
      ],
      {},
    ],
    [
      "conv",
      [
        [1, 4, 4, 4, 3],
        [1, 1, 1, 2, 5],
      ],
      attrs,
    ],
    [
      "conv",
      [
        [1, 1, 1, 1, 3],
        [1, 3, 3, 3, 5],
      ],
      attrs,
    ],
    ["gatherRows", [[3], [2]], {}],
    ["moments", [[3, 3]], { eps: 1e-5 }],
    [
      "attention",
      [
        [1, 2, 1, 4],
        [1, 3, 2, 4],
        [1, 3, 2, 4],
      ],
      { scale: 1, causal: false },
    ],
  ];
  test.each(wrong)("%s of %j", (name, shapes, bad) => {
    const op = ops.find((o) => o.name === name) as AnyOp;
    expect(() => op.shape(shapes, bad)).toThrow(ShapeError);
    expect(() => op.shape(shapes, bad)).toThrow(new RegExp(`^${name}: `));
  });
});

describe("a planted bug is found:", () => {
  const find = (name: string): AnyOp => ops.find((o) => o.name === name) as AnyOp;
  /** An op with parts of its record replaced. */
  const broken = (name: string, parts: object): AnyOp => ({ ...find(name), ...parts }) as AnyOp;
  const host: [string, AnyOp, RegExp][] = [
    [
      "a gradient that forgets to permute",
      broken("permute", { vjp: (g: Tensor, [x]: readonly Tensor[]) => [g.reshape(x.shape)] }),
      /permute, shapes \[[\d,]+\], order \[[\d,]+\]: gradient of input 0, element \d+: expected [-.\d]+, got [-.\d]+/,
    ],
    [
      "a gradient of another shape",
      broken("expand", { vjp: (g: Tensor) => [g] }),
      /expand, shapes \[.*\], to \[.*\]: gradient of input 0 has shape \[/,
    ],
    [
      "a second derivative that is lost",
      broken("exp", { vjp: (g: Tensor, _: readonly Tensor[], y: Tensor) => [g.mul(y.detach())] }),
      /exp: second derivative\n {2}exp, shapes \[\]: second derivative along v, input 0, element 0/,
    ],
    [
      "a shape rule with an axis too large",
      broken("concat", {
        shape: (ins: number[][], { axis }: { axis: number }) =>
          ins[0].map((n, i) => (i === axis ? ins.reduce((sum, s) => sum + s[axis], 1) : n)),
      }),
      /the shape rule gives \[.*\], but the reference leaves element \d+ unwritten/,
    ],
    [
      "a shape rule with an axis too small",
      broken("sum", { shape: ([x]: number[][]) => x.map(() => 1) }),
      /the shape rule gives \[.*\], but the reference writes element \d+/,
    ],
    [
      "an index map that reads elsewhere",
      broken("slice", {
        lower: { kind: "view", read: (_: object, __: object, at: readonly object[]) => [{ src: 0, at, when: [] }] },
      }),
      /slice, shapes .*: inside a fused expression, element/,
    ],
    ["a tolerance without a reason", broken("tanh", { why: undefined }), /rtol 0.00001 has no reason/],
    [
      "a law that does not hold",
      broken("softmax", {
        laws: [
          { name: "doubled scores", of: ([x]: readonly Tensor[]) => ({ ins: [x.mul(2)], after: (y: Tensor) => y }) },
        ],
      }),
      /softmax, shapes \[2\]: doubled scores: element/,
    ],
  ];
  test.each(host)("%s", async (_, op, message) => {
    const attempt = checkOp({ ...op, lower: op.lower.kind === "kernel" ? { kind: "parts" } : op.lower } as AnyOp);
    await expect(attempt).rejects.toThrow(CheckError);
    await expect(attempt).rejects.toThrow(message);
  });

  onGpu("an expression in WGSL that is not the definition", async () => {
    const lower = { kind: "elementwise", wgsl: ([x]: readonly string[]) => `(sin(${x}) + 0.0001)` };
    const attempt = checkOp(broken("sin", { name: "sinBroken", lower }), { cases: 5 });
    await expect(attempt).rejects.toThrow(
      /sinBroken, shapes \[\]: on .*, element 0: expected .* 1 of 1 are off \(rtol/,
    );
  });

  onGpu("a kernel that is not its decomposition", async () => {
    const decompose = ([x]: readonly Tensor[]): Tensor => x.mul(1.01).softmax();
    const attempt = checkOp(broken("softmax", { name: "softmaxBroken", decompose, vjp: undefined }), { cases: 5 });
    await expect(attempt).rejects.toThrow(/softmaxBroken, shapes \[2\]: against its decomposition, element/);
  });
  onGpu("a kernel that is compiled otherwise than it is called eagerly", async () => {
    let texts = 0;
    const lower = { kind: "elementwise", wgsl: ([x]: readonly string[]) => `(${x} * ${1 + 1e-7 * ++texts}f)` };
    const attempt = checkOp(broken("neg", { name: "unsteady", lower, rtol: 1 }), { cases: 5 });
    await expect(attempt).rejects.toThrow(
      /unsteady, shapes \[\]: eager and then compiled, element 0: .* the first time/,
    );
  });

  test("one element in a thousand, and NaN", () => {
    const want = Float64Array.from({ length: 1000 }, (_, i) => i);
    const but = (at7: number): Float64Array => want.map((x) => (x === 7 ? at7 : x));
    expect(difference(want, want, { rtol: 0 })).toBeNull();
    expect(difference(but(7.1), want, { rtol: 1e-5 })).toMatch(/^element 7: expected 7, got 7.1, .*1 of 1000/);
    expect(difference(but(Number.NaN), want, { rtol: 1 })).toMatch(/^element 7: expected 7, got NaN/);
  });
});

onGpu("exp to both ends of its range", async () => {
  const x = [-104, -87, 0, 88, 88.5, 88.7, 90, 1000];
  const found = await tensor(x).exp().data();
  // A driver that adds the two parts of log 2 up before it multiplies leaves an error of |x| / 2^24.
  for (const [i, v] of x.slice(1, 6).entries())
    expect(Math.abs(found[i + 1] / Math.exp(Math.fround(v)) - 1)).toBeLessThan(6e-6);
  expect(found[0]).toBe(0);
  expect([...found.slice(6)]).toEqual([Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]);
  expect([...(await tensor([88.7, 90]).exp().isFinite().data())]).toEqual([1, 0]);
});

onGpu("sin and cos to 1e5, and within [-1, 1] beyond", async () => {
  const near = Float32Array.from({ length: 4096 }, (_, i) => (i % 2 ? 1 : -1) * 1e5 * (i / 4095) ** 3);
  const far = Float32Array.of(1e6, -1e7, 1e8, 1e15, -3e38);
  for (const [name, f] of [["sin", Math.sin] as const, ["cos", Math.cos] as const]) {
    for (const x of [near, near.slice(0, 4001), Float32Array.of(1e4), Float32Array.of(-1e5)]) {
      const found = await tensor(x)[name]().data(); // by fours, and one by one
      const worst = x.reduce((most, v, i) => Math.max(most, Math.abs(found[i] - f(v))), 0);
      expect(worst, `${name} of ${x.length}`).toBeLessThan(3e-7);
    }
    for (const v of await tensor(far)[name]().data()) expect(Math.abs(v), name).toBeLessThanOrEqual(1);
    const odd = await tensor([Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN])[name]().data();
    expect([...odd], name).toEqual([Number.NaN, Number.NaN, Number.NaN]);
  }
});
