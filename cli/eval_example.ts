// `gifgrad eval example`: the scores of an example beside those that are published for it. What it consists of is eval/example.ts.

import { join } from "node:path";
import { writeStarter } from "../data/starter/index.ts";
import { openDevice } from "../engine/index.ts";
import { type Clips, openClips } from "../eval/clips.ts";
import { compareExample, EXAMPLE, exampleScores, TOLERANCE } from "../eval/example.ts";
import type { ExampleOptions } from "./options.ts";
import { announce } from "./train.ts";

/** Prints a line per score; the exit code is 1 when one is not as published. */
export async function run({ out }: ExampleOptions): Promise<void> {
  const device = await openDevice();
  const open: Clips[] = [];
  try {
    announce(device);
    const { count, size } = EXAMPLE;
    const set = async (name: "generated" | "real"): Promise<Clips> => {
      await writeStarter(join(out, name), { count, size, seed: EXAMPLE[name] });
      const clips = await openClips(join(out, name));
      open.push(clips);
      return clips;
    };
    const sets = { generated: await set("generated"), real: await set("real") };
    const rows = compareExample(await exampleScores(sets.generated, sets.real), sets);
    for (const { name, value, expected, ok } of rows)
      console.log(`${ok ? "ok  " : "FAIL"} ${name.padEnd(6)} ${value.toPrecision(6)}, published ${expected}`);
    if (rows.some(({ ok }) => !ok)) process.exitCode = 1;
    console.log(`within ${TOLERANCE} of the value: ${rows.filter(({ ok }) => ok).length} of ${rows.length}`);
    await device.settle();
  } finally {
    for (const clips of open) clips.close();
    device.close();
  }
}
