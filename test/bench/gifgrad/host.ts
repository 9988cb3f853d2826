// What a replayed step costs the host: 500 dispatches too small to be work for the device, no two neighbours of one pipeline,
// and none joined with another, as such small ones would be. Called by index.ts.

import { compile, Parameter, type Tensor, useDevice } from "../../../engine/index.ts";
import { makePlan, type PlanOptions } from "../../../engine/plan/plan.ts";
import { openGpu } from "../../../engine/runtime/gpu.ts";
import { observe } from "../../../engine/timeline.ts";
import { R } from "../data.ts";
import { HOST } from "../results.ts";
import type { Subject } from "../subject.ts";
import { compiled } from "./run.ts";

/** Calls that are timed each, and calls after which the device's memory is looked at. */
const [TIMED, CALLS] = [200, 1000];

const plan: PlanOptions = { chain: false };

export async function host(): Promise<Subject> {
  const device = useDevice(await openGpu({ plan }));
  const [x, w] = [new Parameter([8, 8], R([8, 8], 1)), new Parameter([8, 8], R([8, 8], 2, 1 / 3))];
  const step = compile(
    ({ start }: { start: Tensor }) => {
      let y: Tensor = x.add(start);
      // A product, the mean of its rows, and both together: three dispatches.
      for (let i = 0; i < Math.floor(HOST.dispatches / 3); i++) {
        y = y.matmul(w);
        y = y.sub(y.mean(1, { keepdims: true }));
      }
      x.assign(y);
      return { y: y.sum() };
    },
    { name: "host" },
  );
  const call = (): unknown => step({ start: 0.5 });
  return {
    ...compiled(device, step as never, plan),
    run: async () => {
      call();
      await device.settle();
      return undefined;
    },
    host: async () => {
      const dispatches = makePlan(step.program(), device.caps, plan).dispatches.length;
      const [encoded, submitted, bare]: number[][] = [[], [], []];
      const encodeBare = bareCalls(device.dawn.device, dispatches);
      const stop = observe(({ phase, start, end }) => {
        if (phase === "submit") submitted.push(end - start);
        if (phase === "encode") encoded.push(end - start - submitted[submitted.length - 1]);
      });
      for (let i = 0; i < TIMED; i++) {
        call();
        await device.settle(); // the queue is empty when the next one is encoded
        const start = performance.now();
        encodeBare();
        bare.push(performance.now() - start);
      }
      stop();
      const before = device.memory().bytes;
      for (let i = 0; i < CALLS; i++) {
        call();
        if (i % 10 === 9) await device.settle();
      }
      for (const times of [encoded, submitted, bare]) times.sort((a, b) => a - b);
      const grownBytes = device.memory().bytes - before;
      const [encodeMs, submitMs, bareMs] = [encoded, submitted, bare].map((times) => times[TIMED >> 1]);
      return { dispatches, encodeMs, encodeMinMs: encoded[0], submitMs, bareMs, calls: CALLS, grownBytes };
    },
  };
}

/** Encodes so many dispatches, each of another pipeline and bind group than the one before, with nothing around the calls. */
function bareCalls(device: GPUDevice, dispatches: number): () => void {
  const buffer = device.createBuffer({ size: 4096, usage: GPUBufferUsage.STORAGE });
  const pipelines = [0, 1].map((n) => {
    const code = `@group(0) @binding(0) var<storage, read_write> a: array<u32>;
      @compute @workgroup_size(1) fn main() { a[0] = ${n}u; }`;
    return device.createComputePipeline({ layout: "auto", compute: { module: device.createShaderModule({ code }) } });
  });
  const groups = Array.from({ length: dispatches }, (_, i) =>
    device.createBindGroup({
      layout: pipelines[i % 2].getBindGroupLayout(0),
      entries: [{ binding: 0, resource: { buffer, offset: (i % 8) * 256, size: 256 } }],
    }),
  );
  return () => {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (let i = 0; i < dispatches; i++) {
      pass.setPipeline(pipelines[i & 1]);
      pass.setBindGroup(0, groups[i]);
      pass.dispatchWorkgroups(1, 1, 1);
    }
    pass.end();
    encoder.finish();
  };
}
