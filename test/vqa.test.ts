// FAST-VQA: which frames and fragments it sees, worked out by hand; Video Swin with its gated biases: laws, gradients along
// random directions, sizes; and the golden kind, in float64, with other configurations that must fail.

import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { compile, Rng, type Tensor, useDevice, zeros } from "../engine/index.ts";
import { PlanningDevice } from "../engine/planning.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { directional } from "../engine/testing/index.ts";
import { drawing } from "../eval/draw.ts";
import {
  drawPlaces,
  FAST_VQA_FRAMES,
  type Grid,
  mosaic,
  normalise,
  rescaleScore,
  sampleFrames,
  sampleParts,
  type Video,
} from "../eval/vqa.ts";
import { MINIMUM_CAPS } from "../kernels/wgsl.ts";
import { FAST_VQA, FAST_VQA_M, FastVqa, type FastVqaConfig } from "../models/fast_vqa.ts";
import type { Swin3dConfig } from "../models/swin3d.ts";
import { describeFolder } from "./golden.ts";
import { goldenFailures } from "./golden_failures.ts";

describe("frames", () => {
  test("clips lie in the middle of equal parts", () => {
    // 40 frames, clips of 2 x 3: 35 places to start, 17.5 for each clip, and the middle of those.
    expect(sampleFrames(40, { length: 2, interval: 3, clips: 2 })).toEqual([8, 11, 26, 29]);
    expect(sampleFrames(200)).toHaveLength(FAST_VQA_FRAMES.length * FAST_VQA_FRAMES.clips);
  });
  test("a video that is too short starts again", () => {
    expect(sampleFrames(3, { length: 5, interval: 2, clips: 1 })).toEqual([0, 2, 1, 0, 2]);
    expect(sampleParts(3, () => 9, 2, 2)).toEqual([0, 1, 1, 2]);
  });
  test("FasterVQA takes a run from a drawn place of each part", () => {
    const below: number[] = [];
    const draw = (n: number): number => {
      below.push(n);
      return n - 1;
    };
    expect(sampleParts(20, draw, 2, 4)).toEqual([5, 6, 7, 8, 15, 16, 17, 18]);
    expect(below).toEqual([6, 6]);
    expect(() => sampleParts(0, draw)).toThrow("a video has frames, got 0");
  });
});

