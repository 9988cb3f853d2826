// Scores of files: the same number by another decoder and another route from features to distance; what the command refuses and
// what it prints when a metric fails; weights that are not what their names say; and memory that does not grow with the number
// of clips.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, afterEach, describe, expect, test, vi } from "vitest";
import { openGenerated, report, run, scoreAll, trainOwn } from "../cli/eval.ts";
import { openScorers, type Scorers } from "../cli/eval_weights.ts";
import { METRICS as CHOICES, type EvalOptions } from "../cli/options.ts";
import { encodeGif } from "../data/encode/gif.ts";
import { Parameter, save, useDevice } from "../engine/index.ts";
import { PlanningDevice } from "../engine/planning.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { type Clips, openClips } from "../eval/clips.ts";
import { type Extractor, extractFeatures } from "../eval/features.ts";
import type { Features } from "../eval/fvd.ts";
import { fvdScore, i3dExtractor } from "../eval/fvd_score.ts";
import { METRICS } from "../eval/score.ts";
import { DISCRETE_CAPS } from "../kernels/wgsl.ts";
import { I3D_KINETICS, I3d } from "../models/i3d.ts";
import { byRoots } from "./by_roots.ts";
import { discFrames } from "./stickers.ts";

const dir = mkdtempSync(join(tmpdir(), "gifgrad-eval-files-"));
afterAll(() => rmSync(dir, { recursive: true }));
useDevice(new ReferenceDevice());

const o: EvalOptions = {
  generated: [],
  real: "",
  weights: "",
  metrics: ["fvd", "clip", "vqa"],
  ...{ frames: 8, extension: "loop", fvdFrames: 16, batch: 4, seed: 1, json: false },
};

describe("FVD of files", () => {
  const [SIZE, FRAMES, COUNT] = [40, 8, 12];
  /** Mean of each channel in the upper and the lower half of the first and of the last frame: 12 numbers. */
  const summary = (clip: ArrayLike<number>): number[] => {
    const half = (SIZE * SIZE * 3) / 2;
    return [0, 1, 2 * FRAMES - 2, 2 * FRAMES - 1].flatMap((h) =>
      [0, 1, 2].map((c) => {
        let sum = 0;
        for (let i = c; i < half; i += 3) sum += clip[h * half + i];
        return sum / (half / 3) / 255;
      }),
    );
  };
  const extractor: Extractor = {
    name: "means of halves",
    hash: "none",
    preprocessing: "none",
    extension: "none",
    width: 12,
    extract: async (clips) => Float32Array.from(clips.flatMap(summary)),
  };
  /** Discs of colours that follow from a number, on transparent ground. */
  const write = (name: string, tint: number): string => {
    const folder = join(dir, name);
    mkdirSync(folder);
    for (let i = 0; i < COUNT; i++) {
      const colour = [(tint + 37 * i) % 256, (91 * i) % 256, (tint + 53 * i * i) % 256] as const;
      writeFileSync(join(folder, `${String(i).padStart(2, "0")}.gif`), encodeGif(discFrames(colour, i), SIZE, SIZE));
    }
    return folder;
  };
  /** The files' features by libvips: its decoder, its way to put them on white. */
  const independent = async (folder: string): Promise<Features> => {
    const rows: number[] = [];
    for (let i = 0; i < COUNT; i++) {
      const bytes = readFileSync(join(folder, `${String(i).padStart(2, "0")}.gif`));
      rows.push(...summary(await sharp(bytes, { animated: true }).flatten({ background: "white" }).raw().toBuffer()));
    }
    return { count: COUNT, width: 12, data: rows };
  };

  test("is what another decoder and matrix roots make of them", async () => {
    const [a, b] = [write("a", 10), write("b", 120)];
    const [ours, theirs] = [await openClips(a), await openClips(b)];
    const { value } = await fvdScore(ours, theirs, extractor, { seed: 1, published: false, rounds: 2, batch: 5 });
    const want = byRoots(await independent(a), await independent(b));
    expect(want).toBeGreaterThan(0.01);
    expect(Math.abs(value - want) / want).toBeLessThan(1e-5); // features are kept as float32, the roots' are float64
    for (const clips of [ours, theirs]) clips.close();
  });
});

