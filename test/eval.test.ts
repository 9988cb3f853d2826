// Scores: refused when they were measured unlike each other; intervals; the path that all clips take; laws of the metrics
// (a set against itself, spoiled clips, captions at random, batches of other sizes), on tiny networks in float64. The Frechet
// distance itself is fvd.test.ts, fragments are vqa.test.ts.

import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { encodeGif } from "../data/encode/gif.ts";
import { trainTokenizer } from "../data/tokenizer_train.ts";
import { useDevice } from "../engine/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { clipExtractor, clipScore, likeness } from "../eval/clip_similarity.ts";
import { type Clips, clipsAt, openClips, throughGif } from "../eval/clips.ts";
import { DEGRADATIONS, type Degradation } from "../eval/degrade.ts";
import { drawing, shuffled } from "../eval/draw.ts";
import { type Extractor, extractFeatures } from "../eval/features.ts";
import { fvdScore, i3dExtractor } from "../eval/fvd_score.ts";
import { ownExtractor } from "../eval/own_extractors.ts";
import { bootstrap, mean, type Protocol, ProtocolError, rank, type Score, unlike } from "../eval/score.ts";
import { vqaScore } from "../eval/vqa_score.ts";
import { Clip } from "../models/clip.ts";
import { I3D_KINETICS, I3d } from "../models/i3d.ts";
import { VideoFeatures } from "../models/video_features.ts";
import { scramble } from "./scramble.ts";

const dir = mkdtempSync(join(tmpdir(), "gifgrad-eval-"));
afterAll(() => rmSync(dir, { recursive: true }));
useDevice(new ReferenceDevice());

describe("scores", () => {
  const protocol: Protocol = {
    n: 8,
    size: 16,
    frames: 8,
    extension: "loop to 16",
    clips: "gif-1",
    preprocessing: "i3d-1",
    extractor: "I3D",
    extractorHash: "a".repeat(64),
    real: null,
    captions: null,
  };
  const score = (value: number, o: Partial<Protocol> = {}, better: Score["better"] = "lower"): Score => ({
    name: "FVD",
    value,
    better,
    protocol: { ...protocol, ...o },
    floor: null,
    interval: null,
    seed: 1,
    also: {},
  });

  test("of one protocol are ranked, the better first", () => {
    expect(rank([score(3), score(1), score(2)])).toEqual([1, 2, 0]);
    expect(rank([score(3, {}, "higher"), score(4, {}, "higher")])).toEqual([1, 0]);
  });
  test.each<[Partial<Protocol>, string]>([
    [{ n: 16 }, "n 8 and 16"],
    [{ size: 64 }, "size 16 and 64"],
    [{ frames: 16 }, "frames 8 and 16"],
    [{ extension: "ping-pong to 16" }, "extension loop to 16 and ping-pong to 16"],
    [{ clips: "gif-2" }, "clips gif-1 and gif-2"],
    [{ preprocessing: "i3d-2" }, "preprocessing i3d-1 and i3d-2"],
    [{ extractorHash: "b".repeat(64) }, "extractorHash aaaaaaaa and bbbbbbbb"],
    [{ real: "c".repeat(64) }, "real none and cccccccc"],
  ])("of unlike protocol are refused: %o", (difference, message) => {
    expect(() => rank([score(1), score(2, difference)])).toThrow(ProtocolError);
    expect(unlike(score(1), score(2, difference))).toEqual([message]);
  });
  test("of other metrics are refused", () => {
    expect(() => rank([score(1), { ...score(2), name: "FVD-x" }])).toThrow("name FVD and FVD-x");
  });
  test("get an interval that covers 19 of 20 means, and is moved where asked", () => {
    const values = Float64Array.from({ length: 400 }, (_, i) => i % 2); // mean 1/2, deviation of the mean 1/40
    const about = (centre?: number) =>
      bootstrap(400, (draw) => mean(Float64Array.from(draw(), (i) => values[i])), { seed: 1, centre, rounds: 400 });
    const { low, high } = about()!;
    expect(high - low).toBeGreaterThan((2 * 1.96 * 0.85) / 40);
    expect(high - low).toBeLessThan((2 * 1.96 * 1.15) / 40);
    expect(low + high).toBeGreaterThan(0.98);
    expect(low + high).toBeLessThan(1.02);
    expect(about(7)!.low).toBeGreaterThan(6.9);
    expect(bootstrap(1, () => 0, { seed: 1 })).toBeNull();
  });
});

const SIZE = 16;
const FRAMES = 8;

