// Building a data set: sources of every kind, stages that are killed, repeated and shared, tables that come out the same, near
// duplicates and the filter's verdicts.

import { createHash } from "node:crypto";
import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import fc from "fast-check";
import sharp from "sharp";
import { pack } from "tar-stream";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { build, stale } from "../cli/build.mjs";
import { type Collection, createCollection } from "../data/curate/collection.ts";
import { parseConfig } from "../data/curate/config.ts";
import { filterTable, recordsTable, verdicts } from "../data/curate/derived.ts";
import { forbids, robotsRules } from "../data/curate/fetch.ts";
import { mergeInto } from "../data/curate/merge.ts";
import { HashList, likeAny, nearDuplicates } from "../data/curate/near.ts";
import { contactSheet, type Shown } from "../data/curate/sheet.ts";
import { type Item, NotNow, runStage, type Stage, sealStage } from "../data/curate/stage.ts";
import { collect } from "../data/curate/stages/collect.ts";
import { stages } from "../data/curate/stages/index.ts";
import { type Row, table, withDatabase } from "../data/curate/tables.ts";
import { encodeGif } from "../data/encode/gif.ts";
import { asideOf } from "../engine/atomic.ts";
import { discFrames, writeMixedFolder } from "./stickers.ts";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "gifgrad-curate-"));
  if (stale()) await build(); // the decoding processes run the built worker
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const gif = (seed: number): Uint8Array => encodeGif(discFrames([(40 * seed) % 256, 90, 200], seed), 40, 40);

async function collection(name: string, config: object): Promise<Collection> {
  return createCollection(join(dir, name), parseConfig(config, "test", dir));
}

async function rows(c: Collection, name: string, order = "ALL"): Promise<Row[]> {
  return withDatabase((db) => db.all(`SELECT * FROM ${table(c, name)} ORDER BY ${order}`));
}

const collected = (c: Collection): Promise<unknown> => runStage(c, collect as unknown as Stage);

