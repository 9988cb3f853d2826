// Files that are either as they were or complete, whatever interrupts the write: written aside in the same folder, brought
// to the disk, then renamed. Used for checkpoints and for the small files of a run folder.

import { randomBytes } from "node:crypto";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";

/** Of this process, unlike any on another machine with the same disk. */
const WRITER = `${process.pid}.${randomBytes(6).toString("hex")}`;

/** Where a file is while it is written; the first number is the process. */
export function asideOf(path: string): string {
  return `${path}.${WRITER}.tmp`;
}

/** The file that is being written where `text`, a path or a sentence with one, names its place beside: what a user knows. */
export function withoutAside(text: string): string {
  return text.replaceAll(/\.\d+\.[0-9a-f]{12}\.tmp(?![\w.])/g, "");
}

/** Replaces the file at `path` by what `write` puts into the handle; on an error the old file stays and nothing else. */
export async function replaceFile(path: string, write: (file: FileHandle) => Promise<void>): Promise<void> {
  const aside = asideOf(path);
  try {
    const file = await open(aside, "w");
    try {
      await write(file);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(aside, path);
  } catch (error) {
    await rm(aside, { force: true });
    throw error;
  }
  await syncFolder(dirname(path));
}

/** Brings the names in a folder to the disk: a rename alone survives a killed process, but not a power cut. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
