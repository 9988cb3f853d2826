// The container of torch files before 1.6: five pickles one behind another (a magic number, a version, facts about the
// machine, the object, the keys of its storages), then for each key a count and the raw elements, always little-endian.

import { element } from "../safetensors/elements.ts";
import type { Source } from "../source.ts";
import { type Archive, type Extent, MAX_PICKLE, parsePickle } from "./archive.ts";
import { TorchFileError } from "./error.ts";
import { PickleEnd, type Value } from "./pickle.ts";
import type { StorageRef } from "./world.ts";

const MAGIC = 0x1950a86a20f9469cfc6cn;
const VERSION = 1001;

export async function openLegacy(source: Source): Promise<Archive> {
  const pickles = new Pickles(source);
  const storages = new Map<string, StorageRef>();
  const magic = await pickles.next(storages);
  if (magic !== MAGIC) throw new TorchFileError(source.label, "a pickle, but not one that torch.save wrote");
  const version = await pickles.next(storages);
  if (version !== VERSION) throw new TorchFileError(source.label, "an unknown version of the old container");
  await pickles.next(storages); // facts about the machine that wrote it; the data does not depend on them
  const value = await pickles.next(storages);
  const keys = await pickles.next(storages);
  const extents = await findStorages(source, pickles.end, keys, storages);
  return { value, storages, bigEndian: false, extent: (key) => extents.get(key) };
}

/** Pickles in a row: reads twice as much whenever one goes on behind what was read. */
class Pickles {
  /** Where the next pickle, or what follows the last, begins. */
  end = 0;
  #read = 1 << 16;
  #bytes: Uint8Array | undefined;
  readonly #source: Source;

  constructor(source: Source) {
    this.#source = source;
  }

  async next(storages: Map<string, StorageRef>): Promise<Value> {
    const { label, size } = this.#source;
    for (;;) {
      const length = Math.min(size, this.#read);
      this.#bytes ??= new Uint8Array(await this.#source.bytes(0, length));
      const more = length < size && length < MAX_PICKLE;
      try {
        const { value, end } = parsePickle(label, this.#bytes, this.end, storages, more);
        this.end = end;
        return value;
      } catch (error) {
        if (!(error instanceof PickleEnd)) throw error;
        this.#read *= 2;
        this.#bytes = undefined;
      }
    }
  }
}

async function findStorages(
  { label, size, bytes }: Source,
  start: number,
  keys: Value,
  storages: ReadonlyMap<string, StorageRef>,
): Promise<Map<string, Extent>> {
  if (!Array.isArray(keys)) throw new TorchFileError(label, "no list of storages");
  const extents = new Map<string, Extent>();
  let at = start;
  for (const key of keys as readonly Value[]) {
    const storage = typeof key === "string" ? storages.get(key) : undefined;
    if (!storage || extents.has(storage.key)) throw new TorchFileError(label, "its list of storages is damaged");
    if (at + 8 > size) throw new TorchFileError(label, `the file is cut off before storage ${storage.key}`);
    const count = new DataView(await bytes(at, at + 8)).getBigInt64(0, true);
    const [begin, length] = [at + 8, Number(count) * element(storage.dtype).bytes];
    if (count < 0n || begin + length > size) {
      const have = `${size - begin} of ${length} bytes`;
      throw new TorchFileError(label, `storage ${storage.key} is cut off or damaged: ${have} are there`);
    }
    extents.set(storage.key, { bytes: length, read: (from, to) => bytes(begin + from, begin + to) });
    at = begin + length;
  }
  return extents;
}
