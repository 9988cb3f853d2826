// What a user sees when a device refuses, runs out or disappears: one named error at the next call, which says what to look
// at. Each failure is provoked: WGSL that is wrong, a memory limit, a device destroyed under its user.

import { expect, test } from "vitest";
import { compile } from "../engine/compile.ts";
import { useDevice } from "../engine/device.ts";
import { DeviceError, DeviceLostError, KernelError, OutOfMemoryError } from "../engine/error.ts";
import type { OpDef } from "../engine/ops/op.ts";
import { openDawn } from "../engine/runtime/dawn.ts";
import { kernelError } from "../engine/runtime/errors.ts";
import { GpuDevice, type GpuOptions, openGpu } from "../engine/runtime/gpu.ts";
import { Parameter } from "../engine/state.ts";
import { apply, type Tensor, tensor } from "../engine/tensor.ts";
import { gpu, onGpu } from "./device.ts";

/** An op whose WGSL names a function that does not exist. Not in the table: other tests loop over that. */
const broken: OpDef = {
  name: "broken",
  shape: ([x]) => x,
  reference: ([x], out) => out.data.set(x.data),
  vjp: "none",
  lower: { kind: "elementwise", wgsl: ([x]) => `tan_h(${x})` },
  draw: () => ({ inputs: [{ shape: [2] }], attrs: {} }),
  rtol: 0,
};

const rejection = (p: Promise<unknown>): Promise<Error> =>
  p.then(
    () => new Error("resolved"),
    (e: Error) => e,
  );

/** Runs `body` on a device of its own, closed afterwards; the shared one is current again. */
async function withDevice(options: GpuOptions, body: (device: GpuDevice) => Promise<void>): Promise<void> {
  const shared = await gpu();
  const own = useDevice(await openGpu(options));
  try {
    await body(own);
  } finally {
    own.close();
    useDevice(shared);
  }
}

