// Sources that are not as they should be: tables with bad lines and with several rows for one sticker, damaged archives, pipes,
// files that change between two runs, servers that send elsewhere.

import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { crc32, gzipSync } from "node:zlib";
import { pack } from "tar-stream";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { stage } from "../cli/dataset.ts";
import { Collection, createCollection, openCollection } from "../data/curate/collection.ts";
import { parseConfig } from "../data/curate/config.ts";
import { unknownDomains } from "../data/curate/derived.ts";
import { Fetcher } from "../data/curate/fetch.ts";
import { planBuild } from "../data/curate/plan.ts";
import { NotNow, runStage, type Stage, sealStage } from "../data/curate/stage.ts";
import { collect } from "../data/curate/stages/collect.ts";
import { domainStage } from "../data/curate/stages/domain.ts";
import { stages } from "../data/curate/stages/index.ts";
import { type Row, table, text, withDatabase } from "../data/curate/tables.ts";
import { encodeGif } from "../data/encode/gif.ts";
import { sha256 } from "../data/hash.ts";
import { readMetadata } from "../data/store.ts";
import { discFrames } from "./stickers.ts";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "gifgrad-sources-"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const gif = (seed: number): Uint8Array => encodeGif(discFrames([40 * seed, 90, 200], seed), 40, 40);
const files = [1, 2, 3, 4].map(gif);

/** A folder with these files in it. */
async function folder(name: string, contents: Readonly<Record<string, Uint8Array | string>>): Promise<string> {
  const path = join(dir, name);
  await mkdir(path, { recursive: true });
  for (const [file, content] of Object.entries(contents)) await writeFile(join(path, file), content);
  return path;
}

/** A data set that one source has been collected into, and what was said beside it. */
async function collectedSet(name: string, source: object, more = {}): Promise<[Collection, readonly string[]]> {
  const config = { sources: [{ name: "s", ...source }], ...more };
  const c = await createCollection(join(dir, `${name}.set`), parseConfig(config, "test", dir));
  const { putOff, notes } = await runStage(c, collect as unknown as Stage);
  expect(putOff).toEqual([]);
  return [c, notes];
}

/** What collecting one source gives, by entry, and what was said beside it. */
async function collectedWithNotes(name: string, source: object): Promise<[Row[], readonly string[]]> {
  const [c, notes] = await collectedSet(name, source);
  return [await withDatabase((db) => db.all(`SELECT * FROM ${table(c, "collect")} ORDER BY entry, words`)), notes];
}

async function collected(name: string, source: object): Promise<Row[]> {
  return (await collectedWithNotes(name, source))[0];
}

/** A zip with files that are not compressed. */
function zip(members: Readonly<Record<string, Uint8Array>>): Buffer {
  const [parts, directory]: [Buffer[], Buffer[]] = [[], []];
  let at = 0;
  for (const [name, bytes] of Object.entries(members)) {
    const sizes = [crc32(bytes), bytes.length, bytes.length];
    const about = Buffer.alloc(26); // from "version needed" to the length of extra fields
    about.writeUInt16LE(20, 0);
    for (const [i, size] of sizes.entries()) about.writeUInt32LE(size, 10 + 4 * i);
    about.writeUInt16LE(Buffer.byteLength(name), 22);
    const offset = Buffer.alloc(14);
    offset.writeUInt32LE(at, 10);
    parts.push(Buffer.from("PK\x03\x04"), about, Buffer.from(name), Buffer.from(bytes));
    directory.push(Buffer.from("PK\x01\x02\x14\x00"), about, offset, Buffer.from(name));
    at += 30 + Buffer.byteLength(name) + bytes.length;
  }
  const entries = Buffer.concat(directory);
  const end = Buffer.alloc(18);
  for (const i of [4, 6]) end.writeUInt16LE(Object.keys(members).length, i);
  end.writeUInt32LE(entries.length, 8);
  end.writeUInt32LE(at, 12);
  return Buffer.concat([...parts, entries, Buffer.from("PK\x05\x06"), end]);
}