describe("the command", () => {
  afterEach(() => {
    vi.restoreAllMocks();
    process.exitCode = undefined;
  });
  const stickers = (name: string, count: number, size: number): string => {
    const folder = mkdtempSync(join(dir, name));
    for (let i = 0; i < count; i++) {
      const data = new Uint8Array(4 * size * size).fill(255).fill(20 * i, 0, 4 * size);
      writeFileSync(join(folder, `${i}.gif`), encodeGif([{ data, delayMs: 100 }], size, size));
    }
    return folder;
  };
  const scorer = (name: string, width: number, fail = false): Extractor => ({
    ...{ name, hash: name, preprocessing: "none", extension: "none", width },
    extract: async (clips) => {
      if (fail) throw new Error("out of memory");
      return Float32Array.from(clips.flatMap((clip) => Array.from({ length: width }, (_, k) => clip[k] / 255)));
    },
  });
  const scorers = (failing: boolean): Scorers => ({
    ...{ published: false, missing: { clip: "no such file" }, unusable: {} },
    fvd: scorer("f", 2, failing),
    vqa: scorer("v", 1),
  });
  /** What is printed, its JSON where it is some, and the exit code. */
  const printed = async (counts: readonly number[], json: boolean, failing = false) => {
    const [out, err] = [vi.spyOn(console, "log"), vi.spyOn(console, "error")].map((spy) => {
      const lines: string[] = [];
      spy.mockImplementation((text: string) => void lines.push(text.replaceAll(dir, "")));
      return lines;
    });
    const sets: Clips[] = [];
    await openGenerated({ ...o, generated: counts.map((count) => stickers(`set-${count}-`, count, 16)) }, sets);
    const { results, failures } = await scoreAll(sets, sets[0], scorers(failing), o);
    report(results, failures, { ...o, json }, { adapter: "none", missing: scorers(failing).missing });
    for (const clips of sets) clips.close();
    return { out, err, code: process.exitCode };
  };

  test("refuses folders of unlike size by name, unless a size is given", async () => {
    const generated = [stickers("a-", 2, 16), stickers("b-", 2, 24)];
    const sets: Clips[] = [];
    await expect(openGenerated({ ...o, generated }, sets)).rejects.toThrow(
      `the stickers of ${generated[0]} have 16 pixels a side, those of ${generated[1]} 24: scores of unlike sizes`,
    );
    const resized: Clips[] = [];
    await openGenerated({ ...o, generated, size: 24 }, resized);
    expect(resized.map(({ size }) => size)).toEqual([24, 24]);
    for (const clips of [...sets, ...resized]) clips.close();
  });
  test("prints the scores that there are when a metric fails, says why, and exits with 1", async () => {
    const table = await printed([5], false, true);
    expect(table.out[0]).toBe("VQA-x (higher is better)");
    expect(table.err).toEqual([
      "clip is not computed: no such file",
      expect.stringMatching(/^gifgrad: fvd of \/set-5-\w+ failed: out of memory$/),
    ]);
    expect(table.code).toBe(1);
    const { out, code } = await printed([5], true, true);
    const { scores, failed } = JSON.parse(out[0]);
    expect(scores.map(({ metric }: { metric: string }) => metric)).toEqual(["vqa"]);
    expect(failed).toEqual([expect.objectContaining({ metric: "fvd", reason: "out of memory" })]);
    expect(code).toBe(1);
  });
  test("fails the metric alone whose network cannot be used", async () => {
    const sets: Clips[] = [];
    await openGenerated({ ...o, generated: [stickers("unusable-", 5, 16)] }, sets);
    const broken = { ...scorers(false), missing: {}, unusable: { clip: "its file is damaged" } };
    const { results, failures } = await scoreAll(sets, sets[0], broken, o);
    for (const clips of sets) clips.close();
    expect(results.map(({ metric }) => metric).sort()).toEqual(["fvd", "vqa"]);
    expect(failures).toEqual([{ generated: sets[0].dir, metric: "clip", reason: "its file is damaged" }]);
  });
  test("does not rank 5 stickers and 4, as JSON neither, and exits with 1", async () => {
    const { out, err, code } = await printed([5, 4], true);
    const document = JSON.parse(out[0]);
    expect(document.scores.length).toBe(4);
    expect(document.refused.vqa).toBe("VQA-x: scores cannot be compared: n 5 and 4");
    expect(err).toContain(`gifgrad: ${document.refused.vqa}`);
    expect(code).toBe(1);
    process.exitCode = undefined;
    expect((await printed([5, 5], true)).code).toBeUndefined();
  });
  test("refuses options that no network reads, and to train over finished networks", async () => {
    const weights = mkdtempSync(join(dir, "own-"));
    const given = (...names: string[]) => run({ ...o, weights, given: names });
    await expect(run({ ...o, metrics: ["clip"], given: ["extension"] })).rejects.toThrow(
      "--extension is for FVD and VQA",
    );
    await expect(run({ ...o, metrics: ["vqa"], given: ["fvdFrames"] })).rejects.toThrow("--fvd-frames is for FVD by");
    writeFileSync(join(weights, "features.json"), "{}");
    await expect(given("fvdFrames")).rejects.toThrow("--fvd-frames is for FVD by the published I3D: leave it out");
    await expect(given("extension")).rejects.toThrow("--extension is for FVD and VQA by the published networks");
    const training = { data: "", out: weights, steps: 1, batch: 2, seed: 1 };
    for (const resume of [false, true])
      await expect(trainOwn({ ...training, resume })).rejects.toThrow("holds finished networks already");
  });
});

