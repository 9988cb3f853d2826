// Sources that are not as they should be: tables with bad lines and with several rows for one sticker, damaged archives, pipes,
// files that change between two runs, servers that send elsewhere.

import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createCollection } from "../data/curate/collection.ts";
import { parseConfig } from "../data/curate/config.ts";
import { runStage, type Stage } from "../data/curate/stage.ts";
import { collect } from "../data/curate/stages/collect.ts";
import { type Row, table, withDatabase } from "../data/curate/tables.ts";
import { encodeGif } from "../data/encode/gif.ts";
import { sha256 } from "../data/hash.ts";
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

/** What collecting one source gives, by entry. */
async function collected(name: string, source: object, fetch = {}): Promise<Row[]> {
  const config = { sources: [{ name: "s", ...source }], fetch };
  const c = await createCollection(join(dir, `${name}.set`), parseConfig(config, "test", dir));
  const { putOff } = await runStage(c, collect as unknown as Stage);
  expect(putOff).toEqual([]);
  return withDatabase((db) => db.all(`SELECT * FROM ${table(c, "collect")} ORDER BY entry, words`));
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
  ])("with bad lines is taken without them: %s", async (kind, lines, expected) => {
    const path = await folder(`bad-${kind}`, { [`t.${kind}`]: lines, "0.gif": files[0], "3.gif": files[3] });
    const rows = await collected(`bad-${kind}`, { type: "table", path: join(path, `t.${kind}`), columns });
    expect(rows.map(({ entry, words, error }) => [entry, words, error])).toEqual(expected);
  });
});

describe("a folder", () => {
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