describe("a table", () => {
  const columns = { file: "file", words: "word" };

  it("may lead to one file in several rows, whose words all count", async () => {
    const path = await folder("rows", { "0.gif": files[0], "t.csv": "file,word\n0.gif,cat\n0.gif,happy\n0.gif,cat\n" });
    const rows = await collected("rows", { type: "table", path: join(path, "t.csv"), columns });
    expect(rows.map(({ id, words }) => [id, words])).toEqual([
      [sha256(files[0]), ["cat"]],
      [sha256(files[0]), ["happy"]],
    ]);
  });

  it("takes a file again that has changed", async () => {
    const path = await folder("changing", { "0.gif": files[0], "t.csv": "file,word\n0.gif,cat\n" });
    const source = { type: "table", path: join(path, "t.csv"), columns };
    await collected("changing", source);
    await folder("changing", { "0.gif": files[1] });
    expect((await collected("changing", source)).map(({ id }) => id)).toEqual([sha256(files[1])]);
  });

  it("of images in its rows follows them when a row goes", async () => {
    const path = join(dir, "images.parquet");
    const blob = (bytes: Uint8Array): string => `(from_hex('${Buffer.from(bytes).toString("hex")}'))`;
    const source = { type: "table", path, columns: { bytes: "image" } };
    for (const left of [files, files.slice(1)]) {
      await withDatabase((db) => db.write(`SELECT * FROM (VALUES ${left.map(blob).join(", ")}) t(image)`, path));
      const ids = (await collected("images", source)).map(({ id }) => id);
      expect(ids.sort()).toEqual(left.map(sha256).sort());
    }
  });

  it.each([
    [
      "csv",
      'file,word\n0.gif,"a ""b"",\nc"\n1.gif,"cat\n2.gif,d,e,f\n3.gif,2024-01-01\n',
      [
        ["0.gif", ['a "b"', "c"], null],
        ["3.gif", ["2024-01-01"], null],
        ["t.csv line 4", [], "a quote that is never closed"],
        ["t.csv line 5", [], "4 cells where the first line has 2"],
      ],
    ],
    [
      "jsonl",
      '{"file":"0.gif"}\n{"file":"1.gif" broken\n[]\n{"file":"3.gif","word":["2024-01-01"]}\n',
      [
        ["0.gif", [], null],
        ["3.gif", ["2024-01-01"], null],
        ["t.jsonl line 2", [], expect.stringMatching("^not JSON: ")],
        ["t.jsonl line 3", [], "not a JSON object"],
      ],
    ],
    [
      "json",
      ' [{"file":"0.gif","word":["[\\"]},"]},{"file":"1.gif" broken},\n7,{"file":"3.gif","word":["2024-01-01"]},{"file":"2.gif"',
      [
        ["0.gif", ['[\\"]},'.replace("\\", "")], null],
        ["3.gif", ["2024-01-01"], null],
        ["t.json row 2", [], expect.stringMatching("^not JSON: ")],
        ["t.json row 3", [], "not a JSON object"],
        ["t.json row 5", [], expect.stringMatching("^not JSON: ")],
      ],
    ],
  ])("with bad lines is taken without them: %s", async (kind, lines, expected) => {
    const path = await folder(`bad-${kind}`, { [`t.${kind}`]: lines, "0.gif": files[0], "3.gif": files[3] });
    const rows = await collected(`bad-${kind}`, { type: "table", path: join(path, `t.${kind}`), columns });
    expect(rows.map(({ entry, words, error }) => [entry, words, error])).toEqual(expected);
  });

  it("of one JSON array is read a row at a time, however its pieces fall, and refused where it is none", async () => {
    const caption = '\\ " ] } é 🐈'.repeat(20_000); // pieces of a file end in all of these
    const rows = Array.from({ length: 3 }, (_, i) => ({ file: `${i}.gif`, caption: "x".repeat(i) + caption }));
    const path = await folder("array", { ...Object.fromEntries(files.map((file, i) => [`${i}.gif`, file])) });
    const source = { type: "table", path: join(path, "t.json"), columns: { file: "file", caption: "caption" } };
    const of = async (name: string, json: string): Promise<Row[]> => {
      await writeFile(source.path, json);
      return collected(`array-${name}`, source);
    };
    const found = await of("whole", JSON.stringify(rows, null, 1));
    expect(found.map(({ entry, caption: said }) => ({ file: entry, caption: said }))).toEqual(rows);
    await expect(of("empty", "[ ]")).rejects.toThrow(/no column "file"/);
    await expect(of("lines", '{"file":"0.gif"}\n{"file":"1.gif"}')).rejects.toThrow(/not a JSON array; a file with/);
    await expect(of("more", '[{"file":"0.gif"}] {}')).rejects.toThrow(/something follows the array/);
    await expect(of("open", `[{"file":"0.gif${"x".repeat(17 * 2 ** 20)}`)).rejects.toThrow(
      /row 1 is longer than 16 MB/,
    );
  });
});

