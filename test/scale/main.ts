// How a data set of a million stickers behaves: makes annotations of that size with the paper's marginals (spec 5), and times the
// statistics, the top trigger words and the test sets on them. `npm run dataset:scale -- --records 1000000`. Prints JSON lines.
// With `--decode` it times decoding instead, see decode.ts.

import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Collection, createCollection } from "../../data/curate/collection.ts";
import { parseConfig } from "../../data/curate/config.ts";
import { wordsTable } from "../../data/curate/derived.ts";
import { HashList, nearDuplicates } from "../../data/curate/near.ts";
import { splitTable } from "../../data/curate/split.ts";
import { statistics, topWords } from "../../data/curate/stats.ts";
import { text, withDatabase } from "../../data/curate/tables.ts";
import { decodeScale } from "./decode.ts";

const { values } = parseArgs({
  options: {
    records: { type: "string", default: "1000000" },
    decode: { type: "boolean", default: false },
    stickers: { type: "string", default: "400" },
  },
});
const records = Number(values.records);
await (values.decode ? decodeScale(Number(values.stickers)) : annotationScale());

async function annotationScale(): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "gifgrad-scale-"));
  try {
    const collection = await createCollection(dir, parseConfig({ name: "scale" }, "scale", dir));
    await timed("make", () => makeRecords(collection));
    console.log(
      JSON.stringify({ what: "records.parquet", megabytes: (await stat(collection.tablePath("records"))).size / 1e6 }),
    );
    await timed("counting words", () => wordsTable(collection));
    await timed("statistics", () => statistics(collection));
    await timed("top 500 words of each domain", () => topWords(collection, 500));
    await timed("test sets", () => splitTable(collection));
    await timed("near duplicates", () => duplicates(collection));
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

async function timed(what: string, work: () => Promise<unknown>): Promise<void> {
  const [start, cpu] = [performance.now(), process.cpuUsage()];
  await work();
  const { user, system } = process.cpuUsage(cpu);
  const rss = process.memoryUsage().rss / 1e6;
  const peak = process.resourceUsage().maxRSS / 1e3;
  const round = (x: number): number => Math.round(x * 10) / 10;
  const figures = {
    seconds: round((performance.now() - start) / 1e3),
    cpu: round((user + system) / 1e6),
    rss: round(rss),
    peak: round(peak),
  };
  console.log(JSON.stringify({ what, records, ...figures }));
}

/** Frames, domains, words and lengths as the paper's Table 3 and Figure 4 have them; words follow Zipf's law. */
async function makeRecords(collection: Collection): Promise<void> {
  const random = (salt: number): string => `(hash(i, ${salt}) / 18446744073709551615.0)`;
  const filler =
    "a cartoon character with a round face is waving its hand and smiling at the viewer on a white background while it jumps";
  await withDatabase(async (db) => {
    await db.write(
      `SELECT sha256(i::VARCHAR) AS id, 'gif' AS format, (40000 * ${random(1)})::BIGINT AS bytes, 256 AS width, 256 AS height,
        if(${random(2)} < 0.519, 2 + (60 * ${random(3)} * ${random(4)})::INT, 1) AS frames, 800.0::DOUBLE AS duration_ms, frames > 1 AS animated,
        true AS has_alpha, 1.0::DOUBLE AS aspect, 4.0::DOUBLE AS entropy, 0.1::DOUBLE AS motion, sha256((i * 7)::VARCHAR) AS phash,
        if(${random(5)} < 0.456, 'Cartoon', 'Real') AS domain, NULL::VARCHAR AS subject, NULL::VARCHAR AS action,
        left(${text(filler)}, 40 + (80 * ${random(6)})::INT) || i AS caption, '一个圆脸的卡通人物在挥手' AS caption_zh,
        if(${random(7)} < 0.552, 'OK', '') AS ocr,
        list_distinct(list_transform(range(1 + (70 * ${random(8)})::INT), j -> 'word ' || (exp(13.3 * (hash(i, j) / 18446744073709551615.0)))::INT)) AS trigger_words,
        ['made'] AS sources, 'CC0-1.0' AS license, '' AS attribution
       FROM range(${records}) t(i) ORDER BY id`,
      collection.tablePath("records"),
    );
    await db.write(
      `SELECT id, true AS kept, NULL::VARCHAR AS reason, NULL::DOUBLE AS value, NULL::DOUBLE AS "limit", NULL::VARCHAR AS duplicate_of, '' AS detail FROM ${text(collection.tablePath("records"))} ORDER BY id`,
      collection.tablePath("filter"),
    );
  });
}

async function duplicates(collection: Collection): Promise<void> {
  const hashes = new HashList();
  await withDatabase(async (db) => {
    for await (const { phash } of db.rows(`SELECT phash FROM ${text(collection.tablePath("records"))} ORDER BY id`)) {
      hashes.push(phash as string);
    }
  });
  nearDuplicates(hashes, collection.config.filter.nearDuplicateBits);
}
