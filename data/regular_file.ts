// Files that other people name: read only where they are files. Opening a pipe waits for a writer that may never come, a
// device may never end. Called by what reads tables, descriptions and stickers from folders given by users.

import { statSync } from "node:fs";
import { open, readFile, stat } from "node:fs/promises";
import { checkFileSize } from "./decode/limits.ts";

const UNREADABLE: Readonly<Record<string, string>> = {
  ENOENT: "does not exist",
  ENOTDIR: "does not exist",
  EACCES: "cannot be read: no permission",
  ELOOP: "is a link that leads to itself",
  EISDIR: "is a folder, not a file",
};

/** Why a file cannot be read, in a line that begins with `what`. */
export function unreadable(what: string, { code = "" }: { readonly code?: string }): Error {
  return new Error(`${what} ${UNREADABLE[code] ?? `cannot be read (${code})`}`);
}

/** Whether anything is there. Throws the system's error where nobody may look, or it cannot be told: existsSync says no then. */
export function isThere(path: string): boolean {
  try {
    statSync(path);
    return true;
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) return false;
    throw error;
  }
}

/** Throws Error, in one line that begins with `what` ("the table cats.csv"), unless a regular file is at `path`. */
export async function checkRegular(path: string, what: string): Promise<void> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => error);
  if (found instanceof Error) throw unreadable(what, found);
  if (found.isDirectory()) throw unreadable(what, { code: "EISDIR" });
  if (!found.isFile()) throw new Error(`${what} is not a regular file: pipes and devices are not read`);
}

/** Lines of a text file, without a byte order mark. Throws as `checkRegular` does, with the path for `what`. */
export async function* fileLines(path: string): AsyncGenerator<string> {
  await checkRegular(path, path);
  const file = await open(path);
  try {
    let first = true;
    for await (const line of file.readLines({ autoClose: false })) {
      yield first ? line.replace(/^\uFEFF/, "") : line;
      first = false;
    }
  } finally {
    await file.close();
  }
}

/** The bytes of a sticker's file. Throws Error with what is wrong with it: no regular file, empty, too large. */
export async function readSticker(path: string): Promise<Uint8Array> {
  const found = await stat(path);
  if (!found.isFile()) throw new Error("not a regular file");
  checkFileSize(found.size);
  const bytes = await readFile(path);
  checkFileSize(bytes.length);
  return bytes;
}
