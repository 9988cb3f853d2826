// Files of a data set that are whole or not there: copying, and clearing away what killed processes were writing.
// Whatever is written, here and by engine/atomic.ts, is written as "<name>.<process>.<random>.tmp" beside its place and then
// renamed.

import { copyFile, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { asideOf } from "../../engine/atomic.ts";

/**
 * Removes what processes that are no more were writing in `dir`, of names that begin with `prefix`. Called before the one
 * process that may write there begins; what a living process of this machine writes stays.
 */
export async function sweep(dir: string, prefix = ""): Promise<void> {
  const names = await readdir(dir).catch(() => [] as string[]);
  for (const name of names) {
    const [, writer] = /\.(\d+)(?:\.[0-9a-f]+)?\.tmp$/.exec(name) ?? [];
    if (writer === undefined || !name.startsWith(prefix) || lives(Number(writer))) continue;
    await rm(join(dir, name), { force: true });
  }
}

/** Whether another process has this number. In containers the killed one often had ours. */
function lives(pid: number): boolean {
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** Copies a file unless one of its length is there: that one was renamed into place when it was whole. */
export async function copyWhole(from: string, to: string): Promise<void> {
  const [source, there] = [await stat(from), await stat(to).catch(() => null)];
  if (there?.size === source.size) return;
  await copyFile(from, asideOf(to));
  await rename(asideOf(to), to);
}
