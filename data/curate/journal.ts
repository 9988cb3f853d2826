// What a stage has done, as lines appended to a file: a killed stage loses at most the line it was writing, and
// machines that share the work have a file each. Lines of one key differ by their input, and what the item is now says
// which one counts. Written by stage.ts, whose journals seal.ts reads whole, and by ../clip_build.ts.

import { closeSync, fsyncSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { mkdir, open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { DigestSet } from "./digests.ts";

/** One finished item. */
export interface Entry<Row = unknown> {
  readonly key: string;
  /** Hash of everything that determined the row; another hash means that the item has to be done again. */
  readonly input: string;
  readonly row: Row;
  /** Of the stage that made it. */
  readonly version?: number;
  /** When, ISO 8601; and the line's number within its process, since clocks are coarse. */
  readonly at: string;
  readonly n: number;
}

/** Lines between two syncs to the disk: what a power cut may cost, a killed process costs nothing of it. */
const SYNC_EVERY = 200;

/** A journal open for appending. */
export class Journal<Row> {
  readonly #file: number;
  readonly #version: number | undefined;
  #lines = 0;

  constructor(file: number, version?: number) {
    this.#file = file;
    this.#version = version;
  }

  append(key: string, input: string, row: Row): void {
    const at = new Date().toISOString();
    const entry: Entry<Row> = { key, input, version: this.#version, row, at, n: this.#lines };
    writeSync(this.#file, `${wellFormedJson(entry)}\n`);
    if (++this.#lines % SYNC_EVERY === 0) fsyncSync(this.#file);
  }

  close(): void {
    fsyncSync(this.#file);
    closeSync(this.#file);
  }
}

/**
 * JSON that every reader takes. A half of a surrogate pair (an emoji cut in two by some tool before) is a text to JavaScript
 * and to nobody else: it becomes U+FFFD.
 */
export function wellFormedJson(value: unknown): string {
  return JSON.stringify(value, (_, field: unknown) => (typeof field === "string" ? field.toWellFormed() : field));
}

/**
 * Opens `dir/name.jsonl` for appending and cuts off a line that a killed process has left half-written. Lines say the `version`
 * of what makes them.
 */
export async function openJournal<Row>(dir: string, name: string, version?: number): Promise<Journal<Row>> {
  await mkdir(dir, { recursive: true });
  const path = join(dir, `${name}.jsonl`);
  const end = await endOfLines(path);
  const file = openSync(path, "a");
  ftruncateSync(file, end);
  return new Journal<Row>(file, version);
}

/** Every journal of a stage. */
export async function journals(dir: string): Promise<string[]> {
  const names = await readdir(dir).catch(() => [] as string[]);
  return names
    .filter((name) => name.endsWith(".jsonl"))
    .sort()
    .map((name) => join(dir, name));
}

/** What has been done, over all journals of a stage. */
export interface Finished {
  /** Whether the item `key` has been done from this input, by whomever and in whatever order. */
  has(key: string, input: string): boolean;
}

/** With `again`, rows that only say what went wrong do not count. */
export async function finished(dir: string, again = false): Promise<Finished> {
  const done = new DigestSet();
  for (const path of await journals(dir)) {
    for await (const { key, input, row } of entries<{ readonly error?: string | null } | null>(path)) {
      if (!again || !row?.error) done.add(`${input} ${key}`);
    }
  }
  return { has: (key, input) => done.has(`${input} ${key.toWellFormed()}`) };
}

/**
 * The whole lines of a journal, or those from byte `from` to `to`, each the end of a line. A line that is not an entry is damage that
 * must not be passed over in silence.
 */
export async function* entries<Row = unknown>(path: string, from = 0, to?: number): AsyncGenerator<Entry<Row>> {
  const file = await open(path);
  const end = to ?? (await endOfLines(path));
  let [number, at] = [0, from];
  try {
    for await (const line of file.readLines({ autoClose: false, start: from })) {
      number++;
      at += Buffer.byteLength(line) + 1;
      if (at > end) return; // being written, or cut off by a kill
      yield parse<Row>(line, path, from === 0 ? `line ${number}` : `line ${number} after byte ${from}`);
    }
  } finally {
    await file.close();
  }
}

function parse<Row>(line: string, path: string, where: string): Entry<Row> {
  try {
    const entry = JSON.parse(line) as Entry<Row>;
    if (typeof entry.key === "string" && typeof entry.input === "string") return entry;
  } catch {
    // told below
  }
  throw new Error(`${path} ${where} is damaged: delete the line, and the item will be done again`);
}

const CHUNK = 65536;

/** Position behind the last newline; 0 where the file does not exist. */
export async function endOfLines(path: string): Promise<number> {
  const file = await open(path).catch(() => null);
  if (!file) return 0;
  try {
    const { size } = await file.stat();
    const chunk = Buffer.alloc(CHUNK);
    for (let end = size; end > 0; ) {
      const start = Math.max(0, end - CHUNK);
      const { bytesRead } = await file.read(chunk, 0, end - start, start);
      const found = chunk.subarray(0, bytesRead).lastIndexOf(10);
      if (found >= 0) return start + found + 1;
      end = start;
    }
    return 0;
  } finally {
    await file.close();
  }
}