it("a table's domains that are none are told, and its stickers are left to be guessed", async () => {
  const path = await folder("domains", {
    "0.gif": files[0],
    "1.gif": files[1],
    "t.csv": "file,domain\n0.gif,photo\n1.gif,real\n",
  });
  const columns = { file: "file", domain: "domain" };
  const source = { type: "table", path: join(path, "t.csv"), columns };
  const [c] = await collectedSet("domains", source, { annotate: { domainModel: "any" } });
  expect([...(await unknownDomains(c))]).toEqual([["photo", 1]]);
  const kept = files.slice(0, 2).map((bytes) => `(${text(sha256(bytes))}, true)`);
  await withDatabase(async (db) => {
    await db.write(`SELECT * FROM (VALUES ${kept.join(", ")}) t(id, kept) ORDER BY id`, c.tablePath("filter"));
    const stage = domainStage({ identity: () => "any", open: () => Promise.reject(new Error("not opened")) });
    const keys: string[] = [];
    for await (const { key } of (await stage.items(c, db)).each) keys.push(key);
    expect(keys).toEqual([sha256(files[0])]);
  });
});

it("a stage on a new folder makes the data set, whichever shard comes first", async () => {
  const path = await folder("sharded", { "0.gif": files[0], "1.gif": files[1], "2.gif": files[2] });
  const config = join(dir, "sharded.json");
  await writeFile(config, JSON.stringify({ sources: [{ type: "folder", name: "s", path }] }));
  const set = join(dir, "sharded.set");
  await expect(stage(set, "collect", {})).rejects.toThrow("holds no data set");
  for (const index of [1, 0]) await stage(set, "collect", { config, shard: { index, count: 2 } });
  const c = await openCollection(set);
  expect(await sealStage(c, collect as unknown as Stage)).toBe(0);
  const [{ n }] = await withDatabase((db) => db.all(`SELECT count(id)::INT AS n FROM ${table(c, "collect")}`));
  expect(n).toBe(3);
});

describe("what is no regular file is refused in a line, and not waited for", () => {
  const pipe = (path: string): Buffer => execFileSync("mkfifo", [path]);

  it.each(["csv", "jsonl", "json", "parquet"])(
    "a table: .%s",
    async (kind) => {
      const path = join(await folder(`pipe-${kind}`, {}), `t.${kind}`);
      pipe(path);
      const source = { type: "table", path, columns: { file: "file" } };
      await expect(collected(`pipe-${kind}`, source)).rejects.toThrow(
        `the table ${path} is not a regular file: pipes and devices are not read`,
      );
    },
    10_000,
  );

  it("a metadata.jsonl, for the data set and for training", async () => {
    const path = await folder("pipe-metadata", { "0.gif": files[0] });
    pipe(join(path, "metadata.jsonl"));
    const refusal = `${join(path, "metadata.jsonl")} is not a regular file`;
    await expect(collected("pipe-metadata", { type: "folder", path })).rejects.toThrow(refusal);
    await expect(readMetadata(path)).rejects.toThrow(refusal);
  }, 10_000);

  it("a list of search words, and a folder in its place", async () => {
    const path = await folder("pipe-words", {});
    const source = { type: "search", url: "http://127.0.0.1:1/{word}", items: "a[]" };
    pipe(join(path, "words"));
    const search = (words: string): Promise<Row[]> => collected("pipe-words", { ...source, words });
    await expect(search(join(path, "words"))).rejects.toThrow("words is not a regular file");
    await expect(search(path)).rejects.toThrow(`the file of words ${path} is a folder, not a file`);
    await expect(search(join(path, "none"))).rejects.toThrow("none does not exist");
  }, 10_000);
});

