// How a data set of a million stickers behaves: makes annotations of that size and times every step of a build on them, and what
// is asked of them later. `npm run dataset:scale -- --records 1000000`. Every step is a process of its own, so that the most
// memory told of it is its own. Prints JSON lines. With `--decode` it times decoding instead, see decode.ts.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { peakBytes } from "../../data/curate/memory.ts";
import { decodeScale } from "./decode.ts";
import { STEPS } from "./steps.ts";

const text = { type: "string" } as const;
const { values } = parseArgs({
  options: {
    records: { ...text, default: "1000000" },
    /** A folder in which the data set is made and stays; by default one that is removed at the end. */
    dir: text,
    /** Only these steps, by their names with commas between: with --dir, after those before them were done. */
    only: text,
    /** The one step that this process does, when it was started for one. */
    step: text,
    decode: { type: "boolean", default: false },
    stickers: { ...text, default: "400" },
  },
});
const records = Number(values.records);
if (values.decode) await decodeScale(Number(values.stickers));
else if (values.step !== undefined) await oneStep(values.step, values.dir!);
else await annotationScale();

async function annotationScale(): Promise<void> {
  const dir = values.dir ?? (await mkdtemp(join(tmpdir(), "gifgrad-scale-")));
  const only = values.only?.split(",");
  const unknown = only?.find((name) => !(name in STEPS));
  if (unknown !== undefined)
    throw new Error(`no step is called "${unknown}"; there are ${Object.keys(STEPS).join(", ")}`);
  try {
    for (const name of only ?? Object.keys(STEPS)) {
      const start = performance.now();
      const args = [process.argv[1], "--step", name, "--dir", dir, "--records", String(records)];
      const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
      let told = "";
      child.stdout.on("data", (piece) => {
        told += piece;
      });
      const [code] = await once(child, "close");
      if (code !== 0) throw new Error(`${name} ended with ${code}`);
      const seconds = tenths((performance.now() - start) / 1e3);
      console.log(JSON.stringify({ what: name, records, seconds, ...JSON.parse(told.trim().split("\n").at(-1)!) }));
    }
  } finally {
    if (values.dir === undefined) await rm(dir, { recursive: true, force: true });
  }
}

/** Prints what it took of this whole process, its start included, and what the step tells besides. */
async function oneStep(name: string, dir: string): Promise<void> {
  const told = await STEPS[name](dir, records);
  const { user, system } = process.cpuUsage();
  console.log(
    JSON.stringify({
      cpu: tenths((user + system) / 1e6),
      megabytes: Math.round(peakBytes() / 1e6),
      ...(told as object),
    }),
  );
}

function tenths(x: number): number {
  return Math.round(10 * x) / 10;
}
