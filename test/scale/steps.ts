// The steps that main.ts times, in the order of a build. The stages are the real ones, on made-up sources and with made-up answers
// (made.ts) in place of files that are read and decoded: items, journals and tables are as in any build.

import { mkdir, stat, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { type Collection, createCollection, openCollection } from "../../data/curate/collection.ts";
import { parseConfig } from "../../data/curate/config.ts";
import { filterTable, recordsTable, wordsTable } from "../../data/curate/derived.ts";
import { HashList, nearDuplicates } from "../../data/curate/near.ts";
import { splitTable } from "../../data/curate/split.ts";
import { runStage, type Stage } from "../../data/curate/stage.ts";
import { type CollectItem, collect } from "../../data/curate/stages/collect.ts";
import { measureStage } from "../../data/curate/stages/measure.ts";
import { statistics, topWords } from "../../data/curate/stats.ts";
import { table, withDatabase } from "../../data/curate/tables.ts";
import { sha256Json } from "../../data/hash.ts";
import { DIFFERENT, sticker } from "./decode.ts";
import { entryOf, idOf, measuresOf, numberOf } from "./made.ts";

/** Does a step in `dir`, at so many records; returns what is worth telling besides its time. */
type Step = (dir: string, records: number) => Promise<unknown>;

export const STEPS: Readonly<Record<string, Step>> = {
  collect: async (dir, records) => {
    const collection = await createCollection(dir, parseConfig({ name: "scale" }, "scale", dir));
    return ran(collection, madeCollect(records));
  },
  "collect again": async (dir, records) => ran(await openCollection(dir), madeCollect(records)),
  measure: async (dir, records) => ran(await openCollection(dir), madeMeasure(records)),
  "measure again": async (dir, records) => ran(await openCollection(dir), madeMeasure(records)),
  "near duplicates": on(nearDuplicateGroups),
  filter: on(filterTable),
  records: on(async (collection) => {
    await recordsTable(collection);
    return { table: await megabytes(collection, "records") };
  }),
  "counting words": on(wordsTable),
  "test sets": on(async (collection) => (await splitTable(collection)).counts),
  "top 500 words of each domain": on(async (collection) => void (await topWords(collection, 500))),
  statistics: on(async (collection) => void (await statistics(collection))),
  "files of samples": on(drawSamples),
  "dataset stats": on(async ({ dir }) => (await import("../../cli/dataset.ts")).stats(dir, dir)),
};

function on(work: (collection: Collection) => Promise<unknown>): Step {
  return async (dir) => work(await openCollection(dir));
}

async function ran(collection: Collection, stage: Stage): Promise<object> {
  const { done, before } = await runStage(collection, stage);
  return { done, before };
}

function madeCollect(records: number): Stage {
  async function* each(): AsyncGenerator<CollectItem> {
    for (let i = 0; i < records; i++) {
      const entry = entryOf(i, records);
      const { stamp: _, ...said } = entry; // as of any source
      yield { key: sha256Json(["made", said]), source: "made", entry };
    }
  }
  const stage: typeof collect = {
    ...collect,
    items: async () => ({ each: each() }),
    open: async () => ({
      run: async ({ source, entry }) => ({
        source,
        entry: entry.at,
        id: idOf(Number.parseInt(entry.at, 10)),
        format: "gif",
        bytes: 40_000,
        url: null,
        words: entry.words,
        caption: entry.caption ?? null,
        caption_zh: entry.captionZh ?? null,
        domain: entry.domain ?? null,
        text: entry.text ?? null,
        subject: null,
        action: null,
        license: entry.license ?? "",
        attribution: "",
        error: null,
      }),
      close: async () => {},
    }),
  };
  return stage as unknown as Stage;
}

function madeMeasure(records: number): Stage {
  const stage: typeof measureStage = {
    ...measureStage,
    open: async () => ({
      run: async ({ key }) => ({ ...measuresOf(numberOf(key), records), error: null }),
      close: async () => {},
    }),
  };
  return stage as unknown as Stage;
}

async function nearDuplicateGroups(collection: Collection): Promise<object> {
  const hashes = new HashList();
  await withDatabase(async (db) => {
    for await (const { phash } of db.rows(`SELECT phash FROM ${table(collection, "measure")} ORDER BY "key"`)) {
      hashes.push(phash as string);
    }
  });
  const first = nearDuplicates(hashes, collection.config.filter.nearDuplicateBits);
  const sizes = new Map<number, number>();
  for (const i of first) sizes.set(i, (sizes.get(i) ?? 0) + 1);
  return { groups: sizes.size, largest: [...sizes.values()].reduce((a, b) => Math.max(a, b), 0) };
}

/** Files of those stickers that the page of statistics shows: there are no others. */
async function drawSamples(collection: Collection): Promise<void> {
  const drawn = Array.from({ length: DIFFERENT }, (_, i) => sticker("drawn", i));
  const shown = await withDatabase((db) =>
    db.all(`SELECT id FROM ${table(collection, "records")} ORDER BY md5(id) LIMIT 400`),
  );
  for (const [i, { id }] of shown.entries()) {
    const path = collection.mediaPath(String(id), "gif");
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, drawn[i % drawn.length]);
  }
}

async function megabytes(collection: Collection, name: string): Promise<number> {
  return Math.round((await stat(collection.tablePath(name))).size / 1e6);
}
