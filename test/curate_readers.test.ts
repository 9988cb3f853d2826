// Exports read by programs that know nothing of this project: tar, DuckDB and hyparquet, and where they are installed Python's
// tarfile, Pillow, pyarrow and Hugging Face's datasets (readers.py). Every picture and caption is compared with the records. What
// exports hold beside these is curate_export.test.ts.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { appendFile, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { DuckDBInstance } from "@duckdb/node-api";
import { parquetMetadata, parquetReadObjects } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { build, stale } from "../cli/build.mjs";
import { writeStarter } from "../data/starter/index.ts";

/** What a reader saw of each picture, by its sha256: split, caption and, where it decodes, frames. */
type Seen = Readonly<Record<string, readonly [split: string, caption: string, frames?: number]>>;

const SPLITS = ["held-out", "test", "train"];
const AWKWARD = "she said \"hi\",\t\\ and 你好\nto 'all' 🎉";

let dir: string;
/** As the records say. */
let expected: Seen;

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
const withoutFrames = (all: Seen): Seen =>
  Object.fromEntries(Object.entries(all).map(([id, [split, caption]]) => [id, [split, caption]]));

function gifgrad(...args: string[]): void {
  const command = [fileURLToPath(new URL("../cli/gifgrad.mjs", import.meta.url)), "dataset", ...args];
  const { status, stderr } = spawnSync(process.execPath, command, { cwd: dir, encoding: "utf8" });
  expect({ args, status, stderr }).toMatchObject({ status: 0 });
}

async function parquetRows(path: string): Promise<Record<string, unknown>[]> {
  const { buffer, byteOffset, length } = await readFile(path);
  const file = buffer.slice(byteOffset, byteOffset + length) as ArrayBuffer;
  return parquetReadObjects({ file, compressors });
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "gifgrad-readers-"));
  if (stale()) await build();
  await mixedFolder(join(dir, "stickers"));
  const config = {
    sources: [{ type: "folder", name: "mine", path: "stickers", license: "CC-BY-4.0" }],
    filter: { minEntropy: 0, nearDuplicateBits: 0 },
    annotate: { ocr: false },
    split: { words: 4, heldOutPairs: 0.3, apartBits: 0 },
  };
  await writeFile(join(dir, "config.json"), JSON.stringify(config));
  gifgrad("build", "config.json", "--out", "set");
  for (const format of ["imagefolder", "webdataset", "parquet"])
    gifgrad("export", "set", "--format", format, "-o", format);
  const split = await parquetRows(join(dir, "set/annotations/split.parquet"));
  const splits = new Map(split.map((row) => [row.id, String(row.split)]));
  const records = await parquetRows(join(dir, "set/annotations/records.parquet"));
  expected = Object.fromEntries(
    records
      .map((row) => ({ ...row, split: splits.get(row.id) ?? "" }) as Record<string, unknown> & { split: string })
      .filter((row) => row.split !== "excluded")
      .map((row) => {
        const words = (row.trigger_words as string[]).join(", ");
        return [String(row.id), [row.split, String(row.caption ?? words), Number(row.frames)]];
      }),
  );
  const kinds = new Set(Object.values(expected).map(([name]) => name));
  expect([...kinds].sort()).toEqual(SPLITS);
  expect(Object.values(expected).map(([, caption]) => caption)).toEqual(
    expect.arrayContaining([AWKWARD, "funny cats"]),
  );
}, 60_000);
afterAll(() => rm(dir, { recursive: true, force: true }));

