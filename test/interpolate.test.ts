// Interpolation and padding against plain definitions in float64 over drawn shapes and options, their gradients against
// central differences, and their messages; and one program on the device with every operation that changes sizes.

import { describe, expect, test } from "vitest";
import { compile } from "../engine/compile.ts";
import { avgPool, type InterpolateMode, interpolate, maxPool, type PadMode, pad } from "../engine/nn/index.ts";
import type { Array64 } from "../engine/ops/op.ts";
import type { Shape } from "../engine/shape.ts";
import { type Tensor, tensor, zeros } from "../engine/tensor.ts";
import { uniforms, values } from "../engine/testing/draw.ts";
import { gradientProblem, Inputs } from "../engine/testing/gradients.ts";
import type { Draw } from "../kernels/wgsl.ts";
import { difference } from "./close.ts";
import { onGpu } from "./device.ts";
import { dataOf, drawImages, eachPoint, equal, filled, flatOf, law, messages } from "./plain.ts";

const MODES: readonly InterpolateMode[] = ["nearest", "nearest-exact", "linear", "cubic", "area"];

/** Corners of the cell that a position lies in, by the multilinear formula, all axes at once. */
function linearPlain(x: Array64, size: readonly number[], alignCorners: boolean): Array64 {
  const spatial = x.shape.slice(1, -1);
  return filled([x.shape[0], ...size, x.shape[x.shape.length - 1]], (point) => {
    const position = size.map((m, i) => {
      const n = spatial[i];
      if (alignCorners) return m > 1 ? (point[i + 1] * (n - 1)) / (m - 1) : 0;
      return Math.min(Math.max(((point[i + 1] + 0.5) * n) / m - 0.5, 0), n - 1);
    });
    let sum = 0;
    eachPoint(
      spatial.map(() => 2),
      (corner) => {
        const at = corner.map((c, i) => Math.min(Math.floor(position[i]) + c, spatial[i] - 1));
        const weight = corner.reduce((w, c, i) => {
          const past = position[i] - Math.floor(position[i]);
          return w * (c === 1 ? past : 1 - past);
        }, 1);
        sum += weight * x.data[flatOf(x.shape, [point[0], ...at, point[point.length - 1]])];
      },
    );
    return sum;
  });
}

