// What comes after the records: test sets, statistics, exports read back by other readers, and the check that finds what is
// missing or changed. One small starter set goes through all of it.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { appendFile, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parquetReadObjects } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { extract } from "tar-stream";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { build, stale } from "../cli/build.mjs";
import { dataCard } from "../data/curate/card.ts";
import { type Collection, createCollection } from "../data/curate/collection.ts";
import { parseConfig } from "../data/curate/config.ts";
import { filterTable, recordsTable, wordsTable } from "../data/curate/derived.ts";
import { exportImagefolder } from "../data/curate/export/imagefolder.ts";
import { exportParquet } from "../data/curate/export/parquet.ts";
import { exportWebDataset } from "../data/curate/export/webdataset.ts";
import { splitTable } from "../data/curate/split.ts";
import { runStage } from "../data/curate/stage.ts";
import { stages } from "../data/curate/stages/index.ts";
import { statistics } from "../data/curate/stats.ts";
import { statsPage } from "../data/curate/stats_page.ts";
import { type Row, table, withDatabase } from "../data/curate/tables.ts";
import { type Fault, prune, rememberTables, verify } from "../data/curate/verify.ts";
import { writeStarter } from "../data/starter/index.ts";
import { openDataset } from "../data/store.ts";

let dir: string;
let c: Collection;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "gifgrad-export-"));
  if (stale()) await build();
  await writeStarter(join(dir, "in"), { count: 24, size: 32, seed: 3 });
  const config = {
    name: "two <dozen>",
    sources: [{ type: "folder", name: "starter", path: "in" }],
    filter: { minEntropy: 0, nearDuplicateBits: 0 },
    annotate: { ocr: false },
    split: { words: 4, heldOutPairs: 0.3 },
  };
  c = await createCollection(join(dir, "set"), parseConfig(config, "test", dir));
  for (const stage of stages().before) await runStage(c, stage);
  await filterTable(c);
  await recordsTable(c);
  await wordsTable(c);
  await splitTable(c);
  await rememberTables(c);
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const query = (sql: string): Promise<Row[]> => withDatabase((db) => db.all(sql));
const sumOf = async (path: string): Promise<string> =>
  createHash("sha256")
    .update(await readFile(path))
    .digest("hex");

describe("the test sets", () => {
  it("have one sticker for each of the most frequent words of a domain, and none twice", async () => {
    const [records, split] = [table(c, "records"), table(c, "split")];
    for (const [domain, set] of [
      ["Cartoon", "VSD-C"],
      ["Real", "VSD-R"],
    ]) {
      const top =
        await query(`SELECT word FROM (SELECT unnest(trigger_words) AS word FROM ${records} WHERE domain = '${domain}')
        GROUP BY word ORDER BY count(*) DESC, word LIMIT 4`);
      const picked = await query(`SELECT s.id, s.test_word AS word, list_contains(r.trigger_words, s.test_word) AS fits
        FROM ${split} s JOIN ${records} r USING (id) WHERE test_set = '${set}'`);
      expect(picked.map(({ word }) => word).sort()).toEqual(top.map(({ word }) => word).sort());
      expect(picked.every(({ fits }) => fits)).toBe(true);
      expect(new Set(picked.map(({ id }) => id)).size).toBe(picked.length);
    }
  });

  it("are not like anything that is trained on", async () => {
    const rows = await query(
      `SELECT s.split, r.phash FROM ${table(c, "split")} s JOIN ${table(c, "records")} r USING (id)`,
    );
    const bits = (a: unknown, b: unknown): number =>
      (BigInt(`0x${a}`) ^ BigInt(`0x${b}`)).toString(2).replaceAll("0", "").length;
    const of = (split: string): unknown[] => rows.filter((row) => row.split === split).map((row) => row.phash);
    const near = (a: unknown): boolean => of("test").some((b) => bits(a, b) <= 20);
    expect([...of("train"), ...of("held-out")].filter(near)).toEqual([]);
    expect(of("excluded").every(near)).toBe(true);
  });

  it("depend on the seed and on nothing else, and held-out pairs are nowhere in training", async () => {
    const before = await sumOf(c.tablePath("split"));
    await splitTable(c);
    expect(await sumOf(c.tablePath("split"))).toBe(before);
    const pairs = await query(
      `SELECT DISTINCT s.split, subject, action FROM ${table(c, "split")} s JOIN ${table(c, "records")} r USING (id)`,
    );
    const key = (row: Row): string => `${row.subject} ${row.action}`;
    const held = new Set(pairs.filter((row) => row.split === "held-out").map(key));
    expect(pairs.filter((row) => row.split === "train" && held.has(key(row)))).toEqual([]);
  });

  it("take no more than a tenth of a small set by default, and a warning says so where they take more than half", async () => {
    const config = (words: object) => parseConfig({ ...c.config, split: words }, "test", dir);
    const [{ real, cartoon }] = await query(`SELECT count(*) FILTER (domain = 'Real')::INT AS real,
      count(*) FILTER (domain = 'Cartoon')::INT AS cartoon FROM ${table(c, "records")}`);
    const before = await readFile(c.tablePath("split"));
    const few = await splitTable(await createCollection(c.dir, config({})));
    const tenth = (n: unknown): number => Math.max(1, Math.floor((n as number) / 10));
    expect(few).toMatchObject({ counts: { "VSD-R": tenth(real), "VSD-C": tenth(cartoon) }, warnings: [] });
    const all = await splitTable(await createCollection(c.dir, config({ words: 1000 })));
    expect(all.warnings.join("\n")).toMatch(/split\.words is 1000: \d+ of the \d+ stickers of Real are for testing/);
    await createCollection(c.dir, c.config);
    await writeFile(c.tablePath("split"), before);
  });
});

