// float16 tensors: exact rounding, ops that compute in f32 and round once, memory of two bytes, and the same bits whether or
// not the adapter has 16-bit floats.

import fc from "fast-check";
import { expect, test } from "vitest";
import { roundHalf, unpackHalf } from "../engine/dtype.ts";
import { apply, compile, type Device, full, grad, Parameter, type Tensor, tensor, useDevice } from "../engine/index.ts";
import { avgPool } from "../engine/nn/index.ts";
import { type AnyOp, type Attrs, allOps, type Sample } from "../engine/ops/op.ts";
import { makePlan } from "../engine/plan/plan.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { openGpu } from "../engine/runtime/gpu.ts";
import { numel } from "../engine/shape.ts";
import { drawer, uniforms, values } from "../engine/testing/draw.ts";
import { withHalves } from "../kernels/half.ts";
import { MINIMUM_CAPS } from "../kernels/wgsl.ts";
import { expectClose } from "./close.ts";
import { gpu, onEach, onGpu } from "./device.ts";

const list = async (t: Tensor): Promise<number[]> => [...(await t.data())];
const random = (n: number, seed: number, size = 2): Float32Array => {
  const next = uniforms(seed);
  return Float32Array.from({ length: n }, () => size * (2 * next() - 1));
};
const half = (values: ArrayLike<number>, shape: readonly number[]): Tensor =>
  tensor(Float32Array.from(values), shape).cast("f16");

/** Every finite half, the middle to its neighbour, and the floats beside that middle. */
function awkward(): Float32Array {
  const beside = (x: number, by: number): number => {
    const word = new Uint32Array(Float32Array.of(x).buffer);
    word[0] += by;
    return new Float32Array(word.buffer)[0];
  };
  const out: number[] = [];
  for (let h = 0; h < 0x7bff; h += 7) {
    const middle = (unpackHalf(h) + unpackHalf(h + 1)) / 2;
    out.push(unpackHalf(h), -middle, beside(middle, 1), beside(middle, -1));
  }
  return Float32Array.from([...out, 65504, 65519.99, -65519.99, 1e-8, -3e-8, 0]);
}

onEach("f32 is rounded to the nearest f16, ties to even, down to the smallest", async () => {
  const xs = awkward();
  const cast = half(xs, [xs.length]);
  expect(cast.dtype).toBe("f16");
  expect(await list(cast)).toEqual([...xs].map(roundHalf));
  expect(await list(cast.cast("f32"))).toEqual([...xs].map(roundHalf));
});

onEach("what f16 cannot hold becomes infinite", async () => {
  expect(await list(half([65520, -1e9, 3e38, 65519], [4]))).toEqual([Infinity, -Infinity, Infinity, 65504]);
});

/** Ops on half operands, each beside the same in float32: what apply() promises is the second, rounded. */
const OPS: Record<string, (x: Tensor, y: Tensor) => Tensor> = {
  arithmetic: (x, y) => x.mul(y).add(x),
  numbers: (x) => x.mul(0.1).add(1 / 3),
  "a sum over rows": (x) => x.sum(-1),
  "a mean": (x) => x.mean(),
  "a product of matrices": (x, y) => x.matmul(y.transpose()),
  softmax: (x) => x.softmax(),
  "moved around": (x, y) => x.concat([y], 0).transpose().flip([0]).slice(1, 1),
  choices: (x, y) => x.less(y).where(x, y),
  padding: (x) =>
    x.pad([
      [1, 0],
      [0, 2],
    ]),
};

onEach("ops on f16 compute in f32 and round their result, once per op", async () => {
  for (const [name, op] of Object.entries(OPS)) {
    // Halves of few bits: products and sums of them are exact in float32, so that one rounding is the whole difference.
    const [a, b] = [1, 2].map((seed) => random(35, seed).map((v) => Math.round(v * 8) / 8));
    const got = op(half(a, [5, 7]), half(b, [5, 7]));
    const want = op(tensor(a, [5, 7]), tensor(b, [5, 7]));
    expect([name, got.dtype, ...got.shape]).toEqual([name, "f16", ...want.shape]);
    const tolerance = name === "numbers" ? 2 ** -11 : 2 ** -12; // two roundings, and one
    expectClose(await list(got), (await list(want)).map(roundHalf), name, { rtol: tolerance });
  }
  expect((await list(half([1, 2, 3], [3]).less(2))).join()).toBe("1,0,0");
});

