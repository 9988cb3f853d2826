// WebDataset: tar shards of about 500 MB in which a sticker is <id>.<ext>, <id>.json and <id>.txt. Times are zero, so the same
// data set gives the same bytes.

import { createWriteStream } from "node:fs";
import { mkdir, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { type Pack, pack } from "tar-stream";
import type { Collection } from "../collection.ts";
import { withDatabase } from "../tables.ts";
import { exportRows, fileName } from "./rows.ts";

export interface WebDatasetOptions {
  readonly shardBytes?: number;
  readonly onProgress?: (done: number) => void;
}

const SHARD_BYTES = 500_000_000;
const EPOCH = new Date(0);

/** Writes the shards <split>-000000.tar, ...; returns how many stickers they hold. */
export async function exportWebDataset(
  collection: Collection,
  out: string,
  o: WebDatasetOptions = {},
): Promise<number> {
  const { shardBytes = SHARD_BYTES, onProgress } = o;
  await mkdir(out, { recursive: true });
  let shard: Shard | undefined;
  let done = 0;
  await withDatabase(async (db) => {
    for await (const row of exportRows(collection, db)) {
      if (shard && (shard.split !== row.split || shard.bytes >= shardBytes)) {
        await shard.close();
        shard = new Shard(out, row.split, shard.split === row.split ? shard.index + 1 : 0);
      }
      shard ??= new Shard(out, row.split, 0);
      await shard.add(fileName(row), await readFile(collection.mediaPath(row.id, row.format)));
      await shard.add(`${row.id}.json`, JSON.stringify(row.record));
      await shard.add(`${row.id}.txt`, String(row.record.caption));
      done++;
      onProgress?.(done);
    }
  });
  await shard?.close();
  return done;
}

class Shard {
  readonly split: string;
  readonly index: number;
  bytes = 0;
  readonly #tar: Pack = pack();
  readonly #path: string;
  readonly #written: Promise<void>;

  constructor(out: string, split: string, index: number) {
    this.split = split;
    this.index = index;
    this.#path = join(out, `${split}-${String(index).padStart(6, "0")}.tar`);
    this.#written = pipeline(this.#tar, createWriteStream(`${this.#path}.tmp`));
    this.#written.catch(() => {}); // told by close
  }

  async add(name: string, content: Uint8Array | string): Promise<void> {
    const bytes = Buffer.from(content);
    await new Promise<void>((resolve, reject) =>
      this.#tar.entry({ name, mtime: EPOCH }, bytes, (error) => (error ? reject(error) : resolve())),
    );
    this.bytes += bytes.length;
  }

  async close(): Promise<void> {
    this.#tar.finalize();
    await this.#written;
    await rename(`${this.#path}.tmp`, this.#path);
  }
}