describe("fragments", () => {
  /** A video of one channel whose byte is 16 row + column, plus 100 in every frame behind the first. */
  const video = (t: number, h: number, w: number): Video => ({
    shape: [1, t, h, w],
    data: Uint8Array.from({ length: t * h * w }, (_, i) => {
      const [frame, row, column] = [Math.floor(i / (h * w)), Math.floor(i / w) % h, i % w];
      return 100 * Math.min(1, frame) + 16 * row + column;
    }),
  });
  const grid: Grid = { rows: 2, columns: 2, height: 2, width: 2, aligned: 1 };

  test("come from their cells, moved by their places", () => {
    // Cells of 3 x 4; each fragment one row down and two columns across in the first frame, in the second not at all.
    const places = { down: [1, 0, 1, 0, 1, 0, 1, 0], across: [2, 0, 2, 0, 2, 0, 2, 0] };
    const [first, second] = [0, 16].map((at) => [...mosaic(video(2, 6, 8), grid, places)].slice(at, at + 16));
    expect(first).toEqual([18, 19, 22, 23, 34, 35, 38, 39, 66, 67, 70, 71, 82, 83, 86, 87]);
    expect(second).toEqual([0, 1, 4, 5, 16, 17, 20, 21, 48, 49, 52, 53, 64, 65, 68, 69].map((v) => v + 100));
  });
  test("places are drawn below what a cell leaves, down before across, and not where it leaves nothing", () => {
    const asked: number[] = [];
    const draw = (below: number): number => asked.push(below) - 1;
    expect(drawPlaces(video(1, 8, 4), grid, draw)).toEqual({
      down: Int32Array.of(0, 1, 2, 3),
      across: Int32Array.of(0, 0, 0, 0),
    });
    expect(asked).toEqual([2, 2, 2, 2]);
    expect(() => drawPlaces(video(3, 8, 8), { ...grid, aligned: 2 }, draw)).toThrow(
      "3 frames do not divide into runs of 2",
    );
    expect(() => mosaic(video(1, 1, 8), grid, { down: [], across: [] })).toThrow("smaller than a fragment");
  });
  test("a small video is enlarged, and its bytes are cut", () => {
    const still = { shape: [1, 1, 2, 2] as const, data: Uint8Array.of(0, 101, 0, 101) };
    // Twice as large: a quarter and three quarters of the way, 25.25 and 75.75; the grid stays that of the small one.
    const whole: Grid = { rows: 1, columns: 1, height: 2, width: 2, aligned: 1 };
    const both: Grid = { ...whole, columns: 2 };
    expect([...mosaic(still, both, { down: [0, 0], across: [0, 0] })]).toEqual([0, 25, 0, 25, 0, 25, 0, 25]);
    expect([...mosaic(still, whole, { down: [0], across: [0] })]).toEqual([0, 101, 0, 101]);
  });
  test("of a video that is played again are those of its frames written out, enlarged or not", () => {
    const order = [1, 0, 1, 1];
    const draw = drawing(1, "places");
    for (const [h, w] of [
      [6, 8],
      [2, 3],
    ]) {
      const { shape, data } = video(2, h, w);
      const frames = order.flatMap((t) => [...data.subarray(t * h * w, (t + 1) * h * w)]);
      const written: Video = { shape: [1, 4, h, w], data: Uint8Array.from(frames) };
      const places = drawPlaces(written, grid, draw);
      expect(places.down.length).toBe(16);
      expect(mosaic({ shape, data, order }, grid, places)).toEqual(mosaic(written, grid, places));
      expect(drawPlaces({ shape, data, order }, grid, drawing(1, "a"))).toEqual(
        drawPlaces(written, grid, drawing(1, "a")),
      );
    }
  });
  test("are normalised per channel and lie channels last", () => {
    const got = normalise([123.675, 0, 116.28, 0, 103.53, 57.375 + 103.53], 2);
    expect([...got].map((x) => x.toFixed(4))).toEqual(["0.0000", "0.0000", "0.0000", "-2.1179", "-2.0357", "1.0000"]);
  });
  test("scores are rescaled around their mean", () => {
    expect(rescaleScore(0.14759505, "FasterVQA")).toBe(0.5);
    expect(rescaleScore(-0.110198185 + 0.04178565, "FAST-VQA")).toBeCloseTo(1 / (1 + Math.exp(-1)), 12);
  });
});

const backbone: Swin3dConfig = {
  patch: [2, 2, 2],
  inputs: 3,
  width: 4,
  depths: [2, 1],
  heads: [2, 1],
  window: [2, 2, 2],
  mlpRatio: 2,
  qkvBias: true,
  patchNorm: true,
  fragmentBias: [true, false],
  baseSize: [8, 8, 8],
};
const config: FastVqaConfig = { backbone, hidden: 3 };
const noise = (...shape: number[]): Tensor => new Rng(7).normal(shape);