describe("interpolation", () => {
  test("linear is the multilinear formula", () => {
    law(40, (d, inputs) => {
      const shape = drawImages(d);
      const size = shape.slice(1, -1).map(() => d.int(1, 9));
      const alignCorners = d.pick([false, true]);
      const x = inputs.make({ shape });
      const want = linearPlain({ shape, data: dataOf(x, inputs) }, size, alignCorners);
      return equal(inputs, interpolate(x, { size, mode: "linear", alignCorners }), want);
    });
  });

  test("nearest copies the element whose area or centre is there", () => {
    law(40, (d, inputs) => {
      const shape = drawImages(d);
      const size = shape.slice(1, -1).map(() => d.int(1, 9));
      const half = d.pick([0, 0.5]);
      const x = inputs.make({ shape });
      const data = dataOf(x, inputs);
      const want = filled([shape[0], ...size, shape[shape.length - 1]], (point) => {
        const at = size.map((m, i) => Math.floor(((point[i + 1] + half) * shape[i + 1]) / m));
        return data[flatOf(shape, [point[0], ...at, point[point.length - 1]])];
      });
      return equal(inputs, interpolate(x, { size, mode: half === 0 ? "nearest" : "nearest-exact" }), want);
    });
  });

  test("every mode keeps a constant, and the data where sizes stay", () => {
    law(60, (d, inputs) => {
      const shape = drawImages(d);
      const mode = d.pick(MODES);
      const smooth = mode === "linear" || mode === "cubic";
      const o = { mode, alignCorners: smooth && d.pick([false, true]), antialias: smooth && d.pick([false, true]) };
      const x = inputs.make({ shape });
      const same = interpolate(x, { ...o, alignCorners: false, size: shape.slice(1, -1) });
      const scaleFactor = shape.slice(1, -1).map((n) => Math.max(1 / n, d.int(3, 25) / 10));
      const resized = interpolate(x.mul(0).add(3), { ...o, scaleFactor, recomputeScaleFactor: d.pick([false, true]) });
      const kept =
        smooth && o.antialias && o.alignCorners
          ? null
          : equal(
              inputs,
              resized,
              filled(resized.shape, () => 3),
            );
      return equal(inputs, same, { shape, data: dataOf(x, inputs) }) ?? kept;
    });
  });

  test("a scale factor steps by itself, or by the sizes it led to", () => {
    // 5 elements x 1.5 = 7: positions step by 2/3, or by 5/7 when recomputed.
    const inputs = new Inputs(1);
    const x = inputs.make({ shape: [1, 5, 1] });
    (inputs.values.get(x.node) as Array64).data.set([0, 1, 2, 3, 4]);
    const at = (step: number): Array64 =>
      filled([1, 7, 1], ([, i]) => Math.min(Math.max((i + 0.5) * step - 0.5, 0), 4));
    const o = { mode: "linear", scaleFactor: 1.5 } as const;
    expect(equal(inputs, interpolate(x, o), at(2 / 3))).toBeNull();
    expect(equal(inputs, interpolate(x, { ...o, recomputeScaleFactor: true }), at(5 / 7))).toBeNull();
    expect(equal(inputs, interpolate(x, o), at(5 / 7))).toMatch(/expected/);
  });

  test("gradients", () => {
    law(15, (d, inputs, seed) => {
      const shape = drawImages(d, 4);
      const mode = d.pick(MODES);
      const x = inputs.make({ shape });
      const antialias = (mode === "linear" || mode === "cubic") && d.pick([false, true]);
      const y = interpolate(x, { mode, antialias, size: shape.slice(1, -1).map(() => d.int(1, 6)) });
      return gradientProblem(y.square(), [x], inputs, seed);
    });
  });

  test("sizes too long for the kernel's table are a matrix product", () => {
    const inputs = new Inputs(1);
    const x = inputs.make({ shape: [1, 9, 1] });
    const want = linearPlain({ shape: x.shape, data: dataOf(x, inputs) }, [4000], false);
    const got = interpolate(x, { size: 4000, mode: "linear" });
    // The matrix holds weights rounded to float32.
    expect(difference(inputs.evaluate([got])[0], want.data, { rtol: 1e-6 })).toBeNull();
  });
});

// ---- padding

/** Index of the element that lies at i of an axis of n, or -1 for the constant. */
const OUTSIDE: Readonly<Record<PadMode, (i: number, n: number) => number>> = {
  constant: (i, n) => (i >= 0 && i < n ? i : -1),
  reflect: (i, n) => (i < 0 ? -i : i >= n ? 2 * (n - 1) - i : i),
  replicate: (i, n) => Math.min(Math.max(i, 0), n - 1),
  circular: (i, n) => ((i % n) + n) % n,
};

/** Two pads that every mode allows for an axis; one of them may be negative except for a circle, which then shrinks first. */
function drawSide(d: Draw, n: number, mode: PadMode): [number, number] {
  const least = mode === "circular" ? 0 : -1;
  const most = mode === "reflect" ? Math.min(n - 1, 3) : mode === "circular" ? Math.min(n, 3) : 3;
  const side: [number, number] = [d.int(least, most), d.int(least, most)];
  return n + side[0] + side[1] > 0 && n + Math.min(0, side[0]) + Math.min(0, side[1]) > 0 ? side : [0, 0];
}

