// A stage is a function from items to rows, done once per item whatever happens in between: its rows go into a journal as they
// are made, a run that is killed or repeated goes on where it was, machines share the items by `shard`, and a complete stage
// becomes a table. This file runs stages; each stage is a file in stages/.

import { rm } from "node:fs/promises";
import { sha256, sha256Json } from "../hash.ts";
import type { Collection } from "./collection.ts";
import type { CurateConfig } from "./config.ts";
import { DigestSet } from "./digests.ts";
import { sweep } from "./files.ts";
import { finished, openJournal } from "./journal.ts";
import { openList, sealTable, sweepPassing } from "./seal.ts";
import { type Columns, type Database, withDatabase } from "./tables.ts";

/** Something to be done. All its fields together determine the row. */
export interface Item {
  readonly key: string;
}

export interface Items<I extends Item> {
  /** How many there are, where that is known beforehand. */
  readonly total?: number;
  /** In an order that depends on nothing but the data. */
  readonly each: AsyncIterable<I>;
  /** What is to be said beside the items, e.g. what was passed over: complete when `each` has ended. */
  readonly notes?: readonly string[];
  /** Where they were asked for offline: what was not asked, and may bring more items. Complete as `notes` are. */
  readonly unasked?: readonly string[];
}

/** No items: the configuration does not ask for the stage. */
export const NONE = { total: 0, each: (async function* () {})() };

/** The rows of a SELECT that has a column "key", in its order. */
export async function queried<I extends Item>(db: Database, sql: string): Promise<Items<I>> {
  const [{ total }] = await db.all(`SELECT count(*)::INT AS total FROM (${sql})`);
  const rows: AsyncGenerator<unknown> = db.rows(`SELECT * FROM (${sql}) ORDER BY "key"`);
  return { total: total as number, each: rows as AsyncGenerator<I> };
}

/** What a stage holds while it runs: processes, models, connections. */
export interface Work<I extends Item, Row> {
  /** Throws `NotNow` when trying again later may help; every other problem with an item belongs into its row. */
  run(item: I): Promise<Row>;
  close(): Promise<void>;
}

export interface Stage<I extends Item = Item, Row extends object = object> {
  /** Also the name of its command and of its table. */
  readonly name: string;
  readonly about: string;
  /** Raise when the same item would now give another row. */
  readonly version: number;
  /** Columns of the table besides `key`, with their DuckDB types: the fields of a row. */
  readonly columns: Columns;
  /** The part of the configuration that determines rows. */
  settings(config: CurateConfig): unknown;
  /** `offline`: without asking the network. */
  items(collection: Collection, db: Database, offline?: boolean): Promise<Items<I>>;
  open(collection: Collection): Promise<Work<I, Row>>;
  /** What an item costs, about; stages that cost nothing leave it out. */
  cost?(item: I, config: CurateConfig): number;
  /** Items in hand at a time. */
  parallel(config: CurateConfig): number;
  /** Folders into which `run` writes files, whose halves a killed process may have left there. */
  folders?(collection: Collection): Promise<readonly string[]>;
}

/** Thrown by `run` for an item that could not be done this time, e.g. because a server does not answer. */
export class NotNow extends Error {
  override readonly name = "NotNow";
}

/** Part `index` (from 0) of `count`. */
export interface Shard {
  readonly index: number;
  readonly count: number;
}

const WHOLE: Shard = { index: 0, count: 1 };

export interface StageOptions {
  readonly shard?: Shard;
  /** Does again what has a row that only says what went wrong. */
  readonly again?: boolean;
  /** Stops taking items; those in hand are finished. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: number, total: number | undefined, note: string) => void;
}

export interface StageResult {
  /** Items of this shard, and of those: done by this run, done before, put off (with the first reasons). */
  readonly items: number;
  readonly done: number;
  readonly before: number;
  readonly putOff: readonly string[];
  /** Those of the items. */
  readonly notes: readonly string[];
  readonly interrupted: boolean;
  /** Whether the table was made: by a run over the whole that was not interrupted. */
  readonly sealed: boolean;
}

/** Hash of what determines the row of `item`. */
function inputOf(stage: Stage, settings: string, item: Item): string {
  return sha256Json([stage.name, stage.version, settings, item]).slice(0, 16);
}