describe("a folder", () => {
  it("is described by the metadata.jsonl of any of its folders, a sticker by the nearest", async () => {
    const path = await folder("nested", { "0.gif": files[0] });
    const deep = await folder("nested/cats/small", { "1.gif": files[1], "2.gif": files[2], "3.gif": files[3] });
    const describe = (at: string, ...captions: [string, string][]): Promise<void> =>
      writeFile(
        join(at, "metadata.jsonl"),
        captions.map(([file_name, caption]) => `${JSON.stringify({ file_name, caption })}\n`).join(""),
      );
    await describe(path, ["0.gif", "top"], ["cats/small/1.gif", "from above"], ["cats/small/2.gif", "far"]);
    await describe(join(path, "cats"), ["small/2.gif", "between"], ["small/3.gif", "far"], ["9.gif", "lost"]);
    await describe(deep, ["3.gif", "near"], ["../../0.gif", "out"]);
    const [rows, notes] = await collectedWithNotes("nested", { type: "folder", path });
    expect(rows.map(({ entry, caption, error }) => [entry, caption, error])).toEqual([
      ["0.gif", "top", null],
      ["cats/9.gif", null, expect.stringMatching("^cats/metadata.jsonl names it")],
      ["cats/small/1.gif", "from above", null],
      ["cats/small/2.gif", "between", null],
      ["cats/small/3.gif", "near", null],
      ["cats/small/metadata.jsonl line 2", null, expect.stringContaining("must be a path inside the folder")],
    ]);
    expect(notes).toEqual([]);
  });

  it("with a pipe in it does not hang", async () => {
    const path = await folder("pipe", { "0.gif": files[0] });
    execFileSync("mkfifo", [join(path, "1.gif")]);
    const rows = await collected("pipe", { type: "folder", path });
    expect(rows.map(({ entry, error }) => [entry, error])).toEqual([
      ["0.gif", null],
      ["1.gif", "not a regular file"],
    ]);
  });
});

describe("what is no sticker by its name", () => {
  const others = {
    "notes.txt": "a",
    "b.TXT": "b",
    "table.csv": "c",
    "list.json": "[]",
    "0.bin": "GIF, but none",
    none: "",
  };
  const hidden = { ".DS_Store": "d", ".0.gif": files[0] };
  const disguised = { cat: files[1], "dog.dat": files[2] };
  const told = (where: string): string[] => [
    `source "s": 6 files that are no stickers were passed over: 2 .txt (${where}b.TXT), 1 .bin (${where}0.bin), ` +
      `1 .csv (${where}table.csv), 1 .json (${where}list.json), 1 without an extension (${where}none)`,
  ];

  it("is looked into, and counted where it is none: a folder", async () => {
    const path = await folder("disguised", { ...others, ...hidden, ...disguised, "0.gif": files[0] });
    const metadata = [
      { file_name: "./cat", caption: "a cat" },
      { file_name: "lost.gif", caption: "lost" },
    ];
    await writeFile(join(path, "metadata.jsonl"), metadata.map((line) => `${JSON.stringify(line)}\n`).join(""));
    const [rows, notes] = await collectedWithNotes("disguised", { type: "folder", path });
    expect(rows.map(({ entry, caption, error }) => [entry, caption, error])).toEqual([
      ["0.gif", null, null],
      ["cat", "a cat", null],
      ["dog.dat", null, null],
      ["lost.gif", null, expect.stringContaining("metadata.jsonl names it")],
    ]);
    expect(notes).toEqual(told(""));
  });

  it.each(["tar", "zip"])("is looked into, and counted where it is none: a %s", async (kind) => {
    const members = Object.entries({ ...others, ...disguised, "cat.txt": "a cat", "0.gif": files[0] }).sort();
    const tar = pack();
    for (const [name, bytes] of members) tar.entry({ name }, Buffer.from(bytes));
    tar.finalize();
    const bytes = Object.fromEntries(members.map(([name, content]) => [name, Buffer.from(content)]));
    const path = await folder(`disguised-${kind}`, { [`a.${kind}`]: kind === "tar" ? await buffer(tar) : zip(bytes) });
    const [rows, notes] = await collectedWithNotes(`disguised-${kind}`, { type: "archive", path });
    expect(rows.map(({ entry, caption, error }) => [entry, caption, error])).toEqual([
      [`a.${kind}/0.gif`, null, null],
      [`a.${kind}/cat`, "a cat", null],
      [`a.${kind}/dog.dat`, null, null],
    ]);
    expect(notes).toEqual(told(`a.${kind}/`));
  });

  it("is told of links in a tar, which have no bytes", async () => {
    const tar = pack();
    tar.entry({ name: "0.gif" }, Buffer.from(files[0]));
    tar.entry({ name: "1.gif", type: "link", linkname: "0.gif" });
    tar.finalize();
    const path = await folder("links", { "a.tar": await buffer(tar) });
    const [rows, notes] = await collectedWithNotes("links", { type: "archive", path });
    expect(rows.map(({ entry }) => entry)).toEqual(["a.tar/0.gif"]);
    expect(notes).toEqual([expect.stringContaining("1 links or devices (a.tar/1.gif)")]);
  });
});

