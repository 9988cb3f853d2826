// What both containers of torch files come down to: one pickled value, and storages that are ranges of bytes. zip.ts and
// legacy.ts make one; file.ts reads tensors from it.

import { TorchFileError } from "./error.ts";
import { PickleEnd, PickleError, unpickle, type Value } from "./pickle.ts";
import { ForbiddenGlobal, type StorageRef, torchWorld } from "./world.ts";

export interface Extent {
  readonly bytes: number;
  read(begin: number, end: number): Promise<ArrayBuffer>;
}

export interface Archive {
  readonly value: Value;
  /** Every storage that the pickle speaks of. */
  readonly storages: ReadonlyMap<string, StorageRef>;
  readonly bigEndian: boolean;
  extent(key: string): Extent | undefined;
}

/** Bytes that a pickle may have. Tensors are not in it, so that of a real checkpoint is far smaller. */
export const MAX_PICKLE = 1 << 26;

/** `unpickle` in torch's world; errors name the file. Passes PickleEnd on when `more` of the file could mend it. */
export function parsePickle(
  label: string,
  bytes: Uint8Array,
  start: number,
  storages: Map<string, StorageRef>,
  more = false,
): { value: Value; end: number } {
  try {
    return unpickle(bytes, start, torchWorld(storages));
  } catch (error) {
    if (error instanceof PickleEnd && !more) throw new TorchFileError(label, `the file is cut off: ${error.message}`);
    if (error instanceof ForbiddenGlobal) throw new TorchFileError(label, `refused: ${error.message}`);
    if (error instanceof PickleError) throw new TorchFileError(label, `not a valid torch file: ${error.message}`);
    throw error;
  }
}
