// What people have corrected: a .csv or .jsonl with a column "id" and any of caption, caption_zh, domain, text and trigger_words.
// Edits win over every annotator, and of lines about one sticker the last that says something of a field. A line that names no sticker, or a column that is none, is refused before anything is made.

import { rm } from "node:fs/promises";
import { checkRegular } from "../regular_file.ts";
import type { Collection } from "./collection.ts";
import { wordList } from "./sources/source.ts";
import { jsonTable, name, table, text, withDatabase } from "./tables.ts";

const COLUMNS = ["caption", "caption_zh", "domain", "text", "trigger_words"] as const;

/**
 * Writes the table "edits", or removes it where the configuration names no file. Returns how many lines are about a sticker that
 * an earlier line is about.
 */
export async function editsTable(collection: Collection): Promise<number> {
  const path = collection.config.annotate.edits;
  if (path === undefined) {
    await rm(collection.tablePath("edits"), { force: true });
    return 0;
  }
  await checkRegular(path, `the file of edits ${path}`);
  const csv = `read_csv(${text(path)}, header = true, all_varchar = true)`;
  return withDatabase(async (db) => {
    const from = /\.csv$/i.test(path) ? csv : await jsonTable(db, path);
    const given = (await db.all(`DESCRIBE SELECT * FROM ${from}`)).map((row) => String(row.column_name));
    const unknown = given.filter((column) => column !== "id" && !COLUMNS.some((known) => known === column));
    if (!given.includes("id")) throw new Error(`${path} has no column "id"`);
    if (unknown.length > 0)
      throw new Error(`${path}: edits are of ${COLUMNS.join(", ")}, not of ${unknown.join(", ")}`);
    const value = (column: string): string => (given.includes(column) ? name(column) : "NULL");
    const rows = await db.all(`SELECT id, ${COLUMNS.map((c) => `${value(c)} AS ${c}`).join(", ")} FROM ${from}`);
    await db.run(
      "CREATE TABLE line (key VARCHAR, caption VARCHAR, caption_zh VARCHAR, domain VARCHAR, text VARCHAR, trigger_words VARCHAR[], number INTEGER)",
    );
    for (const [i, row] of rows.entries()) {
      const literal = (field: unknown): string =>
        field === null || field === undefined || field === "" ? "NULL" : text(String(field));
      const words =
        row.trigger_words === null ? "NULL" : `[${wordList(row.trigger_words).map(text).join(", ")}]::VARCHAR[]`;
      await db.run(
        `INSERT INTO line VALUES (${[row.id, row.caption, row.caption_zh, row.domain, row.text].map(literal).join(", ")}, ${words}, ${i + 1})`,
      );
    }
    const last = COLUMNS.map((column) => `arg_max(${column}, number) FILTER (${column} IS NOT NULL) AS ${column}`);
    await db.run(
      `CREATE TABLE edit AS SELECT key, ${last.join(", ")}, list_sort(list(number)) AS "lines" FROM line GROUP BY key`,
    );
    const lost = await db.all(
      `SELECT key FROM edit WHERE key NOT IN (SELECT "key" FROM ${table(collection, "measure")}) OR key IS NULL`,
    );
    if (lost.length > 0)
      throw new Error(`${path} edits ${lost[0].key}, which is not in the data set (${lost.length} such lines)`);
    const wrong = await db.all("SELECT key, domain FROM edit WHERE lower(domain) NOT IN ('cartoon', 'real')");
    if (wrong.length > 0)
      throw new Error(`${path}: the domain of ${wrong[0].key} is ${wrong[0].domain}, not Cartoon or Real`);
    await db.write("SELECT * FROM edit ORDER BY key", collection.tablePath("edits"));
    const [{ edited }] = await db.all("SELECT count(*)::INT AS edited FROM edit");
    return rows.length - (edited as number);
  });
}
