// Every variant of softmax, norm, attention, gather, random, scan, sort, pooling, resampling and direct convolution against
// its float64 definition, over drawn specs,
// on the real adapter as each kind of machine would use it; and the properties that only these families have.
// Matmul, convolution, elementwise and generic reductions are tested elsewhere.

import fc from "fast-check";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { bitDifference } from "../engine/testing/close.ts";
import { drawer } from "../engine/testing/draw.ts";
import { kernelInputs, kernelProblem } from "../engine/testing/kernels.ts";
import * as attentionFile from "../kernels/attention.ts";
import * as convDirectFile from "../kernels/conv_direct.ts";
import * as gatherFile from "../kernels/gather.ts";
import * as normFile from "../kernels/norm.ts";
import * as poolFile from "../kernels/pool.ts";
import {
  bitsAt,
  NORMAL_TABLE_SIZE,
  normalAt,
  normalOf,
  normalTable,
  type RandomSpec,
  type RandomState,
  random,
  families as randomFamilies,
  threefry2x32,
  uniformAt,
} from "../kernels/random.ts";
import * as resampleFile from "../kernels/resample.ts";
import * as scanFile from "../kernels/scan.ts";
import * as softmaxFile from "../kernels/softmax.ts";
import * as sortFile from "../kernels/sort.ts";
import {
  type Caps,
  choose,
  type Family,
  type Lowered,
  MINIMUM_CAPS,
  type Operand,
  type Variant,
} from "../kernels/wgsl.ts";
import { type BareDevice, openBare, prepare, type Values } from "./kernel_runner.ts";

const families = [
  softmaxFile,
  normFile,
  attentionFile,
  gatherFile,
  { families: randomFamilies },
  resampleFile,
  poolFile,
  convDirectFile,
  scanFile,
  sortFile,
].flatMap((file) => file.families);

let real: BareDevice;

beforeAll(async () => {
  const opened = await openBare();
  if (!opened) console.warn("no WebGPU adapter: the kernels of this file are not run");
  else real = opened;
});

// What a kernel may be emitted for is read from the adapter, so without one there is nothing to check here: the null back
// end's own tests (null.test.ts, systems_null.test.ts) type-check these kernels on any machine.
beforeEach((test) => {
  if (!real) test.skip("no WebGPU adapter");
});

afterAll(() => {
  real?.device.destroy();
});

/** The machines a kernel may be emitted for; all of them can run on the adapter at hand. */
function machines(): Record<string, Caps> {
  return {
    real: real.caps,
    minimum: MINIMUM_CAPS,
    gpu: { ...real.caps, adapter: "gpu", subgroupSize: 0, maxWorkgroupMemory: 32768, maxInvocations: 256 },
    "cpu without subgroups": { ...real.caps, adapter: "cpu", subgroupSize: 0 },
    "folded grid": { ...MINIMUM_CAPS, maxWorkgroupsPerDim: 7 }, // several rows of workgroups, the last one overshooting
  };
}

/** Largest difference relative to the largest magnitude expected; NaN counts as infinitely wrong. */
function error(got: Values, want: ArrayLike<number>): number {
  let worst = 0;
  let scale = 1e-30;
  for (let i = 0; i < want.length; i++) {
    const d = Math.abs(got[i] - want[i]);
    worst = Math.max(worst, Number.isNaN(d) ? Infinity : d);
    scale = Math.max(scale, Math.abs(want[i]));
  }
  return worst / scale;
}

/** Runs it twice: nothing may depend on what outputs and scratch hold before, and the bits must not change. */
async function execute(lowered: Lowered, inputs: readonly Values[], outputs: readonly Operand[]): Promise<Values[]> {
  const prepared = await prepare(real, lowered, inputs, outputs);
  prepared.dispatch();
  const once = await prepared.read();
  prepared.dispatch();
  const twice = await prepared.read();
  prepared.destroy();
  for (const [i, v] of once.entries()) {
    expect(bitDifference(twice[i], v), "the second run has the same bits").toBeNull();
  }
  return once;
}