/** Stickers in five formats, one of them with a caption that is hard to write, one known by its folder alone. */
async function mixedFolder(path: string): Promise<void> {
  await writeStarter(path, { count: 30, size: 32, seed: 4 });
  const text = await readFile(join(path, "metadata.jsonl"), "utf8");
  const records = text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { file_name: string; caption: string });
  for (const [i, record] of records.filter(({ file_name }) => file_name.endsWith(".gif")).entries()) {
    const kind = ["gif", "webp", "jpg"][i % 3];
    if (kind === "gif") continue;
    const from = join(path, record.file_name);
    record.file_name = record.file_name.replace(/gif$/, kind);
    const picture = sharp(await readFile(from), { animated: kind === "webp" });
    const bytes = await (kind === "webp" ? picture.webp({ lossless: true }) : picture.flatten().jpeg()).toBuffer();
    await writeFile(join(path, record.file_name), bytes);
    await rm(from);
  }
  const [awkward, ...others] = records;
  await mkdir(join(path, "funny_cats"));
  const nameless = others.pop() as (typeof records)[number];
  await rename(join(path, nameless.file_name), join(path, "funny_cats", basename(nameless.file_name)));
  await writeFile(join(path, "metadata.jsonl"), "");
  for (const record of [{ ...awkward, caption: AWKWARD }, ...others])
    await appendFile(join(path, "metadata.jsonl"), `${JSON.stringify(record)}\n`);
}

describe("an imagefolder", () => {
  it("has each picture under its name beside a metadata.jsonl, and the same columns of the same types in every line", async () => {
    const [seen, columns]: [Record<string, [string, string]>, Set<string>] = [{}, new Set()];
    for (const split of SPLITS) {
      const at = join(dir, "imagefolder", split);
      for (const line of (await readFile(join(at, "metadata.jsonl"), "utf8")).trimEnd().split("\n")) {
        const record = JSON.parse(line) as Record<string, unknown>;
        seen[sha256(await readFile(join(at, String(record.file_name))))] = [split, String(record.caption)];
        const type = (value: unknown): string =>
          Array.isArray(value) ? "list" : Number.isInteger(value) ? "integer" : typeof value;
        columns.add(
          Object.entries(record)
            .map(([name, value]) => `${name}: ${type(value)}`)
            .join(", "),
        );
      }
    }
    expect(seen).toEqual(withoutFrames(expected));
    expect([...columns]).toEqual([expect.stringMatching(/^file_name: string, caption: string, .*frames: integer, /)]);
  });

  it("says in its card where the splits are, under names that are words", async () => {
    for (const [format, path] of [
      ["imagefolder", "held-out/**"],
      ["parquet", "held-out-*.parquet"],
    ]) {
      const card = await readFile(join(dir, format, "README.md"), "utf8");
      expect(card).toContain(`- config_name: default\n  data_files:\n  - split: train\n`);
      expect(card).toContain(`  - split: held_out\n    path: "${path}"\n---\n`);
    }
    const card = await readFile(join(dir, "webdataset", "README.md"), "utf8");
    const sets = Array.from(card.matchAll(/config_name: (\w+)/g), ([, name]) => name);
    expect(sets).toEqual(["gif", "jpg", "png", "webp"]);
    expect(card).toContain('- config_name: webp\n  data_files:\n  - split: train\n    path: "train-webp-*.tar"\n');
  });
});

const tar = spawnSync("tar", ["--version"]).status === 0;
it.skipIf(!tar)(
  "WebDataset's shards are read by tar: names up to the first dot are keys, neighbours share one",
  async () => {
    const seen: Record<string, [string, string]> = {};
    for (const shard of (await readdir(join(dir, "webdataset"))).filter((name) => name.endsWith(".tar"))) {
      const [, split, kind] = /^(.+)-([a-z]+)-\d{6}\.tar$/.exec(shard) ?? [];
      const out = join(dir, "untarred", shard);
      await mkdir(out, { recursive: true });
      const { stdout, status } = spawnSync("tar", ["-xvf", join(dir, "webdataset", shard), "-C", out], {
        encoding: "utf8",
      });
      expect({ shard, status }).toEqual({ shard, status: 0 });
      const names = stdout.trim().split("\n");
      for (let i = 0; i < names.length; i += 3) {
        const key = names[i].split(".")[0];
        expect(names.slice(i, i + 3)).toEqual([`${key}.${kind}`, `${key}.json`, `${key}.txt`]);
        const [picture, json, caption] = await Promise.all(
          names.slice(i, i + 3).map((name) => readFile(join(out, name))),
        );
        expect((JSON.parse(String(json)) as { caption: string }).caption).toBe(String(caption));
        seen[sha256(picture)] = [split, String(caption)];
      }
    }
    expect(seen).toEqual(withoutFrames(expected));
  },
);

