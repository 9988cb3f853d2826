// Limits of an adapter: what is too large is refused by name, what can be cut is cut, and everything computes the same on an
// adapter that offers the least there is. Limits are lowered here, so that small tensors meet them.

import { expect, test } from "vitest";
import { grad } from "../engine/autograd.ts";
import { compile, trace } from "../engine/compile.ts";
import { type Program, useDevice } from "../engine/device.ts";
import { DeviceError } from "../engine/error.ts";
import { makePlan } from "../engine/plan/plan.ts";
import { type GpuDevice, type GpuOptions, openGpu } from "../engine/runtime/gpu.ts";
import { Parameter } from "../engine/state.ts";
import { ones, type Tensor, tensor } from "../engine/tensor.ts";
import { type Caps, MINIMUM_CAPS } from "../kernels/wgsl.ts";
import { gpu, onGpu } from "./device.ts";

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
    /^large: (placeholder|exp) f32\[257, 1024\] takes 1,052,672 bytes in memory, and this adapter binds at most 1,048,576 at once \(maxStorageBufferBindingSize\): split it along an axis/,
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
