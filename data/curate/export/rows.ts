// What leaves with a sticker, in every format of export: the fields of a line of metadata.jsonl (../../record.ts), so that an
// export is a data set for training as it is. A sticker without a description goes by its trigger words. Readers of JSON take a
// column's type from its first values, and Hugging Face's refuses splits whose columns or types differ: where there is JSON, every
// record has every field, a whole number or a text, empty where there is nothing to say. Parquet has types, and NULL.

import type { Collection } from "../collection.ts";
import { type Database, table } from "../tables.ts";

export interface ExportRow {
  readonly id: string;
  readonly format: string;
  readonly bytes: number;
  readonly split: string;
  /** Every field of the record; a text that is not there is empty. */
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
  duration_ms: "round(duration_ms)::INT", // an APNG's need not be whole
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

/** What an export's files may be grouped by: the split, and the kind of file too. */
export type Grouping = "split" | "kind";

/** Every sticker that leaves, by split (and kind of file) and id. */
export async function* exportRows(
  collection: Collection,
  db: Database,
  by: Grouping = "split",
): AsyncGenerator<ExportRow> {
  const order = { split: "split, id", kind: `split, ${KIND}, id` }[by];
  const sql = `SELECT id, format, bytes::INT AS bytes, split, ${fields()} FROM ${exported(collection)} ORDER BY ${order}`;
  for await (const { id, format, bytes, split, ...rest } of db.rows(sql)) {
    const record = Object.fromEntries(Object.entries(rest).map(([name, value]) => [name, value ?? ""]));
    yield { id: String(id), format: String(format), bytes: bytes as number, split: String(split), record };
  }
}

/** Rows of one group that go into one file. */
export interface Part {
  /** Their split, or what `by` says. */
  readonly group: string;
  /** Number of the file within its group. */
  readonly index: number;
  readonly rows: readonly ExportRow[];
}

/** Everything that leaves, in parts of about `limit` bytes of image files: the same parts each time. */
export async function* exportParts(
  collection: Collection,
  db: Database,
  limit: number,
  by: Grouping = "split",
): AsyncGenerator<Part> {
  const groupOf = (row: ExportRow): string => (by === "split" ? row.split : `${row.split}-${extension(row.format)}`);
  let [group, rows, bytes, index]: [string, ExportRow[], number, number] = ["", [], 0, 0];
  for await (const row of exportRows(collection, db, by)) {
    const next = groupOf(row);
    if (rows.length > 0 && (group !== next || bytes >= limit)) {
      yield { group, index, rows };
      [rows, bytes, index] = [[], 0, group === next ? index + 1 : 0];
    }
    group = next;
    rows.push(row);
    bytes += row.bytes;
  }
  if (rows.length > 0) yield { group, index, rows };
}

/** Kinds of files that have another name than their format. APNG is PNG to those who look at names. */
const EXTENSIONS: Readonly<Record<string, string>> = { apng: "png", jpeg: "jpg" };
/** SQL of the same. */
const KIND = `CASE format ${Object.entries(EXTENSIONS)
  .map(([format, kind]) => `WHEN '${format}' THEN '${kind}'`)
  .join(" ")} ELSE format END`;

function extension(format: string): string {
  return EXTENSIONS[format] ?? format;
}

/** The name of a sticker's file. */
export function fileName({ id, format }: { readonly id: string; readonly format: string }): string {
  return `${id}.${extension(format)}`;
}