describe("sources", () => {
  it("takes a folder: names its folders as words, reads metadata.jsonl, says what is wrong with a file", async () => {
    const path = join(dir, "mixed");
    const { good, bad } = await writeMixedFolder(path);
    await mkdir(join(path, "happy_cat"));
    await writeFile(join(path, "happy_cat", "x.gif"), gif(1));
    await writeFile(join(dir, "outside.gif"), gif(2));
    await symlink(join(dir, "outside.gif"), join(path, "link.gif"));
    const c = await collection("from-folder", {
      sources: [{ type: "folder", name: "mixed", path: "mixed", license: "CC0-1.0" }],
    });
    await collected(c);
    const found = new Map((await rows(c, "collect")).map((row) => [row.entry as string, row]));
    for (const name of good) expect([name, found.get(name)?.error]).toEqual([name, null]);
    expect(found.get("happy_cat/x.gif")).toMatchObject({ words: ["happy cat"], license: "CC0-1.0", format: "gif" });
    expect(found.get("link.gif")).toMatchObject({ id: null, error: "a link that leads out of the folder" });
    // Of the bad files, those without an image's first bytes are known as such here; the others fail when they are decoded.
    expect(found.get("metadata.jsonl line 13")?.error).toMatch("not JSON");
    expect(bad.filter((name) => found.get(name)?.error)).not.toEqual([]);
  });

  it("takes tar and zip archives with descriptions beside, and lets nothing out of them", async () => {
    const archive = pack();
    archive.entry({ name: "a/1.gif", mtime: new Date(0) }, Buffer.from(gif(3)));
    archive.entry(
      { name: "a/1.json", mtime: new Date(0) },
      JSON.stringify({ caption: "a disc", words: "disc, round" }),
    );
    archive.entry({ name: "../../escape.gif", mtime: new Date(0) }, Buffer.from(gif(4)));
    archive.entry({ name: "a/link.gif", type: "symlink", linkname: "/etc/passwd" });
    archive.finalize();
    await writeFile(join(dir, "shard.tar"), await buffer(archive));
    const c = await collection("from-tar", { sources: [{ type: "archive", name: "tar", path: "shard.tar" }] });
    await collected(c);
    const found = await rows(c, "collect", "entry");
    expect(found.map((row) => [row.entry, row.caption, row.words, row.error])).toEqual([
      ["shard.tar/../../escape.gif", null, [], "a name that leads out of the archive"],
      ["shard.tar/a/1.gif", "a disc", ["disc", "round"], null],
    ]);
    const inside = (await readdir(join(dir, "from-tar"), { recursive: true })).filter((name) => name.endsWith(".gif"));
    expect(inside).toEqual([`media/${String(found[1].id).slice(0, 2)}/${found[1].id}.gif`]);
  });

  it("takes tables by a mapping of columns", async () => {
    await mkdir(join(dir, "tables"), { recursive: true });
    await writeFile(join(dir, "tables", "one.gif"), gif(5));
    await writeFile(
      join(dir, "tables", "t.csv"),
      'path,text,tags\none.gif,"a disc, blue","blue,disc"\n../outside.gif,no,\n',
    );
    const columns = { file: "path", caption: "text", words: 2 };
    const c = await collection("from-csv", {
      sources: [{ type: "table", name: "csv", path: "tables/t.csv", columns, domain: "Cartoon" }],
    });
    await collected(c);
    expect(
      (await rows(c, "collect", "entry")).map((row) => [row.entry, row.caption, row.words, row.domain, row.error]),
    ).toEqual([
      ["../outside.gif", "no", [], "Cartoon", "the path leads out of the table's folder"],
      ["one.gif", "a disc, blue", ["blue", "disc"], "Cartoon", null],
    ]);
    const wrong = await collection("wrong-csv", {
      sources: [{ type: "table", name: "csv", path: "tables/t.csv", columns: { file: "image" } }],
    });
    await expect(collected(wrong)).rejects.toThrow('no column "image" for file; it has path, text, tags');
  });

  describe("over HTTP", () => {
    let server: Server;
    let asked: string[];
    let away: boolean;
    const base = (): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    beforeAll(async () => {
      asked = [];
      away = true;
      server = createServer((request, response) => {
        asked.push(request.url ?? "");
        const url = new URL(request.url ?? "", "http://x");
        const address = (n: number): object => ({ images: { original: { url: `${base()}/${n}.gif` } } });
        if (url.pathname === "/robots.txt") response.end("User-agent: *\nDisallow: /private\n");
        else if (url.pathname === "/search")
          response.end(
            JSON.stringify({
              data: url.searchParams.get("q") === "cat" ? [address(1), address(2)] : [address(2), address(7)],
            }),
          );
        else if (url.pathname === "/2.gif" && away) response.writeHead(503).end();
        else if (url.pathname === "/7.gif") response.writeHead(404).end();
        else response.end(Buffer.from(gif(Number(url.pathname.slice(1, 2)))));
      });
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    });
    afterAll(() => new Promise((resolve) => server.close(resolve)));

    it("searches by word, fetches an address once, keeps all its words, and tries again what a server put off", async () => {
      const source = {
        type: "search",
        name: "web",
        words: ["cat", "dog"],
        url: `${base()}/search?q={word}`,
        items: "data[].images.original.url",
      };
      const fetch = { retries: 0, delayMs: 0 };
      const c = await collection("from-web", { sources: [source], fetch });
      const first = await runStage(c, collect as unknown as Stage);
      expect(first).toMatchObject({ items: 4, done: 2, before: 0 });
      expect(first.putOff).toHaveLength(2);
      away = false;
      asked = [];
      expect(await runStage(c, collect as unknown as Stage)).toMatchObject({
        items: 4,
        done: 2,
        before: 2,
        putOff: [],
      });
      expect(asked.filter((path) => path.endsWith(".gif"))).toEqual(["/2.gif"]);
      const found = await rows(c, "collect", "entry");
      expect(found.map((row) => [row.words, row.error])).toEqual([
        [["cat"], null],
        [["cat"], null],
        [["dog"], null],
        [["dog"], "the server answered 404"],
      ]);
    });

    it("obeys robots.txt unless told otherwise", async () => {
      await writeFile(join(dir, "urls.jsonl"), `${JSON.stringify({ url: `${base()}/private/1.gif` })}\n`);
      const sources = [{ type: "table", name: "urls", path: "urls.jsonl", columns: { url: "url" } }];
      const obeying = await collection("obeying", { sources, fetch: { delayMs: 0 } });
      await collected(obeying);
      expect((await rows(obeying, "collect"))[0].error).toMatch("robots.txt");
    });
  });

  it("reads robots.txt as RFC 9309 says", () => {
    const rules = robotsRules(
      "User-agent: other\nDisallow: /\n\nUser-agent: *\nAllow: /a/b\nDisallow: /a # why\nDisallow: /*.png$",
      "me",
    );
    expect(["/a", "/a/b/c", "/x.png", "/x.png?y", "/"].map((path) => forbids(rules, path))).toEqual([
      true,
      false,
      true,
      false,
      false,
    ]);
    expect(forbids(robotsRules("User-agent: gifgrad\nDisallow: /\n", "gifgrad-dataset"), "/x")).toBe(true);
  });
});

