// Numbers about a data set, in the paper's layout: Tables 2 and 3, Figures 3 and 4, the funnel of the filter, and the top words
// per domain. Queries on the table "records"; stats_page.ts draws them.

import type { Collection } from "./collection.ts";
import { notCollected, verdicts } from "./derived.ts";
import { type Bar, type DatasetFacts, FRAME_BINS, LENGTH_BINS } from "./paper.ts";
import { type Database, table, withDatabase } from "./tables.ts";

export interface Stats {
  readonly name: string;
  readonly stickers: number;
  /** The row of Table 2. */
  readonly facts: DatasetFacts;
  /** Table 3. Descriptions are measured in characters of the English caption. */
  readonly table3: Readonly<Record<string, number | null>>;
  /** Figures 3 and 4: words of descriptions and trigger words by frequency; frames and lengths by bin. */
  readonly words: readonly Bar[];
  readonly triggers: readonly Bar[];
  readonly frames: readonly number[];
  readonly lengths: readonly number[];
  /** The most frequent trigger words of each domain. */
  readonly domains: Readonly<Record<string, readonly Bar[]>>;
  /** Stickers by what the filter says of them. */
  readonly filter: Readonly<Record<string, number>>;
  readonly splits: Readonly<Record<string, number>>;
  readonly licenses: readonly Bar[];
  readonly attributions: readonly Bar[];
  /** Of each source by name: stickers that were kept, and those of them that have a licence. */
  readonly sources: Readonly<Record<string, { readonly stickers: number; readonly licensed: number }>>;
  /** Why entries of the sources could not be taken. */
  readonly notCollected: readonly Bar[];
}

const TOP = 60;
/** Licences, attributions and faults of entries that are listed. */
const LISTED = 50;
/** Words of these lengths and kinds say nothing about stickers. */
const STOP = new Set(
  "a an and are as at be by for from has have he her his in into is it its of on or she that the their there they this to was were while with".split(
    " ",
  ),
);

/** @throws Error when the records have not been made yet */
export async function statistics(collection: Collection): Promise<Stats> {
  const records = table(collection, "records");
  return withDatabase(async (db) => {
    const [sums] = await db.all(`SELECT count(*)::INT AS stickers, avg(animated::INT) AS multi_frame_ratio,
      avg((ocr <> '')::INT) AS optical_character_ratio, avg(frames) AS average_frames,
      avg((domain = 'Cartoon')::INT) AS cartoon_ratio, avg(len(trigger_words)) AS average_trigger_words,
      avg(length(caption)) AS average_description_length,
      bool_or(animated) AS gifs, bool_or(NOT animated) AS still, bool_or(caption IS NOT NULL) AS described,
      bool_or(caption_zh IS NOT NULL) AS chinese, bool_or(len(trigger_words) > 0) AS worded,
      bool_or(ocr <> '') AS read, bool_or(domain IS NOT NULL) AS flagged FROM ${records}`);
    const stickers = sums.stickers as number;
    const number = (name: string): number | null => (sums[name] === null ? null : Number(sums[name]));
    const names = [
      "multi_frame_ratio",
      "optical_character_ratio",
      "average_frames",
      "cartoon_ratio",
      "average_trigger_words",
      "average_description_length",
    ];
    const counted = table(collection, "words");
    return {
      name: collection.config.name,
      stickers,
      facts: {
        dataset: collection.config.name,
        size: short(stickers),
        modality: said([sums.still, "static"], [sums.gifs, "GIFs"], [sums.described, "description"]),
        language: said([sums.described, "En"], [sums.chinese, "Cn"]),
        trigger_words: sums.worded === true,
        ocr: sums.read === true,
        domain: sums.flagged === true,
      },
      table3: Object.fromEntries(names.map((name) => [name, number(name)])),
      words: (await top(db, `${counted} WHERE kind = 'description'`, "word", TOP + STOP.size, "sum(n)"))
        .filter(([word]) => !STOP.has(word))
        .slice(0, TOP),
      triggers: await top(db, `${counted} WHERE kind = 'trigger'`, "word", TOP, "sum(n)"),
      frames: await histogram(db, `frames FROM ${records} WHERE animated`, FRAME_BINS),
      lengths: await histogram(db, `length(caption) FROM ${records} WHERE caption IS NOT NULL`, LENGTH_BINS),
      domains: await topWords(collection, 500),
      filter: Object.fromEntries(await verdicts(collection)),
      splits: collection.hasTable("split")
        ? Object.fromEntries(await top(db, table(collection, "split"), "coalesce(test_set, split)", 10))
        : {},
      licenses: await top(db, records, "if(license IS NULL OR license = '', 'not stated', license)", LISTED),
      attributions: await top(db, `${records} WHERE attribution <> ''`, "attribution", LISTED),
      sources: await bySource(collection, db),
      notCollected: await notCollected(collection, LISTED),
    };
  });
}

/** The most frequent trigger words of each domain: what test sets are chosen by. */
export async function topWords(collection: Collection, limit: number): Promise<Stats["domains"]> {
  const rows = await withDatabase((db) =>
    db.all(`SELECT domain, word, n::INT AS n FROM ${table(collection, "words")} WHERE kind = 'trigger' AND domain IS NOT NULL
      QUALIFY row_number() OVER (PARTITION BY domain ORDER BY n DESC, word) <= ${limit} ORDER BY domain, n DESC, word`),
  );
  const of = (domain: string): Bar[] =>
    rows.filter((row) => row.domain === domain).map((row) => [String(row.word), row.n as number]);
  return { Real: of("Real"), Cartoon: of("Cartoon") };
}

async function bySource(collection: Collection, db: Database): Promise<Stats["sources"]> {
  const rows = await db.all(`SELECT source, count(DISTINCT id)::INT AS stickers,
      (count(DISTINCT id) FILTER (license <> ''))::INT AS licensed
    FROM ${table(collection, "collect")} SEMI JOIN ${table(collection, "records")} USING (id) GROUP BY source ORDER BY source`);
  return Object.fromEntries(
    rows.map(({ source, stickers, licensed }) => [
      String(source),
      { stickers: stickers as number, licensed: licensed as number },
    ]),
  );
}

/** The most frequent values of an expression. */
async function top(db: Database, from: string, value: string, limit: number, count = "count(*)"): Promise<Bar[]> {
  const rows = await db.all(`SELECT ${value} AS label, (${count})::INT AS total FROM ${from} GROUP BY ALL
    ORDER BY total DESC, label LIMIT ${limit}`);
  return rows.map((row) => [String(row.label), row.total as number]);
}

/** Counts of values up to each bound, and above the last. */
async function histogram(db: Database, of: string, bounds: readonly number[]): Promise<number[]> {
  const step = bounds[1] - bounds[0];
  const rows =
    await db.all(`SELECT least(greatest(0, ceil(v / ${step}) - 1), ${bounds.length})::INT AS bin, count(*)::INT AS n
    FROM (SELECT ${of}) t(v) GROUP BY bin`);
  const counts = new Array<number>(bounds.length + 1).fill(0);
  for (const { bin, n } of rows) counts[bin as number] = n as number;
  return counts;
}

function said(...parts: readonly (readonly [unknown, string])[]): string {
  return parts
    .filter(([there]) => there === true)
    .map(([, word]) => word)
    .join(", ");
}

/** 2_090_000 -> "2.09M". */
export function short(n: number): string {
  if (n >= 1e6) return `${Number((n / 1e6).toPrecision(3))}M`;
  return n >= 1e4 ? `${Math.round(n / 1e3)}K` : String(n);
}
