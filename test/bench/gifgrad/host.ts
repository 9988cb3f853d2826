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
      const times: number[] = [];
      const stop = observe(({ phase, start, end }) => {
        if (phase === "encode") times.push(end - start);
      });
      for (let i = 0; i < TIMED; i++) {
        call();
        await device.settle(); // the queue is empty when the next one is encoded
      }
      stop();
      const before = device.memory().bytes;
      for (let i = 0; i < CALLS; i++) {
        call();
        if (i % 10 === 9) await device.settle();
      }
      times.sort((a, b) => a - b);
      const grownBytes = device.memory().bytes - before;
      return { dispatches, encodeMs: times[TIMED >> 1], encodeMinMs: times[0], calls: CALLS, grownBytes };
    },
  };
}
