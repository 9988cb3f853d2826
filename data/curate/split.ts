// Test sets after the paper (spec 5): for each domain the most frequent trigger words, and for each word one sticker that no
// other word has taken. What is like a test sticker is not trained on. Where records say who does what, pairs of subject and
// action are held out besides, to see whether a model can put together what it has only met apart.

import { unitHash } from "../hash.ts";
import type { Collection } from "./collection.ts";
import { HashList, likeAny } from "./near.ts";
import { type Database, table, text, withDatabase } from "./tables.ts";

/** Domain -> the paper's name of its test set. */
const TEST_SETS = { Real: "VSD-R", Cartoon: "VSD-C" } as const;

/** Trigger words of a domain that get a test sticker, in the paper; a small set gives no more than this share of a domain. */
const PAPER_WORDS = 500;
const TEST_SHARE = 0.1;

/** Candidates looked at for a word before more are asked for. */
const CANDIDATES = 64;

interface Pick {
  readonly id: string;
  readonly set: string;
  readonly word: string;
}

export interface Split {
  /** Stickers of each split, the test sets by their names; those without any are 0. */
  readonly counts: Readonly<Record<(typeof SPLITS)[number], number>>;
  /** What the configuration asks and should perhaps not, a sentence each. */
  readonly warnings: readonly string[];
}

/** In the order in which they are told. */
const SPLITS = ["train", ...Object.values(TEST_SETS), "held-out", "excluded"] as const;

/**
 * Writes the table "split": id, split ("train", "test", "held-out" or "excluded"), test_set and test_word. It depends on the
 * records and the seed only. Animated stickers are preferred for the test sets, since models make animations.
 */
export async function splitTable(collection: Collection): Promise<Split> {
  const { seed, apartBits, heldOutPairs } = collection.config.split;
  return withDatabase(async (db) => {
    const records = table(collection, "records");
    const picks = await testStickers(collection, db, records);
    await db.run("CREATE TABLE pick (id VARCHAR, test_set VARCHAR, test_word VARCHAR)");
    await insert(
      db,
      "pick",
      picks.map(({ id, set, word }) => [id, set, word]),
    );
    await db.run("CREATE TABLE near (id VARCHAR)");
    await insert(
      db,
      "near",
      (await likeTests(db, records, apartBits)).map((id) => [id]),
    );
    await db.run("CREATE TABLE held (subject VARCHAR, action VARCHAR)");
    await insert(db, "held", await heldOut(db, records, heldOutPairs, seed));
    await db.write(
      `SELECT r.id, CASE WHEN p.id IS NOT NULL THEN 'test' WHEN n.id IS NOT NULL THEN 'excluded'
          WHEN h.subject IS NOT NULL THEN 'held-out' ELSE 'train' END AS split, p.test_set, p.test_word
        FROM ${records} r LEFT JOIN pick p ON p.id = r.id LEFT JOIN near n ON n.id = r.id
        LEFT JOIN held h ON h.subject = r.subject AND h.action = r.action ORDER BY r.id`,
      collection.tablePath("split"),
    );
    const found = await db.all(`SELECT coalesce(test_set, split) AS split, count(*)::INT AS n
      FROM ${table(collection, "split")} GROUP BY ALL`);
    const counts = Object.fromEntries(SPLITS.map((split) => [split, 0])) as Record<(typeof SPLITS)[number], number>;
    for (const { split, n } of found) counts[split as keyof typeof counts] = n as number;
    return { counts, warnings: warnings(await sizes(db, records), counts, collection.config.split.words) };
  });
}

/** Stickers of each domain. */
async function sizes(db: Database, records: string): Promise<Map<string, number>> {
  const rows = await db.all(`SELECT domain, count(*)::INT AS n FROM ${records} WHERE domain IS NOT NULL GROUP BY ALL`);
  return new Map(rows.map(({ domain, n }) => [domain as string, n as number]));
}

function warnings(of: ReadonlyMap<string, number>, counts: Split["counts"], words: number | undefined): string[] {
  const large = Object.entries(TEST_SETS).flatMap(([domain, set]) => {
    const stickers = of.get(domain) ?? 0;
    return words !== undefined && counts[set] > stickers / 2
      ? [`split.words is ${words}: ${counts[set]} of the ${stickers} stickers of ${domain} are for testing (${set})`]
      : [];
  });
  const any = Object.values(counts).some((n) => n > 0);
  return any && counts.train === 0 ? [...large, "no sticker is left for training"] : large;
}

