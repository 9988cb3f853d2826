// Whether a data set is still what it was: every file under the hash that is its name, every table as it was made, every record
// with its file. What `dataset verify` prints, and what its --prune removes.

import { existsSync } from "node:fs";
import { readdir, readFile, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { replaceFile } from "../../engine/atomic.ts";
import { fileSha256 } from "../hash.ts";
import { parseJson } from "../json_config.ts";
import type { Collection } from "./collection.ts";
import { sweep } from "./files.ts";
import { type Entry, entries, journals, wellFormedJson } from "./journal.ts";
import { type Collected, collect } from "./stages/collect.ts";
import { table, withDatabase } from "./tables.ts";

export interface Fault {
  readonly path: string;
  readonly fault: "missing" | "changed" | "not in any table";
}

const SUMS = "tables.json";
/** Files read at a time. */
const PARALLEL = 8;

/** Records the hashes of the tables, after every command that makes some. */
export async function rememberTables(collection: Collection): Promise<void> {
  const dir = join(collection.dir, "annotations");
  await sweep(dir, SUMS);
  const sums = Object.fromEntries(
    await Promise.all((await tables(dir)).map(async (file) => [file, await fileSha256(join(dir, file))])),
  );
  await replaceFile(join(dir, SUMS), (file) => file.writeFile(`${JSON.stringify(sums, null, 2)}\n`));
}

async function tables(dir: string): Promise<string[]> {
  return (await readdir(dir)).filter((name) => name.endsWith(".parquet")).sort();
}

/** Checks everything and yields what is wrong. `onProgress` counts files. */
export async function* verify(
  collection: Collection,
  onProgress: (done: number, total: number) => void = () => {},
): AsyncGenerator<Fault> {
  yield* verifyTables(join(collection.dir, "annotations"));
  const files = await withDatabase((db) =>
    db.all(`SELECT DISTINCT id, format FROM ${table(collection, "collect")} WHERE id IS NOT NULL ORDER BY id`),
  );
  const expected = new Set(files.map(({ id, format }) => `${id}.${format}`));
  let done = 0;
  for (let at = 0; at < files.length; at += PARALLEL) {
    const checked = files.slice(at, at + PARALLEL).map(async ({ id, format }): Promise<Fault | null> => {
      const path = collection.mediaPath(String(id), String(format));
      if (!existsSync(path)) return { path, fault: "missing" };
      return (await fileSha256(path)) === id ? null : { path, fault: "changed" };
    });
    for (const fault of await Promise.all(checked)) if (fault) yield fault;
    done = Math.min(files.length, at + PARALLEL);
    onProgress(done, files.length);
  }
  for await (const path of mediaFiles(collection)) {
    if (!expected.has(basename(path))) yield { path, fault: "not in any table" };
  }
}

/**
 * Removes files that are in no table, e.g. since their source has lost them, and what the journals say of them: the source may
 * get them back. Not while a stage runs.
 */
export async function prune(collection: Collection, paths: readonly string[]): Promise<void> {
  const names = new Set(paths.map((path) => basename(path)));
  const goes = ({ row }: Entry<Collected>): boolean => names.has(`${row.id}.${row.format}`);
  for (const path of await journals(collection.journalDir(collect.name))) {
    let some = false;
    for await (const entry of entries<Collected>(path)) some ||= goes(entry);
    if (!some) continue;
    await replaceFile(path, async (file) => {
      for await (const entry of entries<Collected>(path))
        if (!goes(entry)) await file.write(`${wellFormedJson(entry)}\n`);
    });
  }
  for (const path of paths) await rm(path);
}

async function* verifyTables(dir: string): AsyncGenerator<Fault> {
  const path = join(dir, SUMS);
  const known = existsSync(path) ? (parseJson(await readFile(path, "utf8"), path) as Record<string, string>) : {};
  for (const [file, sum] of Object.entries(known)) {
    if (!existsSync(join(dir, file))) yield { path: join(dir, file), fault: "missing" };
    else if ((await fileSha256(join(dir, file))) !== sum) yield { path: join(dir, file), fault: "changed" };
  }
}

async function* mediaFiles(collection: Collection): AsyncGenerator<string> {
  for (const folder of await collection.mediaFolders()) {
    for (const file of (await readdir(folder)).sort()) yield join(folder, file);
  }
}