describe("padding", () => {
  test("every mode is an index map", () => {
    law(80, (d, inputs) => {
      const shape = Array.from({ length: d.int(1, 3) }, () => d.int(1, 5));
      const mode = d.pick(["constant", "reflect", "replicate", "circular"] as const);
      const sides = shape.map((n) => drawSide(d, n, mode));
      const value = d.pick([0, 0.75]);
      const x = inputs.make({ shape });
      const data = dataOf(x, inputs);
      const out = shape.map((n, i) => n + sides[i][0] + sides[i][1]);
      const want = filled(out, (point) => {
        const at = point.map((p, i) => OUTSIDE[mode](p - sides[i][0], shape[i]));
        return at.includes(-1) ? value : data[flatOf(shape, at)];
      });
      return equal(inputs, pad(x, sides, { mode, value: mode === "constant" ? value : 0 }), want);
    });
  });

  test("a circle closes over what a negative side leaves", () => {
    const inputs = new Inputs(1);
    const x = inputs.make({ shape: [4] });
    const [a, b, c] = dataOf(x, inputs);
    const got = pad(x, [[2, -1]], { mode: "circular" });
    expect(equal(inputs, got, { shape: [5], data: Float64Array.of(b, c, a, b, c) })).toBeNull();
  });

  test("gradients", () => {
    law(15, (d, inputs, seed) => {
      const shape = Array.from({ length: d.int(1, 3) }, () => d.int(1, 4));
      const mode = d.pick(["constant", "reflect", "replicate", "circular"] as const);
      const x = inputs.make({ shape });
      return gradientProblem(
        pad(
          x,
          shape.map((n) => drawSide(d, n, mode)),
          { mode, value: mode === "constant" ? 2 : 0 },
        ).square(),
        [x],
        inputs,
        seed,
      );
    });
  });
});

onGpu("the same values on the device", async () => {
  const next = uniforms(3);
  const make = (shape: Shape): Tensor => tensor(values({ shape }, next), shape);
  const [x, w, up, deep] = [make([2, 9, 7, 8]), make([3, 3, 2, 8]), make([4, 4, 3, 8]), make([11, 5, 8, 4])];
  const results = (): Record<string, Tensor> => ({
    grouped: x.conv(w, { groups: 4, padding: 1 }).add(1),
    transposed: x.convTranspose(up, { stride: 2, padding: 1, groups: 2 }),
    deep: x.conv(deep, { padding: [5, 2] }).relu(),
    average: avgPool(x, 3, { stride: 2, padding: 1 }),
    largest: maxPool(x, 3, { stride: 2, padding: 1 }),
    resized: interpolate(x, { size: [5, 12], mode: "cubic" }),
    padded: pad(x, [[0, 0], [2, 1], [1, 2], [0, 0]], { mode: "reflect" }), // biome-ignore format: pairs read better in a row
  });
  const got = compile(results)({});
  const inputs = new Inputs(1);
  for (const [name, want] of Object.entries(results())) {
    const expected = inputs.evaluate([want])[0];
    // Sums of up to 440 products of values up to 2, rounded to 6e-8 of their magnitudes.
    expect(difference(await got[name].data(), expected, { rtol: 1e-5 }), name).toBeNull();
  }
});

const images = zeros([2, 8, 8, 6]);
messages([
  [
    "size and factor",
    () => interpolate(images, { size: 2, scaleFactor: 2 }),
    "interpolate: give one of size and scaleFactor",
  ],
  [
    "corners",
    () => interpolate(images, { size: 2, alignCorners: true }),
    "interpolate: alignCorners and antialias are for linear and cubic, not nearest",
  ],
  [
    "axes",
    () => interpolate(images, { size: [1, 2, 3] }),
    "interpolate: [1, 2, 3] for the 2 spatial axes of [2, 8, 8, 6]",
  ],
  ["empty", () => interpolate(images, { scaleFactor: 0.1 }), "interpolate: axis 1 of [2, 8, 8, 6] cannot have size 0"],
  ["pairs", () => pad(images, [[1, 1]]), "pad: expected 4 pairs of whole numbers for [2, 8, 8, 6]"],
  [
    "mirror",
    () =>
      pad(
        images,
        [
          [2, 0],
          [0, 0],
          [0, 0],
          [0, 0],
        ],
        { mode: "reflect" },
      ),
    "pad: reflect needs at least 3 elements of axis 0, got [2, 8, 8, 6]",
  ],
  [
    "more than there is",
    () =>
      pad(images, [
        [-3, 0],
        [0, 0],
        [0, 0],
        [0, 0],
      ]),
    "pad: [-3, 0] takes more than axis 0 of [2, 8, 8, 6] has",
  ],
]);
