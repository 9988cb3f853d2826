// WebDataset: tar shards of about 500 MB in which a sticker is <id>.<ext>, <id>.json and <id>.txt. A shard has one kind of files,
// because readers call a column by the extension. Times are zero, so the same data set gives the same bytes.

import { createWriteStream, existsSync } from "node:fs";
import { mkdir, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { type Pack, pack } from "tar-stream";
import { asideOf } from "../../../engine/atomic.ts";
import type { Collection } from "../collection.ts";
import { withDatabase } from "../tables.ts";
import { type ExportRow, exportParts, fileName } from "./rows.ts";

export interface WebDatasetOptions {
  /** Image bytes in a shard. */
  readonly shardBytes?: number;
  readonly onProgress?: (done: number) => void;
}

const SHARD_BYTES = 500_000_000;
const EPOCH = new Date(0);

/** Writes the shards <split>-<ext>-000000.tar, ...; returns how many stickers they hold. Shards that are there already stay. */
export async function exportWebDataset(
  collection: Collection,
  out: string,
  o: WebDatasetOptions = {},
): Promise<number> {
  const { shardBytes = SHARD_BYTES, onProgress } = o;
  await mkdir(out, { recursive: true });
  let done = 0;
  await withDatabase(async (db) => {
    for await (const { group, index, rows } of exportParts(collection, db, shardBytes, "kind")) {
      const path = join(out, `${group}-${String(index).padStart(6, "0")}.tar`);
      if (!existsSync(path)) await writeShard(collection, rows, path, (n) => onProgress?.(done + n));
      done += rows.length;
      onProgress?.(done);
    }
  });
  return done;
}

async function writeShard(
  collection: Collection,
  rows: readonly ExportRow[],
  path: string,
  onProgress: (done: number) => void,
): Promise<void> {
  const tar = pack();
  const written = pipeline(tar, createWriteStream(asideOf(path)));
  written.catch(() => {}); // told below
  for (const [i, row] of rows.entries()) {
    await add(tar, fileName(row), await readFile(collection.mediaPath(row.id, row.format)));
    await add(tar, `${row.id}.json`, JSON.stringify(row.record));
    await add(tar, `${row.id}.txt`, String(row.record.caption));
    onProgress(i + 1);
  }
  tar.finalize();
  await written;
  await rename(asideOf(path), path);
}

async function add(tar: Pack, name: string, content: Uint8Array | string): Promise<void> {
  await new Promise<void>((resolve, reject) =>
    tar.entry({ name, mtime: EPOCH }, Buffer.from(content), (error) => (error ? reject(error) : resolve())),
  );
}
