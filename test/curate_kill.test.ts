// `kill -9` in every stage of a data set: what is finished is not done again, at most what is in hand is lost, and the finished
// data set is that of a build which nobody killed, byte for byte. Processes are killed at drawn operations on files
// (kill/die.mjs), once in each stage; with KILLS=all at each operation there is, which takes many minutes. Also: processes that
// share a stage, by the commands of the README.

import { execFile, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { basename, join, relative } from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { build, stale } from "../cli/build.mjs";
import { createCollection, openCollection } from "../data/curate/collection.ts";
import { parseConfig } from "../data/curate/config.ts";
import { filterTable } from "../data/curate/derived.ts";
import { journals } from "../data/curate/journal.ts";
import { encodeGif } from "../data/encode/gif.ts";
import { bitsFrom } from "../engine/index.ts";
import { discFrames } from "./stickers.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const GIFGRAD = join(root, "cli/gifgrad.mjs");
const DIE = join(root, "test/kill/die.mjs");
const STICKERS = 8;
/** Items in hand at a time: pictures asked about, files fetched, files with the decoding process and waiting for it. */
const IN_HAND = 2;
const SEED = 20;
const EVERYWHERE = process.env.KILLS === "all";

let dir: string;
let server: Server;
/** Bodies of the questions to the server since it was last emptied. */
let asked: string[];
let config: object;
let domainChild: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "gifgrad-kill-"));
  if (stale()) await build();
  const bundle = await mkdtemp(join(root, ".cache/kill-test-")); // inside the checkout, so that packages are found
  const esbuild = await import("esbuild");
  domainChild = join(bundle, "domain_child.mjs");
  const entryPoints = [join(root, "test/kill/domain_child.ts")];
  const common = { bundle: true, platform: "node", format: "esm", packages: "external", target: "node20" } as const;
  await esbuild.build({ ...common, entryPoints, outfile: domainChild });
  await writeStickers(join(dir, "in"));
  await writeRecogniser(join(dir, "node_modules/@gutenye/ocr-node"));
  server = await openServer();
  config = {
    sources: [{ type: "folder", name: "s", path: "in" }],
    fetch: { concurrency: IN_HAND },
    filter: { minEntropy: 0, nearDuplicateBits: -1 },
    annotate: {
      ocr: true,
      server: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
      concurrency: IN_HAND,
    },
    split: { words: 2, heldOutPairs: 0.2 },
    processes: 1,
  };
  await writeFile(join(dir, "config.json"), JSON.stringify(config));
});
afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await rm(join(domainChild, ".."), { recursive: true, force: true });
  await rm(dir, { recursive: true, force: true });
});

/** Some are described, some are of a known domain; each has a word of its own and one that it shares. */
async function writeStickers(path: string): Promise<void> {
  await mkdir(path, { recursive: true });
  const lines: string[] = [];
  for (let i = 0; i < STICKERS; i++) {
    await writeFile(join(path, `${i}.gif`), encodeGif(discFrames([30 * i, 90, 200], i), 40, 40));
    const domain = i % 3 === 0 ? undefined : i % 3 === 1 ? "Cartoon" : "Real";
    const pair = { subject: `disc ${i % 2}`, action: `turning ${i % 4}` };
    lines.push(
      JSON.stringify({ file_name: `${i}.gif`, caption: `disc ${i}`, domain, ...pair, trigger_words: ["disc", `${i}`] }),
    );
  }
  await writeFile(join(path, "metadata.jsonl"), `${lines.join("\n")}\n`);
}

/** Stands in for the optional package: finds the same word everywhere, and adds a byte to a file for each picture. */
async function writeRecogniser(path: string): Promise<void> {
  await mkdir(path, { recursive: true });
  await writeFile(join(path, "package.json"), '{"type": "module", "exports": "./index.js"}');
  await writeFile(
    join(path, "index.js"),
    `import { appendFileSync } from "node:fs";
    const detect = async () => {
      appendFileSync(new URL("read", import.meta.url), ".");
      return [{ text: "HI", mean: 0.9, box: [[0, 0], [9, 0], [9, 9], [0, 9]] }];
    };
    export default { create: async () => ({ detect }) };`,
  );
}

/** Stands in for a language model: takes a moment, and answers the same question the same. */
async function openServer(): Promise<Server> {
  const opened = createServer(async (request, response) => {
    const body = await text(request);
    asked.push(body);
    await sleep(5);
    const { properties } = JSON.parse(body).response_format.json_schema.schema;
    const say = (key: string) => [key, `${key} ${createHash("sha256").update(body).digest("hex").slice(0, 6)}`];
    const content = JSON.stringify(Object.fromEntries(Object.keys(properties).map(say)));
    response.end(JSON.stringify({ choices: [{ message: { content } }] }));
  });
  await new Promise<void>((resolve) => opened.listen(0, "127.0.0.1", resolve));
  return opened;
}