it("the filter says in how many bits a near duplicate differs, also from the far end of a chain", async () => {
  const set = await createCollection(join(dir, "near"), parseConfig({ filter: { nearDuplicateBits: 4 } }, "test", dir));
  const hashes = {
    a: "0".repeat(64),
    b: "8000000000000001".repeat(2).padEnd(64, "0"),
    c: "8000000000000001".repeat(4),
  };
  const measured = Object.entries(hashes).map(([id, hash]) => `('${id}', '${hash}', NULL::VARCHAR, 1.0, 5.0)`);
  await withDatabase(async (db) => {
    await db.write("SELECT NULL::VARCHAR AS id, NULL::VARCHAR AS text LIMIT 0", set.tablePath("collect"));
    await db.write(
      `SELECT * FROM (VALUES ${measured.join(", ")}) t("key", phash, error, aspect, entropy) ORDER BY "key"`,
      set.tablePath("measure"),
    );
  });
  await filterTable(set);
  expect(await query(`SELECT id, value, "limit", duplicate_of FROM ${table(set, "filter")} ORDER BY id`)).toEqual([
    { id: "a", value: null, limit: null, duplicate_of: null },
    { id: "b", value: 4, limit: 4, duplicate_of: "a" },
    { id: "c", value: 8, limit: 4, duplicate_of: "a" },
  ]);
});

