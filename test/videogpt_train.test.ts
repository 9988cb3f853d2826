// VideoGPT as its users train it: tags out of records and texts, both recipes at a tiny size for a handful of steps, resumed
// runs that end where uninterrupted ones do, and stickers for tags.

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { encodeGif } from "../data/encode/gif.ts";
import { parseRecord, type StickerRecord } from "../data/record.ts";
import { type Dataset, openDataset } from "../data/store.ts";
import { inSlots, someTags, Tags } from "../data/tags.ts";
import { useDevice } from "../engine/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { uniforms } from "../engine/testing/draw.ts";
import { type VideoGptConfig, videoGptConfig } from "../models/videogpt.ts";
import { readMetrics } from "../train/metrics.ts";
import { TAGS_FILE, trainPrior } from "../train/prior.ts";
import { loadVideoGptSampler } from "../train/sample_videogpt.ts";
import type { StageResult } from "../train/stage.ts";
import { trainVqVae } from "../train/vqvae.ts";
import { gpu, onGpu } from "./device.ts";
import { discFrames } from "./stickers.ts";

// A software adapter compiles two hundred kernels for the first step of a model.
vi.setConfig({ testTimeout: 240_000, hookTimeout: 60_000 });

function record(o: Partial<StickerRecord>): StickerRecord {
  return parseRecord(JSON.stringify({ file_name: "a.gif", caption: "a red cat", ...o }), "test");
}

// ---- tags -----------------------------------------------------------------------------------------------------------

describe("tags", () => {
  const records = [
    record({ trigger_words: ["Cat", "jump ", "swinging from side to side"], domain: "Real" }),
    record({ trigger_words: ["cat", "dog", "real"] }),
    record({ trigger_words: ["dog", "cat", "cat"] }),
  ];

  test("are the domains and the words of most records, in lower case", () => {
    expect(Tags.of(records, 500).words).toEqual([
      "cartoon",
      "real",
      "cat",
      "dog",
      "jump",
      "swinging from side to side",
    ]);
    expect(Tags.of(records, 4).words).toEqual(["cartoon", "real", "cat", "dog"]);
  });
  test("of a record: its domain, its known words; without trigger words its subject and action, else its caption", () => {
    const tags = Tags.of(records, 4);
    expect(records.map((r) => tags.ofRecord(r))).toEqual([
      [1, 2],
      [0, 2, 3],
      [0, 3, 2],
    ]);
    expect(tags.ofRecord(record({ subject: "Dog", action: "spin" }))).toEqual([0, 3]);
    expect(tags.ofRecord(record({}))).toEqual([0, 2]);
    expect(tags.ofRecord(record({ trigger_words: [] }))).toEqual([0, 2]);
  });
  test("are read from lists and from captions, the longest first; unknown words are named", () => {
    const tags = Tags.of(records, 500);
    expect(tags.read("real, Cat, unicorn")).toEqual({ tags: [1, 2], unknown: ["unicorn"] });
    expect(tags.read("Cartoon \t a dog swinging from side to  side")).toEqual({ tags: [0, 3, 5], unknown: ["a"] });
    expect(tags.read("Cartoon \t real, dog, dog")).toEqual({ tags: [1, 3], unknown: [] });
    expect(tags.read("")).toEqual({ tags: [0], unknown: [] });
  });
  test("a set looks the same however it is given; free slots repeat the domain; the rarest words go first", () => {
    expect([...inSlots([1, 5, 3, 5], 4)]).toEqual([1, 1, 3, 5]);
    expect([...inSlots([1, 3, 5], 4)]).toEqual([1, 1, 3, 5]);
    expect([...inSlots([0, 9, 8, 7, 6], 4)]).toEqual([0, 6, 7, 8]);
    expect([...inSlots([1], 3)]).toEqual([1, 1, 1]);
  });
  test("some of a set: the domain always, at least one word, no word twice, all words in their turn", () => {
    const random = uniforms(1);
    const drawn = Array.from({ length: 300 }, () => someTags([1, 10, 11, 12, 13, 14], 4, random));
    expect(drawn.every(([domain]) => domain === 1)).toBe(true);
    expect(new Set(drawn.map((tags) => tags.length))).toEqual(new Set([2, 3, 4]));
    expect(drawn.every((tags) => new Set(tags).size === tags.length)).toBe(true);
    expect(new Set(drawn.flat())).toEqual(new Set([1, 10, 11, 12, 13, 14]));
    expect(someTags([1], 4, random)).toEqual([1]);
  });
  test("a list that is no list of tags is refused", () => {
    expect(() => new Tags(["cat"])).toThrow("begins with cartoon, real");
    expect(() => new Tags(["cartoon", "real", "cat", "cat"])).toThrow("no word twice");
  });
});

// ---- recipes --------------------------------------------------------------------------------------------------------

const small = videoGptConfig("nano");
const config: VideoGptConfig = {
  ...small,
  vqvae: { hidden: 8, layers: 1, codes: 16, embedding: 4, strides: [4, 4, 4] },
  prior: { ...small.prior, width: 24, heads: 2, layers: 1, dropout: 0.1, tags: { count: 500, slots: 3 } },
};
const STEPS = 6;