/** Runs a program in `dir`, to be killed at its `dieAt`-th operation below `where`. Returns whether it was. */
async function runs(args: readonly string[], where = dir, dieAt = 0): Promise<boolean> {
  const preload = dieAt > 0 ? ["--import", DIE] : [];
  const env = { ...process.env, DIE_AT: String(dieAt), DIE_IN: where };
  const child = spawn(process.execPath, [...preload, ...args], { cwd: dir, env, stdio: ["ignore", "ignore", "pipe"] });
  const [said, killed] = await Promise.all([
    text(child.stderr),
    new Promise<boolean>((resolve) => child.once("exit", (_, signal) => resolve(signal === "SIGKILL"))),
  ]);
  if (!killed && child.exitCode !== 0) throw new Error(`${args.join(" ")}: ${said}`);
  return killed;
}

/** The command of a line of the README, for `count` machines and on the data set `set`. */
async function readmeCommand(found: RegExp, count: number, set: string): Promise<string> {
  const [, command = ""] = found.exec(await readFile(join(root, "data/curate/README.md"), "utf8")) ?? [];
  expect(command).toMatch(/^npx gifgrad dataset measure \S+ --shard .*\/16$/);
  return command
    .replace("npx gifgrad", `"${process.execPath}" "${GIFGRAD}"`)
    .replace(/measure \S+/, `measure "${set}"`)
    .replace(/16$/, String(count));
}

/** Path -> hash of every file. Of journals the lines count, in any order and without their times. */
async function contents(folder: string): Promise<Record<string, string>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const hashes: [string, string][] = [];
  for (const path of files.sort()) {
    const bytes = await readFile(path);
    const plain = path.endsWith(".jsonl") && path.includes("/journal/") ? lines(bytes.toString()).join("\n") : bytes;
    hashes.push([relative(folder, path), createHash("sha256").update(plain).digest("hex").slice(0, 12)]);
  }
  return Object.fromEntries(hashes);
}

/** The whole lines: the last may be a half. */
function lines(journal: string): string[] {
  const all = journal
    .slice(0, journal.lastIndexOf("\n") + 1)
    .split("\n")
    .filter(Boolean);
  return all.map((line) => JSON.stringify({ ...JSON.parse(line), at: "", n: 0 })).sort();
}

/** Keys of the lines in a stage's journals. */
async function keys(set: string, stage: string): Promise<string[]> {
  const files = await journals((await openCollection(set)).journalDir(stage));
  const texts = await Promise.all(files.map((path) => readFile(path, "utf8")));
  return texts.flatMap((journal) => lines(journal).map((line) => JSON.parse(line).key as string));
}

interface Killed {
  readonly stage: string;
  /** Arguments behind `gifgrad dataset <stage> <data set>`. */
  readonly more?: readonly string[];
  /** Operations on files that it makes at least: one of these is drawn. */
  readonly operations: number;
  /** Whether its items have lines in a journal. */
  readonly items?: number;
}

const KILLED: readonly Killed[] = [
  { stage: "collect", operations: 60, items: STICKERS },
  { stage: "measure", operations: 25, items: STICKERS },
  { stage: "ocr", operations: 25, items: STICKERS },
  { stage: "domain", operations: 12, items: 0 },
  { stage: "describe", operations: 50, items: STICKERS },
  { stage: "summarise", operations: 50, items: STICKERS },
  { stage: "translate", operations: 50, items: STICKERS },
  { stage: "filter", operations: 12 },
  { stage: "split", operations: 8 },
  { stage: "stats", operations: 8 },
  { stage: "export", operations: 35, more: ["-o", "export"] },
  { stage: "verify", operations: 12 },
];

