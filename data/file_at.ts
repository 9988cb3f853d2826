// A piece of a file at a position: read at once or while the caller goes on, and written. Used by clip_cache.ts, by
// what fills its file, and by the files of features in train/.

import { closeSync, openSync, read, readSync, writeSync } from "node:fs";
import { promisify } from "node:util";

const readLater = promisify(read);

/** Fills `into` from byte `at` of an open file. False where the file ends before that. */
export function readAtOnce(file: number, into: Uint8Array, at: number): boolean {
  return readSync(file, into, 0, into.length, at) === into.length;
}

/** The same on a thread of Node's pool. The file must stay open until it is done. */
export async function readAt(file: number, into: Uint8Array, at: number): Promise<boolean> {
  return (await readLater(file, into, 0, into.length, at)).bytesRead === into.length;
}

/** Writes all of `bytes` at byte `at` of the file at `path`, which exists: several processes may fill one file so. */
export function writeAtOnce(path: string, bytes: Uint8Array, at: number): void {
  const file = openSync(path, "r+");
  try {
    for (let done = 0; done < bytes.length; ) {
      done += writeSync(file, bytes, done, bytes.length - done, at + done); // a full disk writes a part first
    }
  } finally {
    closeSync(file);
  }
}