test("every op of the table takes f16, and rounds what it gives in f32 from the same values", async () => {
  useDevice(new ReferenceDevice());
  let ops = 0;
  for (const op of allOps().filter((o) => o.lower.kind !== "leaf"))
    for (const { inputs, attrs, seed } of fc.sample(callsOf(op), { numRuns: 5, seed: 1 })) {
      const next = uniforms(seed);
      const ins = inputs.map((i) => tensor(values(i, next, op.domain), i.shape, i.dtype));
      if (!ins.some((t) => t.dtype === "f32")) continue;
      ops++;
      const halves = ins.map((t) => (t.dtype === "f32" ? t.cast("f16") : t));
      const got = apply(op, halves, attrs);
      const singles = halves.map((t) => (t.dtype === "f16" ? t.cast("f32") : t));
      const want = apply(op, singles, attrs);
      const converts = op.name === "cast" || want.dtype !== "f32";
      expect([op.name, got.dtype]).toEqual([op.name, converts ? want.dtype : "f16"]);
      const [x, y] = [await list(got), await list(want)];
      expect([op.name, ...x]).toEqual([op.name, ...(converts ? y : y.map(roundHalf))]);
    }
  expect(ops).toBeGreaterThan(200);
});

/** Random legal calls of an op, and a seed of their values. */
function callsOf(op: AnyOp): fc.Arbitrary<Sample<Attrs> & { readonly seed: number }> {
  return fc.gen().map((g) => ({ ...op.draw(drawer(g)), seed: g(fc.nat) }));
}

onEach("f16 and f32 do not mix unasked", async () => {
  expect(() => half([1], [1]).add(tensor([1]))).toThrow("dtypes differ: f16 and f32 (cast one of them)");
  expect(() => half([1, 2], [1, 2]).matmul(tensor([1, 2], [2, 1]))).toThrow("dtypes differ");
});

onEach("gradients flow through casts: f16 where the value is, f32 where the parameter is", async () => {
  const w = new Parameter([3, 2], Float32Array.from([0.5, -1, 2, 0.25, -0.125, 1]));
  const x = half([1, 2, -1, 0.5, 4, 8], [2, 3]);
  const loss = (p: Tensor): Tensor => x.matmul(p.cast("f16")).square().sum().cast("f32");
  const [g] = grad(loss(w), [w]);
  expect(g.dtype).toBe("f32");
  const x32 = x.cast("f32");
  const want = x32.transpose().matmul(x32.matmul(w)).mul(2);
  expectClose(await list(g), await list(want), "gradient", { rtol: 2 ** -10 }); // a few roundings to 11 bits
});

onEach("state in f16 of any length is fed, updated in place, and read", async () => {
  for (const n of [1, 3, 4, 5, 17]) {
    const start = random(n, n);
    const p = new Parameter([n], start, { dtype: "f16" });
    const step = compile(({ by }: { by: Tensor }) => {
      p.assign(p.add(by));
      return { twice: p.mul(2) };
    });
    const by = half(random(n, n + 1), [n]);
    const { twice } = step({ by });
    const want = [...start].map((v, i) => roundHalf(roundHalf(v) + roundHalf(random(n, n + 1)[i])));
    expect(await list(p)).toEqual(want);
    expect(await list(twice)).toEqual(want.map((v) => roundHalf(2 * v)));
  }
});

test("an f16 value takes half the bytes of an f32 one where the adapter has 16-bit floats, and as many where not", () => {
  useDevice(new ReferenceDevice());
  const p = new Parameter([1000], new Float32Array(1000), { dtype: "f16" });
  const step = compile(({ x }: { x: Tensor }) => ({ y: x.add(p) }));
  step({ x: full([1000], 1, "f16") });
  const bytes = (f16: boolean): number[] => {
    const plan = makePlan(step.program(), { ...MINIMUM_CAPS, f16 });
    return [plan.inputs[0].bytes, plan.outputs[0].bytes, ...plan.dispatches[0].places.map((place) => place.bytes)];
  };
  expect(bytes(true)).toEqual([2000, 2000, 2000, 2000, 2000]);
  expect(bytes(false)).toEqual([4000, 4000, 4000, 4000, 4000]);
});

