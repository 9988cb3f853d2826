// A folder that appears whole or not at all: written aside under a hidden name, then renamed.

import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { asideOf, syncFolder } from "../../engine/atomic.ts";

/** Throws one line when `out` is there and not empty. Called first, before anything long begins. */
export async function checkFree(out: string): Promise<void> {
  const names = await readdir(out).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error.code === "ENOTDIR" ? new Error(`${out} is a file: give a folder`) : error;
  });
  if (names.length > 0) throw new Error(`${out} is there already and not empty: give another folder`);
}

/** Has `write` fill a folder, which then gets the name `out`; on an error nothing is left. */
export async function newFolder<T>(out: string, write: (folder: string) => Promise<T>): Promise<T> {
  await checkFree(out);
  const parent = dirname(resolve(out));
  const aside = asideOf(join(parent, `.${basename(resolve(out))}`));
  try {
    await mkdir(aside, { recursive: true });
    const result = await write(aside);
    await rm(out, { recursive: true, force: true }); // an empty folder
    await rename(aside, out);
    await syncFolder(parent);
    return result;
  } catch (error) {
    await rm(aside, { recursive: true, force: true });
    throw error;
  }
}