/** Worst error over the outputs, in units of the family's tolerance. */
async function errorOf<S>(family: Family<S>, lowered: Lowered, spec: S, inputs: readonly Values[]): Promise<number> {
  const got = await execute(lowered, inputs, family.outputs(spec));
  const want = family.reference(
    spec,
    inputs.map((v) => Float64Array.from(v)),
  );
  return Math.max(...want.map((w, i) => error(got[i], w) / Math.max(family.rtol, 1e-30)));
}

const variantsOf = (family: Family<unknown>): [string, Variant<unknown>][] => family.variants.map((v) => [v.name, v]);

const DRAWN = { seed: 1, numRuns: 8, endOnFailure: true };

describe.each(families.map((f) => [f.name, f] as const))("%s", (_name, family) => {
  test("has a variant for every spec on the weakest device", () => {
    const property = fc.property(fc.gen(), (g) => {
      const spec = family.draw(drawer(g));
      expect(choose(family, spec, MINIMUM_CAPS)).toBeDefined();
      expect(family.variants.at(-1)?.supports(spec, MINIMUM_CAPS)).toBe(true);
    });
    fc.assert(property, { seed: 1, numRuns: 50 });
  });

  test("keeps sizes out of the text: few texts serve all specs", () => {
    for (const caps of Object.values(machines())) {
      for (const variant of family.variants) {
        const texts = new Map<string, string>();
        const property = fc.property(fc.gen(), (g) => {
          const spec = family.draw(drawer(g));
          if (!variant.supports(spec, caps)) return;
          for (const { source } of variant.emit(spec, caps).passes) {
            expect(texts.get(source.label) ?? source.wgsl, source.label).toBe(source.wgsl);
            expect(source.flops, `${source.label}: operations`).toBeDefined(); // else it counts as a large dispatch
            texts.set(source.label, source.wgsl);
          }
        });
        fc.assert(property, { seed: 1, numRuns: 100 });
        expect(texts.size, [...texts.keys()].join()).toBeLessThanOrEqual(6); // at most three widths in two kinds
      }
    }
  });

  test.each(variantsOf(family))("%s equals the definition", async (name, variant) => {
    let ran = 0;
    for (const caps of Object.values(machines())) {
      const property = fc.asyncProperty(fc.gen(), fc.integer({ min: 0, max: 2 ** 31 - 1 }), async (g, seed) => {
        const spec = family.draw(drawer(g));
        if (!variant.supports(spec, caps)) return;
        ran++;
        const lowered = variant.emit(spec, caps);
        const inputs = kernelInputs(family.inputs(spec), seed);
        const want = family.reference(
          spec,
          inputs.map((v) => Float64Array.from(v)),
        );
        const wrong = await kernelProblem(real, family, spec, lowered, inputs, want);
        expect(wrong, `${lowered.passes[0].source.label} on ${JSON.stringify(spec)}`).toBeNull();
      });
      await fc.assert(property, DRAWN);
    }
    expect(ran, `specs that ${name} ran on`).toBeGreaterThan(0);
  });
});

/** The same kernel with one piece of its text replaced. */
function mutate(lowered: Lowered, right: string, wrong: string): Lowered {
  expect(
    lowered.passes.some((p) => p.source.wgsl.includes(right)),
    `"${right}" is in the text`,
  ).toBe(true);
  const change = (text: string): string => text.replaceAll(right, wrong);
  return {
    ...lowered,
    passes: lowered.passes.map((p) => ({ ...p, source: { ...p.source, wgsl: change(p.source.wgsl) } })),
  };
}

const attentionSpec = { batch: 1, queries: 9, keys: 33, heads: 2, dim: 8, scale: 0.5, causal: true };

const windows = {
  batch: 2,
  in: [1, 6, 5],
  out: [1, 5, 4],
  channels: 3,
  kernel: [1, 3, 2],
  stride: [1, 1, 1],
  padding: [0, 1, 0],
  dilation: [1, 1, 1],
  adaptive: false,
};
const band = {
  rows: 3,
  columns: 4,
  starts: [0, 1, 2],
  weights: [[0.5, 0.5], [1], [0.25, 0.75]],
};
const grouped = {
  batch: 8,
  in: [1, 9, 7],
  out: [1, 4, 6],
  channels: 6,
  filters: 4,
  groups: 2,
  kernel: [1, 3, 2],
  stride: [1, 2, 1],
  padding: [0, 1, 0],
  dilation: [1, 2, 1],
};

