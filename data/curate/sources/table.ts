// A table that leads to stickers: CSV, TSV (TGIF's: an address and a sentence), JSON, JSON lines or Parquet, read by DuckDB. A
// mapping in the configuration says which column is what. Images may be in the table (Parquet's bytes, also as the struct
// {bytes, path} of Hugging Face), in files beside it, or at addresses.

import { existsSync } from "node:fs";
import { readFile, realpath } from "node:fs/promises";
import { dirname, resolve, sep } from "node:path";
import { checkFileSize } from "../../decode/limits.ts";
import type { SourceOf } from "../config.ts";
import { name, openDatabase, type Row, text } from "../tables.ts";
import { type SourceEntry, wordList } from "./source.ts";

type Source = SourceOf<"table">;
type Field = keyof Source["columns"];

export async function* tableEntries(source: Source): AsyncGenerator<SourceEntry> {
  const { path, columns } = source;
  if (!existsSync(path)) throw new Error(`the table ${path} does not exist`);
  const leads = (["file", "url", "bytes"] as const).filter((field) => columns[field] !== undefined);
  if (leads.length !== 1) {
    throw new Error(`source "${source.name}": columns must name one of file, url and bytes, found ${leads.length}`);
  }
  const db = await openDatabase();
  try {
    const from = reader(source);
    const known = (await db.all(`DESCRIBE SELECT * FROM ${from}`)).map((row) => String(row.column_name));
    const pick = (field: Field): string => {
      const column = columns[field];
      if (column === undefined) return `NULL AS ${field}`;
      const found = typeof column === "number" ? known[column] : known.find((k) => k === column);
      if (found !== undefined) return `${name(found)} AS ${field}`;
      throw new Error(`${path} has no column ${JSON.stringify(column)} for ${field}; it has ${known.join(", ")}`);
    };
    const fields: Field[] = [
      "file",
      "url",
      "bytes",
      "caption",
      "caption_zh",
      "domain",
      "text",
      "subject",
      "action",
      "words",
      "license",
      "attribution",
    ];
    const sql = `SELECT ${fields.map(pick).join(", ")} FROM ${from}`;
    const base = await realpath(dirname(path));
    let number = 0;
    for await (const row of db.rows(sql)) yield entry(row, ++number, base, source);
  } catch (error) {
    // DuckDB's messages span lines and offer advice that means its own options.
    throw new Error(`${path}: ${(error as Error).message.split("\n")[0]}`);
  } finally {
    db.close();
  }
}

/** The table function that reads the file. Every text stays text: words may look like numbers. */
function reader({ path, header }: Source): string {
  const file = text(path);
  const csv = (delim: string): string =>
    `read_csv(${file}, delim = ${delim}, header = ${header}, all_varchar = true, null_padding = true, quote = ${delim === "'\\t'" ? "''" : `'"'`})`;
  if (/\.parquet$/i.test(path)) return file;
  if (/\.csv$/i.test(path)) return csv("','");
  if (/\.tsv$/i.test(path)) return csv("'\\t'");
  if (/\.jsonl$/i.test(path)) return `read_json(${file}, format = 'newline_delimited', maximum_object_size = 67108864)`;
  if (/\.json$/i.test(path)) return `read_json(${file}, format = 'array', maximum_object_size = 67108864)`;
  throw new Error("expected a .csv, .tsv, .json, .jsonl or .parquet");
}

function entry(row: Row, number: number, base: string, source: Source): SourceEntry {
  const given = (field: Field): string | undefined => {
    const value = row[field];
    return value === null || value === undefined || value === "" ? undefined : String(value);
  };
  const url = given("url");
  const file = given("file");
  return {
    // An address or a file stays the same when rows are added; bytes have nothing but their row.
    at: url ?? file ?? `row ${number}`,
    words: wordList(row.words),
    caption: given("caption"),
    captionZh: given("caption_zh"),
    domain: given("domain") ?? source.domain,
    text: given("text"),
    subject: given("subject"),
    action: given("action"),
    license: given("license"),
    attribution: given("attribution"),
    bytes: url ? { url } : file ? () => fileInside(base, file) : async () => inTable(row.bytes),
  };
}

/** Tables come from elsewhere, so a path in one must stay inside of the table's folder. */
async function fileInside(base: string, file: string): Promise<Uint8Array> {
  const path = await realpath(resolve(base, file)).catch(() => null);
  if (path === null) throw new Error("the file does not exist");
  if (!path.startsWith(base + sep)) throw new Error("the path leads out of the table's folder");
  const bytes = await readFile(path);
  checkFileSize(bytes.length);
  return bytes;
}

function inTable(value: unknown): Uint8Array {
  const bytes = value instanceof Uint8Array ? value : (value as { bytes?: unknown } | null)?.bytes;
  if (!(bytes instanceof Uint8Array)) throw new Error("the row holds no image bytes");
  checkFileSize(bytes.length);
  return bytes;
}
