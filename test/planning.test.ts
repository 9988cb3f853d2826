// Planning without running: the planning device's numbers are those of the device that does run, it allocates nothing, and
// weights held as f16 take half the memory and predict the same.

import { expect, test } from "vitest";
import { compile, grad, Parameter, type Tensor, tensor, useDevice } from "../engine/index.ts";
import { groupNorm, interpolate, Linear } from "../engine/nn/index.ts";
import { AdamW } from "../engine/optim/index.ts";
import { explainPlan } from "../engine/plan/explain.ts";
import { heldBytes } from "../engine/plan/summary.ts";
import { PlanningDevice } from "../engine/planning.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { openGpu } from "../engine/runtime/gpu.ts";
import { MINIMUM_CAPS } from "../kernels/wgsl.ts";
import { systemConfig, type UNetConfig } from "../models/config.ts";
import { VideoUNet } from "../models/video_unet.ts";
import { gpu, onGpu } from "./device.ts";

/** A training step of two layers, called as often as asked, with what it is fed. */
function training(calls: number) {
  const layers = [new Linear(24, 40), new Linear(40, 8)];
  const adam = new AdamW(new Map(layers.flatMap((l, i) => [...l.state()].map(([name, p]) => [`${i}.${name}`, p]))));
  const step = compile(
    ({ x, lr }: { x: Tensor; lr: Tensor }) => {
      const loss = layers[1].forward(layers[0].forward(x).silu()).square().mean();
      adam.step(grad(loss, adam.targets), { lr });
      return { loss };
    },
    { name: "training" },
  );
  for (let i = 0; i < calls; i++) step({ x: tensor(new Float32Array(72), [3, 24]), lr: 1e-3 });
  return { step, adam };
}

onGpu("the planned memory is what the device then holds, to the byte", async ({ caps }) => {
  const planning = useDevice(new PlanningDevice(caps));
  training(3);
  const device = useDevice(await openGpu({ caps }));
  const { step } = training(3); // held: memory of a step that is forgotten goes back
  expect(planning.memory()).toEqual(device.memory());
  await device.settle();
  expect(step.explain()).toContain("training");
  device.close();
  await gpu();
});

test("steps are planned once, counted, and explained as on any device; values are zeros", async () => {
  const device = useDevice(new PlanningDevice(MINIMUM_CAPS));
  const { step, adam } = training(3);
  const [planned, ...others] = device.steps();
  expect(others).toEqual([]);
  expect(planned).toMatchObject({ name: "training", calls: 3, dispatches: planned.plan.dispatches.length });
  expect(step.explain()).toBe(explainPlan(planned.plan));
  // Both layers forward, and of the second the gradient of its input: 2 b m n each. Of each weight: the same.
  const products = planned.families.filter((f) => f.family === "matmul");
  expect(products.reduce((sum, f) => sum + f.flops, 0)).toBeGreaterThanOrEqual(2 * 3 * (2 * 24 * 40 + 3 * 40 * 8));
  expect(planned.flops).toBe(planned.families.reduce((sum, f) => sum + f.flops, 0));
  expect(device.bytesOf(adam.targets[0].storage)).toBe(4 * 24 * 40);
  expect(await step({ x: tensor(new Float32Array(72), [3, 24]), lr: 0 }).loss.item()).toBe(0);
});

test("the largest values are those that live when the arena is fullest", () => {
  const device = useDevice(new PlanningDevice(MINIMUM_CAPS));
  const w = new Parameter([64, 64], () => new Float32Array(64 * 64));
  const step = compile(({ x }: { x: Tensor }) => ({ y: x.matmul(w).softmax().matmul(w).sum(0) }), { name: "narrow" });
  step({ x: tensor(new Float32Array(640), [10, 64]) });
  const [{ largest, memory }] = device.steps();
  expect(largest.reduce((sum, v) => sum + v.bytes, 0)).toBe(memory.lowerBound);
  expect(largest[0].what).toMatch(/^(matmul|softmax) f32\[10, 64\]$/);
  expect(heldBytes(memory)).toBe(memory.arena + 2560 + 2 * 256 + memory.tables + memory.uniforms);
});

test("what no adapter could run is refused when it is planned", () => {
  useDevice(new PlanningDevice(MINIMUM_CAPS));
  const step = compile(({ x }: { x: Tensor }) => ({ y: x.expand([2 ** 14, 2 ** 12]).add(1) }), { name: "wide" });
  expect(() => step({ x: tensor([1]) })).toThrow("binds at most 134,217,728 at once");
});