describe("a stage", () => {
  const numbers = (
    count: number,
    work: (n: number) => number,
    version = 1,
  ): Stage<Item & { n: number }, { square: number }> => ({
    name: "squares",
    about: "",
    version,
    columns: { square: "DOUBLE" },
    settings: () => null,
    parallel: () => 3,
    items: async () => ({
      each: (async function* () {
        for (let n = 0; n < count; n++) yield { key: `item ${n}`, n };
      })(),
    }),
    open: async () => ({ run: async ({ n }) => ({ square: work(n) }), close: async () => {} }),
  });
  const run = (c: Collection, stage: unknown, o = {}) => runStage(c, stage as Stage, o);
  const hash = async (c: Collection): Promise<string> =>
    createHash("sha256")
      .update(await readFile(c.tablePath("squares")))
      .digest("hex");

  it("does an item once, again when its version changes, and gives the same bytes however it was done", async () => {
    const whole = await collection("whole", {});
    await run(
      whole,
      numbers(100, (n) => n * n),
    );
    const c = await collection("parts", {});
    const calls: number[] = [];
    const square = (n: number): number => {
      calls.push(n);
      return n * n;
    };
    for (const index of [2, 0, 1]) await run(c, numbers(100, square), { shard: { index, count: 3 } });
    expect(calls.sort((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, n) => n));
    expect(await sealStage(c, numbers(100, square) as unknown as Stage)).toBe(0);
    expect(await hash(c)).toBe(await hash(whole));
    await run(c, numbers(100, square, 2));
    expect(calls).toHaveLength(200);
  });

  it("loses nothing but the line in hand when it is killed", async () => {
    const c = await collection("killed", {});
    await run(
      c,
      numbers(50, (n) => n * n),
    );
    const before = await hash(c);
    const journal = join(c.journalDir("squares"), "1-of-1.jsonl");
    await truncate(journal, (await readFile(journal)).length - 7);
    let redone = 0;
    await run(
      c,
      numbers(50, (n) => {
        redone++;
        return n * n;
      }),
    );
    expect([redone, await hash(c)]).toEqual([1, before]);
  });

  it("tells how many items are done, and at its end that all are", async () => {
    const slow = numbers(7, (n) => n);
    const told: unknown[] = [];
    const c = await collection("told", {});
    const onProgress = (done: number, total?: number): void => void told.push([done, total]);
    await run(c, slow, { onProgress });
    expect(told).toEqual([...[1, 2, 3, 4, 5, 6, 7].map((n) => [n, undefined]), [7, 7]]);
    await run(c, slow, { onProgress, shard: { index: 0, count: 2 } });
    const [part] = told.at(-1) as number[];
    expect([told.at(-1), part < 7]).toEqual([[part, part], true]);
  });

  it("puts items off, and ends on any other error without losing what is done", async () => {
    const c = await collection("put-off", {});
    const moody = numbers(10, (n) => {
      if (n === 4) throw new NotNow("the server is busy");
      if (n === 7) throw new Error("out of disk");
      return n;
    });
    await expect(run(c, moody)).rejects.toThrow("out of disk");
    expect(
      (
        await run(
          c,
          numbers(10, (n) => n),
        )
      ).before,
    ).toBeGreaterThan(3);
  });

  it("ends in an error where its list of items cannot be written", async () => {
    const c = await collection("unwritable", {});
    await mkdir(asideOf(join(c.dir, "annotations", ".squares.items")));
    const shard = { index: 0, count: 2 };
    await expect(run(c, numbers(3, Math.sqrt), { shard })).rejects.toThrow("EISDIR");
  });

  it("refuses a damaged journal by its line", async () => {
    const c = await collection("damaged", {});
    await run(
      c,
      numbers(3, (n) => n),
    );
    await appendFile(join(c.journalDir("squares"), "1-of-1.jsonl"), "not json\n");
    await expect(
      run(
        c,
        numbers(3, (n) => n),
      ),
    ).rejects.toThrow(/1-of-1.jsonl line 4 is damaged/);
  });

  it("loses no item for half of an emoji, and says so where DuckDB cannot read a line of the journal", async () => {
    const c = await collection("halves", {});
    const half: Stage<Item, { square: string }> = {
      ...numbers(0, (n) => n),
      columns: { square: "VARCHAR" },
      items: async () => ({
        each: (async function* () {
          yield { key: "cut \ud83d" };
          yield { key: "whole" };
        })(),
      }),
      open: async () => ({ run: async ({ key }) => ({ square: `${key} \ude00` }), close: async () => {} }),
    };
    for (const before of [0, 2]) expect(await run(c, half)).toMatchObject({ before });
    expect((await rows(c, "squares")).map(({ square }) => square)).toEqual(["cut \ufffd \ufffd", "whole \ufffd"]);
    const journal = join(c.journalDir("squares"), "1-of-1.jsonl");
    await writeFile(journal, (await readFile(journal, "utf8")).replace("whole \ufffd", "whole \\ude00"));
    await expect(run(c, half)).rejects.toThrow(/squares: 1 lines in .* cannot be made into rows/);
  });

  it("can be shared by machines without a common disk", async () => {
    const path = join(dir, "shared-in");
    await mkdir(path, { recursive: true });
    for (let i = 0; i < 6; i++) await writeFile(join(path, `${i}.gif`), gif(i));
    const config = { sources: [{ type: "folder", name: "s", path }] };
    const [a, b] = [await collection("machine-a", config), await collection("machine-b", config)];
    await run(a, collect, { shard: { index: 0, count: 2 } });
    await run(b, collect, { shard: { index: 1, count: 2 } });
    await mergeInto(a, b, "collect");
    await mergeInto(a, b, "collect");
    expect(await sealStage(a, collect as unknown as Stage)).toBe(0);
    const files = (await readdir(join(a.dir, "media"), { recursive: true })).filter((name) => name.endsWith(".gif"));
    expect(files).toHaveLength(6);
  });
});

