// Every op of the table, by loops over it: gradients against central differences, WGSL against the float64 definition,
// composites against their decomposition, and clear errors for wrong shapes. A new op is tested by being in the table.

import "../engine/index.ts";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { toData } from "../engine/dtype.ts";
import { ShapeError } from "../engine/error.ts";
import { type AnyOp, type Array64, allOps, isComposite, type Sample } from "../engine/ops/op.ts";
import { Storage } from "../engine/storage.ts";
import { apply, fromStorage, type Tensor } from "../engine/tensor.ts";
import { difference } from "./close.ts";
import { onGpu } from "./device.ts";
import { drawer } from "./draw.ts";
import { describeCall, gradientProblem, gradientSum, Inputs } from "./gradcheck.ts";

const ops = allOps().filter((op) => op.lower.kind !== "leaf");
const named = ops.map((op): [string, AnyOp] => [op.name, op]);
const seeds = fc.integer({ min: 0, max: 2 ** 31 - 1 });

function words(op: AnyOp, sample: Sample<unknown>): string {
  return describeCall(
    op.name,
    sample.inputs.map((i) => i.shape),
    sample.attrs,
  );
}

/** Calls `check` on random calls of `op`; it returns what is wrong, or null. The message of a failure is that sentence. */
async function forCalls(
  op: AnyOp,
  runs: number,
  check: (sample: Sample<never>, seed: number) => Promise<string | null> | string | null,
): Promise<void> {
  let last = "";
  const property = fc.asyncProperty(fc.gen(), seeds, async (g, seed) => {
    const sample = op.draw(drawer(g)) as Sample<never>;
    const problem = await check(sample, seed);
    if (problem !== null) {
      last = `${words(op, sample)}: ${problem}`;
      throw new Error(last);
    }
  });
  const result = await fc.check(property, { seed: 1, numRuns: runs });
  expect(result.failed ? last || String(result.errorInstance) : "", last).toBe("");
}

function call(op: AnyOp, sample: Sample<never>, inputs: Inputs): { ins: Tensor[]; out: Tensor } {
  const ins = sample.inputs.map((i) => inputs.make(i, op.domain));
  return { ins, out: apply(op, ins, sample.attrs) };
}

const floats = (ins: readonly Tensor[]): Tensor[] => ins.filter((t) => t.dtype === "f32");

describe("gradients equal central differences", () => {
  const differentiable = named.filter(
    ([name, op]) => (isComposite(op) || op.vjp !== "none") && name !== "detach" && name !== "cast",
  );
  test.each(differentiable)("%s", async (_, op) => {
    await forCalls(op, 30, (sample, seed) => {
      const inputs = new Inputs(seed);
      const { ins, out } = call(op, sample, inputs);
      return gradientProblem(out, floats(ins), inputs, seed);
    });
  });

  test.each(differentiable)("%s, second derivatives", async (_, op) => {
    await forCalls(op, 8, (sample, seed) => {
      const inputs = new Inputs(seed);
      const { ins, out } = call(op, sample, inputs);
      const { total, wrt } = gradientSum(out, floats(ins), inputs);
      return gradientProblem(total, wrt, inputs, seed, { tolerance: 1e-5 });
    });
  });
});

/** The tensor's values moved to a leaf that every device can read. */
function onDevice(t: Tensor, inputs: Inputs): Tensor {
  const { data } = inputs.values.get(t.node) as Array64;
  return fromStorage(new Storage(t.shape, t.dtype, toData(t.dtype, data)));
}

/** Sums are accurate relative to the sum of the magnitudes of their terms, which cancellation hides. */
function scaleOf(op: AnyOp, ins: readonly Tensor[], inputs: Inputs, attrs: never, want: Float64Array): number {
  const linear = op.lower.kind === "reduce" || ["matmul", "conv", "convInputGrad", "convWeightGrad"].includes(op.name);
  const terms = linear
    ? inputs.evaluate([
        apply(
          op,
          ins.map((t) => t.abs()),
          attrs,
        ),
      ])[0]
    : want;
  return terms.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
}

