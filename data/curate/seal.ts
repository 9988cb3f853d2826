// From the journals of a stage to its table: the newest line of every item, sorted, the same rows always in the same bytes.
// Lines are brought into columns first and looked at few columns at a time, so that a million of them, with all their words,
// are in memory only while they are sorted. Called by stage.ts.

import { appendFileSync, closeSync, openSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { asideOf } from "../../engine/atomic.ts";
import type { Collection } from "./collection.ts";
import { sweep } from "./files.ts";
import { journals, wellFormedJson } from "./journal.ts";
import { type Columns, LONGEST_LINE, name, PASSING, text, withDatabase } from "./tables.ts";

/** Characters of the list of items that wait to be written together. */
const LIST_BUFFER = 65536;

/** The items of a stage with the hashes of what determines their rows, in a file: there may be millions. */
export interface ItemList {
  readonly path: string;
  add(key: string, input: string): void;
  close(): void;
}

export async function openList(collection: Collection, stage: string): Promise<ItemList> {
  const path = passing(collection, stage, "items");
  await mkdir(dirname(path), { recursive: true });
  const file = openSync(path, "w");
  let held = "";
  const flush = (): void => {
    appendFileSync(file, held);
    held = "";
  };
  return {
    path,
    add(key, input) {
      held += `${wellFormedJson({ key, input })}\n`;
      if (held.length > LIST_BUFFER) flush();
    },
    close() {
      flush();
      closeSync(file);
    },
  };
}

/** Where a file is that a stage needs for a while. */
function passing(collection: Collection, stage: string, what: string): string {
  return asideOf(join(collection.dir, "annotations", `.${stage}.${what}`));
}

/** Removes such files of runs that were killed. */
export async function sweepPassing(collection: Collection, stage: string): Promise<void> {
  const dir = join(collection.dir, "annotations");
  for (const what of ["items", "lines"]) await sweep(dir, `.${stage}.${what}.`);
}

/** Writes the rows of those items whose line was made from what the item is now. Returns how many items have none. */
export async function sealTable(
  collection: Collection,
  stage: string,
  columns: Columns,
  list: ItemList,
): Promise<number> {
  const lines = passing(collection, stage, "lines");
  const numbered = `read_parquet(${text(lines)}, file_row_number = true)`;
  const items = `read_json(${text(list.path)}, format = 'newline_delimited', columns = {'key': 'VARCHAR', 'input': 'VARCHAR'})`;
  const names = Object.keys(columns).map(name).join(", ");
  try {
    return await withDatabase(async (db) => {
      await db.run(`COPY (${await journalLines(collection, stage, columns)}) TO ${text(lines)} (${PASSING})`);
      await db.run(`CREATE TABLE newest AS
        SELECT line FROM (SELECT "key", input, "at", n, file_row_number AS line FROM ${numbered}) SEMI JOIN ${items} USING ("key", input)
        QUALIFY row_number() OVER (PARTITION BY "key" ORDER BY "at" DESC, n DESC, line) = 1`);
      await db.write(
        `SELECT "key", ${names} FROM ${numbered} SEMI JOIN newest ON line = file_row_number ORDER BY "key"`,
        collection.tablePath(stage),
      );
      const [{ missing }] = await db.all(
        `SELECT ((SELECT count(*) FROM ${items}) - (SELECT count(*) FROM newest))::INT AS missing`,
      );
      return missing as number;
    });
  } finally {
    await rm(lines, { force: true });
  }
}

/** SELECT of all whole lines of the journals of `stage`: key, input, at, n and the columns. */
async function journalLines(collection: Collection, stage: string, columns: Columns): Promise<string> {
  const files = await journals(collection.journalDir(stage));
  const row = Object.entries(columns).map(([column, type]) => `${name(column)} ${type}`);
  const schema = { key: "VARCHAR", input: "VARCHAR", at: "VARCHAR", n: "BIGINT", row: `STRUCT(${row.join(", ")})` };
  const typed = Object.entries(schema);
  const fields = Object.keys(columns).map((column) => `"row".${name(column)} AS ${name(column)}`);
  const none = `(SELECT ${typed.map(([column, type]) => `NULL::${type} AS ${name(column)}`).join(", ")} LIMIT 0)`;
  // A half-written last line is cut when the journal is opened next; until then it must not spoil the table.
  const read = `read_json([${files.map(text).join(", ")}], format = 'newline_delimited', maximum_object_size = ${LONGEST_LINE},
    ignore_errors = true, columns = {${typed.map(([column, type]) => `${text(column)}: ${text(type)}`).join(", ")}})`;
  return `SELECT "key", input, "at", n, ${fields.join(", ")} FROM ${files.length > 0 ? read : none} WHERE "key" IS NOT NULL`;
}