describe("near duplicates", () => {
  const bitsOf = (hash: string): bigint => BigInt(`0x${hash}`);
  const distance = (a: string, b: string): number => (bitsOf(a) ^ bitsOf(b)).toString(2).replaceAll("0", "").length;
  const flip = (hash: string, bits: readonly number[]): string =>
    bits
      .reduce((h, bit) => h ^ (1n << BigInt(bit)), bitsOf(hash))
      .toString(16)
      .padStart(64, "0");
  const hash = fc.array(fc.nat(15), { minLength: 64, maxLength: 64 }).map((d) => d.map((x) => x.toString(16)).join(""));

  it("are those that a comparison of all pairs finds, chains included", () => {
    const cluster = fc.tuple(hash, fc.array(fc.uniqueArray(fc.nat(255), { maxLength: 20 }), { maxLength: 4 }));
    fc.assert(
      fc.property(fc.array(cluster, { maxLength: 4 }), fc.constantFrom(0, 5, 12, 15, 20), (clusters, bits) => {
        const hashes = clusters.flatMap(([center, flips]) => [center, ...flips.map((f) => flip(center, f))]);
        const first = hashes.map((_, i) => i);
        for (let pass = 0; pass < hashes.length; pass++) {
          for (const [i, a] of hashes.entries()) {
            for (const [j, b] of hashes.entries()) {
              if (distance(a, b) <= bits) first[i] = Math.min(first[i], first[j]);
            }
          }
        }
        expect([...nearDuplicates(new HashList(hashes), bits)]).toEqual(first);
      }),
      { numRuns: 60, seed: 5 },
    );
  });

  it.each([1, 2])("are found whichever bits differ, up to %i of them and no further", (bits) => {
    const some = fc.sample(hash, { numRuns: 8, seed: 3 });
    const isLike = likeAny(new HashList(some), bits);
    const places = Array.from({ length: 256 }, (_, bit) => bit);
    const pairs = places.flatMap((a) => places.slice(a + 1).map((b) => [a, b]));
    // Were a band missing, or a bit in two, those that differ in a bit of each band would not be found: all are tried.
    const [found, beyond] =
      bits === 1 ? [places.map((bit) => [bit]), pairs] : [pairs, pairs.map((p) => [...p, p[0] ^ 128])];
    const [target] = some;
    expect(found.filter((at) => !isLike(flip(target, at)))).toEqual([]);
    expect(beyond.filter((at) => new Set(at).size > bits && isLike(flip(target, at)))).toEqual([]);
  });

  it.each([0, 1, 2, 3, 9])("are pairs that differ in %i bits, whichever those are", (bits) => {
    const apart = fc.sample(fc.tuple(hash, fc.uniqueArray(fc.nat(255), { minLength: bits + 1, maxLength: bits + 1 })), {
      numRuns: 1000,
      seed: 4,
    });
    const hashes = apart.flatMap(([one, flips]) => [one, flip(one, flips.slice(1))]);
    const further = apart.flatMap(([one, flips]) => [one, flip(one, flips)]);
    expect([...nearDuplicates(new HashList(hashes), bits, 3)]).toEqual(hashes.map((_, i) => i - (i % 2)));
    expect([...nearDuplicates(new HashList(further), bits, 3)]).toEqual(further.map((_, i) => i));
  });

  /** Hashes as stickers have them: few patterns in a row, margins blank in many, and for some a few that are nearly it. */
  function skewed(count: number): string[] {
    let state = 7;
    const below = (n: number): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((n * state) / 2 ** 32);
    };
    const patterns = Array.from({ length: 16 }, () =>
      Array.from({ length: 60 }, () => below(65536).toString(16).padStart(4, "0")),
    );
    const hashes: string[] = [];
    while (hashes.length < count) {
      const margin = below(2) * below(5); // rows of nothing above, below
      const rows = patterns.map((row, r) => (r < margin || r > 15 - margin ? "0000" : row[below(row.length)]));
      hashes.push(rows.join(""));
      while (hashes.length < count && below(3) === 0) {
        const near = hashes[hashes.length - 1 - below(Math.min(3, hashes.length))];
        hashes.push(flip(near, [...new Set(Array.from({ length: 6 + below(8) }, () => below(256)))]));
      }
    }
    return hashes;
  }

  it("are found exactly where many share blank margins, and so is what is like a test sticker", () => {
    const hashes = skewed(3000);
    const ones = Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll("0", "").length);
    const bytes = hashes.map((hash) => Buffer.from(hash, "hex"));
    const near = (i: number, j: number, bits: number): boolean => {
      let differing = 0;
      for (let b = 0; b < 32 && differing <= bits; b++) differing += ones[bytes[i][b] ^ bytes[j][b]];
      return differing <= bits;
    };
    const group = hashes.map((_, i) => i);
    for (let i = 0; i < hashes.length; i++) {
      for (let j = 0; j < i; j++) {
        if (group[i] === group[j] || !near(i, j, 12)) continue;
        const [from, to] = [Math.max(group[i], group[j]), Math.min(group[i], group[j])];
        for (let k = 0; k <= i; k++) if (group[k] === from) group[k] = to;
      }
    }
    const list = new HashList(hashes);
    expect([...nearDuplicates(list, 12)]).toEqual(group);
    expect([...nearDuplicates(list, 12, 3)]).toEqual(group); // groups banded again and again
    const targets = hashes.flatMap((_, i) => (i % 12 === 0 ? [i] : []));
    const isLike = likeAny(new HashList(targets.map((i) => hashes[i])), 12);
    expect(hashes.map(isLike)).toEqual(hashes.map((_, i) => targets.some((t) => near(i, t, 12))));
  });
});

