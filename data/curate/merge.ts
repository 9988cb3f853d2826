// Bringing together what several machines have done with copies of a data set: their journals and the files they collected.

import { mkdir, readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { replaceFile } from "../../engine/atomic.ts";
import { sha256 } from "../hash.ts";
import type { Collection } from "./collection.ts";
import { copyWhole } from "./files.ts";
import { journals } from "./journal.ts";

/** Copies the journals of `stage` from another copy of the data set, and the files that this one lacks. Repeating it is safe. */
export async function mergeInto(collection: Collection, other: Collection, stage: string): Promise<void> {
  const dir = collection.journalDir(stage);
  await mkdir(dir, { recursive: true });
  for (const path of await journals(other.journalDir(stage))) {
    // Named after the copy it comes from: each has a journal "1-of-8".
    const name = `${basename(path, ".jsonl")}-from-${sha256(other.dir).slice(0, 8)}.jsonl`;
    const bytes = await readFile(path);
    const whole = bytes.subarray(0, bytes.lastIndexOf(10) + 1);
    await replaceFile(join(dir, name), (file) => file.writeFile(whole));
  }
  for (const folder of await other.mediaFolders()) {
    const into = join(collection.dir, "media", basename(folder));
    await mkdir(into, { recursive: true });
    for (const file of await readdir(folder)) {
      if (!file.endsWith(".tmp")) await copyWhole(join(folder, file), join(into, file));
    }
  }
}