describe("the network", () => {
  useDevice(new ReferenceDevice());

  test("counts: Video Swin-T with second tables, and the mobile one", () => {
    // The published 2-D Swin-T has 28,288,354 weights, 769,000 of them its classifier. Inflated: patches of two frames, and
    // 15 x 13 x 13 rows of biases instead of 13 x 13 for each of 2 x 3 + 2 x 6 + 6 x 12 + 2 x 24 heads.
    const swin3d = 28_288_354 - 769_000 + 3 * 4 * 4 * 96 + (2535 - 169) * 138;
    // Second tables in the first three stages, of 90 heads; the head.
    expect(new FastVqa(FAST_VQA).count()).toBe(swin3d + 2535 * 90 + 768 * 64 + 64 + 64 + 1);
  });
  test("gradients along random directions, with windows that are shrunk, moved and padded", async () => {
    const model = new FastVqa(config).seed(3);
    const clip = noise(1, 5, 7, 6, 3);
    const weights = [...model.state().values()];
    await directional(model.forward(clip, { adapt: false }).score.square().sum(), weights, { directions: 2 });
    await directional(model.forward(clip).map.square().sum(), weights, { directions: 2 });
  });
  test("clips of a batch do not see each other", async () => {
    const model = new FastVqa(config).seed(3);
    const [a, b] = [noise(1, 8, 8, 8, 3), noise(2, 8, 8, 8, 3).slice(0, 1, 2)];
    const together = [...(await model.forward(a.concat([b], 0)).score.data())];
    const alone = [await model.forward(a).score.item(), await model.forward(b).score.item()];
    expect(together.map((x, i) => Math.abs(x - alone[i]) < 1e-6)).toEqual([true, true]);
    expect(together[0]).not.toBeCloseTo(together[1], 4);
  });
  test("windows in runs give what all at once give, across the ends of clips", async () => {
    const model = new FastVqa(config).seed(3);
    const clips = noise(2, 8, 8, 8, 3);
    const whole = [...(await model.forward(clips).score.data())];
    const runs = [...(await model.forward(clips, { scores: 3 * 2 * 8 * 8 }).score.data())]; // 3 of 8 windows a clip
    expect(runs.map((x, i) => Math.abs(x - whole[i]) < 1e-6)).toEqual([true, true]);
  });
  test("a clip at full size is planned on the weakest adapter", () => {
    const device = new PlanningDevice(MINIMUM_CAPS);
    useDevice(device);
    const model = new FastVqa(FAST_VQA);
    const step = compile(({ x }: { x: Tensor }) => ({ score: model.forward(x).score }));
    step({ x: zeros([1, 32, 224, 224, 3]) });
    useDevice(new ReferenceDevice());
    expect(device.steps()[0].memory.arena).toBeLessThan(1e9);
  });
  test("clips larger than the base size are refused, and ones too small for a window", () => {
    const model = new FastVqa(config);
    expect(() => model.forward(noise(1, 8, 12, 8, 3))).toThrow(/windows of 2,3,2 for clips .*at most 2,2,2/);
    expect(() => model.forward(noise(1, 8, 2, 8, 3))).toThrow(/windows of 2,0,2/);
    expect(() => new FastVqa({ ...config, backbone: { ...backbone, heads: [3, 1] } })).toThrow(
      "4 does not divide into 3",
    );
  });
  test("the mobile configuration has windows of 4 and one table", () => {
    const names = [...new FastVqa(FAST_VQA_M).state()];
    expect(names.filter(([name]) => name.includes("fragment_position"))).toEqual([]);
    expect(names.find(([name]) => name.endsWith("relative_position_bias_table"))?.[1].shape).toEqual([343, 3]);
  });
});

const temporary: string[] = [];
afterAll(() => {
  for (const folder of temporary) rmSync(folder, { recursive: true });
});

describeFolder("fast-vqa-a", (path) => {
  test("passes in float64", async () => {
    useDevice(new ReferenceDevice());
    expect(await goldenFailures(path)).toEqual({ count: 195, failed: [] });
  });
  test.each<[string, object]>([
    ["heads", { num_heads: [2, 2, 2, 4] }],
    ["the size that windows are meant for", { base_x_size: [8, 64, 72] }],
  ])("another configuration is found: %s", async (_, edit) => {
    useDevice(new ReferenceDevice());
    const copy = mkdtempSync(join(tmpdir(), "golden-vqa-"));
    temporary.push(copy);
    for (const name of readdirSync(path)) if (name !== "config.json") copyFileSync(join(path, name), join(copy, name));
    const read = JSON.parse(readFileSync(join(path, "config.json"), "utf8"));
    writeFileSync(join(copy, "config.json"), JSON.stringify({ ...read, backbone: { ...read.backbone, ...edit } }));
    const { failed } = await goldenFailures(copy);
    expect(failed.length).toBeGreaterThan(0);
  });
});