describe("archives", () => {
  it("that are damaged, or have a member that leads out, cost nothing of the others", async () => {
    const cut = pack();
    cut.entry({ name: "1.gif" }, Buffer.from(files[0]));
    cut.entry({ name: "2.gif" }, Buffer.from(files[1]));
    cut.finalize();
    const whole = await buffer(cut);
    const path = await folder("archives", {
      "a.tgz": gzipSync(whole, { level: 0 }).subarray(0, 1024 + files[0].length + 700),
      "b.zip": zip({ "../3.gif": files[2], "4.gif": files[3] }),
      "c.zip": "PK and nothing else",
      "d.tar": whole,
    });
    execFileSync("mkfifo", [join(path, "e.tar")]);
    const rows = await collected("archives", { type: "archive", path });
    const expected = [
      ["a.tgz", expect.stringMatching("^the archive is damaged: ")],
      ["a.tgz/1.gif", null],
      ["b.zip/../3.gif", "a name that leads out of the archive"],
      ["b.zip/4.gif", null],
      ["c.zip", expect.stringMatching("^the archive is damaged: ")],
      ["d.tar/1.gif", null],
      ["d.tar/2.gif", null],
      ["e.tar", "not a regular file"],
    ];
    expect(rows.map(({ entry, error }) => [entry, error])).toEqual(expected);
  });
});

it("a search is not asked by a dry run, which says what it would ask", async () => {
  let requests = 0;
  const server = await serve((_, response) => {
    requests++;
    response.end(JSON.stringify({ found: [`${server.base}/0.gif`] }));
  });
  try {
    const search = {
      type: "search",
      words: ["cat", "dog"],
      pages: 3,
      url: `${server.base}/?q={word}`,
      items: "found[]",
    };
    const path = await folder("beside", { "0.gif": files[0] });
    const sources = [
      { name: "web", ...search },
      { type: "folder", name: "s", path },
    ];
    const config = parseConfig({ sources, fetch: { robots: "ignore", delayMs: 0 } }, "test", dir);
    const c = new Collection(join(dir, "unasked"), config);
    const [first, second] = await planBuild(c, stages().before);
    const host = new URL(server.base).host;
    const asks = `not asked: source "web": 2 words, up to 6 queries to ${host}, and then the files that these name`;
    expect(first).toMatchObject({ stage: "collect", items: 1, more: true, notes: [asks] });
    expect(second).toMatchObject({ stage: "measure", items: 1, more: true, bound: true });
    expect(requests).toBe(0);
    await withDatabase(async (db) => {
      for await (const _ of (await collect.items(c, db)).each);
    });
    expect(requests).toBe(6);
  } finally {
    await server.close();
  }
});

describe("a server", () => {
  it("that sends on is followed by each host's own rules, and gets no other's headers", async () => {
    const keys: [string, string | undefined][] = [];
    const answer =
      (robots: string, onward: (path: string) => string | undefined): RequestListener =>
      ({ url = "", headers }, response) => {
        keys.push([url, headers["x-key"] as string | undefined]);
        const to = onward(url);
        if (url === "/robots.txt") response.writeHead(robots === "" ? 503 : 200).end(robots);
        else if (to === undefined) response.end(files[0]);
        else response.writeHead(302, { location: to }).end();
      };
    const other = await serve(answer("User-agent: *\nDisallow: /closed\n", () => undefined));
    const away = await serve(answer("", () => undefined));
    const server = await serve(
      answer("User-agent: *", (path) =>
        path === "/round" ? "/round" : path === "/own" ? "open" : path === "/open" ? undefined : `${other.base}${path}`,
      ),
    );
    try {
      const config = parseConfig({ fetch: { retries: 0, delayMs: 0 } }, "test", dir).fetch;
      const fetcher = new Fetcher(config);
      const get = (url: string): Promise<Uint8Array> => fetcher.get(url, { headers: { "x-key": "secret" } });
      expect(await get(`${server.base}/own`)).toEqual(Buffer.from(files[0]));
      expect(await get(`${server.base}/file`)).toEqual(Buffer.from(files[0]));
      await expect(get(`${server.base}/closed/file`)).rejects.toThrow(/robots.txt of .* asks not to fetch this/);
      await expect(get(`${server.base}/round`)).rejects.toThrow("sent on more than 5 times");
      await expect(get(`${away.base}/file`)).rejects.toThrow(NotNow);
      expect(keys.filter(([path]) => path === "/open" || path === "/file")).toEqual([
        ["/open", "secret"],
        ["/file", "secret"],
        ["/file", undefined],
      ]);
    } finally {
      for (const { close } of [server, other, away]) await close();
    }
  });
});

async function serve(listener: RequestListener): Promise<{ base: string; close: () => Promise<unknown> }> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = (): Promise<unknown> => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return { base: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, close };
}