onGpu("a kernel that is refused: its line, its label and the ops fused into it", async () => {
  const w = new Parameter([4, 4], new Float32Array(16));
  const step = compile(({ x }: { x: Tensor }) => ({ y: apply(broken, [x.matmul(w).add(1)]).mul(2) }), { name: "bad" });
  const feed = { x: tensor(new Float32Array(16), [4, 4]) };
  for (const attempt of [1, 2]) {
    const error = await rejection(step(feed).y.data());
    expect(error, `attempt ${attempt}`).toBeInstanceOf(KernelError);
    expect(error.message).toMatch(
      /^bad: the device refused the kernel "matmul .* broken.*": line \d+: unresolved call target 'tan_h'/,
    );
    expect(error.message).toMatch(/\n> +(\d+) \| .*tan_h\(.*\n +\| +\^+\n/);
    expect(error.message).toContain("ops fused into it: matmul ");
    expect(error.message).toMatch(/broken mul/);
  }
  // The device itself is well.
  expect(await tensor([1, 2]).add(1).data()).toEqual(new Float32Array([2, 3]));
});

test("the excerpt of a kernel shows the line among its neighbours", () => {
  const wgsl = [
    "fn a() {}",
    "fn b() {}",
    "fn main() {",
    "  let x = 1u;",
    "  y[0] = nothing(x);",
    "}",
    "fn c() {}",
    "// end",
  ].join("\n");
  const complaint = { lineNum: 5, linePos: 10, length: 7, message: "unresolved 'nothing'" };
  expect(
    kernelError("step", { label: "add", wgsl }, "add mul", [complaint], "").message.split("\n").slice(0, -1),
  ).toEqual([
    "step: the device refused the kernel \"add\": line 5: unresolved 'nothing'",
    "     2 | fn b() {}",
    "     3 | fn main() {",
    "     4 |   let x = 1u;",
    ">    5 |   y[0] = nothing(x);",
    "       |          ^^^^^^^",
    "     6 | }",
    "     7 | fn c() {}",
    "ops fused into it: add mul",
  ]);
});

test("of long lines the excerpt shows what is around the place", () => {
  const long = `${"a + ".repeat(300)}nothing(x)${" + b".repeat(300)};`;
  const complaint = { lineNum: 2, linePos: long.indexOf("nothing") + 1, length: 7, message: "unresolved 'nothing'" };
  const wgsl = ["x ".repeat(1000), long, "}"].join("\n");
  const { message } = kernelError("step", { label: "add", wgsl }, "add", [complaint], "");
  const [, first, second, marks] = message.split("\n");
  expect(Math.max(...[first, second, marks].map((line) => line.length))).toBeLessThan(175);
  expect(first).toMatch(/^ {5}1 \| x x .*…$/);
  expect(second).toMatch(/^> {4}2 \| ….*nothing\(x\).*…$/);
  expect(second.slice(marks.indexOf("^"), marks.lastIndexOf("^") + 1)).toBe("nothing");
});

onGpu("a closed device says how to go back to one that is open", async () => {
  await withDevice({}, async (device) => {
    device.close();
    expect(() => tensor([1]).add(1).realise()).toThrow(/^the device is closed: .*useDevice\(first\)/);
  });
});

onGpu("memory that runs out: what was wanted, what there is, and the device goes on", async () => {
  await withDevice({ memoryLimit: 1.5 * 2 ** 20 }, async (device) => {
    const kept = tensor(new Float32Array(100_000)).add(1);
    kept.realise();
    const big = compile(({ x }: { x: Tensor }) => ({ y: x.add(1).sum(0) }), { name: "big" });
    const feed = { x: tensor(new Float32Array(400_000), [2, 200_000]) };
    expect(() => big(feed)).toThrow(OutOfMemoryError);
    expect(() => big(feed)).toThrow(/^out of memory: (arena|input x|result y) of big needs [\d.,]+ (MiB|bytes), /);
    expect(() => big(feed)).toThrow(/of the 1,572,864 bytes of memoryLimit are in use/);
    expect(() => big(feed)).toThrow(/Largest live buffers:\n.*400,000 bytes {2}(result|tensor)/);
    expect(device.memory().bytes).toBeLessThanOrEqual(1.5 * 2 ** 20);
    expect((await kept.data())[99_999]).toBe(1);
    expect(await tensor([1]).add(1).item()).toBe(2);
  });
});

onGpu("memory that the adapter refuses is reported at the next call", async () => {
  const dawn = await openDawn();
  const shared = await gpu();
  const device = useDevice(new GpuDevice(dawn, {}));
  const scope = dawn.device.popErrorScope.bind(dawn.device);
  let refuse = true;
  // Stands in for a driver without memory: the first scope that is closed reports it.
  dawn.device.popErrorScope = async () => {
    const error = await scope();
    if (!refuse) return error;
    refuse = false;
    return new GPUOutOfMemoryError("no memory left");
  };
  try {
    const x = tensor(new Float32Array(64));
    const error = await rejection(x.add(1).data());
    expect(error).toBeInstanceOf(OutOfMemoryError);
    expect(error.message).toMatch(/^out of memory: .* needs 256 bytes, no memory left\n/);
  } finally {
    device.close();
    useDevice(shared);
  }
});

onGpu("a lost device: the same error at every later call", async () => {
  await withDevice({}, async (device) => {
    const w = new Parameter([64], new Float32Array(64));
    const step = compile(({ x }: { x: Tensor }) => ({ y: x.mul(w) }), { name: "lost" });
    const feed = { x: tensor(new Float32Array(64)) };
    const { y } = step(feed);
    await y.data();
    device.dawn.device.destroy();
    expect(await rejection(y.data())).toBeInstanceOf(DeviceLostError); // in flight while it happens
    const errors = [
      await rejection(y.data()),
      await rejection(device.settle()),
      await rejection(Promise.resolve().then(() => step(feed))),
    ];
    for (const e of errors) {
      expect(e).toBeInstanceOf(DeviceLostError);
      expect(e).toBeInstanceOf(DeviceError);
      expect(e.message).toMatch(/^the device was lost \(destroyed\): /);
      expect(e.message).toMatch(/Largest live buffers:\n +256 bytes {2}/);
      expect(e.message).toContain("input x of lost");
    }
  });
  expect(await tensor([1]).add(1).item()).toBe(2); // another device is not affected
});