async function testStickers(collection: Collection, db: Database, records: string): Promise<Pick[]> {
  const { seed, words } = collection.config.split;
  const picks: Pick[] = [];
  const stickers = await sizes(db, records);
  for (const [domain, set] of Object.entries(TEST_SETS)) {
    const share = Math.max(1, Math.floor(TEST_SHARE * (stickers.get(domain) ?? 0)));
    const limit = words ?? Math.min(PAPER_WORDS, share);
    const every = `(SELECT id, animated, unnest(trigger_words) AS word FROM ${records} WHERE domain = ${text(domain)})`;
    await db.run(`CREATE OR REPLACE TABLE top AS SELECT word, count(*) AS n FROM ${every} GROUP BY word
      ORDER BY n DESC, word LIMIT ${limit}`);
    await db.run(`CREATE OR REPLACE TABLE tagged AS SELECT * FROM ${every} SEMI JOIN top USING (word)`);
    const order = `animated DESC, md5(${text(`${seed} `)} || id || word)`;
    const ranked = await db.all(`SELECT word, list(id ORDER BY rank) AS ids FROM (
        SELECT t.word, t.id, row_number() OVER (PARTITION BY t.word ORDER BY ${order}) AS rank FROM tagged t)
      WHERE rank <= ${CANDIDATES} GROUP BY word`);
    const candidates = new Map(ranked.map((row) => [row.word as string, row.ids as readonly string[]]));
    const taken = new Set<string>();
    for (const { word } of await db.all("SELECT word FROM top ORDER BY n DESC, word")) {
      const free = (ids: readonly string[]): string | undefined => ids.find((id) => !taken.has(id));
      const id = free(candidates.get(word as string) ?? []) ?? free(await all(db, word as string, order));
      if (id === undefined) continue; // every sticker of this word stands for another
      taken.add(id);
      picks.push({ id, set, word: word as string });
    }
  }
  return picks;
}

async function all(db: Database, word: string, order: string): Promise<string[]> {
  const rows = await db.all(`SELECT id FROM tagged WHERE word = ${text(word)} ORDER BY ${order}`);
  return rows.map((row) => row.id as string);
}

/** Stickers that are no test stickers but look like one. */
async function likeTests(db: Database, records: string, bits: number): Promise<string[]> {
  const targets = await db.all(`SELECT phash FROM ${records} r SEMI JOIN pick USING (id) ORDER BY id`);
  const isLike = likeAny(new HashList(targets.map(({ phash }) => phash as string)), bits);
  const like: string[] = [];
  for await (const { id, phash } of db.rows(
    `SELECT id, phash FROM ${records} r ANTI JOIN pick USING (id) ORDER BY id`,
  )) {
    if (isLike(phash as string)) like.push(id as string);
  }
  return like;
}

/** The pairs whose hash falls into the share; only pairs whose subject and action are also seen apart. */
async function heldOut(db: Database, records: string, share: number, seed: number): Promise<string[][]> {
  const pairs = await db.all(`SELECT DISTINCT subject, action FROM ${records}
    WHERE subject IS NOT NULL AND action IS NOT NULL ORDER BY ALL`);
  const out = pairs
    .map(({ subject, action }) => [subject as string, action as string])
    .filter((pair) => unitHash(JSON.stringify([seed, ...pair])) < share);
  const chosen = new Set(out.map((pair) => JSON.stringify(pair)));
  const kept = pairs.filter(({ subject, action }) => !chosen.has(JSON.stringify([subject, action])));
  const [subjects, actions] = [new Set(kept.map((p) => p.subject)), new Set(kept.map((p) => p.action))];
  return out.filter(([subject, action]) => subjects.has(subject) && actions.has(action));
}

async function insert(db: Database, into: string, rows: readonly (readonly string[])[]): Promise<void> {
  for (let at = 0; at < rows.length; at += 1000) {
    const values = rows.slice(at, at + 1000).map((row) => `(${row.map(text).join(", ")})`);
    await db.run(`INSERT INTO ${into} VALUES ${values.join(", ")}`);
  }
}
