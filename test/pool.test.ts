// Pooling: averages, maxima and adaptive windows against plain definitions in float64 over drawn shapes and options, their
// gradients against central differences, and their messages.

import { describe, expect, test } from "vitest";
import {
  adaptiveAvgPool,
  adaptiveMaxPoolWithIndices,
  avgPool,
  maxPool,
  maxPoolWithIndices,
} from "../engine/nn/index.ts";
import { numel } from "../engine/shape.ts";
import { ones, zeros } from "../engine/tensor.ts";
import { gradientProblem, Inputs } from "../engine/testing/gradients.ts";
import type { Draw } from "../kernels/wgsl.ts";
import { dataOf, drawImages, eachPoint, equal, filled, flatOf, inside, law, messages } from "./plain.ts";

interface Pool {
  readonly x: number[];
  readonly kernel: number[];
  readonly o: {
    readonly stride: number[];
    readonly padding: [number, number][];
    readonly dilation: number[];
    readonly ceilMode: boolean;
  };
}

function drawPool(d: Draw): Pool {
  const images = drawImages(d);
  const axes = images.length - 2;
  const per = <T>(f: (i: number) => T): T[] => Array.from({ length: axes }, (_, i) => f(i));
  const kernel = per(() => d.int(1, 3));
  const padding = per((i): [number, number] => [
    d.int(0, Math.floor(kernel[i] / 2)),
    d.int(0, Math.floor(kernel[i] / 2)),
  ]);
  const spatial = per((i) => Math.max(images[i + 1], kernel[i] - padding[i][0] - padding[i][1]));
  const x = [images[0], ...spatial, images[images.length - 1]];
  const o = { stride: per(() => d.int(1, 3)), padding, dilation: per(() => 1), ceilMode: d.pick([false, true]) };
  return { x, kernel, o };
}

/** Sizes by trying: windows are whole, or start before the padding behind and end past it where ceilMode lets them. */
function poolSizes({ x, kernel, o }: Pool): number[] {
  return kernel.map((k, i) => {
    const [n, [low, high]] = [x[i + 1], o.padding[i]];
    const reach = o.dilation[i] * (k - 1) + 1;
    let count = 0;
    const start = (): number => count * o.stride[i] - low;
    while (start() + reach <= n + high || (o.ceilMode && start() < n && start() - o.stride[i] + reach < n + high))
      count++;
    return count;
  });
}