describe("Parquet", () => {
  const shards = async (): Promise<string[]> =>
    (await readdir(join(dir, "parquet"))).filter((name) => name.endsWith(".parquet"));

  it("is read by DuckDB", async () => {
    const db = await (await DuckDBInstance.create(":memory:")).connect();
    const files = (await shards()).map((name) => `'${join(dir, "parquet", name)}'`);
    const sql = `SELECT sha256(image.bytes) AS id, split_part(image.path, '.', 1) AS named, caption, frames::INT AS frames,
      regexp_extract(filename, '.*/(.+)-\\d{5}.parquet', 1) AS split FROM read_parquet([${files.join(", ")}], filename = true)`;
    const rows = (await db.runAndReadAll(sql)).getRowObjectsJS();
    expect(rows.every(({ id, named }) => id === named)).toBe(true);
    const seen = rows.map(({ id, split, caption, frames }) => [id, [split, caption, frames]]);
    expect(Object.fromEntries(seen)).toEqual(expected);
    db.closeSync();
  });

  it("is read by hyparquet, and names its pictures as Hugging Face does", async () => {
    const seen: Record<string, [string, string, number]> = {};
    for (const name of await shards()) {
      const { buffer, byteOffset, length } = await readFile(join(dir, "parquet", name));
      const file = buffer.slice(byteOffset, byteOffset + length) as ArrayBuffer;
      const { key_value_metadata } = parquetMetadata(file);
      const note = key_value_metadata?.find(({ key }) => key === "huggingface")?.value;
      expect(JSON.parse(note ?? "{}")).toEqual({ info: { features: { image: { _type: "Image" } } } });
      for (const row of await parquetReadObjects({ file, compressors, utf8: false })) {
        const { bytes } = row.image as { bytes: Uint8Array };
        seen[sha256(bytes)] = [name.replace(/-\d+\.parquet$/, ""), String(row.caption), Number(row.frames)];
      }
    }
    expect(seen).toEqual(expected);
  });
});

/** The first Python that has Pillow, and which of the modules it has; `PYTHON=venv/bin/python npm test -- curate_readers` takes that. */
function pythonWith(...modules: string[]): { python: string; has: readonly string[] } | null {
  const code = `import PIL, importlib.util as u; print(*[m for m in ${JSON.stringify(modules)} if u.find_spec(m)])`;
  for (const python of [process.env.PYTHON ?? "python3", "/usr/bin/python3"]) {
    const { status, stdout } = spawnSync(python, ["-c", code], { encoding: "utf8" });
    if (status === 0) return { python, has: stdout.trim().split(/\s+/) };
  }
  return null;
}

const found = pythonWith("PIL", "pyarrow", "datasets");
describe.each([
  ["PIL", "Debian's python3-pil", ["imagefolder", "tarfile"]],
  ["pyarrow", "a Python with Pillow and pyarrow", ["pyarrow"]],
  [
    "datasets",
    "a Python with Pillow and datasets",
    ["imagefolder", "webdataset", "parquet"].map((f) => `datasets ${f}`),
  ],
] as const)("Python's %s (needs %s, or PYTHON)", (module, _, readers) => {
  it.skipIf(!found?.has.includes(module))(
    `reads what the records say: ${readers.join(", ")}`,
    () => {
      const script = fileURLToPath(new URL("readers.py", import.meta.url));
      const env = { ...process.env, HF_HUB_OFFLINE: "1", HF_HOME: join(dir, "huggingface") };
      const { status, stdout, stderr } = spawnSync(found?.python ?? "", [script, dir, ...readers], {
        encoding: "utf8",
        env,
      });
      expect({ status, stderr: stderr.slice(-2000) }).toMatchObject({ status: 0 });
      const seen = JSON.parse(stdout) as Record<string, Seen>;
      for (const reader of readers) expect({ reader, seen: seen[reader] }).toEqual({ reader, seen: expected });
    },
    120_000,
  );
});
