// Where what is said of a sticker comes from: for each field the stage, the tool or model, its version, and when; and what people
// have edited. Times are in the journals and not in the tables, so that the same data set made again has the same bytes.

import { stat } from "node:fs/promises";
import type { Collection } from "./collection.ts";
import { type Entry, entries, journals } from "./journal.ts";
import type { Stage } from "./stage.ts";
import { type Columns, name, table, text, withDatabase } from "./tables.ts";

export interface Origin {
  readonly stage: string;
  /** Of the stage when it made the row; null for what versions did not yet put on record, and for edits. */
  readonly version: number | null;
  /** The source for collect, a model for annotators, the file for edits, "gifgrad" for what is measured. */
  readonly tool: string;
  /** When the row was made, or the file of edits was last written. */
  readonly at: string;
  readonly row: Readonly<Record<string, unknown>>;
}

type Fields = Readonly<Record<string, unknown>>;

/**
 * Every row that the tables have about the sticker whose id begins with `start`, in the order of the stages, then its edits.
 * @throws Error when there is none, or more than one
 */
export async function history(collection: Collection, start: string, stages: readonly Stage[]): Promise<Origin[]> {
  const collected = await withDatabase((db) =>
    db.all(`SELECT id, "key" FROM ${table(collection, "collect")} WHERE starts_with(id, ${text(start)}) ORDER BY id`),
  );
  const ids = [...new Set(collected.map(({ id }) => String(id)))];
  if (ids.length === 0) throw new Error(`${collection.dir} has no sticker ${start}`);
  if (ids.length > 1) {
    const some = `${ids.slice(0, 3).join(", ")}${ids.length > 3 ? ", ..." : ""}`;
    throw new Error(`${start} is the beginning of ${ids.length} stickers: ${some}`);
  }
  const keys = new Set([ids[0], ...collected.map(({ key }) => String(key))]);
  const found: Origin[] = [];
  for (const { name: stage, columns } of stages) {
    const inTable = await tableRows(collection, stage, keys, columns);
    const latest = new Map<string, Entry<Fields>>();
    for (const path of await journals(collection.journalDir(stage))) {
      for await (const entry of entries<Fields>(path)) {
        const { key, at, row } = entry;
        if (!keys.has(key) || (latest.get(key)?.at ?? "") > at) continue;
        // A model that was asked before and is not any more has newer lines, but not the row.
        if (inTable && inTable.get(key) !== comparable(row, columns)) continue;
        latest.set(key, entry);
      }
    }
    for (const { version = null, at, row } of latest.values()) {
      found.push({ stage, version, tool: String(row.model ?? row.source ?? "gifgrad"), at, row });
    }
  }
  return [...found, ...(await edited(collection, ids[0]))];
}

/** The rows of a stage's table, to compare by; null where it has none yet. */
async function tableRows(
  collection: Collection,
  stage: string,
  keys: ReadonlySet<string>,
  columns: Columns,
): Promise<Map<string, string> | null> {
  if (!collection.hasTable(stage)) return null;
  const picked = Object.keys(columns).map(name).join(", ");
  const wanted = [...keys].map(text).join(", ");
  const sql = `SELECT "key", ${picked} FROM ${table(collection, stage)} WHERE "key" IN (${wanted})`;
  const rows = await withDatabase((db) => db.all(sql));
  return new Map(rows.map((row) => [String(row.key), comparable(row, columns)]));
}

function comparable(row: Fields, columns: Columns): string {
  const fields = Object.keys(columns).map((column) => row[column] ?? null);
  return JSON.stringify(fields, (_, field: unknown) => (typeof field === "bigint" ? Number(field) : field));
}

/** What people say of it, with the numbers of the lines (a .csv's first line, of names, is not counted). */
async function edited(collection: Collection, id: string): Promise<Origin[]> {
  const path = collection.config.annotate.edits;
  if (path === undefined || !collection.hasTable("edits")) return [];
  const [row] = await withDatabase((db) =>
    db.all(`SELECT * EXCLUDE (key) FROM ${table(collection, "edits")} WHERE key = ${text(id)}`),
  );
  if (!row) return [];
  const written = await stat(path).catch(() => null);
  const said = Object.fromEntries(Object.entries(row).filter(([, value]) => value !== null));
  return [{ stage: "edits", version: null, tool: path, at: written?.mtime.toISOString() ?? "unknown", row: said }];
}