describe("a planted bug is found:", () => {
  test.each<[string, Family<unknown>, object, right: string, wrong: string]>([
    ["sum not rescaled", softmaxFile.softmaxRows, { rows: 40, cols: 64 }, "sum * exp(top - higher)", "sum"],
    ["one mask off", attentionFile.attention, attentionSpec, "+ 1 + u.past", "+ u.past"],
    ["output not rescaled", attentionFile.attention, attentionSpec, "o[at + d] * shrink", "o[at + d]"],
    [
      "last position left out",
      normFile.moments,
      { outer: 1, inner: 70, groups: 2, channels: 4, eps: 1e-5 },
      "i < inner;",
      "i + 1u < inner;",
    ],
    ["runs not offset", gatherFile.gatherRowsGrad, { rows: 9, dim: 4, count: 99 }, "place += totals[i];", ""],
    [
      "carries of the parts before left out",
      scanFile.linearScan,
      { outer: 1, length: 400, inner: 2, reverse: true },
      "total_a[at] * h + total_h[at]",
      "total_h[at]",
    ],
    [
      "ties in any order",
      sortFile.argsort,
      { rows: 2, length: 100, descending: false, dtype: "i32" },
      "(!left && other == own)",
      "false",
    ],
    ["rounded down", random, { count: 999, kind: "normal", draw: 0 }, "step + 0x8000", "step"],
    ["a tap too far", convDirectFile.directForward, grouped, "tap * ", "tap + "],
    ["groups that share channels", convDirectFile.directForward, grouped, "/ u.group_filters *", "*"],
    ["outputs between strides", convDirectFile.directInputGrad, grouped, "any(at * ", "any(back * "],
    ["the last part forgotten", convDirectFile.directWeightGrad, grouped, "part < u.parts", "part + 1u < u.parts"],
    ["the smallest", poolFile.maxPoolTap, windows, "value > best", "value < best"],
    ["a tap of padding read", poolFile.poolTake, windows, "all(at >= vec3<i32>()) && ", ""],
    ["windows that overlap", poolFile.poolSpread, windows, "acc += select", "acc = select"],
    ["last weight left out", resampleFile.resample, { ...band, outer: 2, inner: 4 }, "k <= (", "k < ("],
    ["rows of one another", resampleFile.resample, { ...band, outer: 2, inner: 4 }, "* u.columns + ", "* u.rows + "],
  ])("%s", async (_what, family, spec, right, wrong) => {
    const caps = { ...real.caps, subgroupSize: 0 };
    const lowered = choose(family, spec, caps).emit(spec, caps);
    const inputs = kernelInputs(family.inputs(spec), 1);
    const want = family.reference(
      spec,
      inputs.map((v) => Float64Array.from(v)),
    );
    expect(await kernelProblem(real, family, spec, lowered, inputs, want)).toBeNull();
    expect(await kernelProblem(real, family, spec, mutate(lowered, right, wrong), inputs, want)).toMatch(/^output 0/);
  });
});

/** Each variant of a family that some machine would run on this spec, with the capabilities of that machine. */
function* runnable<S>(family: Family<S>, spec: S): Generator<[Variant<S>, Caps]> {
  for (const caps of Object.values(machines())) {
    for (const variant of family.variants) if (variant.supports(spec, caps)) yield [variant, caps];
  }
}

// A lane that holds several vec4 has a text of its own, which compiles for seconds: one such text per variant.
test.each([
  ["subgroup", 160],
  ["shared", 68],
])("attention/%s with %i dimensions", async (name, dim) => {
  const spec = { ...attentionSpec, queries: 33, keys: 40, dim };
  const inputs = kernelInputs(attentionFile.attention.inputs(spec), 1);
  for (const [variant, caps] of runnable(attentionFile.attention, spec)) {
    if (variant.name !== name) continue;
    const worst = await errorOf(attentionFile.attention, variant.emit(spec, caps), spec, inputs);
    expect(worst).toBeLessThanOrEqual(1);
  }
});