describe("weights", () => {
  const message = async (name: string, put: (path: string) => unknown): Promise<string> => {
    const weights = mkdtempSync(join(dir, "weights-"));
    await put(join(weights, name));
    const { unusable, missing } = await openScorers({ ...o, weights });
    expect(Object.keys({ ...unusable, ...missing }).sort()).toEqual([...METRICS].sort());
    const [found, ...rest] = Object.values(unusable);
    expect(rest).toEqual([]); // the others are missing, not unusable
    const text = found.replace(weights, "W");
    expect(text).not.toContain("\n");
    expect(text.length).toBeLessThan(200);
    return text;
  };
  const others = (path: string): Promise<void> => save(path, new Map([["a.weight", new Parameter([2], [1, 2])]]));

  test("of another network are refused in one line, whatever their name says", async () => {
    expect(await message("i3d_pretrained_400.safetensors", others)).toMatch(
      /^W\/i3d_pretrained_400\.safetensors: these are not the weights of I3D: extra: \S*a\.weight; \d+ more do not fit$/,
    );
    expect(await message("FAST_VQA_3D_1_1.pth", others)).toMatch(
      /these are not the weights of FasterVQA: .* more do not/,
    );
  });
  test("that are no weights, and folders without any, are refused by name", async () => {
    expect(await message("rgb_imagenet.pt", (p) => writeFileSync(p, "nothing"))).toMatch(/^W\/rgb_imagenet\.pt: not a/);
    expect(await message("ViT-B-32.pt", (p) => writeFileSync(p, "nothing"))).toMatch(/^W\/ViT-B-32\.pt: not a/);
    expect(await message("clip", (p) => mkdirSync(p))).toMatch(/^W\/clip: holds no clip: looked for/);
    await expect(openScorers({ ...o, weights: join(dir, "absent") })).rejects.toThrow(
      /there is no folder of weights .*absent$/,
    );
    const { missing } = await openScorers({ ...o, weights: mkdtempSync(join(dir, "none-")) });
    expect(Object.keys(missing).sort()).toEqual(["clip", "fvd", "vqa"]);
    expect(CHOICES).toEqual(METRICS);
  });
});

describe("memory", () => {
  const [SIZE, FRAMES] = [224, 16];
  /** Black clips, made when they are read. */
  const many = (count: number, onRead: () => void): Clips => ({
    dir: "many",
    length: count,
    names: Array.from({ length: count }, (_, i) => `${i}.gif`),
    captions: null,
    size: SIZE,
    frames: FRAMES,
    sha256: "many",
    rejected: [],
    read: async () => {
      onRead();
      return new Uint8Array(FRAMES * SIZE * SIZE * 3);
    },
    close: () => {},
  });
  /** Bytes on the device, and the dispatches, for the features of `count` clips. */
  const planned = async (count: number) => {
    const device = useDevice(new PlanningDevice(DISCRETE_CAPS));
    const extractor = i3dExtractor(new I3d({ ...I3D_KINETICS, divisor: 16 }), "x");
    let read = 0;
    await extractFeatures(
      many(count, () => read++),
      extractor,
      { batch: 2 },
    );
    useDevice(new ReferenceDevice());
    const [step] = device.steps();
    return { read, bytes: device.memory().bytes, calls: step.calls, steps: device.steps().length };
  };

  test("on the device is that of one batch, however many clips of 16 frames of 224 pixels there are", async () => {
    const [few, more] = [await planned(4), await planned(10)];
    expect([few.calls, more.calls, few.read, more.read]).toEqual([2, 5, 4, 10]);
    expect(more.bytes).toBe(few.bytes);
    expect([few.steps, more.steps]).toEqual([1, 1]);
  });
  test("on the host is that of one batch of clips: none is read before its turn", async () => {
    let read = 0;
    const ahead: number[] = [];
    const extractor: Extractor = {
      ...{ name: "x", hash: "x", preprocessing: "x", extension: "x", width: 1 },
      extract: async (clips) => {
        ahead.push(read);
        return new Float32Array(clips.length);
      },
    };
    await extractFeatures(
      many(11, () => read++),
      extractor,
      { batch: 4 },
    );
    expect(ahead).toEqual([4, 8, 11]);
  });
});
