// The Frechet distance against cases worked out by hand and by another route, its laws, how clips become videos, and I3D:
// its sizes and its padding. All of a clip through all of I3D takes minutes on a software adapter: `npx gifgrad golden` runs it.

import { describe, expect, test } from "vitest";
import { tensor, useDevice } from "../engine/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { extendFrames, type Features, frechetDistance } from "../eval/fvd.ts";
import { distances, oddSizes } from "../eval/golden/i3d.ts";
import type { Check } from "../eval/golden/kind.ts";
import { I3D_KINETICS, I3d, i3dVideo } from "../models/i3d.ts";
import { byRoots } from "./by_roots.ts";
import { describeFolder } from "./golden.ts";

/** Normal rows with a mean and a matrix applied, from a linear congruential generator. */
function rows(count: number, width: number, seed: number, shift = 0, rank = width): Features {
  let state = seed;
  const uniform = (): number => {
    state = (Math.imul(1664525, state) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  const normal = (): number => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  const mix = Array.from({ length: rank * width }, normal);
  const data = Array.from({ length: count }, () => {
    const z = Array.from({ length: rank }, normal);
    return Array.from({ length: width }, (_, j) => shift + z.reduce((sum, x, i) => sum + x * mix[i * width + j], 0));
  }).flat();
  return { count, width, data };
}

describe("the Frechet distance", () => {
  test("of one feature is (difference of means)^2 + (difference of deviations)^2", () => {
    const a = { count: 3, width: 1, data: [0, 1, 2] }; // mean 1, deviation 1
    const b = { count: 3, width: 1, data: [2, 5, 8] }; // mean 5, deviation 3
    expect(frechetDistance(a, b)).toBeCloseTo(16 + 4, 12);
  });
  test.each<[string, Features, Features]>([
    ["more rows than features", rows(40, 6, 1), rows(25, 6, 2, 0.5)],
    ["fewer", rows(5, 9, 3), rows(7, 9, 4, 1)],
    ["one of each", rows(30, 8, 5), rows(4, 8, 6)],
    ["many rows of low rank", rows(30, 8, 7, 0, 3), rows(30, 8, 8, 0, 2)],
  ])("agrees with matrix roots: %s", (_, a, b) => {
    const d = frechetDistance(a, b);
    // Roots of rank-deficient matrices are good to the root of float64's precision.
    expect(Math.abs(d - byRoots(a, b)) / d).toBeLessThan(1e-6);
    expect(frechetDistance(b, a)).toBeCloseTo(d, 10); // symmetric
  });
  test("is 0 for a set and itself in another order, and grows with what is moved", () => {
    const a = rows(20, 5, 9);
    const data = Array.from(a.data);
    const turned = { ...a, data: [...data.slice(5), ...data.slice(0, 5)] };
    expect(Math.abs(frechetDistance(a, turned))).toBeLessThan(1e-12);
    const moved = (by: number): number => frechetDistance(a, { ...a, data: data.map((x) => x + by) });
    expect(moved(1)).toBeCloseTo(5, 10);
    expect(moved(2)).toBeCloseTo(20, 10);
  });
  test.each<[Features, Features, string]>([
    [rows(1, 3, 1), rows(4, 3, 2), "at least 2 rows, got 1"],
    [rows(4, 3, 1), rows(4, 4, 2), "features of 3 and of 4 numbers"],
    [{ count: 2, width: 2, data: [1, 2, Number.NaN, 3] }, rows(4, 2, 2), "not all finite"],
    [{ count: 2, width: 2, data: [1, 2, 3] }, rows(4, 2, 2), "3 values for 2 rows of 2"],
  ])("refuses: %#", (a, b, message) => {
    expect(() => frechetDistance(a, b)).toThrow(message);
  });
});

test("clips are looped, played back and forth, or stretched until I3D can see them", () => {
  const [loop, pingPong, resample] = (["loop", "ping-pong", "resample"] as const).map((e) => extendFrames(3, e, 9));
  expect(loop).toEqual([0, 1, 2, 0, 1, 2, 0, 1, 2]);
  expect(pingPong).toEqual([0, 1, 2, 1, 0, 1, 2, 1, 0]);
  expect(resample).toEqual([0, 0, 0, 1, 1, 1, 2, 2, 2]);
  expect(extendFrames(8)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7]);
  expect(() => extendFrames(8, "loop", 8)).toThrow("at least 9 frames, got 8");
});

describe("I3D", () => {
  const zeros = (...shape: number[]) => tensor(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);

  test("has the published number of weights, and as many statistics as its norms need", () => {
    const model = new I3d(I3D_KINETICS);
    const statistics = [...model.state()].filter(([name]) => /running/.test(name));
    const count = statistics.reduce((sum, [, p]) => sum + p.shape[0], 0);
    expect(model.count() - count).toBe(12_697_264);
  });
  test("8 frames are refused, 9 give scores; so do sides of 193", () => {
    const model = new I3d({ ...I3D_KINETICS, divisor: 16 });
    expect(() => model.forward(zeros(1, 8, 224, 224, 3))).toThrow("at least 9 frames of 193 x 193");
    expect(() => model.forward(zeros(1, 16, 192, 224, 3))).toThrow("at least 9 frames of 193 x 193");
    expect(model.forward(zeros(2, 9, 193, 193, 3)).logits.shape).toEqual([2, 400]);
  });
  test("pictures are cut to their middle square of [-1, 1]", async () => {
    useDevice(new ReferenceDevice());
    const row = [0, 0.25, 0.5, 1];
    const frames = tensor(Float32Array.from([...row, ...row].flatMap((v) => [v, v, v])), [1, 1, 2, 4, 3]);
    const got = [...(await i3dVideo(frames, 2).data())].filter((_, i) => i % 3 === 0);
    expect(got).toEqual([-0.5, 0, -0.5, 0]);
    expect(i3dVideo(zeros(1, 2, 30, 41, 3), 20).shape).toEqual([1, 2, 20, 20, 3]);
  });
});

describeFolder("i3d-a", (path) => {
  const failed = async (checks: AsyncIterable<Check>): Promise<string[]> => {
    const names: string[] = [];
    for await (const { ok, name } of checks) if (!ok) names.push(name);
    return names;
  };
  test("distances", async () => {
    expect(await failed(distances(path))).toEqual([]);
  });
  test("a clip of odd sizes, in float64", async () => {
    useDevice(new ReferenceDevice());
    expect(await failed(oddSizes(path))).toEqual([]);
  });
});
