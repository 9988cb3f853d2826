// A data set under construction: one folder with the files, what each stage found out about them, and the tables made from
// that. This file knows where things are and how a file gets in; what stages do is stage.ts, tables are tables.ts.
//
//     DIR/dataset.json              format and configuration
//     DIR/media/ab/<sha256>.<ext>   every sticker once, under the hash of its bytes
//     DIR/journal/<stage>/*.jsonl   what has been done, a line per item, appended as it is done
//     DIR/annotations/<stage>.parquet   the same as a table, made from the journal when a stage is complete

import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, realpath, stat } from "node:fs/promises";
import { basename, dirname, join, resolve, sep } from "node:path";
import { replaceFile } from "../../engine/atomic.ts";
import { sha256 } from "../hash.ts";
import { parseJson } from "../json_config.ts";
import { type CurateConfig, parseConfig } from "./config.ts";
import { Fetcher } from "./fetch.ts";
import { sweep } from "./files.ts";

const FORMAT = 1;
const FILE = "dataset.json";

export class Collection {
  readonly dir: string;
  readonly config: CurateConfig;
  /** One for all that is fetched: a host's limits hold for listings and files together. */
  readonly fetcher: Fetcher;
  /** Files being written: two entries may bring the same bytes at once. */
  readonly #writing = new Map<string, Promise<void>>();

  /** Use `openCollection` or `createCollection`. */
  constructor(dir: string, config: CurateConfig) {
    this.dir = dir;
    this.config = config;
    this.fetcher = new Fetcher(config.fetch);
  }

  /** Where the file of sticker `id` is, or will be. */
  mediaPath(id: string, extension: string): string {
    return join(this.dir, "media", id.slice(0, 2), `${id}.${extension}`);
  }

  /** The folders that hold stickers. */
  async mediaFolders(): Promise<string[]> {
    const media = join(this.dir, "media");
    return (await readdir(media).catch(() => [] as string[])).sort().map((part) => join(media, part));
  }

  journalDir(stage: string): string {
    return join(this.dir, "journal", stage);
  }

  tablePath(table: string): string {
    return join(this.dir, "annotations", `${table}.parquet`);
  }

  hasTable(table: string): boolean {
    return existsSync(this.tablePath(table));
  }

  /** Stores a file under its own hash, unless it is there; returns the hash in hex. */
  async put(bytes: Uint8Array, extension: string): Promise<string> {
    const id = sha256(bytes);
    const path = this.mediaPath(id, extension);
    const write = this.#writing.get(path) ?? this.#write(path, bytes).finally(() => this.#writing.delete(path));
    this.#writing.set(path, write);
    await write;
    return id;
  }

  async #write(path: string, bytes: Uint8Array): Promise<void> {
    // A file of the right length under its own hash is whole: it was renamed into place after it was written.
    const found = await stat(path).catch(() => null);
    if (found?.size === bytes.length) return;
    await mkdir(join(path, ".."), { recursive: true });
    await replaceFile(path, (file) => file.writeFile(bytes));
  }
}

/**
 * Whether a data set may be built in `dir` from this configuration, asked before anything is touched.
 * @throws Error without sources, of which a data set without stickers would be made; and when `dir` is in a folder of stickers
 * that it would be made from: the next build would collect what this one wrote
 */
export async function checkBuild(dir: string, { sources }: CurateConfig, where: string): Promise<void> {
  if (sources.length === 0) throw new Error(`${where} names no sources: sources is a list of folders, archives, ...`);
  const place = await placeOf(dir);
  for (const source of sources) {
    if (source.type !== "folder") continue;
    const from = await placeOf(source.path);
    if (`${place}${sep}`.startsWith(`${from}${sep}`))
      throw new Error(
        `${dir} is in ${source.path}, from which source "${source.name}" takes stickers: build elsewhere`,
      );
  }
}

/** The real path, also of what does not exist yet. */
async function placeOf(path: string): Promise<string> {
  const whole = resolve(path);
  const up = dirname(whole);
  return realpath(whole).catch(async () => (up === whole ? whole : join(await placeOf(up), basename(whole))));
}

/**
 * Opens the data set in `dir`, and makes it if there is none, with `config` (already parsed). A data set that is there takes
 * the new configuration: each stage does again what the change concerns. Where other machines may be doing the same (`shards`),
 * nothing is swept away that one of them may be writing.
 */
export async function createCollection(dir: string, config: CurateConfig, shards = false): Promise<Collection> {
  await mkdir(join(dir, "annotations"), { recursive: true });
  const text = `${JSON.stringify({ format: FORMAT, config }, null, 2)}\n`;
  const path = join(dir, FILE);
  if (!shards) await sweep(dir, FILE);
  if (!existsSync(path) || (await readFile(path, "utf8")) !== text) {
    await replaceFile(path, (file) => file.writeFile(text));
  }
  return new Collection(resolve(dir), config);
}

/** @throws Error when `dir` holds no data set, or one of another format */
export async function openCollection(dir: string): Promise<Collection> {
  const path = join(dir, FILE);
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return null;
    throw error;
  });
  if (text === null) throw new Error(`${dir} holds no data set (no ${FILE}): make one with "gifgrad dataset build"`);
  const { format, config } = parseJson(text, path) as { format?: unknown; config?: unknown };
  if (format !== FORMAT) throw new Error(`${path} has format ${JSON.stringify(format)}; this version reads ${FORMAT}`);
  return new Collection(resolve(dir), parseConfig(config, path, dir));
}
