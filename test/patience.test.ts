// Waiting for a software adapter (runtime/patience.ts) and the second device that compiles for it (runtime/assistant.ts): a
// wait leaves the processor alone and passes on what it waited for; the assistant works backwards, stops when it is of no
// use, and whatever befalls it, nobody hears of it.

import { describe, expect, test } from "vitest";
import { makePlan } from "../engine/plan/plan.ts";
import { Assistant, type NewKernel } from "../engine/runtime/assistant.ts";
import { patiently } from "../engine/runtime/patience.ts";
import { type Tensor, tensor } from "../engine/tensor.ts";
import { programOf } from "../engine/testing/laws.ts";
import { onGpu } from "./device.ts";

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Turns of the event loop, and milliseconds, until `promise` has settled; asks in each turn, as Dawn's binding does. */
async function turnsUntil(promise: Promise<unknown>): Promise<{ turns: number; ms: number; cpuMs: number }> {
  const [start, cpu] = [performance.now(), process.cpuUsage()];
  let turns = 0;
  let over = false;
  const ask = (): void => {
    turns++;
    if (!over) setImmediate(ask);
  };
  setImmediate(ask);
  await promise.catch(() => {});
  over = true;
  const { user, system } = process.cpuUsage(cpu);
  return { turns, ms: performance.now() - start, cpuMs: (user + system) / 1000 };
}

/** Sleeps of an eighth of the time waited, 1 ms at most: about 80 in the first 8 ms, one in each ms after them. */
const few = (ms: number): number => 100 + ms;

describe("waiting patiently", () => {
  test("takes a turn of the event loop a millisecond, and little of the processor", async () => {
    const patient = await turnsUntil(patiently(pause(200)));
    expect(patient.turns).toBeLessThan(few(patient.ms));
    expect(patient.cpuMs).toBeLessThan(patient.ms / 2);
    const polling = await turnsUntil(pause(200)); // the counter counts: without sleeps there are many more
    expect(polling.turns).toBeGreaterThan(few(polling.ms));
  });
  test("gives the value, or throws the error", async () => {
    expect(await patiently(Promise.resolve(7))).toBe(7);
    expect(await patiently(pause(5).then(() => 8))).toBe(8);
    await expect(patiently(pause(5).then(() => Promise.reject(new Error("lost"))))).rejects.toThrow("lost");
  });
  test("lets others have their turn meanwhile", async () => {
    let ticks = 0;
    const timer = setInterval(() => ticks++, 5);
    await patiently(pause(200));
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(5);
  });
  onGpu("a read waits so on a software adapter", async (device) => {
    if (!device.dawn.software) return;
    let x: Tensor = tensor(new Float32Array(512 * 512).fill(0.01), [512, 512]);
    for (let i = 0; i < 8; i++) x = x.matmul(x);
    const { turns, ms } = await turnsUntil(x.data());
    expect(turns).toBeLessThan(few(ms));
  });
});

// ---- the assistant

const kernel = (label: string): NewKernel => ({
  source: { label, wgsl: label, workgroups: [1, 1, 1], uniforms: [] },
  storages: 2,
});
const kernels = Array.from({ length: 12 }, (_, i) => kernel(`k${i}`));
const forever = (): Promise<void> => new Promise(() => {});

/** A device that takes `ms` for every dispatch of a kernel and writes down what it is asked for. */
function fakeDevice(ms: number, refuse?: string) {
  const seen = { compiled: [] as string[], destroyed: 0 };
  const pass = { setPipeline() {}, setBindGroup() {}, dispatchWorkgroups() {}, end() {} };
  const device = {
    createBuffer: () => ({}),
    createBindGroupLayout: () => ({}),
    createPipelineLayout: () => ({}),
    createShaderModule: ({ code }: { code: string }) => code,
    createComputePipelineAsync: async ({ compute }: { compute: { module: string } }) => {
      seen.compiled.push(compute.module);
      if (compute.module === refuse) throw new Error("refused");
      return {};
    },
    createBindGroup: () => ({}),
    createCommandEncoder: () => ({ beginComputePass: () => pass, finish: () => ({}) }),
    queue: { submit() {}, writeBuffer() {}, onSubmittedWorkDone: () => pause(ms) },
    destroy: () => {
      seen.destroyed++;
    },
  };
  return { seen, device: device as unknown as GPUDevice };
}
const [SLOW, FAST] = [45, 0]; // ms: compiled, and found in the cache