/** A coloured square that moves and grows; every clip another. */
function square(i: number): Uint8Array {
  const draw = drawing(i, "square");
  const [x, y, dx, dy, side] = [draw(SIZE), draw(SIZE), draw(5) - 2, draw(5) - 2, 3 + draw(6)];
  const colour = [draw(200), draw(200), draw(200)];
  return Uint8Array.from({ length: FRAMES * SIZE * SIZE * 3 }, (_, k) => {
    const [c, pixel] = [k % 3, Math.floor(k / 3)];
    const [column, row, t] = [pixel % SIZE, Math.floor(pixel / SIZE) % SIZE, Math.floor(pixel / SIZE ** 2)];
    const inside = (at: number, from: number, by: number): boolean => (at - from - by * t + 8 * SIZE) % SIZE < side;
    return inside(column, x, dx) && inside(row, y, dy) ? colour[c] : 255;
  });
}

/** Clips in memory. */
function made(count: number, sha256: string, spoil: (clip: Uint8Array, i: number) => Uint8Array = (x) => x): Clips {
  return {
    dir: sha256,
    length: count,
    names: Array.from({ length: count }, (_, i) => `${i}.gif`),
    captions: Array.from({ length: count }, (_, i) => `caption number ${i}`),
    size: SIZE,
    frames: FRAMES,
    sha256,
    rejected: [],
    read: async (i) => spoil(square(i), i),
    close: () => {},
  };
}

function spoiled(count: number, how: Degradation, strength: number): Clips {
  return made(count, `${how} ${strength}`, (clip, i) =>
    DEGRADATIONS[how](clip, { size: SIZE, strength, draw: drawing(i, "spoil") }),
  );
}

describe("clips", () => {
  const rgba = (clip: Uint8Array, size: number) =>
    Array.from({ length: clip.length / (size * size * 3) }, (_, t) => {
      const data = new Uint8Array(4 * size * size).fill(255);
      for (let p = 0; p < size * size; p++)
        data.set(clip.subarray(3 * (t * size * size + p), 3 * (t * size * size + p) + 3), 4 * p);
      return { data, delayMs: 100 };
    });
  const folder = (name: string): string => mkdtempSync(join(dir, name));
  const write = (to: string, name: string, clip: Uint8Array, size = SIZE): void =>
    writeFileSync(join(to, name), encodeGif(rgba(clip, size), size, size));

  test("of GIF files come back as they were, and real ones through the same palette", async () => {
    const to = folder("plain");
    for (const i of [0, 1]) write(to, `${i}.gif`, square(i));
    const clips = await openClips(to);
    expect([clips.length, clips.size, clips.frames, clips.captions]).toEqual([2, SIZE, FRAMES, null]);
    expect(await clips.read(1)).toEqual(square(1));
    clips.close();
    const noisy = DEGRADATIONS.noise(square(0), { size: SIZE, strength: 0.5, draw: drawing(1, "noise") });
    const once = await throughGif(noisy, SIZE);
    expect(once).not.toEqual(noisy); // more than 255 colours
    expect(
      new Set(Array.from({ length: once.length / 3 }, (_, p) => once.subarray(3 * p, 3 * p + 3).join())).size,
    ).toBeLessThan(256);
  });
  test("have their captions from metadata.jsonl, the first of several, in the files' order", async () => {
    const to = folder("captions");
    for (const i of [0, 1]) write(to, `${i}.gif`, square(i));
    const line = (file_name: string, caption: string): string => JSON.stringify({ file_name, caption });
    writeFileSync(
      join(to, "metadata.jsonl"),
      [line("1.gif", "one"), line("0.gif", "zero"), line("1.gif", "uno")].join("\n"),
    );
    const clips = await openClips(to);
    expect(new Map(clips.names.map((name, i) => [name, clips.captions![i]]))).toEqual(
      new Map([
        ["1.gif", "one"],
        ["0.gif", "zero"],
      ]),
    );
    clips.close();
  });
  test("of mixed sizes are refused by name, unless a size is given", async () => {
    const to = folder("mixed");
    write(to, "a.gif", square(0));
    write(to, "b.gif", square(1).subarray(0, FRAMES * 64 * 3), 8);
    await expect(openClips(to)).rejects.toThrow("a.gif has 16 x 16 pixels, b.gif 8 x 8");
    const clips = await openClips(to, { size: 8 });
    expect((await clips.read(0)).length).toBe(FRAMES * 8 * 8 * 3);
    clips.close();
  });
  test("that cannot be read are left out and named, with a size and without", async () => {
    const to = folder("corrupt");
    writeFileSync(join(to, "a.gif"), "GIF89a");
    await expect(openClips(to)).rejects.toThrow(/corrupt\w+: none of its 1 stickers can be read; a\.gif: /);
    write(to, "b.gif", square(0));
    for (const size of [undefined, SIZE]) {
      const clips = await openClips(to, { size });
      expect([clips.size, clips.names, clips.rejected.map(({ file_name }) => file_name)]).toEqual([
        SIZE,
        ["b.gif"],
        ["a.gif"],
      ]);
      clips.close();
    }
  });
  test("that are not there, and metadata that is damaged, are refused in one line", async () => {
    await expect(openClips(join(dir, "nowhere"))).rejects.toThrow(/nowhere does not exist$/);
    await expect(openClips(folder("empty"))).rejects.toThrow(/has no stickers to score$/);
    const to = folder("damaged");
    writeFileSync(join(to, "metadata.jsonl"), '{"file_name": "a.gif"\n');
    await expect(openClips(to)).rejects.toThrow("metadata.jsonl:1: not JSON");
  });
});

