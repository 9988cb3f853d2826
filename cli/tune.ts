// `gifgrad tune`: measures which kernel variant is fastest on this adapter for the shapes of a preset's training steps, and
// stores the choices where openDevice finds them. Goes on where it was stopped.

import { mkdirSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { replaceFile } from "../engine/atomic.ts";
import { trace } from "../engine/compile.ts";
import { openDevice, type Tensor } from "../engine/index.ts";
import type { GpuDevice } from "../engine/runtime/gpu.ts";
import { type TuneResult, tune, tuneCases, withResult } from "../engine/tune.ts";
import { readTuning, type TuningFile, tuningPath } from "../engine/tuning.ts";
import { presetConfig } from "../models/config.ts";
import { RECIPES, type TuneOptions } from "./options.ts";
import { STEPS } from "./steps.ts";
import { announce } from "./train.ts";

/** Prints a line per class of shapes and, with --json, the file. */
export async function run(o: TuneOptions): Promise<void> {
  const device = (await openDevice({ device: "gpu", tuned: false })) as GpuDevice;
  try {
    announce(device);
    const path = resolve(o.out ?? tuningPath(device.name));
    mkdirSync(dirname(path), { recursive: true });
    let file: TuningFile = (o.fresh ? null : readTuning(path, device.name)) ?? {
      format: 1,
      adapter: device.name,
      choices: {},
      measured: {},
    };
    const cases = tuneCases(
      (o.recipe ? [o.recipe] : RECIPES).map((recipe) => programOf(o, recipe)),
      device.dawn,
    );
    const open = cases.filter((c) => !(c.key in file.measured)).slice(0, o.limit);
    console.error(`${cases.length} classes of shapes, ${cases.length - open.length} of them left as they are`);
    for (const [i, c] of open.entries()) {
      const result = await tune(device.dawn, c);
      file = withResult(file, result);
      await replaceFile(path, async (handle) => handle.writeFile(`${JSON.stringify(file, null, 1)}\n`));
      console.error(`${i + 1}/${open.length} ${describe(result)}`);
    }
    if (o.json) console.log(JSON.stringify({ path, ...file }));
    else console.log(summary(Object.keys(file.choices).length, path, o.out));
  } finally {
    device.close();
  }
}

/** The recipe's training step as a program; nothing runs. */
function programOf({ preset, batch }: TuneOptions, recipe: (typeof RECIPES)[number]): ReturnType<typeof trace> {
  const { step, feed } = STEPS[recipe](presetConfig(preset), { batch });
  const signature = ({ shape, dtype }: Tensor) => ({ shape, dtype });
  return trace(recipe, step, Object.fromEntries(Object.entries(feed).map(([name, t]) => [name, signature(t)])));
}

/** `out`: the file that was asked for, which is not where openDevice looks by itself. */
export function summary(count: number, path: string, out: string | undefined): string {
  const opened = out === undefined ? "openDevice()" : `openDevice({ tuned: ${JSON.stringify(out)} })`;
  return `${count} ${count === 1 ? "choice" : "choices"} in ${path}; ${opened} uses ${count === 1 ? "it" : "them"}`;
}

export function describe({ key, times, wrong, choice, left }: TuneResult): string {
  const [standard] = Object.keys(times);
  const listed = Object.entries(times)
    .sort(([, a], [, b]) => a - b)
    .map(([name, ms]) => `${name} ${ms.toFixed(3)}`);
  const gain = choice
    ? `${(times[standard] / times[choice]).toFixed(2)}x faster than ${standard}`
    : `as it is${left ? `; ${left}` : ""}`;
  const bad = Object.entries(wrong).map(([name, why]) => ` WRONG ${name}: ${why}`);
  return `${key.split(" ").slice(0, 4).join(" ")}: ${choice ?? standard}, ${gain} (ms: ${listed.join(", ")})${bad.join("")}`;
}
