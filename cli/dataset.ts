// The commands of `gifgrad dataset`: open the data set, run a stage, say what came of it. What stages do is in data/curate.

import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import type { Collection } from "../data/curate/collection.ts";
import { createCollection, openCollection, parseJson } from "../data/curate/collection.ts";
import { configSchema, parseConfig } from "../data/curate/config.ts";
import { filterTable, recordsTable, verdicts } from "../data/curate/derived.ts";
import { mergeInto } from "../data/curate/merge.ts";
import { runStage, type Stage, sealStage } from "../data/curate/stage.ts";
import { STAGES } from "../data/curate/stages/index.ts";
import { progress } from "../train/progress.ts";
import type { BuildOptions, StageCommandOptions } from "./dataset_commands.ts";

export async function build(configPath: string, { out }: BuildOptions): Promise<void> {
  const text = await readFile(configPath, "utf8").catch(() => {
    throw new Error(`there is no configuration ${configPath}`);
  });
  const config = parseConfig(parseJson(text, configPath), configPath, dirname(resolve(configPath)));
  const collection = await createCollection(out, config);
  for (const one of STAGES) {
    if (!(await runOne(collection, one, {}))) return;
  }
  await filterTable(collection);
  await recordsTable(collection);
  await tell(collection);
}

export async function stage(dir: string, name: string, o: StageCommandOptions): Promise<void> {
  await runOne(await openCollection(dir), named(name), o);
}

export async function filter(dir: string): Promise<void> {
  const collection = await openCollection(dir);
  await filterTable(collection);
  await recordsTable(collection);
  await tell(collection);
}

export async function merge(dir: string, name: string, from: readonly string[]): Promise<void> {
  const collection = await openCollection(dir);
  for (const other of from) await mergeInto(collection, await openCollection(other), name);
  const missing = await sealStage(collection, named(name));
  console.log(missing === 0 ? `${name}: the table is complete` : `${name}: ${missing} items have not been done yet`);
}

export function schema(): void {
  console.log(JSON.stringify(configSchema(), null, 2));
}

function named(name: string): Stage {
  return STAGES.find((one) => one.name === name)!;
}

/** Runs a stage with a line of progress; Ctrl-C finishes what is in hand. Returns whether it came to its end. */
async function runOne(collection: Collection, one: Stage, { shard }: StageCommandOptions): Promise<boolean> {
  const stop = new AbortController();
  const interrupt = (): void => stop.abort();
  process.once("SIGINT", interrupt);
  const line = progress(one.name, 0);
  try {
    const result = await runStage(collection, one, {
      shard,
      signal: stop.signal,
      onProgress: (done, total, note) => line.update(done, note, total),
    });
    line.done(result.before > 0 ? `${result.before} were done before` : "");
    for (const reason of result.putOff.slice(0, 3)) console.error(`  put off: ${reason}`);
    if (result.putOff.length > 0) console.error(`  ${result.putOff.length} put off; run it again to try them again`);
    if (result.interrupted) console.error("stopped; the same command goes on from here");
    return !result.interrupted;
  } finally {
    process.off("SIGINT", interrupt);
  }
}

async function tell(collection: Collection): Promise<void> {
  for (const [verdict, count] of await verdicts(collection)) console.log(`${String(count).padStart(9)}  ${verdict}`);
}