describe("spoiling", () => {
  const at = (how: Degradation, strength: number): Uint8Array =>
    DEGRADATIONS[how](square(3), { size: SIZE, strength, draw: drawing(1, "x") });
  const frame = (clip: Uint8Array, t: number): string =>
    clip.subarray(t * SIZE * SIZE * 3, (t + 1) * SIZE * SIZE * 3).join();

  test.each(["noise", "frozen", "shuffled", "blur", "blocks"] as const)(
    "%s at 0 changes nothing, at 1 something",
    (how) => {
      expect(at(how, 0)).toEqual(square(3));
      expect(at(how, 1)).not.toEqual(square(3));
    },
  );
  test("frozen clips stand still from a frame on, shuffled ones have the same frames", () => {
    const frames = (clip: Uint8Array): string[] => Array.from({ length: FRAMES }, (_, t) => frame(clip, t));
    expect(new Set(frames(at("frozen", 1))).size).toBe(1);
    expect(frames(at("frozen", 0.5)).slice(3)).toEqual(new Array(5).fill(frame(square(3), 3)));
    expect(frames(at("shuffled", 1)).sort()).toEqual(frames(square(3)).sort());
    expect(frames(at("shuffled", 1))).not.toEqual(frames(square(3)));
  });
});

describe("the Frechet distance of features", () => {
  const COUNT = 12;
  let extractor: Extractor;
  beforeAll(() => {
    const config = { size: SIZE, frames: FRAMES, width: 4, features: 6, outputs: 1 };
    const model = new VideoFeatures(config);
    scramble(model, 2);
    extractor = ownExtractor(model, "scrambled", "features");
  });
  const real = made(COUNT, "real");
  const options = { seed: 1, rounds: 20, published: false, batch: 5 } as const;
  const distance = async (generated: Clips): Promise<number> =>
    (await fvdScore(generated, real, extractor, options)).value;

  test("of a set from itself is 0, from another positive and the same both ways", async () => {
    const score = await fvdScore(real, real, extractor, options);
    expect(score.name).toBe("FVD-x");
    expect(score.value).toBeLessThan(1e-12);
    expect(score.interval!.low).toBe(0); // centred on the value, half of the resamples would lie below it
    expect(score.interval!.high).toBeGreaterThan(0);
    const other = spoiled(COUNT, "noise", 0.5);
    const there = await fvdScore(other, real, extractor, options);
    const back = await fvdScore(real, other, extractor, options);
    expect(there.value).toBeGreaterThan(1e-6);
    expect(Math.abs(there.value / back.value - 1)).toBeLessThan(1e-9);
    expect(there.interval!.low).toBeLessThan(there.value);
    expect(there.interval!.high).toBeGreaterThan(there.value);
    expect(there.floor!.n).toBe(COUNT / 2);
    expect(there.floor!.value).toBeGreaterThan(0);
  });
  test.each(["noise", "frozen", "shuffled"] as const)("grows with %s", async (how) => {
    const row: number[] = [];
    for (const strength of [0, 0.4, 1]) row.push(await distance(spoiled(COUNT, how, strength)));
    expect(row).toEqual([...row].sort((a, b) => a - b));
    expect(row[1]).toBeGreaterThan(row[0] + 1e-9);
    expect(row[2]).toBeGreaterThan(row[1]);
  });
  test("does not depend on the batch", async () => {
    const at = async (batch: number) => (await extractFeatures(real, extractor, { batch })).data;
    const [whole, parts] = [await at(COUNT), await at(5)];
    expect(Array.from(whole).every((x, i) => Math.abs(x - parts[i]) < 1e-6)).toBe(true);
    expect(new Set(Array.from(whole)).size).toBeGreaterThan(COUNT); // no row stands for another
  });
  test("takes as many of the larger set as the smaller has, and no fewer than 4", async () => {
    const { protocol } = await fvdScore(made(6, "six"), real, extractor, options);
    expect(protocol.n).toBe(6);
    await expect(fvdScore(made(3, "three"), real, extractor, options)).rejects.toThrow("at least 4 clips of each kind");
    await expect(fvdScore({ ...real, size: 32 }, real, extractor, options)).rejects.toThrow(
      "have size 32, real ones 16",
    );
  });
  test("I3D is told apart by its epsilon, and 8 frames are refused", () => {
    const model = new I3d({ ...I3D_KINETICS, divisor: 16 });
    expect(i3dExtractor(model, "x", { extension: "ping-pong" }).extension).toBe("ping-pong to 16");
    expect(() => i3dExtractor(model, "x", { count: 8 })).toThrow("at least 9 frames, got 8");
  });
  test("features are kept under the hash of what made them, and damaged ones are made again", async () => {
    const cacheDir = join(dir, "features");
    let asked = 0;
    const counting: Extractor = {
      ...extractor,
      extract: (...args) => {
        asked++;
        return extractor.extract(...args);
      },
    };
    const first = await extractFeatures(real, counting, { cacheDir });
    expect(asked).toBe(3);
    expect((await extractFeatures(real, counting, { cacheDir })).data).toEqual(first.data);
    expect(asked).toBe(3);
    await extractFeatures(clipsAt(real, [1, 0]), counting, { cacheDir });
    await extractFeatures(real, { ...counting, hash: "other" }, { cacheDir });
    expect(asked).toBe(3 + 1 + 3);
    expect(readdirSync(cacheDir).filter((name) => !name.endsWith(".f32"))).toEqual([]);
    for (const name of readdirSync(cacheDir)) writeFileSync(join(cacheDir, name), Buffer.alloc(4 * 12 * 6 + 32));
    expect((await extractFeatures(real, counting, { cacheDir })).data).toEqual(first.data);
    expect(asked).toBe(10);
    expect(existsSync(cacheDir)).toBe(true);
  });
});