/** Something of every kernel family, by name, on f16 operands that are read as they are. */
const FAMILIES: Record<string, (v: (...shape: number[]) => Tensor) => Tensor> = {
  aligned: (v) => v(16, 32).matmul(v(32, 8)),
  odd: (v) => v(7, 13).matmul(v(13, 5)),
  square: (v) => gram(v(20, 16)), // one buffer twice
  epilogue: (v) => v(16, 32).matmul(v(32, 8)).add(v(8)).silu(),
  conv: (v) => v(2, 6, 6, 8).conv(v(3, 3, 8, 12), { padding: 1 }),
  "conv's input": (v) => convGrads(v)[0],
  "conv's weights": (v) => convGrads(v)[1],
  grouped: (v) => v(1, 5, 5, 4).conv(v(3, 3, 2, 4), { groups: 2 }),
  softmax: (v) => v(6, 40).softmax(),
  moments: (v) => v(2, 12, 2, 4).moments(1e-5),
  attention: (v) => v(1, 20, 2, 8).attention(v(1, 20, 2, 8), v(1, 20, 2, 8), { causal: true }),
  lookup: (v) => v(5, 12).gatherRows(ROWS),
  scattered: (v) => v(4, 12).gatherRowsGrad(ROWS, 5),
  sums: (v) => v(64, 33).sum(0),
  pooling: (v) => avgPool(v(1, 6, 6, 4), 2),
};
const ROWS = tensor(Int32Array.from([2, 0, 2, 4]));
const gram = (x: Tensor): Tensor => x.matmul(x.transpose());
function convGrads(v: (...shape: number[]) => Tensor): Tensor[] {
  const [x, k] = [v(2, 6, 6, 8), v(3, 3, 8, 12)];
  return grad(x.conv(k, { padding: 1 }).cast("f32").square().mean(), [x, k]);
}

async function valuesOn(device: Device, names: readonly string[]): Promise<Record<string, number[]>> {
  useDevice(device);
  const values: Record<string, number[]> = {};
  for (const name of names) {
    let seed = 1;
    const v = (...shape: number[]): Tensor => tensor(random(numel(shape), seed++, 1), shape, "f16");
    values[name] = await list(FAMILIES[name](v));
  }
  return values;
}

/** A software adapter takes long to compile a GPU's kernels: those of the families that write f16 themselves. */
const KERNELS = { cpu: Object.keys(FAMILIES), gpu: ["epilogue", "conv"] };

for (const adapter of ["cpu", "gpu"] as const)
  onGpu(`with and without 16-bit floats the bits are the same, with the kernels of a ${adapter}`, async () => {
    const [wide, narrow] = [await openGpu({ caps: { adapter } }), await openGpu({ caps: { adapter, f16: false } })];
    try {
      if (!wide.caps.f16) console.error("this adapter has no 16-bit floats: nothing is compared");
      expect(await valuesOn(wide, KERNELS[adapter])).toEqual(await valuesOn(narrow, KERNELS[adapter]));
    } finally {
      for (const device of [wide, narrow]) device.close();
      await gpu();
    }
  });

test("kernels read f16 operands in place, and write f16 where they take an epilogue along", () => {
  useDevice(new ReferenceDevice());
  const p = (...shape: number[]): Parameter => new Parameter(shape, new Float32Array(numel(shape)), { dtype: "f16" });
  const [a, b] = [p(64, 32), p(32, 16)];
  const step = compile(() => ({ y: a.matmul(b) }));
  step({});
  const textsOn = (adapter: "cpu" | "gpu"): string[] =>
    makePlan(step.program(), { ...MINIMUM_CAPS, adapter, f16: true }).dispatches.map((d) => d.source.wgsl);
  const halves = (text: string): number => text.match(/array<(vec4<)?f16>/g)?.length ?? 0;
  expect(textsOn("gpu").map(halves)).toEqual([3]);
  // Kernels of software adapters may leave the rounding to a dispatch of its own.
  expect(halves(textsOn("cpu")[0])).toBeGreaterThanOrEqual(2);
});

test("accesses to a binding are found in indices, assignments and components, and no other name is taken for it", () => {
  const declared = (type: string, body: string): string =>
    `@group(0) @binding(1) var<storage, read_write> a: array<${type}>;\n${body}`;
  const body = (type: string, text: string): string => withHalves(declared(type, text), 1).split("\n")[1];
  expect(body("f32", "x = a[i] + tile_a[a[j]] * b.a[0];")).toBe("x = f32(a[i]) + tile_a[f32(a[j])] * b.a[0];");
  expect(body("vec4<f32>", "if (a[i][2] == 0.0) { a[k[i]] = v; a[i][j] = a[i][0]; }")).toBe(
    "if (vec4<f32>(a[i])[2] == 0.0) { a[k[i]] = vec4<f16>(v); a[i][j] = f16(vec4<f32>(a[i])[0]); }",
  );
  expect(body("u32", "a[i] = a[a[i]];")).toBe(
    "a[i] = f16(bitcast<f32>(bitcast<u32>(f32(a[bitcast<u32>(f32(a[i]))]))));",
  );
  expect(() => body("i32", "")).toThrow("32-bit");
});
