// Parquet with the images inside, in the columns that Hugging Face's datasets knows as an image feature: a struct of bytes and
// path. Several files of a bounded size for each split, written by DuckDB.

import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Collection } from "../collection.ts";
import { type Database, text, withDatabase } from "../tables.ts";
import { exported, exportParts, fields, fileName, type Part } from "./rows.ts";

export interface ParquetOptions {
  /** Image bytes in a file; DuckDB holds a file's rows in memory while it sorts them. */
  readonly fileBytes?: number;
  readonly onProgress?: (done: number) => void;
}

const FILE_BYTES = 200_000_000;
/** By which Hugging Face's reader knows that the struct is a picture; the other columns it takes as they are. */
const HUGGINGFACE = JSON.stringify({ info: { features: { image: { _type: "Image" } } } });

/** Writes <split>-00000.parquet, ...; returns how many stickers they hold. Files that are there already stay. */
export async function exportParquet(collection: Collection, out: string, o: ParquetOptions = {}): Promise<number> {
  const { fileBytes = FILE_BYTES, onProgress } = o;
  let done = 0;
  await withDatabase(async (db) => {
    for await (const part of exportParts(collection, db, fileBytes)) {
      const path = join(out, `${part.group}-${String(part.index).padStart(5, "0")}.parquet`);
      if (!existsSync(path)) await writePart(collection, part, path);
      done += part.rows.length;
      onProgress?.(done);
    }
  });
  return done;
}

async function writePart(collection: Collection, { rows }: Part, path: string): Promise<void> {
  const files = rows.map((row) => ({
    id: row.id,
    path: collection.mediaPath(row.id, row.format),
    name: fileName(row),
  }));
  const paths = files.map((file) => text(file.path)).join(", ");
  const names = files.map((file) => `(${text(file.id)}, ${text(file.path)}, ${text(file.name)})`).join(", ");
  await withDatabase((db: Database) =>
    db.write(
      `SELECT e.id, {'bytes': b.content, 'path': n.name} AS image, ${fields()}
      FROM ${exported(collection)} e JOIN (VALUES ${names}) n(id, path, name) USING (id)
      JOIN read_blob([${paths}]) b ON b.filename = n.path ORDER BY e.id`,
      path,
      { huggingface: HUGGINGFACE },
    ),
  );
}