// ---- weights held as f16 --------------------------------------------------------------------------------------------

const SMALL: UNetConfig = {
  ...systemConfig("sti", "nano").unet,
  channels: [8, 16],
  headDim: 8,
  context: 8,
  groups: 2,
  transformerIn: { heads: 2, dim: 4 },
};

test("a network whose weights are f16 takes and gives f32, and predicts the same within f16's precision", async () => {
  useDevice(new ReferenceDevice());
  const sizes = { x: [1, 2, 4, 4, 4], step: [1], text: [1, 3, 8] };
  const wave = (n: number): Float32Array => Float32Array.from({ length: n }, (_, i) => Math.sin(1 + 3 * i));
  const predict = (net: VideoUNet): Tensor =>
    net.forward(tensor(wave(128), sizes.x), tensor(new Int32Array([300]), sizes.step), tensor(wave(24), sizes.text));
  const [single, half] = [new VideoUNet(SMALL).seed(1), new VideoUNet(SMALL).seed(1).convert("f16")];
  const [expected, got] = await Promise.all([predict(single).data(), predict(half).data()]);
  expect(predict(half).dtype).toBe("f32");
  const largest = Math.max(...expected.map(Math.abs));
  const error = Math.max(...expected.map((v, i) => Math.abs(v - got[i]))) / largest;
  expect(error).toBeGreaterThan(1e-6); // it was computed in f16
  expect(error).toBeLessThan(0.02); // some twenty layers, each rounding to 2^-11
});

test("f16 weights take half the memory", () => {
  const bytes = (net: VideoUNet): number => {
    const device = useDevice(new PlanningDevice({ ...MINIMUM_CAPS, f16: true }));
    const step = compile(({ x, step, text }: Record<"x" | "step" | "text", Tensor>) => ({
      y: net.forward(x, step, text),
    }));
    step({
      x: tensor(new Float32Array(128), [1, 2, 4, 4, 4]),
      step: tensor(new Int32Array(1)),
      text: tensor(new Float32Array(24), [1, 3, 8]),
    });
    return net.parameters().reduce((sum, p) => sum + device.bytesOf(p.storage), 0);
  };
  const [single, half] = [bytes(new VideoUNet(SMALL)), bytes(new VideoUNet(SMALL).convert("f16"))];
  expect(half / single).toBeGreaterThan(0.49);
  expect(half / single).toBeLessThan(0.53); // vectors of a few numbers are padded to 16 bytes
});

test("what a kernel reads from a copy of halves stays halves", () => {
  const device = useDevice(new PlanningDevice({ ...MINIMUM_CAPS, f16: true }));
  const enlarged = ({ x }: { x: Tensor }): { y: Tensor } => ({
    y: groupNorm(interpolate(x.mul(2), { size: [16, 16] }), 2),
  });
  compile(enlarged)({ x: tensor(new Float32Array(256), [1, 8, 8, 4]).cast("f16") });
  const [{ plan }] = device.steps();
  const written = plan.dispatches.flatMap((d) => d.slots.flatMap((s) => ("node" in s ? [s.node] : [])));
  const large = written.filter((n) => n.shape.join() === "1,256,2,2" || n.shape.join() === "1,16,16,4");
  expect(large.length).toBeGreaterThan(1);
  expect(large.map((n) => n.dtype).filter((dtype) => dtype !== "f16")).toEqual([]);
});

test("converting: values stay, buffers stay as they are, and a model in use is refused", async () => {
  const device = useDevice(new ReferenceDevice());
  const p = new Parameter([3], [1, 1 / 3, 65536]);
  p.convert("f16");
  expect([...(await p.data())]).toEqual([1, 0.333251953125, Infinity]);
  const layer = new Linear(2, 2);
  expect([...layer.convert("f16").state().values()].map((w) => w.dtype)).toEqual(["f16", "f16"]);
  expect(layer.convert("f32").weight.dtype).toBe("f32");
  expect(() => new Parameter([1], new Int32Array(1), { dtype: "i32" }).convert("f16")).toThrow("a i32 parameter");
  const used = new Linear(2, 2);
  compile(() => ({ y: used.weight.add(1) }))({});
  used.weight.storage.releaseHost(); // as a device does that has taken the values over
  expect(() => used.convert("f16")).toThrow("convert a model before its first step");
  device.close();
});
