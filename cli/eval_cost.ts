// `gifgrad eval cost`: what one sticker of a run costs, on a device opened for it alone. Measuring is eval/cost.ts; the benchmark
// calls costOfRun too.

import { onDevice } from "../engine/device.ts";
import { openDevice } from "../engine/index.ts";
import type { SystemCost } from "../eval/benchmark/result.ts";
import { measureCost } from "../eval/cost.ts";
import { SYSTEMS, type System } from "../models/systems.ts";
import { progress } from "../train/progress.ts";
import { openMaker } from "./makers.ts";
import { type CostOptions, refuseGiven } from "./options.ts";
import { bytes, planSampling, table, work } from "./plan.ts";
import { announce } from "./train.ts";

const CAPTION = "Cartoon \t a red heart beating";

/** One line for each number, or one JSON document. */
export async function run(o: CostOptions): Promise<void> {
  const { system, adapter, cost } = await costOfRun(o.run, o);
  const { title } = SYSTEMS.find(({ name }) => name === system) as System;
  const { given: _, json, ...settings } = o;
  if (json) console.log(JSON.stringify({ system, adapter, ...settings, ...cost }));
  else console.log([`${title}, one sticker on ${adapter}`, ...table(rows(cost))].join("\n"));
}

export interface RunCost {
  readonly system: string;
  readonly adapter: string;
  readonly cost: SystemCost;
}

/**
 * The cost of a sticker of the run folder `dir`. Opens a device of its own, so that the memory measured is this model's alone,
 * and makes the one before it current again.
 * @throws Error when the folder holds no model, or an option is given that its system does not read
 */
export async function costOfRun(dir: string, o: Omit<CostOptions, "run" | "json">): Promise<RunCost> {
  return onDevice(openDevice, async (device) => {
    try {
      announce(device);
      const { runs, given = [], steps } = o;
      const maker = await openMaker(dir, given.includes("steps") ? { rounds: steps } : {});
      refuseGiven(given, maker.unused.options, maker.unused.whom);
      const line = progress("stickers", runs);
      const cost = await measureCost(
        {
          system: SYSTEMS.find(({ name }) => name === maker.system) as System,
          state: maker.state(),
          make: () => maker.make([{ caption: CAPTION, index: 0 }], o),
          plan: () => planSampling(maker.config, o),
        },
        { runs, onRun: (done) => line.update(done) },
      );
      line.done();
      await device.settle();
      return { system: maker.system, adapter: device.name, cost };
    } finally {
      device.close();
    }
  });
}

function rows({ parameters, time, memory, flops, dispatches }: SystemCost): string[][] {
  const seconds = (s: number): string => `${s.toPrecision(3)} s`;
  return [
    ["parameters", parameters.total.toLocaleString("en")],
    ...Object.entries(parameters.components).map(([name, n]) => [`  ${name}`, n.toLocaleString("en")]),
    [`mean of ${time.runs}`, seconds(time.mean)],
    ["  median", seconds(time.median)],
    ["  5 % are below", seconds(time.p5)],
    ["  95 % are below", seconds(time.p95)],
    ["memory, planned", bytes(memory.planned)],
    ["memory, measured", memory.measured === null ? "not known" : bytes(memory.measured)],
    ["operations", work(flops)],
    ["dispatches", dispatches.toLocaleString("en")],
  ];
}