describe("CLIP similarity", () => {
  /** Vectors of length 1, at random. */
  function vectors(count: number, width: number, seed: number): Float64Array {
    const draw = drawing(seed, "vectors");
    const rows = Array.from({ length: count }, () => {
      const row = Array.from({ length: width }, () => draw(2001) - 1000);
      const length = Math.hypot(...row);
      return row.map((x) => x / length);
    });
    return Float64Array.from(rows.flat());
  }
  const [n, width, frames] = [9, 24, 3];
  const captions = vectors(n, width, 1);
  const own = Array.from({ length: n }, (_, i) => i);
  const each = (rows: Float64Array): Float64Array =>
    Float64Array.from({ length: n * frames * width }, (_, k) => {
      const [i, d] = [Math.floor(k / (frames * width)), k % width];
      return rows[i * width + d];
    });

  test("of captions at random is 1/N", () => {
    // Over all turns of the captions each clip meets each of them once, and its probabilities sum to 1.
    const clips = vectors(n * frames, width, 2);
    const turns = own.map((turn) =>
      mean(
        likeness(
          clips,
          captions,
          own.map((i) => (i + turn) % n),
          { width },
        ).map(({ d1 }) => d1),
      ),
    );
    expect(mean(turns)).toBeCloseTo(1 / n, 12);
  });
  test("of identical pairs is near 1, and the own caption comes first", () => {
    const rows = likeness(each(captions), captions, own, { width });
    expect(Math.min(...rows.map(({ d1 }) => d1))).toBeGreaterThan(0.99);
    expect(rows.map(({ before }) => before)).toEqual(new Array(n).fill(0));
    expect(mean(rows.map(({ raw }) => raw))).toBeCloseTo(1, 12);
  });
  test("by hand: two frames, two candidates, a factor of ln 3", () => {
    const [row] = likeness([1, 0, 0, 1], [1, 0, 0, 1], [0], { width: 2, scale: Math.log(3) });
    // The middle of both frames is as near to either caption; frame by frame 3/4 and 1/4.
    expect([row.d1, row.d1PerFrame, row.raw, row.before]).toEqual(
      [0.5, 0.5, 0.5, 0.5].map((x) => expect.closeTo(x, 12)),
    );
    const [tilted] = likeness([1, 0, 1, 0], [1, 0, 0, 1], [1], { width: 2, scale: Math.log(3) });
    expect(tilted).toEqual({ d1: expect.closeTo(0.25, 12), d1PerFrame: expect.closeTo(0.25, 12), raw: 0, before: 1 });
  });
  const layers = { width: 8, layers: 1, heads: 1, mlp: 8, projection: 6 };
  const tokenizer = trainTokenizer(["caption number"], { vocabSize: 600 });
  const text = { ...layers, vocabulary: tokenizer.vocabSize, length: 8 };
  const model = new Clip({ text, vision: { ...layers, size: 8, patch: 4 } }).seed(1);
  const extractor = clipExtractor(model, "seed 1", FRAMES);
  const scoreOf = (clips: Clips, real: Clips | null, batch = 3): Promise<Score> =>
    clipScore(clips, real, extractor, { model, tokenizer }, { seed: 1, published: false, batch });

  test("has the captions of both sets to choose from, for the real ones' score as well", async () => {
    const [few, many] = [made(3, "few"), made(6, "many")]; // captions 0 to 2, and 0 to 5
    const score = await scoreOf(few, many);
    const whole = await scoreOf(many, null);
    expect([score.also.candidates, whole.also.candidates]).toEqual([6, 6]);
    expect(score.floor).toEqual({ value: whole.value, n: 6 });
    expect(score.protocol.captions).toBe(whole.protocol.captions);
    expect(score.value).toBeLessThan((await scoreOf(few, null)).value); // of three captions the own one is likelier
    const bare = { ...many, captions: null };
    expect((await scoreOf(few, bare)).also.candidates).toBe(3);
  });
  test("does not depend on the batch", async () => {
    const clips = made(5, "five");
    const [one, two, all] = await Promise.all([1, 2, 5].map((batch) => scoreOf(clips, null, batch)));
    for (const { value, also } of [two, all]) {
      expect(value).toBeCloseTo(one.value, 6);
      expect(also["CLIPSIM (raw cosine)"]).toBeCloseTo(one.also["CLIPSIM (raw cosine)"], 6);
    }
  });
  test("through a tiny CLIP: shared captions are one candidate, cut ones are counted, none are refused", async () => {
    const clips: Clips = { ...made(4, "four"), captions: ["a", "b", "a", "caption number 1 2 3 4 5 6 7"] };
    const score = await scoreOf(clips, null);
    expect([score.name, score.better, score.floor]).toEqual(["CLIP-x", "higher", null]);
    expect(score.also.candidates).toBe(3);
    expect(score.also["captions cut"]).toBe(0.25);
    expect(score.value).toBeGreaterThan(0);
    expect(score.value).toBeLessThan(1);
    const larger = trainTokenizer(["caption number"], { vocabSize: 530 });
    const small = new Clip({ ...model.config, text: { ...text, vocabulary: larger.vocabSize - 1 } });
    await expect(
      clipScore(clips, null, extractor, { model: small, tokenizer: larger }, { seed: 1, published: false }),
    ).rejects.toThrow("they do not belong together");
    const bare = { ...clips, captions: null };
    await expect(scoreOf(bare, null)).rejects.toThrow("four has no metadata.jsonl with the captions");
  });
});

test("quality is the mean over clips, with what real ones score beside it", async () => {
  const config = { size: SIZE, frames: FRAMES, width: 2, features: 6, outputs: 1 };
  const extractor = ownExtractor(new VideoFeatures(config).seed(2), "seed 2", "score");
  const [clips, real] = [spoiled(6, "blur", 1), made(6, "real")];
  const score = await vqaScore(clips, real, extractor, { seed: 1, published: false });
  expect([score.name, score.better]).toEqual(["VQA-x", "higher"]);
  expect(score.value).toBeCloseTo(mean((await extractFeatures(clips, extractor)).data), 12);
  expect(score.floor!.value).toBeCloseTo(mean((await extractFeatures(real, extractor)).data), 12);
  expect(score.interval!.low).toBeLessThanOrEqual(score.value);
});

test("orders are of all places, other ones for other names", () => {
  const order = shuffled(20, drawing(1, "a"));
  expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, i) => i));
  expect(shuffled(20, drawing(1, "a"))).toEqual(order);
  expect(shuffled(20, drawing(1, "b"))).not.toEqual(order);
});