test("softmax survives large scores and masked columns", async () => {
  const spec = { rows: 5, cols: 64 };
  const x = kernelInputs([{ dtype: "f32", size: 5 * 64 }], 1)[0].map((v, e) => (e % 3 ? v * 1e4 : -1e30));
  for (const [variant, caps] of runnable(softmaxFile.softmaxRows, spec)) {
    expect(
      await errorOf(softmaxFile.softmaxRows, variant.emit(spec, caps), spec, [x]),
      variant.name,
    ).toBeLessThanOrEqual(1);
  }
});

describe("moments of data with mean 1000 and deviation 1", () => {
  const spec = { outer: 2, inner: 200, groups: 2, channels: 8, eps: 1e-5 };
  const x = Float32Array.from({ length: 6400 }, (_, e) => 1000 + normalAt([1, 2, 3], 0, e));
  const want = normFile.moments.reference(spec, [Float64Array.from(x)])[0];
  // Relative to the deviation itself: beside a mean of 1000 its error would not show.
  const worst = async (lowered: Lowered): Promise<number> => {
    const [got] = await execute(lowered, [x], normFile.moments.outputs(spec));
    return Math.max(...[1, 3, 5, 7].map((i) => Math.abs(got[i] / want[i] - 1)));
  };

  test("keep five digits of the deviation", async () => {
    for (const [variant, caps] of runnable(normFile.moments, spec)) {
      expect(await worst(variant.emit(spec, caps)), variant.name).toBeLessThan(1e-5); // 3200 sums at 6e-8 each, averaging out
    }
  });

  test("lose them when the squares are not shifted", async () => {
    const lowered = choose(normFile.moments, spec, real.caps).emit(spec, real.caps);
    expect(await worst(mutate(lowered, "let k = ", "let k = 0.0f * "))).toBeGreaterThan(1e-3);
  });
});

describe("the gradient of a gather", () => {
  const grad = gatherFile.gatherRowsGrad;

  test.each([
    ["all positions in one row", () => 3],
    ["indices outside the table", (p: number) => (p % 2 ? -5 : 1000)],
    ["most rows never hit", (p: number) => (p % 7) * 5],
  ])("with %s", async (_what, index) => {
    const spec = { rows: 50, dim: 8, count: 333 };
    const [g] = kernelInputs(grad.inputs(spec), 1);
    for (const [variant, caps] of runnable(grad, spec)) {
      const error = await errorOf(grad, variant.emit(spec, caps), spec, [
        g,
        Int32Array.from({ length: 333 }, (_, p) => index(p)),
      ]);
      expect(error, variant.name).toBeLessThanOrEqual(1);
    }
  });

  test("sums in increasing position: both variants give the same bits", async () => {
    const spec = { rows: 10, dim: 4, count: 500 };
    const inputs = kernelInputs(grad.inputs(spec), 2);
    const results: Values[] = [];
    for (const variant of grad.variants)
      results.push(...(await execute(variant.emit(spec, real.caps), inputs, grad.outputs(spec))));
    expect(results[0]).toEqual(results[1]);
  });
});

