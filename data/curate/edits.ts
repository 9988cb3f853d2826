// What people have corrected: a .csv or .jsonl with a column "id" and any of caption, caption_zh, domain, text and trigger_words.
// Edits win over every annotator. A line that names no sticker, or a column that is none, is refused before anything is made.

import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import type { Collection } from "./collection.ts";
import { wordList } from "./sources/source.ts";
import { name, table, text, withDatabase } from "./tables.ts";

const COLUMNS = ["caption", "caption_zh", "domain", "text", "trigger_words"] as const;

/** Writes the table "edits", or removes it where the configuration names no file. */
export async function editsTable(collection: Collection): Promise<void> {
  const path = collection.config.annotate.edits;
  if (path === undefined) {
    await rm(collection.tablePath("edits"), { force: true });
    return;
  }
  if (!existsSync(path)) throw new Error(`the file of edits ${path} does not exist`);
  const csv = `read_csv(${text(path)}, header = true, all_varchar = true)`;
  const from = /\.csv$/i.test(path) ? csv : `read_json(${text(path)}, format = 'newline_delimited')`;
  await withDatabase(async (db) => {
    const given = (await db.all(`DESCRIBE SELECT * FROM ${from}`)).map((row) => String(row.column_name));
    const unknown = given.filter((column) => column !== "id" && !COLUMNS.some((known) => known === column));
    if (!given.includes("id")) throw new Error(`${path} has no column "id"`);
    if (unknown.length > 0)
      throw new Error(`${path}: edits are of ${COLUMNS.join(", ")}, not of ${unknown.join(", ")}`);
    const value = (column: string): string => (given.includes(column) ? name(column) : "NULL");
    const rows = await db.all(`SELECT id, ${COLUMNS.map((c) => `${value(c)} AS ${c}`).join(", ")} FROM ${from}`);
    await db.run(
      "CREATE TABLE edit (key VARCHAR, caption VARCHAR, caption_zh VARCHAR, domain VARCHAR, text VARCHAR, trigger_words VARCHAR[])",
    );
    for (const row of rows) {
      const literal = (field: unknown): string =>
        field === null || field === undefined || field === "" ? "NULL" : text(String(field));
      const words =
        row.trigger_words === null ? "NULL" : `[${wordList(row.trigger_words).map(text).join(", ")}]::VARCHAR[]`;
      await db.run(
        `INSERT INTO edit VALUES (${[row.id, row.caption, row.caption_zh, row.domain, row.text].map(literal).join(", ")}, ${words})`,
      );
    }
    const lost = await db.all(
      `SELECT key FROM edit WHERE key NOT IN (SELECT "key" FROM ${table(collection, "measure")}) OR key IS NULL`,
    );
    if (lost.length > 0)
      throw new Error(`${path} edits ${lost[0].key}, which is not in the data set (${lost.length} such lines)`);
    const wrong = await db.all("SELECT key, domain FROM edit WHERE lower(domain) NOT IN ('cartoon', 'real')");
    if (wrong.length > 0)
      throw new Error(`${path}: the domain of ${wrong[0].key} is ${wrong[0].domain}, not Cartoon or Real`);
    await db.write("SELECT * FROM edit ORDER BY key", collection.tablePath("edits"));
  });
}