describe("kill -9", () => {
  let whole: Record<string, string>;
  let victim: string;

  beforeAll(async () => {
    asked = [];
    const set = join(dir, "whole", "set");
    await runs([GIFGRAD, "dataset", "build", "config.json", "--out", set]);
    await runs([GIFGRAD, "dataset", "export", set, "-o", join(dir, "whole", "export")]);
    whole = await contents(join(dir, "whole"));
    expect(asked).toHaveLength(3 * STICKERS);
    victim = join(dir, "victim");
    await createCollection(join(victim, "set"), parseConfig(config, "test", dir));
  });

  it.each(KILLED)(
    "in $stage",
    async ({ stage, operations, items, more = [] }) => {
      // What describe asks about is what the filter keeps; build makes that table in between.
      if (stage === "domain") await filterTable(await openCollection(join(victim, "set")));
      const at = 1 + (bitsFrom(SEED, stage)(0) % operations);
      if (EVERYWHERE) await everywhere({ stage, operations, items, more });
      await killedOnce(victim, { stage, operations, items, more }, at);
    },
    EVERYWHERE ? 3600_000 : undefined,
  );

  it("leaves the data set that nobody killed", async () => {
    expect(await contents(victim)).toEqual(whole);
  });

  it("in domain, with a classifier", async () => {
    const [set, before, count] = [join(victim, "set"), join(dir, "before"), join(dir, "asked")];
    await cp(victim, before, { recursive: true });
    await runs([domainChild, set, count]);
    const expected = await contents(victim);
    const undecided = (await readFile(count)).length;
    expect(undecided).toBeGreaterThan(1);
    await writeFile(count, "");
    const args = [domainChild, join(before, "set"), count];
    expect(await runs(args, before, 5)).toBe(true);
    await runs(args);
    expect(await contents(before)).toEqual(expected);
    expect((await readFile(count)).length).toBeLessThanOrEqual(undecided + IN_HAND);
  });

  /** Kills the stage at its `at`-th operation and runs it again. Returns whether it lived to make so many. */
  async function killedOnce(folder: string, { stage, items, more = [] }: Killed, at: number): Promise<boolean> {
    const set = join(folder, "set");
    const args = [GIFGRAD, "dataset", stage, set, ...more.map((arg) => (arg === "export" ? join(folder, arg) : arg))];
    const read = join(dir, "node_modules/@gutenye/ocr-node/read");
    asked = [];
    await writeFile(read, "");
    const killed = await runs(args, folder, at);
    if (killed) {
      const done = items === undefined ? [] : (await keys(set, stage)).length;
      await runs(args);
      if (items !== undefined) {
        const found = await keys(set, stage);
        expect([new Set(found).size, found.length], `lines of ${stage}, of which ${done} at the kill`).toEqual([
          items,
          items,
        ]);
      }
    } else if (!EVERYWHERE) throw new Error(`${stage} ended before its operation ${at}`);
    expect(asked.length).toBeLessThanOrEqual(STICKERS + IN_HAND);
    expect((await readFile(read)).length).toBeLessThanOrEqual(3 * (STICKERS + 1));
    return !killed;
  }

  async function everywhere(one: Killed): Promise<void> {
    const after = join(dir, "after");
    await cp(victim, after, { recursive: true });
    await killedOnce(after, one, Number.MAX_SAFE_INTEGER);
    const expected = await contents(after);
    for (let at = 1, lived = false; !lived; at++) {
      const copy = join(dir, "copy");
      await cp(victim, copy, { recursive: true });
      lived = await killedOnce(copy, one, at);
      expect(await contents(copy), `${one.stage} killed at operation ${at}`).toEqual(expected);
      await rm(copy, { recursive: true });
    }
    await rm(after, { recursive: true });
  }
});

it("machines that share a stage by the README's commands make the same table as one", async () => {
  const set = join(dir, "shared");
  await cp(join(dir, "whole", "set"), set, { recursive: true });
  await rm(join(set, "journal", "measure"), { recursive: true });
  await rm(join(set, "annotations", "measure.parquet"));
  const slurm = await readmeCommand(/--wrap '(.*)'/, 3, set);
  const kubernetes = await readmeCommand(/(npx gifgrad.*JOB_COMPLETION_INDEX.*)/, 3, set);
  const machines = [
    [slurm, { SLURM_ARRAY_TASK_ID: "1" }],
    [kubernetes, { JOB_COMPLETION_INDEX: "1" }],
    [slurm, { SLURM_ARRAY_TASK_ID: "3" }],
  ] as const;
  await Promise.all(
    machines.map(([command, env]) => promisify(execFile)("sh", ["-c", command], { env: { ...process.env, ...env } })),
  );
  const parts = await journals((await openCollection(set)).journalDir("measure"));
  expect(parts.map((path) => basename(path))).toEqual([1, 2, 3].map((i) => `${i}-of-3.jsonl`));
  expect((await keys(set, "measure")).length).toBe(STICKERS);
  await runs([GIFGRAD, "dataset", "merge", set, "measure"]);
  const table = async (folder: string) => (await contents(folder))["annotations/measure.parquet"];
  expect(await table(set)).toBe(await table(join(dir, "whole", "set")));
});