describe("a contact sheet", () => {
  it("says why a sticker is not to be seen in its place", async () => {
    const c = await collection("sheet", {});
    const cut = await c.put(gif(1).subarray(0, 200), "gif");
    const shown = (id: string, format: string) => ({ id, format, label: "" });
    const whole = shown(await c.put(gif(1), "gif"), "gif");
    const red = async (sticker: Shown): Promise<number> => {
      const { data, info } = await sharp(await contactSheet(c, [sticker], { across: 1 }))
        .raw()
        .toBuffer({ resolveWithObject: true });
      let count = 0;
      for (let i = 0; i < data.length; i += info.channels) if (data[i] > 100 && data[i + 1] < 60) count++;
      return count;
    };
    const [none, truncated, gone] = [await red(whole), await red(shown(cut, "gif")), await red(shown(cut, "webp"))];
    expect(none).toBe(0);
    expect(truncated).toBeGreaterThan(100); // the ink of a line of text
    expect(gone).toBeGreaterThan(1.3 * truncated); // a longer one
  });
});

describe("a build", () => {
  it("keeps, rejects and merges, and a rebuilt data set has the same bytes", async () => {
    const path = join(dir, "build-in");
    await mkdir(join(path, "a"), { recursive: true });
    await mkdir(join(path, "b"), { recursive: true });
    await writeFile(join(path, "a", "one.gif"), gif(2));
    await writeFile(join(path, "b", "same.gif"), gif(2));
    await writeFile(join(path, "b", "cut.gif"), gif(9).subarray(0, 900));
    const wide = Array.from({ length: 2 }, (_, t) => ({
      data: new Uint8Array(4 * 90 * 20).fill(255 - 90 * t),
      delayMs: 100,
    }));
    await writeFile(join(path, "b", "wide.gif"), encodeGif(wide, 90, 20));
    const config = {
      sources: [{ type: "folder", name: "s", path }],
      filter: { minEntropy: 0.2 },
      annotate: { ocr: false },
      processes: 1,
    };
    const tables: string[][] = [];
    for (const name of ["build-1", "build-2"]) {
      const c = await collection(name, config);
      for (const stage of stages().before) await runStage(c, stage);
      await filterTable(c);
      await recordsTable(c);
      expect(Object.fromEntries(await verdicts(c))).toEqual({ aspect: 1, kept: 1, undecodable: 1 });
      const [record] = await rows(c, "records");
      expect(record).toMatchObject({ trigger_words: ["a", "b"], frames: 8, animated: true, domain: null });
      tables.push(
        await Promise.all(
          ["collect", "measure", "filter", "records"].map(async (t) =>
            createHash("sha256")
              .update(await readFile(c.tablePath(t)))
              .digest("hex"),
          ),
        ),
      );
    }
    expect(tables[0]).toEqual(tables[1]);
  });
});
