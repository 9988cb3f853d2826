// Tables of a data set: Parquet files written and queried through DuckDB, the same rows as the same bytes. How a journal becomes a
// table is seal.ts. Called by what makes tables and by everything that asks for numbers.

import { randomBytes } from "node:crypto";
import { existsSync, rmSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { DuckDBInstance, type JS } from "@duckdb/node-api";
import { asideOf, syncFolder } from "../../engine/atomic.ts";
import type { Collection } from "./collection.ts";
import { sweep } from "./files.ts";

/** Column name -> DuckDB type. */
export type Columns = Readonly<Record<string, string>>;
export type Row = Readonly<Record<string, JS>>;

/** Random access reads a whole group, so groups are small; DuckDB counts in vectors of 2048. */
const ROW_GROUP = 8192;
/** Options of COPY for a file that is needed for a while. */
export const PASSING = `FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE ${ROW_GROUP}`;
/** What DuckDB may hold; what is more, when it sorts, goes to files. Its readers and the process take as much again at most. */
const MEMORY = "600MB";
/** Bytes of a line of JSON; a buffer of DuckDB's is twice as long, and there are several. */
export const LONGEST_LINE = 16 * 2 ** 20;

/** A connection to an in-memory DuckDB that reads and writes Parquet files. Close it. */
export interface Database {
  /** All rows of a small result. 64-bit integers come as bigint. */
  all(sql: string): Promise<Row[]>;
  /** Rows as they come, however many. */
  rows(sql: string): AsyncGenerator<Row>;
  run(sql: string): Promise<void>;
  /** Writes the rows of a query as Parquet, whole or not at all. The query must order them. `notes` go into the file's footer. */
  write(sql: string, path: string, notes?: Readonly<Record<string, string>>): Promise<void>;
  close(): void;
}

export async function openDatabase(): Promise<Database> {
  // By itself DuckDB would put them into the working directory, and those of two processes into one folder.
  const aside = join(tmpdir(), `gifgrad-${randomBytes(6).toString("hex")}`);
  const instance = await DuckDBInstance.create(":memory:", {
    memory_limit: MEMORY,
    preserve_insertion_order: "true",
    temp_directory: aside,
  });
  const connection = await instance.connect();
  return {
    all: async (sql) => (await connection.runAndReadAll(sql)).getRowObjectsJS(),
    async *rows(sql) {
      for await (const chunk of (await connection.stream(sql)).yieldRowObjectJs()) yield* chunk;
    },
    run: async (sql) => void (await connection.run(sql)),
    async write(sql, path, notes = {}) {
      await mkdir(dirname(path), { recursive: true });
      await sweep(dirname(path), `${basename(path)}.`);
      try {
        const footer = Object.entries(notes).map(([key, note]) => `${name(key)}: ${text(note)}`);
        const options = [
          `FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE ${ROW_GROUP}`,
          ...(footer.length > 0 ? [`KV_METADATA {${footer.join(", ")}}`] : []),
        ].join(", ");
        await connection.run(`COPY (${sql}) TO ${text(asideOf(path))} (${options})`);
        await rename(asideOf(path), path);
      } catch (error) {
        await rm(asideOf(path), { force: true });
        throw error;
      }
      await syncFolder(dirname(path));
    },
    close() {
      connection.closeSync();
      instance.closeSync();
      rmSync(aside, { recursive: true, force: true });
    },
  };
}

/** Runs `use` with a database and closes it. */
export async function withDatabase<T>(use: (db: Database) => Promise<T>): Promise<T> {
  const db = await openDatabase();
  try {
    return await use(db);
  } finally {
    db.close();
  }
}

/** A string literal. */
export function text(value: string): string {
  return `'${value.replaceAll("'", "''")}'`;
}

/** A column or table name. */
export function name(value: string): string {
  return `"${value.replaceAll('"', '""')}"`;
}

/** A table is asked for that no stage has made yet. */
export class NoTable extends Error {
  override readonly name = "NoTable";
}

/** `'path/to/<table>.parquet'`, for FROM. Throws NoTable when it has not been made yet. */
export function table(collection: Collection, stage: string): string {
  const path = collection.tablePath(stage);
  if (existsSync(path)) return text(path);
  throw new NoTable(`${collection.dir} has no table "${stage}" yet: run "gifgrad dataset ${stage}" first`);
}

/**
 * FROM of a file with a JSON object on each line: every text and number stays as it is written. Left alone, DuckDB makes a
 * date of what looks like one.
 */
export async function jsonTable(db: Database, path: string): Promise<string> {
  const read = (more: string): string =>
    `read_json(${text(path)}, format = 'newline_delimited', maximum_object_size = ${LONGEST_LINE}${more})`;
  const typed = (await db.all(`DESCRIBE SELECT * FROM ${read("")}`)).map((row) => {
    const type = String(row.column_type);
    const plain = /^(STRUCT|MAP)/.test(type) ? type : type.endsWith("[]") ? "VARCHAR[]" : "VARCHAR";
    return `${text(String(row.column_name))}: ${text(plain)}`;
  });
  return read(`, columns = {${typed.join(", ")}}`);
}