describe("WGSL equals the definition", () => {
  for (const [name, op] of named) {
    onGpu(name, async () => {
      await forCalls(op, 3, async (sample, seed) => {
        const inputs = new Inputs(seed);
        const { ins, out } = call(op, sample, inputs);
        const [want] = inputs.evaluate([out]);
        const moved = ins.map((t) => onDevice(t, inputs));
        const got = await apply(op, moved, sample.attrs).data();
        return difference(got, want, { rtol: op.rtol, scale: scaleOf(op, ins, inputs, sample.attrs, want) });
      });
    });
  }
});

describe("the kernel of a composite equals its decomposition", () => {
  for (const op of ops) {
    if (!isComposite(op)) continue;
    onGpu(op.name, async () => {
      await forCalls(op, 2, async (sample, seed) => {
        const inputs = new Inputs(seed);
        const ins = call(op, sample, inputs).ins.map((t) => onDevice(t, inputs));
        const whole = await apply(op, ins, sample.attrs).data();
        const parts = await op.decompose(ins, sample.attrs).data();
        return difference(whole, parts, { rtol: 2 * op.rtol }); // both sides may be off by one rtol
      });
    });
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
    ["resizeNearest", [[3, 3]], { height: 2, width: 2 }],
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
    ["averagePool", [[1, 2, 2, 1]], { window: 3 }],
  ];
  test.each(wrong)("%s of %j", (name, shapes, bad) => {
    const op = ops.find((o) => o.name === name) as AnyOp;
    expect(() => op.shape(shapes, bad)).toThrow(ShapeError);
    expect(() => op.shape(shapes, bad)).toThrow(new RegExp(`^${name}: `));
  });
});

describe("the checkers see planted bugs", () => {
  const find = (name: string): AnyOp => ops.find((o) => o.name === name) as AnyOp;
  test("a gradient that forgets to permute", async () => {
    const broken = { ...find("permute"), vjp: (g: Tensor, [x]: readonly Tensor[]) => [g.reshape(x.shape)] } as AnyOp;
    const attempt = forCalls(broken, 60, (sample, seed) => {
      const inputs = new Inputs(seed);
      const { ins, out } = call(broken, sample, inputs);
      return gradientProblem(out, ins, inputs, seed);
    });
    await expect(attempt).rejects.toThrow(/^permute, shapes \[[\d,]+\], \{"order":\[[\d,]+\]\}: gradient of input 0/);
  });
  test("a second derivative that is lost", () => {
    const inputs = new Inputs(1);
    const x = inputs.make({ shape: [3] });
    const { total } = gradientSum(x.mul(x).mul(x.detach()), [x], inputs);
    expect(gradientProblem(total, [x], inputs, 1)).toMatch(/gradient of input 0/);
  });
  onGpu("an expression in WGSL that is not the definition", async () => {
    const sin = find("sin");
    const broken = {
      ...sin,
      name: "sinBroken",
      lower: { kind: "elementwise", wgsl: ([x]: readonly string[]) => `(sin(${x}) + 0.0001)` },
    } as AnyOp;
    const inputs = new Inputs(1);
    const { ins, out } = call(broken, { inputs: [{ shape: [3, 5] }], attrs: {} as never }, inputs);
    const got = await apply(
      broken,
      ins.map((t) => onDevice(t, inputs)),
    ).data();
    expect(difference(got, inputs.evaluate([out])[0], { rtol: sin.rtol })).toMatch(
      /element \d+: expected .* 15 of 15 are off/,
    );
  });
  test("one element in a thousand, and NaN", () => {
    const want = Float64Array.from({ length: 1000 }, (_, i) => i);
    expect(difference(want, want, { rtol: 0 })).toBeNull();
    expect(
      difference(
        want.map((x) => (x === 7 ? 7.1 : x)),
        want,
        { rtol: 1e-5 },
      ),
    ).toMatch(/^element 7: expected 7, got 7.1, .*1 of 1000/);
    expect(
      difference(
        want.map((x) => (x === 7 ? Number.NaN : x)),
        want,
        { rtol: 1 },
      ),
    ).toMatch(/^element 7: expected 7, got NaN/);
  });
});
