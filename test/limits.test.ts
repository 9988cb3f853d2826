// Limits of an adapter: what is too large is refused by name, what can be cut is cut, and everything computes the same on an
// adapter that offers the least there is. Limits are lowered here, so that small tensors meet them.

import { describe, expect, test } from "vitest";
import { grad } from "../engine/autograd.ts";
import { compile, trace } from "../engine/compile.ts";
import { type Program, useDevice } from "../engine/device.ts";
import { DeviceError } from "../engine/error.ts";
import { avgPool, interpolate } from "../engine/nn/index.ts";
import { makePlan } from "../engine/plan/plan.ts";
import { PlanningDevice } from "../engine/planning.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { type GpuDevice, type GpuOptions, openGpu } from "../engine/runtime/gpu.ts";
import { Parameter } from "../engine/state.ts";
import { ones, type Tensor, tensor } from "../engine/tensor.ts";
import { type Caps, MINIMUM_CAPS } from "../kernels/wgsl.ts";
import { expectClose } from "./close.ts";
import { gpu, onGpu, REDUCED } from "./device.ts";

type Inputs = Readonly<Record<string, Tensor>>;

/** Runs `body` on a device of its own, closed afterwards; the shared one is current again. */
async function withDevice<T>(options: GpuOptions, body: (device: GpuDevice) => Promise<T>): Promise<T> {
  const shared = await gpu();
  const own = useDevice(await openGpu(options));
  try {
    return await body(own);
  } finally {
    own.close();
    useDevice(shared);
  }
}

const planOf = (rows: number, step: (i: Inputs) => Inputs, caps: Partial<Caps>) =>
  makePlan(trace("large", step, { x: { shape: [rows, 1024], dtype: "f32" } }), { ...MINIMUM_CAPS, ...caps });

test("a tensor larger than a binding is refused with its bytes, the limit and what to do", () => {
  const step = ({ x }: Inputs): Inputs => ({ y: x.exp() });
  const limited = { maxBinding: 2 ** 20 };
  expect(() => planOf(256, step, limited)).not.toThrow();
  expect(() => planOf(257, step, limited)).toThrow(DeviceError);
  expect(() => planOf(257, step, limited)).toThrow(
    /^large: (placeholder|exp) f32\[257, 1024\] takes 1,052,672 bytes in memory, and this adapter binds at most 1,048,576 at once \(maxStorageBufferBindingSize\): (make it of several smaller tensors|compute it in parts along an axis)/,
  );
});

test("one that is never stored has no limit", () => {
  const step = ({ x }: Inputs): Inputs => ({
    y: x
      .reshape([1, 256, 1024])
      .add(ones([100, 1, 1]))
      .exp()
      .sum(),
  });
  expect(planOf(256, step, { maxBinding: 2 ** 20 }).dispatches.length).toBeGreaterThan(0);
});

/** Two layers forwards and backwards: several values of 64 KiB, live together. */
async function training(): Promise<{ losses: number[]; program: Program }> {
  const weights = [1, 2].map(
    (s) =>
      new Parameter(
        [128, 128],
        Float32Array.from({ length: 128 * 128 }, (_, i) => Math.sin(s * i) / 10),
      ),
  );
  const x = tensor(
    Float32Array.from({ length: 128 * 128 }, (_, i) => Math.cos(i)),
    [128, 128],
  );
  const step = compile(({ x }: { x: Tensor }) => {
    const loss = x.matmul(weights[0]).tanh().matmul(weights[1]).tanh().square().mean();
    grad(loss, weights).forEach((g, i) => {
      weights[i].assign(weights[i].sub(g));
    });
    return { loss };
  });
  const losses: number[] = [];
  for (let i = 0; i < 3; i++) losses.push(await step({ x }).loss.item());
  return { losses, program: step.program() };
}

onGpu("an arena larger than the largest buffer is cut into several, to the same bits", async () => {
  const whole = await withDevice({}, training);
  const maxBuffer = 70_000;
  const cut = await withDevice({ caps: { maxBuffer, maxBinding: maxBuffer } }, async (device) => {
    const { losses, program } = await training();
    expect(makePlan(program, device.caps).arena.bytes).toBeGreaterThan(2 * maxBuffer);
    return losses;
  });
  expect(cut).toEqual(whole.losses);
});

