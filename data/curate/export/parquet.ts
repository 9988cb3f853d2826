// Parquet with the images inside, in the columns that Hugging Face's datasets knows as an image feature: a struct of bytes and
// path. Several files of a bounded size for each split, written by DuckDB.

import { join } from "node:path";
import type { Collection } from "../collection.ts";
import { type Database, text, withDatabase } from "../tables.ts";
import { exported, exportRows, fields, fileName } from "./rows.ts";

export interface ParquetOptions {
  /** Image bytes in a file; DuckDB holds a file's rows in memory while it sorts them. */
  readonly fileBytes?: number;
  readonly onProgress?: (done: number) => void;
}

const FILE_BYTES = 200_000_000;

interface Part {
  readonly split: string;
  readonly index: number;
  readonly rows: { readonly id: string; readonly path: string; readonly name: string }[];
  bytes: number;
}

/** Writes <split>-00000.parquet, ...; returns how many stickers they hold. */
export async function exportParquet(collection: Collection, out: string, o: ParquetOptions = {}): Promise<number> {
  const { fileBytes = FILE_BYTES, onProgress } = o;
  return withDatabase(async (db) => {
    let part: Part | undefined;
    let done = 0;
    const flush = async (): Promise<void> => {
      if (!part) return;
      await writePart(collection, db, part, out);
      done += part.rows.length;
      onProgress?.(done);
    };
    for await (const row of exportRows(collection, db)) {
      if (!part || part.split !== row.split || part.bytes >= fileBytes) {
        await flush();
        part = { split: row.split, index: part?.split === row.split ? part.index + 1 : 0, rows: [], bytes: 0 };
      }
      part.rows.push({ id: row.id, path: collection.mediaPath(row.id, row.format), name: fileName(row) });
      part.bytes += row.bytes;
    }
    await flush();
    return done;
  });
}

async function writePart(
  collection: Collection,
  db: Database,
  { split, index, rows }: Part,
  out: string,
): Promise<void> {
  const paths = rows.map(({ path }) => text(path)).join(", ");
  const names = rows.map(({ id, path, name }) => `(${text(id)}, ${text(path)}, ${text(name)})`).join(", ");
  await db.write(
    `SELECT e.id, {'bytes': b.content, 'path': n.name} AS image, ${fields()}
      FROM ${exported(collection)} e JOIN (VALUES ${names}) n(id, path, name) USING (id)
      JOIN read_blob([${paths}]) b ON b.filename = n.path ORDER BY e.id`,
    join(out, `${split}-${String(index).padStart(5, "0")}.parquet`),
  );
}