describe("the assistant", () => {
  test("compiles from the last kernel on, each once, and gives its device back", async () => {
    const { seen, device } = fakeDevice(SLOW);
    await new Assistant(async () => device).help(kernels, forever);
    expect(seen.compiled).toEqual(kernels.map((k) => k.source.label).reverse());
    expect(seen.destroyed).toBe(1);
  });
  test("stops when what it meets is in the cache", async () => {
    const { seen, device } = fakeDevice(FAST);
    await new Assistant(async () => device).help(kernels, forever);
    expect(seen.compiled).toEqual(["k11", "k10", "k9"]);
  });
  test("stops when the first device is done, with the kernel at hand", async () => {
    const { seen, device } = fakeDevice(SLOW);
    await new Assistant(async () => device).help(kernels, () => pause(360));
    expect(seen.compiled.length).toBeGreaterThan(0);
    expect(seen.compiled.length).toBeLessThan(kernels.length);
    expect(seen.destroyed).toBe(1);
  });
  test("stops when the device is closed while it compiles", async () => {
    const { seen, device } = fakeDevice(SLOW);
    const assistant = new Assistant(async () => device);
    const helping = assistant.help(kernels, forever);
    while (seen.compiled.length === 0) await pause(5);
    assistant.close();
    const before = seen.compiled.length;
    await helping;
    expect(seen.compiled.length).toBe(before);
    expect(seen.destroyed).toBe(1);
    await assistant.help(kernels, forever);
    expect(seen.compiled.length).toBe(before);
  });
  test("an error ends its work, not the program, and it helps the next one", async () => {
    const { seen, device } = fakeDevice(SLOW, "k10");
    const assistant = new Assistant(async () => device);
    await assistant.help(kernels, forever);
    expect(seen.compiled).toEqual(["k11", "k10"]);
    expect(seen.destroyed).toBe(1);
    await assistant.help(kernels, forever);
    expect(seen.destroyed).toBe(2);
    let opened = 0;
    const without = new Assistant(async () => {
      opened++;
      throw new Error("no second device");
    });
    await without.help(kernels, forever);
    await without.help(kernels, () => Promise.reject(new Error("lost"))); // over before it began
    expect(opened).toBe(1);
  });
  test("opens no device for a few kernels, for what is soon done, or for two programs at once", async () => {
    const { seen, device } = fakeDevice(SLOW);
    let opened = 0;
    const assistant = new Assistant(async () => {
      opened++;
      return device;
    });
    await assistant.help(kernels.slice(0, 7), forever);
    await assistant.help(kernels, () => pause(20));
    expect(opened).toBe(0);
    await Promise.all([assistant.help(kernels, forever), assistant.help(kernels, forever)]);
    expect([opened, seen.compiled.length]).toEqual([1, kernels.length]);
  });

  onGpu("on a real second device every dispatch is valid, and results stay what they are", async (device) => {
    const { another } = device.dawn;
    if (!another) return; // only Mesa's software driver shares what it compiles
    const x = tensor(Float32Array.from({ length: 64 }, (_, i) => Math.sin(i)));
    const outs = Array.from({ length: 9 }, (_, i) => x.mul(i + 1.5).sub(tensor([i]))); // numbers are part of a kernel's text
    const all = outs.flatMap((out) => makePlan(programOf([out]), device.caps).dispatches);
    const made = all.map((d) => ({ source: d.source, storages: d.places.length }));
    const helper = await another();
    helper.pushErrorScope("validation");
    const kept = new Proxy(helper, {
      get: (target, key) => {
        if (key === "destroy") return () => {}; // it is asked for its errors first
        const value = Reflect.get(target, key, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
      set: (target, key, value) => Reflect.set(target, key, value, target),
    });
    const want = await outs[3].data();
    await new Assistant(async () => kept).help(made, forever);
    expect(await helper.popErrorScope()).toBeNull();
    helper.destroy();
    expect([...(await outs[3].add(0).data())]).toEqual([...want]);
  });
});
