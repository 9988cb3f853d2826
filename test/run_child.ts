// A training run small enough to be killed many times: run.test.ts bundles it and starts it as a process of its own.
// Arguments: folder, steps, "start" or "resume", and optionally "deaf" to ignore the request to stop.

import { openDevice, Parameter, Rng, tensor } from "../engine/index.ts";
import { interruptible, stepLog } from "../train/log.ts";
import { openRun } from "../train/run.ts";

const [dir, steps, how, deaf] = process.argv.slice(2);
const device = await openDevice({ device: "reference" });
const rng = new Rng(5);
// Large enough for the kill to fall into the writing of a checkpoint often.
const weight = new Parameter([1 << 14], () => new Float32Array(1 << 14));
const state = new Map([
  ["weight", weight],
  ["rng", rng.state],
]);

const run = await openRun(dir, { config: { steps: Number(steps) }, resume: how === "resume", adapter: device.name });
await run.restore(state);
const interrupt = interruptible();
const log = stepLog(run, { label: "child", steps: Number(steps), batch: 4 });
let step = run.step;
while (step < Number(steps)) {
  step++;
  // Every value follows from the ones before, so a resumed run is right only if it starts from whole, equal state.
  const [value, counter] = [(await weight.data())[step], (await rng.state.data())[2]];
  weight.assign(weight.mul(0.5).add(step + counter / 8 + value));
  rng.state.assign(rng.state.add(tensor(Uint32Array.of(0, 0, 1, 0))));
  log.step(step, { loss: 1 / step });
  await run.save(step, state, { next: step + 1 });
  if (step === run.step + 1) console.log("running");
  if (interrupt.requested && !deaf) break;
}
const last = await run.save(step, state, { next: step + 1 });
if (step < Number(steps)) log.stopped(step);
else {
  await run.finish(last, { loss: 1 / step });
  log.done();
}
interrupt.release();
run.close();
