// Where an export may go: an empty folder, or one in which the same export was killed. While it is being written the folder holds
// a file that says what it will be; what an earlier export left there may have been filtered out since and must not be shared.

import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { replaceFile } from "../../../engine/atomic.ts";
import { fileSha256, sha256Json } from "../../hash.ts";
import type { Collection } from "../collection.ts";
import { sweep } from "../files.ts";

const MARK = ".unfinished";

/**
 * Makes `out` ready for the export that `how` describes and returns what to call at its end. Files in it are whole, and stay.
 * @throws Error when `out` is no folder, or holds anything but the beginning of this export of this data set
 */
export async function beginExport(collection: Collection, out: string, how: object): Promise<() => Promise<void>> {
  const mark = join(out, MARK);
  const tables = await Promise.all(["records", "split"].map((table) => fileSha256(collection.tablePath(table))));
  const what = `${sha256Json([how, tables])}\n`;
  const there = await readdir(out).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw new Error(`export: ${out} is not a folder`);
  });
  if (!existsSync(mark)) {
    if (there.some((name) => !name.startsWith(`${MARK}.`)))
      throw new Error(`export: ${out} is not empty: give a new folder, or empty it first`);
    await mkdir(out, { recursive: true });
    await replaceFile(mark, (file) => file.writeFile(what));
  } else if ((await readFile(mark, "utf8")) !== what) {
    throw new Error(`export: ${out} holds the beginning of another export: give a new folder, or empty it first`);
  }
  for (const entry of await readdir(out, { recursive: true, withFileTypes: true })) {
    if (entry.isDirectory()) await sweep(join(entry.parentPath, entry.name));
  }
  await sweep(out);
  return () => rm(mark);
}