let folder: string;
let data: Dataset;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "gifgrad-videogpt-"));
  const colours: [string, [number, number, number]][] = [
    ["red", [230, 40, 40]],
    ["blue", [40, 40, 230]],
    ["green", [30, 200, 60]],
  ];
  for (const [name, rgb] of colours) await writeFile(join(folder, `${name}.gif`), encodeGif(discFrames(rgb), 40, 40));
  const lines = colours.map(([name]) =>
    JSON.stringify({ file_name: `${name}.gif`, caption: `a ${name} disc`, trigger_words: [name, "disc"] }),
  );
  await writeFile(join(folder, "metadata.jsonl"), lines.join("\n"));
  data = await openDataset(folder, { size: config.size });
  await gpu();
  vi.spyOn(process.stderr, "write").mockReturnValue(true);
});
afterAll(async () => {
  vi.restoreAllMocks();
  data.close();
  await rm(folder, { recursive: true });
});

type Over = { steps?: number; resume?: boolean; config?: VideoGptConfig };
const options = (out: string, o: Over) => ({
  ...{ data, config, steps: STEPS, batch: 2, lr: 3e-3, seed: 1, resume: false, saveEvery: 3 },
  ...o,
  out: join(folder, out),
});
const vqvae = (out: string, o: Over = {}): Promise<StageResult> => trainVqVae(options(out, o));
const prior = (out: string, o: Over = {}): Promise<StageResult> =>
  trainPrior({ ...options(out, o), vqvae: join(folder, "vqvae") });

/** Trains to step 3, as a process does that is killed then: the schedule is that of all steps. */
async function killed(train: typeof vqvae, out: string): Promise<void> {
  const original = process.listeners("SIGTERM").length;
  const running = train(out);
  const path = join(folder, out, "metrics.jsonl");
  while (!(await readFile(path, "utf8").catch(() => "")).includes('"step":3'))
    await new Promise((r) => setTimeout(r, 5));
  if (process.listeners("SIGTERM").length > original) process.emit("SIGTERM", "SIGTERM");
  await running;
}

onGpu("both stages leave what sampling needs, and a resumed run ends in the same bits", async () => {
  const whole = await vqvae("vqvae");
  const metrics = readMetrics(join(folder, "vqvae", "metrics.jsonl"));
  expect(metrics.every((m) => m.perplexity >= 1 && m.perplexity <= 16 && m.codes_alive > 0)).toBe(true);
  await killed(vqvae, "vqvae-again");
  expect((await vqvae("vqvae-again", { resume: true })).sha256).toBe(whole.sha256);

  const first = await prior("prior");
  expect(first.firstLoss).toBeCloseTo(Math.log(16), 1);
  await killed(prior, "prior-again");
  expect((await prior("prior-again", { resume: true })).sha256).toBe(first.sha256);
  expect(JSON.parse(await readFile(join(folder, "prior", TAGS_FILE), "utf8")).slice(0, 3)).toEqual([
    "cartoon",
    "real",
    "disc",
  ]);

  const sampler = await loadVideoGptSampler(join(folder, "prior"));
  const seen: string[] = [];
  const onStep = (done: number, total: number): void => void seen.push(`${done}/${total}`);
  const [caption, other] = ["cartoon, red, disc", "cartoon, blue, disc"];
  const [red] = await sampler.sample([{ caption, index: 0 }], { seed: 1, onStep });
  expect(seen.at(-1)).toBe("35/35"); // 3 tags and 2 x 4 x 4 codes
  expect(sampler.steps).toBe(35);
  expect(red.length).toBe(8 * 16 * 16 * 3);
  expect(red.every((v) => v >= -1 && v <= 1)).toBe(true);
  expect(await sampler.sample([{ caption, index: 0 }], { seed: 1 })).toEqual([red]);
  expect(await sampler.sample([{ caption, index: 1 }], { seed: 1 })).not.toEqual([red]);
  expect(await sampler.sample([{ caption, index: 0 }], { seed: 2 })).not.toEqual([red]);
  const both = await sampler.sample(
    [
      { caption: other, index: 3 },
      { caption, index: 0 },
    ],
    { seed: 1 },
  );
  expect(both[1]).toEqual(red); // the same sticker beside another one
});

test("the masked objective trains and samples by the same recipes (reference)", async () => {
  useDevice(new ReferenceDevice());
  const masked = { ...config, prior: { ...config.prior, objective: "masked" as const } };
  const first = join(folder, "vqvae-reference");
  await trainVqVae({ ...options("vqvae-reference", { steps: 1 }) });
  await trainPrior({ ...options("masked", { steps: 2, config: masked }), vqvae: first });
  const sampler = await loadVideoGptSampler(join(folder, "masked"), undefined, { rounds: 4 });
  const stickers = [0, 1].map((index) => ({ caption: "cartoon, red", index }));
  const frames = await sampler.sample(stickers, { seed: 1 });
  expect(frames.flatMap((clip) => [...clip]).every((v) => v >= -1 && v <= 1)).toBe(true);
  expect(await sampler.sample(stickers.slice(1), { seed: 1 })).toEqual(frames.slice(1));
  await expect(
    trainPrior({ ...options("no", { config: { ...config, vqvae: { ...config.vqvae, codes: 17 } } }), vqvae: first }),
  ).rejects.toThrow("does not fit preset nano");
  await expect(trainPrior({ ...options("no", {}), vqvae: join(folder, "masked") })).rejects.toThrow(
    'recipe "prior", not a VQ-VAE',
  );
});