describe("pooling", () => {
  test("averages windows, with and without what the padding counts", () => {
    law(60, (d, inputs) => {
      const drawn = drawPool(d);
      const countIncludePad = d.pick([true, false]);
      const divisor = d.pick([undefined, undefined, 5]);
      const x = inputs.make({ shape: drawn.x });
      const data = dataOf(x, inputs);
      const { kernel, o } = drawn;
      const want = filled([drawn.x[0], ...poolSizes(drawn), drawn.x[drawn.x.length - 1]], (point) => {
        let [sum, counted] = [0, 0];
        eachPoint(kernel, (tap) => {
          const at = tap.map((t, i) => point[i + 1] * o.stride[i] - o.padding[i][0] + t);
          const real = inside(drawn.x.slice(1, -1), at);
          const padded = at.every((a, i) => a < drawn.x[i + 1] + o.padding[i][1]);
          if (real || (padded && countIncludePad)) counted++;
          if (real) sum += data[flatOf(drawn.x, [point[0], ...at, point[point.length - 1]])];
        });
        return sum / (divisor ?? counted);
      });
      return equal(inputs, avgPool(x, kernel, { ...o, countIncludePad, divisor }), want);
    });
  });

  test("takes the first maximum of each window and its index", () => {
    law(60, (d, inputs) => {
      const drawn = drawPool(d);
      const dilation = drawn.kernel.map((k, i) => (k > 1 && drawn.x[i + 1] >= 2 * k ? d.int(1, 2) : 1));
      const all = { ...drawn, o: { ...drawn.o, dilation } };
      // Few values: ties everywhere.
      const x = inputs.make({ shape: drawn.x, dtype: "i32", below: 3 });
      const data = dataOf(x, inputs);
      const { kernel, o } = all;
      const spatial = drawn.x.slice(1, -1);
      const indices = filled([drawn.x[0], ...poolSizes(all), drawn.x[drawn.x.length - 1]], (point) => {
        let [best, index] = [Number.NEGATIVE_INFINITY, -1];
        eachPoint(kernel, (tap) => {
          const at = tap.map((t, i) => point[i + 1] * o.stride[i] - o.padding[i][0] + t * o.dilation[i]);
          const value = inside(spatial, at) ? data[flatOf(drawn.x, [point[0], ...at, point[point.length - 1]])] : -9;
          if (value > best) [best, index] = [value, flatOf(spatial, at)];
        });
        return index;
      });
      const got = maxPoolWithIndices(x.cast("f32"), kernel, o);
      const values = filled(indices.shape, (point) => {
        const index = indices.data[flatOf(indices.shape, point)];
        return data[(point[0] * numel(spatial) + index) * drawn.x[drawn.x.length - 1] + point[point.length - 1]];
      });
      return equal(inputs, got.indices, indices) ?? equal(inputs, got.values, values);
    });
  });

  test("the last of equals would be noticed", () => {
    const inputs = new Inputs(1);
    const { indices } = maxPoolWithIndices(ones([1, 4, 1]), 2);
    expect(equal(inputs, indices, { shape: [1, 2, 1], data: Float64Array.of(0, 2) })).toBeNull();
    expect(equal(inputs, indices, { shape: [1, 2, 1], data: Float64Array.of(1, 3) })).toMatch(/expected 1, got 0/);
  });

  test("adaptive windows cover every element", () => {
    law(40, (d, inputs) => {
      const shape = drawImages(d);
      const size = shape.slice(1, -1).map(() => d.int(1, 5));
      const x = inputs.make({ shape });
      const data = dataOf(x, inputs);
      const spatial = shape.slice(1, -1);
      const windows = (point: readonly number[]): [value: number, index: number][] => {
        const from = size.map((m, i) => Math.floor((point[i + 1] * spatial[i]) / m));
        const to = size.map((m, i) => Math.ceil(((point[i + 1] + 1) * spatial[i]) / m));
        const found: [number, number][] = [];
        eachPoint(spatial, (at, index) => {
          if (at.every((a, i) => a >= from[i] && a < to[i]))
            found.push([data[flatOf(shape, [point[0], ...at, point[point.length - 1]])], index]);
        });
        return found;
      };
      const out = [shape[0], ...size, shape[shape.length - 1]];
      const mean = filled(out, (p) => windows(p).reduce((sum, [v], _, all) => sum + v / all.length, 0));
      const best = (p: readonly number[]): [number, number] => windows(p).reduce((a, b) => (b[0] > a[0] ? b : a));
      const largest = adaptiveMaxPoolWithIndices(x, size);
      return (
        equal(inputs, adaptiveAvgPool(x, size), mean) ??
        equal(
          inputs,
          largest.values,
          filled(out, (p) => best(p)[0]),
        ) ??
        equal(
          inputs,
          largest.indices,
          filled(out, (p) => best(p)[1]),
        )
      );
    });
  });

  test("gradients", () => {
    law(15, (d, inputs, seed) => {
      const { x: shape, kernel, o } = drawPool(d);
      const x = inputs.make({ shape });
      const { dilation: _, ...options } = o;
      const y = maxPool(x, kernel, options)
        .square()
        .sum()
        .add(avgPool(x.square(), kernel, options).sum());
      return gradientProblem(y.add(adaptiveAvgPool(x, 2).square().sum()), [x], inputs, seed);
    });
  });
});

const images = zeros([2, 8, 8, 6]);
messages([
  ["window", () => avgPool(images, 9), "avgPool: a window of 9 does not fit into axis 1 of [2, 8, 8, 6]"],
  [
    "padding of a window",
    () => maxPool(images, 3, { padding: 2 }),
    "maxPool: padding [2, 2] is more than half of a window of 3",
  ],
  [
    "window on padding",
    () => maxPool(zeros([1, 1, 1]), 2, { dilation: 2, padding: 1 }),
    "maxPool: window 0 of axis 1 of [1, 1, 1] sees only padding",
  ],
  ["rank of images", () => avgPool(zeros([3, 3]), 2), 'avgPool: expected "b ...spatial c" of rank 3 to 5, got [3, 3]'],
]);
