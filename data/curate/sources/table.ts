// A table that leads to stickers: CSV, TSV (TGIF's: an address and a sentence) and JSON lines, read by lines.ts, a JSON array, by
// json_array.ts, and Parquet, by DuckDB. A mapping in the configuration says which column is what. Images may be in the table (Parquet's bytes, also as the struct
// {bytes, path} of Hugging Face), in files beside it, or at addresses.

import { realpath } from "node:fs/promises";
import { basename, dirname, resolve, sep } from "node:path";
import { checkFileSize } from "../../decode/limits.ts";
import { sha256 } from "../../hash.ts";
import { checkRegular, readSticker } from "../../regular_file.ts";
import type { SourceOf } from "../config.ts";
import { name, openDatabase, text } from "../tables.ts";
import { jsonArray } from "./json_array.ts";
import { delimitedLines, jsonLines, type Lines } from "./lines.ts";
import { fault, fileStamp, type SourceEntry, wordList } from "./source.ts";

type Source = SourceOf<"table">;
type Field = keyof Source["columns"];

const FIELDS: readonly Field[] = [
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

export async function* tableEntries(source: Source): AsyncGenerator<SourceEntry> {
  const { path, columns } = source;
  await checkRegular(path, `the table ${path}`);
  const leads = (["file", "url", "bytes"] as const).filter((field) => columns[field] !== undefined);
  if (leads.length !== 1) {
    throw new Error(`source "${source.name}": columns must name one of file, url and bytes, found ${leads.length}`);
  }
  const base = await realpath(dirname(path));
  try {
    if (/\.parquet$/i.test(path)) yield* fromParquet(source, base);
    else yield* fromText(source, base);
  } catch (error) {
    // DuckDB's messages span lines and offer advice that means its own options.
    throw new Error(`${path}: ${(error as Error).message.split("\n")[0]}`);
  }
}

async function* fromText(source: Source, base: string): AsyncGenerator<SourceEntry> {
  const { path } = source;
  const unit = /\.json$/i.test(path) ? "row" : "line";
  const { known, each } = await linesOf(source);
  const names = FIELDS.map((field) => [field, columnOf(source, field, known)] as const);
  for await (const { number, row } of each) {
    const where = `${unit} ${number}`;
    if (row instanceof Error) yield fault(`${basename(path)} ${where}`, row);
    else {
      const fields = names.map(([field, column]) => [field, column === undefined ? undefined : row[column]]);
      yield await entry(Object.fromEntries(fields), where, base, source);
    }
  }
}

async function linesOf({ path, header }: Source): Promise<Lines> {
  if (/\.csv$/i.test(path)) return delimitedLines(path, ",", header);
  if (/\.tsv$/i.test(path)) return delimitedLines(path, "\t", header);
  if (/\.jsonl$/i.test(path)) return jsonLines(path);
  if (/\.json$/i.test(path)) return jsonArray(path);
  throw new Error("expected a .csv, .tsv, .json, .jsonl or .parquet");
}

async function* fromParquet(source: Source, base: string): AsyncGenerator<SourceEntry> {
  const db = await openDatabase();
  try {
    const from = text(source.path);
    const known = (await db.all(`DESCRIBE SELECT * FROM ${from}`)).map((row) => String(row.column_name));
    const picked = FIELDS.map((field) => {
      const column = columnOf(source, field, known);
      return `${column === undefined ? "NULL" : name(column)} AS ${field}`;
    });
    let number = 0;
    for await (const row of db.rows(`SELECT ${picked.join(", ")} FROM ${from}`)) {
      yield await entry(row, `row ${++number}`, base, source);
    }
  } finally {
    db.close();
  }
}

/** The column that the configuration calls `field`, if it names one. */
function columnOf({ columns }: Source, field: Field, known: readonly string[]): string | undefined {
  const column = columns[field];
  if (column === undefined) return undefined;
  const found = typeof column === "number" ? known[column] : known.find((k) => k === column);
  if (found !== undefined) return found;
  throw new Error(`the table has no column ${JSON.stringify(column)} for ${field}; it has ${known.join(", ")}`);
}

async function entry(
  row: Partial<Record<Field, unknown>>,
  where: string,
  base: string,
  source: Source,
): Promise<SourceEntry> {
  const given = (field: Field): string | undefined => {
    const value = row[field];
    return value === null || value === undefined || value === "" ? undefined : String(value);
  };
  const url = given("url");
  const file = given("file");
  const image = imageOf(row.bytes);
  return {
    // What stays the same when rows come and go: an address, a file, the bytes themselves.
    at: url ?? file ?? (image ? `bytes ${sha256(image).slice(0, 16)}` : where),
    words: wordList(row.words),
    caption: given("caption"),
    captionZh: given("caption_zh"),
    domain: given("domain") ?? source.domain,
    text: given("text"),
    subject: given("subject"),
    action: given("action"),
    license: given("license"),
    attribution: given("attribution"),
    stamp: file && !url ? await fileStamp(resolve(base, file)) : undefined,
    bytes: url ? { url } : file ? () => fileInside(base, file) : async () => inTable(image),
  };
}

/** Tables come from elsewhere, so a path in one must stay inside of the table's folder. */
async function fileInside(base: string, file: string): Promise<Uint8Array> {
  const path = await realpath(resolve(base, file)).catch(() => null);
  if (path === null) throw new Error("the file does not exist");
  if (!path.startsWith(base + sep)) throw new Error("the path leads out of the table's folder");
  return readSticker(path);
}

function imageOf(value: unknown): Uint8Array | undefined {
  const bytes = value instanceof Uint8Array ? value : (value as { bytes?: unknown } | null | undefined)?.bytes;
  return bytes instanceof Uint8Array ? bytes : undefined;
}

function inTable(image: Uint8Array | undefined): Uint8Array {
  if (!image) throw new Error("the row holds no image bytes");
  checkFileSize(image.length);
  return image;
}
