// What leaves with a sticker, in every format of export: the fields of a line of metadata.jsonl (../../record.ts), so that an
// export is a data set for training as it is. A sticker without a description goes by its trigger words.

import type { Collection } from "../collection.ts";
import { type Database, table } from "../tables.ts";

export interface ExportRow {
  readonly id: string;
  readonly format: string;
  readonly bytes: number;
  readonly split: string;
  /** Fields of the record, those without a value left out. */
  readonly record: Readonly<Record<string, unknown>>;
}

/** Columns of the records that leave, under the names of record.ts. */
const FIELDS = {
  caption: "coalesce(caption, array_to_string(trigger_words, ', '))",
  caption_source: "if(caption IS NULL, 'trigger words', NULL)",
  domain: "domain",
  caption_zh: "caption_zh",
  subject: "subject",
  action: "action",
  text: "nullif(ocr, '')",
  trigger_words: "trigger_words",
  license: "nullif(license, '')",
  attribution: "nullif(attribution, '')",
  frames: "frames",
  width: "width",
  height: "height",
  duration_ms: "duration_ms",
  test_set: "test_set",
  test_word: "test_word",
} as const;

/** FROM of everything that leaves: kept, described in some way, and not like a test sticker. */
export function exported(collection: Collection): string {
  const split = table(collection, "split");
  return `(SELECT r.*, s.split, s.test_set, s.test_word FROM ${table(collection, "records")} r JOIN ${split} s USING (id)
    WHERE s.split <> 'excluded' AND (caption IS NOT NULL OR len(trigger_words) > 0))`;
}

/** SELECT list of FIELDS. */
export function fields(): string {
  return Object.entries(FIELDS)
    .map(([name, value]) => `${value} AS ${name}`)
    .join(", ");
}

/** Every sticker that leaves, by split and id. */
export async function* exportRows(collection: Collection, db: Database): AsyncGenerator<ExportRow> {
  const sql = `SELECT id, format, bytes::INT AS bytes, split, ${fields()} FROM ${exported(collection)} ORDER BY split, id`;
  for await (const { id, format, bytes, split, ...rest } of db.rows(sql)) {
    const record = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== null));
    yield { id: String(id), format: String(format), bytes: bytes as number, split: String(split), record };
  }
}

/** Rows of one split that go into one file. */
export interface Part {
  readonly split: string;
  /** Number of the file within its split. */
  readonly index: number;
  readonly rows: readonly ExportRow[];
}

/** Everything that leaves, in parts of about `limit` bytes of image files: the same parts each time. */
export async function* exportParts(collection: Collection, db: Database, limit: number): AsyncGenerator<Part> {
  let [rows, bytes, index]: [ExportRow[], number, number] = [[], 0, 0];
  for await (const row of exportRows(collection, db)) {
    const split = rows[0]?.split;
    if (split !== undefined && (split !== row.split || bytes >= limit)) {
      yield { split, index, rows };
      [rows, bytes, index] = [[], 0, split === row.split ? index + 1 : 0];
    }
    rows.push(row);
    bytes += row.bytes;
  }
  if (rows.length > 0) yield { split: rows[0].split, index, rows };
}

/** The name of a sticker's file. APNG is PNG to those who look at names. */
export function fileName({ id, format }: { readonly id: string; readonly format: string }): string {
  return `${id}.${format === "apng" ? "png" : format === "jpeg" ? "jpg" : format}`;
}