/** Runs `stage`, or this shard of it, and makes its table when it ran over everything. */
export async function runStage(collection: Collection, stage: Stage, o: StageOptions = {}): Promise<StageResult> {
  const { shard = WHOLE, again, signal, onProgress } = o;
  const settings = JSON.stringify(stage.settings(collection.config) ?? null);
  const dir = collection.journalDir(stage.name);
  if (shard.count === 1) await tidy(collection, stage);
  const done = await finished(dir, again);
  const list = await openList(collection, stage.name);
  const putOff: string[] = [];
  let notes: readonly string[] = [];
  const count = { items: 0, done: 0, before: 0 };
  let total: number | undefined;
  const tell = (): void =>
    onProgress?.(count.before + count.done, total, putOff.length > 0 ? `${putOff.length} put off` : "");
  const journal = await openJournal<object>(dir, `${shard.index + 1}-of-${shard.count}`, stage.version);
  let work: Promise<Work<Item, object>> | undefined; // opened by the first item that needs it

  const one = async (item: Item, input: string): Promise<void> => {
    try {
      work ??= stage.open(collection);
      journal.append(item.key, input, await (await work).run(item));
      count.done++;
    } catch (error) {
      if (!(error instanceof NotNow)) throw error;
      putOff.push(`${item.key}: ${error.message}`);
    }
    tell();
  };

  try {
    await withDatabase(async (db) => {
      const items = await stage.items(collection, db);
      notes = items.notes ?? [];
      total = shard.count === 1 ? items.total : undefined; // of a shard it is known when all have been looked at
      const running = new Set<Promise<void>>();
      const seen = new DigestSet();
      let failure: { readonly error: unknown } | undefined;
      try {
        for await (const item of items.each) {
          if (signal?.aborted || failure) break;
          if (!seen.add(item.key)) continue; // a source may offer one entry twice; the table has it once
          const input = inputOf(stage, settings, item);
          list.add(item.key, input);
          if (!inShard(item.key, shard)) continue;
          count.items++;
          if (done.has(item.key, input)) {
            count.before++;
            tell();
          } else {
            const task = one(item, input)
              .catch((error: unknown) => {
                failure ??= { error };
              })
              .finally(() => running.delete(task));
            running.add(task);
            if (running.size >= stage.parallel(collection.config)) await Promise.race(running);
          }
        }
      } finally {
        await Promise.all(running); // also where the items end in an error: the journal is still open
      }
      if (failure) throw failure.error;
      if (!signal?.aborted) {
        total = count.items;
        tell();
      }
    });
  } finally {
    journal.close();
    await (await work?.catch(() => undefined))?.close();
    list.close();
  }
  const interrupted = signal?.aborted ?? false;
  const sealed = !interrupted && shard.count === 1;
  if (sealed) {
    checkRows(collection, stage, await sealTable(collection, stage.name, stage.columns, list), putOff.length);
  }
  await rm(list.path, { force: true });
  return { ...count, putOff, notes, interrupted, sealed };
}

export interface DryRun {
  /** Items of the shard that are still to be done. */
  readonly items: number;
  /** What they would cost; null where nothing costs anything. */
  readonly cost: number | null;
  readonly notes: readonly string[];
  /** What would have to be asked to know of all items. */
  readonly unasked: readonly string[];
}

/** What there is to do, found out without asking the network or writing anything. */
export async function dryRun(collection: Collection, stage: Stage, shard = WHOLE): Promise<DryRun> {
  const settings = JSON.stringify(stage.settings(collection.config) ?? null);
  const done = await finished(collection.journalDir(stage.name));
  let [items, cost] = [0, 0];
  return withDatabase(async (db) => {
    const { each, notes = [], unasked = [] } = await stage.items(collection, db, true);
    for await (const item of each) {
      if (!inShard(item.key, shard) || done.has(item.key, inputOf(stage, settings, item))) continue;
      items++;
      cost += stage.cost?.(item, collection.config) ?? 0;
    }
    return { items, cost: stage.cost ? cost : null, notes, unasked };
  });
}

/**
 * Makes the table of a stage from its journals, as `dataset merge` does when machines have shared the work. Returns how many
 * items have no row yet.
 */
export async function sealStage(collection: Collection, stage: Stage): Promise<number> {
  const settings = JSON.stringify(stage.settings(collection.config) ?? null);
  await tidy(collection, stage);
  const done = await finished(collection.journalDir(stage.name));
  const list = await openList(collection, stage.name);
  const seen = new DigestSet();
  let undone = 0;
  await withDatabase(async (db) => {
    for await (const item of (await stage.items(collection, db)).each) {
      if (!seen.add(item.key)) continue;
      const input = inputOf(stage, settings, item);
      if (!done.has(item.key, input)) undone++;
      list.add(item.key, input);
    }
  });
  list.close();
  const missing = await sealTable(collection, stage.name, stage.columns, list);
  checkRows(collection, stage, missing, undone);
  await rm(list.path, { force: true });
  return missing;
}

/** DuckDB passes over lines that it cannot read; no sticker is lost that way without a word. */
function checkRows(collection: Collection, { name }: Stage, missing: number, undone: number): void {
  if (missing <= undone) return;
  const lost = missing - undone;
  const dir = collection.journalDir(name);
  throw new Error(
    `${name}: ${lost} lines in ${dir} cannot be made into rows: delete the folder and run the stage again`,
  );
}

/** Takes away what a killed run has left behind: halves of files, never lines of a journal. */
async function tidy(collection: Collection, stage: Stage): Promise<void> {
  await sweepPassing(collection, stage.name);
  await sweep(collection.journalDir(stage.name));
  for (const folder of (await stage.folders?.(collection)) ?? []) await sweep(folder);
}

/** Spreads keys evenly, the same way on every machine. */
function inShard(key: string, { index, count }: Shard): boolean {
  return count === 1 || Number.parseInt(sha256(key).slice(0, 8), 16) % count === index;
}
