// Annotators against a server that stands in for a language model: several pictures and one, answers after a schema, caches,
// budgets, servers that are away; human edits; the vote over what was read.

import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text as textOf } from "node:stream/consumers";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import * as z from "zod";
import { build, stale } from "../cli/build.mjs";
import { ChatClient } from "../data/curate/chat.ts";
import { Collection, createCollection } from "../data/curate/collection.ts";
import { parseConfig } from "../data/curate/config.ts";
import { filterTable, recordsTable } from "../data/curate/derived.ts";
import { editsTable } from "../data/curate/edits.ts";
import { history } from "../data/curate/history.ts";
import { type Line, openRecogniser, recogniserInstalled, vote } from "../data/curate/ocr.ts";
import { planBuild } from "../data/curate/plan.ts";
import { dryRun, runStage, type StageResult } from "../data/curate/stage.ts";
import { stages } from "../data/curate/stages/index.ts";
import { type Row, table, withDatabase } from "../data/curate/tables.ts";
import { encodeGif } from "../data/encode/gif.ts";
import { discFrames } from "./stickers.ts";

interface Asked {
  readonly model: string;
  readonly text: string;
  readonly images: number;
  readonly schema: object;
}

let dir: string;
let server: Server;
let asked: Asked[];
/** What the server does with the next questions. */
let mood: "answers" | "one image" | "busy" | "nonsense" | "nonsense once" | "no key" | "no model" | "too long";

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "gifgrad-annotate-"));
  if (stale()) await build();
  await mkdir(join(dir, "in", "disc"), { recursive: true });
  for (let i = 0; i < 3; i++) {
    await writeFile(join(dir, "in", "disc", `${i}.gif`), encodeGif(discFrames([70 * i, 90, 200], 2 * i), 40, 40));
  }
  server = createServer(async (request, response) => {
    const body = JSON.parse(await textOf(request));
    const content = body.messages[0].content;
    const parts: { type: string; text?: string }[] =
      typeof content === "string" ? [{ type: "text", text: content }] : content;
    const images = parts.filter(({ type }) => type === "image_url").length;
    const schema = body.response_format.json_schema.schema;
    asked.push({ model: body.model, text: parts[0].text ?? "", images, schema });
    const say = (status: number, value: object): void => void response.writeHead(status).end(JSON.stringify(value));
    if (mood === "busy") return say(503, { error: "loading" });
    if (mood === "no key") return say(401, { error: "bad key" });
    if (mood === "no model") return say(404, { error: "model not found, try pulling it first" });
    if (mood === "too long") return say(413, { error: "too long" });
    if (mood === "one image" && images > 1) {
      return say(400, { error: { message: "At most 1 image(s) may be provided in one request." } });
    }
    const answer = Object.fromEntries(
      Object.keys(schema.properties).map((key) => [key, key === "chinese" ? "一个圆盘" : `a disc (${key})`]),
    );
    const said =
      mood === "nonsense" || (mood === "nonsense once" && body.seed === 1)
        ? "I cannot see it."
        : `\`\`\`json\n${JSON.stringify(answer)}\n\`\`\``;
    return say(200, {
      choices: [{ message: { content: said } }],
      usage: { prompt_tokens: 1000, completion_tokens: 100 },
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
});
afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await rm(dir, { recursive: true, force: true });
});
beforeEach(() => {
  asked = [];
  mood = "answers";
});