/** Something of every kernel family and emitter, larger than a tile, none of it a multiple of one. */
function everything(): Record<string, Tensor> {
  let seed = 0;
  const v = (...shape: number[]): Tensor => {
    const s = ++seed;
    return tensor(
      Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(s * 7.3 + i * 1.7)),
      shape,
    );
  };
  const [x, k] = [v(2, 9, 9, 8), v(3, 3, 8, 20).mul(0.2)];
  const conv = x.conv(k, { padding: 1 });
  const [gx, gk] = grad(conv.square().mean(), [x, k]);
  const rows = v(70, 36).matmul(v(36, 44)).add(v(44)).silu();
  const heads = (): Tensor => v(1, 40, 2, 16);
  const index = v(200).mul(9).abs().cast("i32");
  return {
    rows,
    transposed: v(20, 33).transpose().matmul(v(36, 20).transpose()),
    conv,
    gx,
    gk,
    softmax: v(40, 64).softmax(),
    moments: v(2, 80, 4, 8).moments(1e-5),
    attention: heads().attention(heads(), heads(), { causal: true }),
    lookup: v(10, 36).gatherRows(index),
    scattered: v(200, 36).gatherRowsGrad(index, 10),
    elementwise: v(90, 61).mul(2).tanh(),
    vectors: v(90, 64).mul(2).tanh(),
    permuted: v(30, 20, 12).permute([2, 0, 1]).add(1),
    longSum: v(3, 20_000).square().sum(1),
    columns: v(600, 64).square().sum(0),
    scalars: v(600, 61).max(0),
    manyRows: v(600, 61).square().sum(1),
    pooled: avgPool(v(2, 16, 16, 8), 2),
    resized: interpolate(v(2, 9, 9, 8), { size: [18, 18] }),
  };
}

/** The plan of `everything` in one program, and its values on the current device. */
async function valuesOnDevice(): Promise<{ values: Record<string, ArrayLike<number>>; program: Program }> {
  const step = compile(() => everything(), { name: "everything" });
  const out = step({});
  const values: Record<string, ArrayLike<number>> = {};
  for (const [name, t] of Object.entries(out)) values[name] = await t.data();
  return { values, program: step.program() };
}

onGpu("grids folded at 7 workgroups: every emitter and family, to the same bits", async () => {
  const whole = await withDevice({}, valuesOnDevice);
  await withDevice({ caps: { maxWorkgroupsPerDim: 7 } }, async (device) => {
    const { values, program } = await valuesOnDevice();
    const { dispatches } = makePlan(program, device.caps);
    for (const { source } of dispatches) expect(source.workgroups[0], source.label).toBeLessThanOrEqual(7);
    expect(dispatches.filter(({ source }) => source.workgroups[1] > 1).length).toBeGreaterThan(10);
    expect(values).toEqual(whole.values);
  });
});

onGpu("the weakest adapter computes what the reference does", async () => {
  const shared = await gpu();
  useDevice(new ReferenceDevice());
  const want = await valuesOnDevice();
  useDevice(shared);
  for (const [name, options] of Object.entries(REDUCED)) {
    await withDevice(options, async (device) => {
      expect(device.dawn.limits.maxStorageBuffersPerShaderStage).toBeLessThanOrEqual(10);
      expect(device.dawn.features).toEqual([]);
      const { values } = await valuesOnDevice();
      // f32 against float64: sums of up to 20,000 terms, attention over 40 keys.
      for (const [what, v] of Object.entries(want.values))
        expectClose(values[what], v, `${name}: ${what}`, { rtol: 1e-5 });
    });
  }
});

describe("what cannot be bound is refused where the line is written, before any plan", () => {
  const square = (): Parameter => new Parameter([1024, 1024], () => expect.unreachable());
  const [row, column] = [1024, 1].map((n) => new Parameter([n, 1025 - n], () => new Float32Array(1024)));
  const open = (f16 = false): void => void useDevice(new PlanningDevice({ ...MINIMUM_CAPS, f16, maxBinding: 2 ** 20 }));

  test("a given tensor, and what a kernel or a reduction computes", () => {
    open();
    const takes = "takes 4,194,304 bytes in memory, and this adapter binds at most 1,048,576 at once";
    expect(() => square().add(1)).toThrow(`add: the operand f32[1024, 1024] ${takes}`);
    expect(() => square().add(1)).toThrow("make it of several smaller tensors, or use a smaller batch");
    expect(() => row.matmul(column)).toThrow(`matmul: the result f32[1024, 1024] ${takes}`);
    expect(() => row.expand([2, 1024, 1024]).sum(0)).toThrow("sum: the result f32[1, 1024, 1024]");
    expect(() => row.matmul(column)).toThrow("compute it in parts along an axis, each stored alone");
  });
  test("f16 counts as what it takes there", () => {
    const half = (n: number): Tensor =>
      row
        .slice(0, 0, n)
        .cast("f16")
        .matmul(column.slice(1, 0, 512).cast("f16"));
    open(true);
    expect(half(1024).shape).toEqual([1024, 512]);
    expect(() => row.matmul(column.slice(1, 0, 512))).toThrow("f32[1024, 512] takes 2,097,152 bytes");
    open(false);
    expect(() => half(1024)).toThrow("matmul: the result f16[1024, 512] takes 2,097,152 bytes");
  });
  test("what passes through registers has no limit, and the host has none", () => {
    open();
    const near = compile(() => ({ d: row.sub(column).square().sum() }), { name: "distances" });
    expect(near({}).d.shape).toEqual([]);
    useDevice(new ReferenceDevice());
    expect(square().add(1).shape).toEqual([1024, 1024]);
    useDevice(null);
    expect(row.matmul(column).shape).toEqual([1024, 1024]);
  });
});