it("README.md's commands make a set to train on", async () => {
  const at = join(dir, "readme");
  await writeStarter(join(at, "stickers"), { count: 30, size: 32, seed: 1 });
  const readme = await readFile(new URL("../README.md", import.meta.url), "utf8");
  const [, config] = /^`stickers\.json` says [^`]*`(\{.*?\})`;/m.exec(readme) ?? [];
  await writeFile(join(at, "stickers.json"), config);
  const lines = Array.from(readme.matchAll(/^npx gifgrad (dataset (?:build|export) [^#\n]+)/gm), ([, args]) =>
    args.trim(),
  );
  expect(lines).toHaveLength(2);
  const said = lines.map((args) => {
    const command = [fileURLToPath(new URL("../cli/gifgrad.mjs", import.meta.url)), ...args.split(" ")];
    const { status, stdout, stderr } = spawnSync(process.execPath, command, { cwd: at, encoding: "utf8" });
    expect({ args, status, stderr }).toMatchObject({ status: 0 });
    return stdout;
  });
  const count = (split: string): number => Number(new RegExp(`(\\d+)  ${split}`).exec(said[0])?.[1]);
  const train = (await readFile(join(at, "runs/export/train/metadata.jsonl"), "utf8")).trim().split("\n");
  expect(train).toHaveLength(count("for training"));
  expect(train.length).toBeGreaterThan(count("kept") / 2);
});

it("the statistics count what is there, and the page stands by itself", async () => {
  const stats = await statistics(c);
  const [counted] = await query(`SELECT count(*)::INT AS n, sum((domain = 'Cartoon')::INT)::INT AS cartoon,
    sum(len(trigger_words))::INT AS words, sum((ocr <> '')::INT)::INT AS lettered FROM ${table(c, "records")}`);
  const n = counted.n as number;
  expect(stats.stickers).toBe(n);
  expect(stats.table3.cartoon_ratio).toBeCloseTo((counted.cartoon as number) / n, 12);
  expect(stats.table3.average_trigger_words).toBeCloseTo((counted.words as number) / n, 12);
  expect(stats.table3.optical_character_ratio).toBeCloseTo((counted.lettered as number) / n, 12);
  expect(stats.lengths.reduce((a, b) => a + b, 0)).toBe(n);
  expect(stats.frames).toEqual([n, ...new Array<number>(14).fill(0)]); // eight frames each
  const page = statsPage(stats, [{ title: "none", png: new Uint8Array() }]);
  expect(page).toContain("two &lt;dozen&gt;");
  expect(page).not.toMatch(/<(script|link)|src="http/);
});

it("the card names licences and attributions of stickers, and what the sources offered in vain, with counts", async () => {
  const path = join(dir, "stated");
  await writeStarter(path, { count: 3, size: 16, seed: 5 });
  const lines = (await readFile(join(path, "metadata.jsonl"), "utf8"))
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const [by, license] = ["Ada\nLovelace", "CC-BY-4.0"];
  const stated = lines.map((line, i) => JSON.stringify({ ...line, license, attribution: i < 2 ? by : "Bob" }));
  await writeFile(join(path, "metadata.jsonl"), stated.join("\n"));
  await writeFile(join(path, "empty.gif"), "");
  await writeFile(join(path, "page.gif"), "<html></html>");
  await writeFile(join(path, "page2.gif"), "<html></html>");
  const source = { type: "folder", name: "stated", path };
  const config = { sources: [source], filter: { minEntropy: 0, nearDuplicateBits: -1 }, annotate: { ocr: false } };
  const set = await createCollection(join(dir, "stated-set"), parseConfig(config, "test", dir));
  for (const stage of stages().before) await runStage(set, stage);
  await filterTable(set);
  await recordsTable(set);
  await wordsTable(set);
  const stats = await statistics(set);
  expect(stats.filter).toEqual({ kept: 3, "not-collected": 3 });
  const card = dataCard(stats, set.config, "configs:").split("\n");
  for (const line of [
    "- **stated** (folder): each sticker states its licence",
    "- CC-BY-4.0: 3",
    "- Ada Lovelace: 2",
    "- Bob: 1",
    "- not-collected: 3",
    "- this is an HTML page, not an image: 2",
    "- the file is empty: 1",
  ])
    expect(card).toContain(line);
  expect(statsPage(stats, [])).toContain('<td>the file is empty</td><td class="n">1</td>');
});

describe("an export", () => {
  const exportedIds = async (): Promise<string[]> =>
    (await query(`SELECT id FROM ${table(c, "split")} WHERE split <> 'excluded' ORDER BY id`)).map((row) =>
      String(row.id),
    );

  it("as an imagefolder is a data set for training", async () => {
    const out = join(dir, "imagefolder");
    const count = await exportImagefolder(c, out, { strips: true });
    expect(count).toBe((await exportedIds()).length);
    const data = await openDataset(join(out, "train"), { size: 16, cacheDir: join(dir, "cache") });
    const lines = (await readFile(join(out, "train", "metadata.jsonl"), "utf8")).trim().split("\n");
    expect([data.length, data.rejected]).toEqual([lines.length, []]);
    data.close();
    expect(await readdir(join(out, "train", "strips"))).toHaveLength(lines.length);
  });

  it("as WebDataset is read by tar, and the same each time", async () => {
    const names: string[] = [];
    for (const out of [join(dir, "tar-1"), join(dir, "tar-2")]) await exportWebDataset(c, out, { shardBytes: 40_000 });
    const shards = await readdir(join(dir, "tar-1"));
    expect(shards.length).toBeGreaterThan(2);
    for (const shard of shards) {
      expect(await sumOf(join(dir, "tar-1", shard))).toBe(await sumOf(join(dir, "tar-2", shard)));
      const tar = extract();
      tar.end(await readFile(join(dir, "tar-1", shard)));
      for await (const entry of tar) {
        names.push(entry.header.name);
        entry.resume();
      }
    }
    const ids = names.filter((name) => name.endsWith(".json")).map((name) => name.slice(0, -5));
    expect(ids.sort()).toEqual(await exportedIds());
    expect(names).toHaveLength(3 * ids.length);
  });

  it("as Parquet is read by another reader, bytes and lists included", async () => {
    const out = join(dir, "parquet");
    await exportParquet(c, out, { fileBytes: 60_000 });
    const found: string[] = [];
    for (const name of (await readdir(out)).filter((file) => file.endsWith(".parquet"))) {
      const file = await readFile(join(out, name));
      const buffer = file.buffer.slice(file.byteOffset, file.byteOffset + file.length);
      for (const row of await parquetReadObjects({ file: buffer as ArrayBuffer, compressors, utf8: false })) {
        const { bytes, path } = row.image as { bytes: Uint8Array; path: unknown };
        expect(createHash("sha256").update(bytes).digest("hex")).toBe(row.id);
        expect(String(path).startsWith(String(row.id))).toBe(true);
        expect(Array.isArray(row.trigger_words)).toBe(true);
        found.push(String(row.id));
      }
    }
    expect(found.sort()).toEqual(await exportedIds());
  });
});

it("verification names what is missing, changed and left over", async () => {
  const faults = async (): Promise<string[]> => {
    const found: string[] = [];
    for await (const { fault, path } of verify(c)) found.push(`${fault} ${path.slice(c.dir.length + 1)}`);
    return found.sort();
  };
  expect(await faults()).toEqual([]);
  const files = (await readdir(join(c.dir, "media"), { recursive: true })).filter((name) => name.includes("."));
  const [gone, changed] = files.sort();
  await rm(join(c.dir, "media", gone));
  await appendFile(join(c.dir, "media", changed), "x");
  await writeFile(join(c.dir, "media", changed.slice(0, 2), "left.gif"), "over");
  await appendFile(c.tablePath("filter"), "x");
  expect(await faults()).toEqual(
    [
      "changed annotations/filter.parquet",
      `changed media/${changed}`,
      `missing media/${gone}`,
      `not in any table media/${changed.slice(0, 2)}/left.gif`,
    ].sort(),
  );
});

it("what a source has lost is pruned, and comes back when the source has it again", async () => {
  const path = join(dir, "losing");
  await writeStarter(path, { count: 2, size: 16, seed: 7 });
  const config = parseConfig({ sources: [{ type: "folder", name: "losing", path }] }, "test", dir);
  const set = await createCollection(join(dir, "losing-set"), config);
  const faults = async (): Promise<Fault[]> => {
    await runStage(set, stages().before[0]);
    const found: Fault[] = [];
    for await (const fault of verify(set)) found.push(fault);
    return found;
  };
  expect(await faults()).toEqual([]);
  const [name] = (await readdir(path, { recursive: true })).filter((file) => file.endsWith(".gif"));
  await rename(join(path, name), join(dir, "away.gif"));
  const left = await faults();
  expect(left).toMatchObject([{ fault: "not in any table" }]);
  await prune(
    set,
    left.map((fault) => fault.path),
  );
  expect(await faults()).toEqual([]);
  await rename(join(dir, "away.gif"), join(path, name));
  expect(await faults()).toEqual([]);
  expect(await query(`SELECT count(id)::INT AS n FROM ${table(set, "collect")}`)).toEqual([{ n: 2 }]);
});