async function collected(name: string, annotate: object): Promise<Collection> {
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`;
  const config = {
    sources: [{ type: "folder", name: "s", path: "in" }],
    filter: { minEntropy: 0, nearDuplicateBits: -1 },
    annotate: { ocr: false, server: address, retries: 0, ...annotate },
  };
  const c = await createCollection(join(dir, name), parseConfig(config, "test", dir));
  for (const stage of stages().before) await runStage(c, stage);
  await filterTable(c);
  return c;
}

const stage = (name: string) => stages().all.find((one) => one.name === name)!;
const run = (c: Collection, name: string): Promise<StageResult> => runStage(c, stage(name));
const rows = (c: Collection, name: string): Promise<Row[]> =>
  withDatabase((db) => db.all(`SELECT * FROM ${table(c, name)} ORDER BY "key"`));

describe("a language model", () => {
  it("describes frames, summarises with all that is known, translates, and its model is on record", async () => {
    const c = await collected("all", {});
    for (const name of ["describe", "summarise", "translate"]) await run(c, name);
    expect(asked.slice(0, 3).map(({ images }) => images)).toEqual([8, 8, 8]);
    expect(asked.slice(3).every(({ images }) => images === 0)).toBe(true); // equal questions may be asked once
    expect(asked[3].text).toMatch(/Description: a disc \(appearance\)\. a disc \(action\)\.\nPeople find it by: disc/);
    expect(asked[0].schema).toMatchObject({ required: ["appearance", "action"], additionalProperties: false });
    await recordsTable(c);
    const records = await withDatabase((db) => db.all(`SELECT id, caption, caption_zh FROM ${table(c, "records")}`));
    expect(records.map(({ caption, caption_zh }) => [caption, caption_zh])).toEqual(
      new Array(3).fill(["a disc (summary)", "一个圆盘"]),
    );
    const origins = await history(c, String(records[0].id).slice(0, 12), stages().all);
    await expect(history(c, "", stages().all)).rejects.toThrow(/is the beginning of 3 stickers/);
    await expect(history(c, "xyz", stages().all)).rejects.toThrow(/no sticker xyz/);
    expect(origins.map(({ stage: s, tool }) => `${s}: ${tool}`)).toEqual([
      "collect: s",
      "measure: gifgrad",
      "describe: qwen2.5vl",
      "summarise: qwen2.5",
      "translate: qwen2.5",
    ]);
    expect(origins.every(({ at }) => !Number.isNaN(Date.parse(at)))).toBe(true);
  });

  it("that takes one picture gets all frames in one", async () => {
    const c = await collected("sheet", {});
    mood = "one image";
    await run(c, "describe");
    expect(asked.map(({ images }) => images).sort()).toEqual([1, 1, 1, 8, 8, 8]);
    expect((await rows(c, "describe")).map((row) => row.error)).toEqual([null, null, null]);
  });

  it("that is away puts items off; one that talks nonsense gets rows that say so, and is not asked again", async () => {
    const c = await collected("moods", {});
    mood = "busy";
    expect((await run(c, "describe")).putOff).toHaveLength(3);
    mood = "nonsense";
    expect(await run(c, "describe")).toMatchObject({ done: 3, putOff: [] });
    expect((await rows(c, "describe"))[0].error).toBe("the model did not answer as asked: I cannot see it.");
    asked = [];
    await run(c, "describe");
    expect(asked).toEqual([]);
  });

  it("that answers after the schema at the second try has answered; --again asks those again that have not", async () => {
    const c = await collected("retried", { retries: 1 });
    mood = "nonsense once";
    await run(c, "describe");
    expect((await rows(c, "describe")).map((row) => row.error)).toEqual([null, null, null]);
    expect(asked).toHaveLength(6);
    const once = await collected("again", {});
    await run(once, "describe");
    mood = "answers";
    expect(await runStage(once, stage("describe"), { again: true })).toMatchObject({ before: 0, done: 3 });
    expect((await rows(once, "describe")).map((row) => row.error)).toEqual([null, null, null]);
    expect(await runStage(once, stage("describe"), { again: true })).toMatchObject({ before: 3, done: 0 });
  });

  it("that refuses everything ends the stage and leaves no row; a refused question gets one", async () => {
    const c = await collected("refused", { keyFrom: "GIFGRAD_NO_SUCH_KEY" });
    mood = "no key";
    await expect(run(c, "describe")).rejects.toThrow(/\/v1 answers 401: .*bad key.*GIFGRAD_NO_SUCH_KEY is not set/);
    mood = "no model";
    await expect(run(c, "describe")).rejects.toThrow(/answers 404: .*model not found/);
    mood = "answers";
    expect(await run(c, "describe")).toMatchObject({ before: 0, done: 3 });
    const long = await collected("long", {});
    mood = "too long";
    expect(await run(long, "describe")).toMatchObject({ done: 3 });
    expect((await rows(long, "describe"))[0].error).toMatch("413");
  });

  it("is never paid twice: answers are remembered by what led to them", async () => {
    const first = await collected("cache", { textModel: "a" });
    for (const name of ["describe", "summarise"]) await run(first, name);
    const other = await collected("cache", { textModel: "b" });
    for (const name of ["describe", "summarise"]) await run(other, name);
    asked = [];
    const again = await collected("cache", { textModel: "a" });
    for (const name of ["describe", "summarise"]) await run(again, name);
    expect(asked).toEqual([]);
    // What b said is newer in the journal, but a's is in the table.
    const [{ key }] = await rows(again, "summarise");
    const origins = await history(again, String(key), stages().all);
    expect(origins.filter((origin) => origin.stage === "summarise")).toMatchObject([{ tool: "a", version: 1 }]);
  });

  it("is not asked by a plan of a build, which says what would be asked and the cost, before and after there are tables", async () => {
    const price = { pricePerMillion: { input: 1000, output: 0 } };
    const c = await collected("planned", price);
    const all = stages().all;
    const told = async (of: Collection) => (await planBuild(of, all)).map((p) => [p.stage, p.items, p.bound]);
    expect((await told(c)).slice(0, 5)).toEqual([
      ["collect", 0, false],
      ["measure", 0, false],
      ["ocr", 0, false],
      ["domain", 0, false],
      ["describe", 3, false],
    ]);
    const fresh = new Collection(join(dir, "not-there"), c.config);
    const [first, second, , , fifth] = await told(fresh);
    expect([first, second, fifth]).toEqual([
      ["collect", 3, false],
      ["measure", 3, true],
      ["describe", 3, true],
    ]);
    expect((await planBuild(fresh, all))[4].cost).toBeGreaterThan(3);
    expect(asked).toEqual([]);
    expect(existsSync(fresh.dir)).toBe(false);
  });

  it("stops when the budget is spent, with what is done kept; a dry run says what it would cost", async () => {
    const pricePerMillion = { input: 1000, output: 0 }; // an answer costs 1
    const c = await collected("budget", { pricePerMillion, budget: 2, concurrency: 1 });
    const { items, cost } = await dryRun(c, stage("describe"));
    expect(items).toBe(3);
    expect(cost).toBeGreaterThan(3); // eight pictures of 256 tokens each
    await expect(run(c, "describe")).rejects.toThrow("the budget of 2 is spent");
    expect(asked).toHaveLength(2);
    expect((await dryRun(c, stage("describe"))).items).toBe(1);
    await expect(run(c, "describe")).rejects.toThrow("the budget of 2 is spent"); // that of all runs, not of each
    expect(asked).toHaveLength(2);
    const more = await collected("budget", { pricePerMillion, budget: 3, concurrency: 1 });
    expect(await run(more, "describe")).toMatchObject({ before: 2, done: 1 });
  });

  it("is asked within one budget by shards that run at the same time, however the money is spent among them", async () => {
    const { config } = await collected("shared", { pricePerMillion: { input: 1000, output: 0 }, budget: 4 });
    const shards = [1, 2, 3].map((i) => new ChatClient(config.annotate, join(dir, `answers${i}`), join(dir, "ledger")));
    const ask = (shard: number, text: string) =>
      shards[shard].ask({ model: "m", text, schema: z.strictObject({ summary: z.string() }) });
    for (const [i, shard] of [0, 1, 0, 2].entries()) await ask(shard, `question ${i}`);
    for (const shard of [0, 1, 2]) await expect(ask(shard, "one more")).rejects.toThrow("the budget of 4 is spent");
    expect(asked).toHaveLength(4);
    for (const shard of shards) await shard.close();
  });
});

describe("human edits", () => {
  it("win over every annotator, and are refused whole where a line is wrong", async () => {
    const c = await collected("edits", { edits: "edits.csv" });
    await run(c, "describe");
    const [{ key }] = await rows(c, "describe");
    const edit = (text: string): Promise<void> => writeFile(join(dir, "edits.csv"), text);
    await edit(`id,caption,domain,trigger_words\n${key},"a blue disc, turning",real,"disc, round"\n`);
    await editsTable(c);
    await recordsTable(c);
    const [record] = await withDatabase((db) => db.all(`SELECT * FROM ${table(c, "records")} WHERE id = '${key}'`));
    expect(record).toMatchObject({ caption: "a blue disc, turning", domain: "Real", trigger_words: ["disc", "round"] });
    await edit(`id,caption,text\n${key},first,\n${key},,2024-01-01\n${key},second,\n`);
    expect(await editsTable(c)).toBe(2);
    expect(await rows(c, "edits")).toMatchObject([{ key, caption: "second", text: "2024-01-01", lines: [1, 2, 3] }]);
    await recordsTable(c);
    const [{ n }] = await withDatabase((db) => db.all(`SELECT count(*)::INT AS n FROM ${table(c, "records")}`));
    expect(n).toBe(3);
    await edit("id,caption\nabc,x\n");
    await expect(editsTable(c)).rejects.toThrow("edits abc, which is not in the data set");
    await edit(`id,title\n${key},x\n`);
    await expect(editsTable(c)).rejects.toThrow("not of title");
    expect((await rows(c, "edits")).map((row) => row.caption)).toEqual(["second"]);
    const [origin] = (await history(c, String(key), stages().all)).slice(-1);
    expect(origin).toMatchObject({ stage: "edits", tool: join(dir, "edits.csv"), row: { lines: [1, 2, 3] } });
  });

  it("in JSON lines stay texts where they look like dates or numbers", async () => {
    const c = await collected("texts", { edits: "edits.jsonl" });
    const [{ key }] = await rows(c, "measure");
    await writeFile(join(dir, "edits.jsonl"), `${JSON.stringify({ id: key, text: "2024-01-01", caption: "007" })}\n`);
    await editsTable(c);
    expect(await rows(c, "edits")).toMatchObject([{ text: "2024-01-01", caption: "007" }]);
  });
});

it.skipIf(recogniserInstalled())("without its optional package, reading words says what to install", async () => {
  await expect(openRecogniser()).rejects.toThrow(
    /npm install --ignore-scripts @gutenye\/ocr-node; or set annotate.ocr/,
  );
});

describe("the vote over frames", () => {
  const line = (text: string, mean = 0.9, x = 0, y = 0): Line => ({
    text,
    mean,
    box: [
      [x, y],
      [x + 20, y],
      [x + 20, y + 10],
      [x, y + 10],
    ],
  });
  it("keeps what most frames have, drops symbols and doubts, and reads from the top left", () => {
    const frames = [
      [line("World", 0.9, 50, 2), line("hello", 0.8, 0, 4), line("★"), line("0", 0.99), line("maybe", 0.4)],
      [line("WORLD", 0.95, 50, 2), line("hello", 0.9, 0, 4), line("once", 0.9, 0, 60)],
      [line("hello", 0.7, 0, 4), line("好", 0.9, 0, 80)],
    ];
    const reading = vote(frames, 100, 100);
    expect(reading.text).toBe("hello WORLD");
    expect(reading.characters).toBe(10);
    expect(reading.area).toBeCloseTo(0.06, 12); // three legible boxes of 20 x 10 in the second frame
    expect(reading.confidence).toBeCloseTo((0.9 + 0.95) / 2, 12);
    expect(vote([[line("好", 0.9)]], 100, 100).text).toBe("好");
    expect(vote([[], [], []], 10, 10)).toMatchObject({ text: "", area: 0, confidence: null });
  });
});