describe("random numbers", () => {
  test("reproduce the known answers of Random123", () => {
    expect(threefry2x32(0, 0, 0, 0)).toEqual([0x6b200159, 0x99ba4efe]);
    const ones = 0xffffffff;
    expect(threefry2x32(ones, ones, ones, ones)).toEqual([0x1cb996fc, 0xbb002be7]);
    expect(threefry2x32(0x13198a2e, 0x03707344, 0x243f6a88, 0x85a308d3)).toEqual([0xc4923a9c, 0x483df7a0]);
  });

  test.each(["bits", "uniform", "normal"] as const)(
    "%s have the same bits on the device and the host",
    async (kind) => {
      const spec: RandomSpec = { count: 100_001, kind, draw: 7 };
      const state: RandomState = [0x12345678, 0x9abcdef0, 0xfffffffd, 0]; // the counter wraps
      const inputs = [Uint32Array.from(state), ...(kind === "normal" ? [normalTable()] : [])];
      const [got] = await execute(random.variants[0].emit(spec, real.caps), inputs, random.outputs(spec));
      const at = { bits: bitsAt, uniform: uniformAt, normal: normalAt }[kind];
      expect(got.every((v, e) => v === at(state, 7, e))).toBe(true);
    },
  );

  test("table entries are the quantiles of the normal tail", () => {
    expect(normalTable()).toHaveLength(NORMAL_TABLE_SIZE);
    // Words over all octaves, checked through Simpson's rule: nothing in common with the table's series and fractions.
    for (let word = 1; word < 2 ** 31; word = Math.ceil(word * 1.37)) {
      const p = (2 * word + 1) / 2 ** 33;
      expect(Math.abs(normalOf(word) - quantileBySimpson(p)), `word ${word}`).toBeLessThan(3e-5);
      expect(normalOf((word | (2 ** 31)) >>> 0)).toBe(-normalOf(word));
    }
    expect(normalOf(0)).toBeCloseTo(quantileBySimpson(2 ** -33), 4);
    expect(normalOf(2 ** 31 - 1)).toBeCloseTo(0, 6);
  });

  test("a million normals are normal", () => {
    const n = 1_000_000;
    const x = Float64Array.from({ length: n }, (_, e) => normalAt([3, 1, 4], 0, e)).sort();
    const moment = (k: number): number => x.reduce((s, v) => s + v ** k, 0) / n;
    // Five standard errors of each statistic: sqrt(var / n).
    expect(Math.abs(moment(1))).toBeLessThan(5e-3);
    expect(Math.abs(moment(2) - 1)).toBeLessThan(5 * Math.sqrt(2e-6));
    expect(Math.abs(moment(3))).toBeLessThan(5 * Math.sqrt(15e-6));
    expect(Math.abs(moment(4) - 3)).toBeLessThan(5 * Math.sqrt(96e-6));
    const tail = (z: number): number => x.reduce((s, v) => s + (Math.abs(v) > z ? 1 : 0), 0) / n;
    expect(Math.abs(tail(2) - 0.0455003)).toBeLessThan(5 * Math.sqrt(0.0455e-6));
    expect(Math.abs(tail(4) - 6.334e-5)).toBeLessThan(5 * Math.sqrt(6.3e-5 / n));
    let distance = 0; // Kolmogorov-Smirnov, at every thousandth sample
    for (let i = 0; i < n; i += 1000) {
      const below = x[i] > 0 ? 1 - tailBySimpson(x[i]) : tailBySimpson(-x[i]);
      distance = Math.max(distance, Math.abs(below - i / n));
    }
    expect(distance).toBeLessThan(1.95e-3); // a true sample exceeds it once in a thousand
  });

  test("elements, draws and counters give different words", () => {
    const words = [0, 1, 2, 3].flatMap((e) => [
      bitsAt([1, 2, 0], 0, e),
      bitsAt([1, 2, 0], 1, e),
      bitsAt([1, 3, 0], 0, e),
    ]);
    expect(new Set(words).size).toBe(12);
    expect(bitsAt([1, 2, 5], 1, 9)).toBe(bitsAt([1, 2, 6], 0, 9));
  });
});

/** P(Z > z) by Simpson's rule over ten deviations. */
function tailBySimpson(z: number): number {
  const steps = 400;
  const h = 10 / steps;
  let sum = 0;
  for (let i = 0; i <= steps; i++)
    sum += Math.exp(-((z + i * h) ** 2) / 2) * (i === 0 || i === steps ? 1 : i % 2 ? 4 : 2);
  return (sum * h) / 3 / Math.sqrt(2 * Math.PI);
}

function quantileBySimpson(p: number): number {
  let [low, high] = [0, 8];
  for (let i = 0; i < 40; i++) {
    const mid = (low + high) / 2;
    if (tailBySimpson(mid) > p) low = mid;
    else high = mid;
  }
  return low;
}
