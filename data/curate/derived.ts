// Tables that follow from others at once: the filter's verdicts and the records. They are made anew whenever they are asked for,
// so a threshold is changed in seconds and nothing is lost: what was measured stays measured.

import { rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { asideOf } from "../../engine/atomic.ts";
import { DOMAINS } from "../record.ts";
import type { Collection } from "./collection.ts";
import { sweep } from "./files.ts";
import { HashList, nearDuplicates } from "./near.ts";
import { type Database, PASSING, table, text, withDatabase } from "./tables.ts";

/** Why a sticker is not in the data set; spec 5's filters and what cannot be used at all. */
export const REASONS = ["undecodable", "aspect", "entropy", "text", "near-duplicate"] as const;
export type Reason = (typeof REASONS)[number];

/** FROM of a stage's table if it has been made, else of no rows: `columns` are those asked for besides "key". */
export function optional(collection: Collection, stage: string, columns: string): string {
  return collection.hasTable(stage) ? table(collection, stage) : `(SELECT NULL::VARCHAR AS "key", ${columns} LIMIT 0)`;
}

/**
 * Writes the table "filter": for each sticker whether it is kept, and if not the reason, the value measured and the limit, and
 * which sticker it duplicates. Without OCR's table nothing is rejected for its text.
 */
export async function filterTable(collection: Collection): Promise<void> {
  const { maxAspect, minEntropy, maxTextArea, maxTextCharacters, nearDuplicateBits } = collection.config.filter;
  await withDatabase(async (db) => {
    // Words that a source knows count as much as words that were read.
    const ocr = `(SELECT "key", characters, area FROM ${optional(collection, "ocr", "0 AS characters, 0.0 AS area")} UNION ALL
      SELECT id AS "key", max(length(replace(text, ' ', ''))) AS characters, 0.0 AS area FROM ${table(collection, "collect")}
      WHERE text IS NOT NULL AND id IS NOT NULL GROUP BY id)`;
    await db.run(`CREATE TABLE verdict AS SELECT m."key" AS id, m.phash, NULL::VARCHAR AS duplicate_of,
      CASE WHEN m.error IS NOT NULL THEN 'undecodable' WHEN aspect > ${maxAspect} THEN 'aspect'
        WHEN entropy < ${minEntropy} THEN 'entropy'
        WHEN o.characters > ${maxTextCharacters} OR o.area > ${maxTextArea} THEN 'text' END AS reason,
      CASE reason WHEN 'aspect' THEN aspect WHEN 'entropy' THEN entropy
        WHEN 'text' THEN if(o.characters > ${maxTextCharacters}, o.characters, o.area) END::DOUBLE AS value,
      CASE reason WHEN 'aspect' THEN ${maxAspect} WHEN 'entropy' THEN ${minEntropy}
        WHEN 'text' THEN if(o.characters > ${maxTextCharacters}, ${maxTextCharacters}, ${maxTextArea}) END::DOUBLE AS "limit",
      coalesce(m.error, '') AS detail
      FROM ${table(collection, "measure")} m LEFT JOIN ${ocr} o ON o."key" = m."key"`);
    await linkDuplicates(db, nearDuplicateBits);
    await db.write(
      `SELECT id, reason IS NULL AS kept, reason, value, "limit", duplicate_of, detail FROM verdict ORDER BY id`,
      collection.tablePath("filter"),
    );
  });
}

/** Marks the near duplicates among what is kept so far. */
async function linkDuplicates(db: Database, bits: number): Promise<void> {
  if (bits < 0) return;
  await db.run(`CREATE TABLE candidate AS SELECT (row_number() OVER (ORDER BY id) - 1)::INT AS n, id, phash
    FROM verdict WHERE reason IS NULL`);
  const hashes = new HashList();
  for await (const { phash } of db.rows("SELECT phash FROM candidate ORDER BY n")) hashes.push(phash as string);
  const first = nearDuplicates(hashes, bits);
  await db.run("CREATE TABLE link (n INT, first INT)");
  const linked = Array.from(first.keys()).filter((n) => first[n] !== n);
  for (let at = 0; at < linked.length; at += 1000) {
    const links = linked.slice(at, at + 1000).map((n) => `(${n}, ${first[n]})`);
    await db.run(`INSERT INTO link VALUES ${links.join(", ")}`);
  }
  await db.run(
    "CREATE TABLE pair AS SELECT c.id, f.id AS first FROM link JOIN candidate c USING (n) JOIN candidate f ON f.n = link.first",
  );
  await db.run(`UPDATE verdict SET reason = 'near-duplicate', duplicate_of = first.id, "limit" = ${bits},
      value = ${differing("verdict.phash", "first.phash")}
    FROM pair JOIN verdict first ON first.id = pair.first WHERE pair.id = verdict.id`);
}

/** SQL of the bits in which two hashes differ. In a chain the first of a group may be further away than the limit. */
function differing(a: string, b: string): string {
  const word = (hash: string, at: number): string => `('0x' || substr(${hash}, ${at}, 16))::UBIGINT`;
  return [1, 17, 33, 49].map((at) => `bit_count(xor(${word(a, at)}, ${word(b, at)}))::INT`).join(" + ");
}

/** SQL: whether the text in `column` is a domain. A source may call it anything. */
export function knownDomain(column: string): string {
  return `lower(${column}) IN (${DOMAINS.map((domain) => text(domain.toLowerCase())).join(", ")})`;
}

/** What sources call a domain that is none, and how often, the most frequent first. */
export async function unknownDomains(collection: Collection): Promise<Map<string, number>> {
  const rows = await withDatabase((db) =>
    db.all(`SELECT domain, count(*)::INT AS n FROM ${table(collection, "collect")}
      WHERE id IS NOT NULL AND domain IS NOT NULL AND NOT ${knownDomain("domain")} GROUP BY domain ORDER BY n DESC, domain`),
  );
  return new Map(rows.map((row) => [row.domain as string, row.n as number]));
}

/**
 * Writes the table "records": a row for each sticker that is kept, with the best that is known of every field: a human's edit,
 * else an annotator's answer, else what the source said.
 */
export async function recordsTable(collection: Collection): Promise<void> {
  const stage = (name: string, columns: string): string => optional(collection, name, columns);
  const answer = (name: string): string => stage(name, "NULL::VARCHAR AS text");
  const edits =
    "NULL::VARCHAR AS caption, NULL::VARCHAR AS caption_zh, NULL::VARCHAR AS domain, NULL::VARCHAR AS text, NULL::VARCHAR[] AS trigger_words";
  const path = collection.tablePath("records");
  const unsorted = asideOf(join(dirname(path), ".records.unsorted"));
  await sweep(dirname(path), ".records.");
  await withDatabase(async (db) => {
    await db.run(
      `CREATE TABLE several AS SELECT id FROM ${table(collection, "collect")} WHERE id IS NOT NULL GROUP BY id HAVING count(*) > 1`,
    );
    // A million lists of words are too much to have in memory: most stickers have one entry, whose list passes by, and what
    // has been joined is written before it is sorted.
    await db.run(
      `COPY (WITH entries AS (
        SELECT id, format, bytes, list_sort(list_distinct(words)) AS trigger_words, [source] AS sources,
          caption, caption_zh, if(${knownDomain("domain")}, domain, NULL) AS domain, text, subject, action,
          nullif(license, '') AS license, nullif(attribution, '') AS attribution
        FROM ${table(collection, "collect")} ANTI JOIN several USING (id) WHERE id IS NOT NULL
        UNION ALL BY NAME
        SELECT id, min(format) AS format, min(bytes) AS bytes,
          list_sort(list_distinct(flatten(list(words)))) AS trigger_words,
          list_sort(list_distinct(list(source))) AS sources,
          arg_min(caption, "key") FILTER (caption IS NOT NULL) AS caption,
          arg_min(caption_zh, "key") FILTER (caption_zh IS NOT NULL) AS caption_zh,
          arg_min(domain, "key") FILTER (${knownDomain("domain")}) AS domain,
          arg_min(text, "key") FILTER (text IS NOT NULL) AS text,
          arg_min(subject, "key") FILTER (subject IS NOT NULL) AS subject,
          arg_min(action, "key") FILTER (action IS NOT NULL) AS action,
          array_to_string(list_sort(list_distinct(list(license) FILTER (license <> ''))), '; ') AS license,
          array_to_string(list_sort(list_distinct(list(attribution) FILTER (attribution <> ''))), '; ') AS attribution
        FROM ${table(collection, "collect")} SEMI JOIN several USING (id) GROUP BY id)
      SELECT e.id, e.format, e.bytes, m.width, m.height, m.frames, m.duration_ms, m.frames > 1 AS animated, m.has_alpha,
        m.aspect, m.entropy, m.motion, m.phash,
        CASE lower(coalesce(h.domain, e.domain, d.domain)) WHEN 'cartoon' THEN 'Cartoon' WHEN 'real' THEN 'Real' END AS domain,
        e.subject, e.action,
        coalesce(h.caption, s.text, e.caption, v.text) AS caption,
        coalesce(h.caption_zh, t.text, e.caption_zh) AS caption_zh,
        coalesce(h.text, e.text, o.text, '') AS ocr,
        coalesce(h.trigger_words, e.trigger_words, []) AS trigger_words,
        e.sources, e.license, e.attribution
      FROM entries e
      JOIN ${table(collection, "filter")} f ON f.id = e.id AND f.kept
      JOIN ${table(collection, "measure")} m ON m."key" = e.id
      LEFT JOIN ${answer("ocr")} o ON o."key" = e.id
      LEFT JOIN ${stage("domain", "NULL::VARCHAR AS domain")} d ON d."key" = e.id
      LEFT JOIN ${answer("describe")} v ON v."key" = e.id
      LEFT JOIN ${answer("summarise")} s ON s."key" = e.id
      LEFT JOIN ${answer("translate")} t ON t."key" = e.id
      LEFT JOIN ${stage("edits", edits)} h ON h."key" = e.id) TO ${text(unsorted)} (${PASSING})`,
    );
    await db.write(`SELECT * FROM read_parquet(${text(unsorted)}) ORDER BY id`, path);
  }).finally(() => rm(unsorted, { force: true }));
}

const PUNCTUATION = `.,;:!?"()[]{}…。，、；：！？“”（）`;

/**
 * Writes the table "words" from the records: how often each trigger word, and each word of a description, occurs in each domain.
 * A million stickers have tens of millions of words, so they are counted once here and not by everybody who asks.
 */
export async function wordsTable(collection: Collection): Promise<void> {
  const records = table(collection, "records");
  // Splitting at spaces takes a quarter of the time of a regular expression.
  const plain = `translate(lower(caption), ${text(PUNCTUATION)}, ${text(" ".repeat(PUNCTUATION.length))})`;
  const kinds = {
    trigger: `SELECT domain, unnest(trigger_words) AS word FROM ${records}`,
    description: `SELECT domain, unnest(string_split(${plain}, ' ')) AS word FROM ${records}`,
  };
  const counts = Object.entries(kinds).map(
    ([kind, words]) =>
      `SELECT '${kind}' AS kind, domain, word, count(*) AS n FROM (${words}) WHERE word <> '' GROUP BY ALL`,
  );
  await withDatabase((db) =>
    db.write(`${counts.join(" UNION ALL ")} ORDER BY kind, domain, word`, collection.tablePath("words")),
  );
}

/** What the sources offered and could not be taken: empty files, files that are no images, addresses that gave nothing. */
export const NOT_COLLECTED = "not-collected";

/** How many stickers were kept, how many rejected for each reason, and how many entries never became stickers. */
export async function verdicts(collection: Collection): Promise<Map<string, number>> {
  const rows = await withDatabase((db) =>
    db.all(
      `SELECT coalesce(reason, 'kept') AS verdict, count(*)::INT AS n FROM ${table(collection, "filter")} GROUP BY ALL
        UNION ALL SELECT '${NOT_COLLECTED}', count(*)::INT FROM ${table(collection, "collect")}
        WHERE id IS NULL HAVING count(*) > 0 ORDER BY ALL`,
    ),
  );
  return new Map(rows.map((row) => [row.verdict as string, row.n as number]));
}

/** Why entries could not be taken, with counts, the most frequent first. */
export async function notCollected(collection: Collection, limit: number): Promise<[string, number][]> {
  const rows = await withDatabase((db) =>
    db.all(`SELECT error, count(*)::INT AS n FROM ${table(collection, "collect")} WHERE id IS NULL
      GROUP BY error ORDER BY n DESC, error LIMIT ${limit}`),
  );
  return rows.map(({ error, n }) => [String(error), n as number]);
}
