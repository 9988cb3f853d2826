// Matmul and the convolutions: every variant against the float64 definition over drawn specs, on the adapter at hand as
// each kind of machine would use it; and what only these families promise: one text for all sizes, epilogues, split
// sums with the same bits on every run.

import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { kernelProblem } from "../engine/testing/kernels.ts";
import { type ConvSpec, convForward, convInputGrad, convWeightGrad } from "../kernels/conv.ts";
import { matmul } from "../kernels/matmul.ts";
import type { MatmulSpec } from "../kernels/matmul_spec.ts";
import {
  type Caps,
  choose,
  type Draw,
  type Epilogue,
  type Family,
  type KernelSource,
  type Lowered,
  MINIMUM_CAPS,
} from "../kernels/wgsl.ts";
import { type BareDevice, openBare, prepare, type Values } from "./kernel_runner.ts";

const SEED = 20261122;
// Both are opened once; the null backend only type-checks. Without an adapter the tests that run kernels are skipped.
const real = (await openBare()) as BareDevice;
const checker = (await openBare("null")) as BareDevice;
if (!real) console.warn("kernels_gemm: no WebGPU adapter, so kernels are type-checked but not run");

afterAll(() => {
  real?.device.destroy();
  checker.device.destroy();
});

const noSubgroups: Caps = { ...MINIMUM_CAPS, adapter: "cpu" };
const withSubgroups = (subgroupSize: number): Caps => ({ ...MINIMUM_CAPS, adapter: "cpu", subgroupSize });

/** What the kernels are emitted for; each runs on any adapter, the subgroup size of `real` being the adapter's own. */
const machines = (): Record<string, Caps> => ({
  real: real.caps,
  gpu: MINIMUM_CAPS,
  "no subgroups": noSubgroups,
  // Several rows of workgroups, the last one overshooting.
  "folded grid": { ...real.caps, maxWorkgroupsPerDim: 7 },
});

const drawer = (g: fc.GeneratorValue): Draw => ({
  int: (lo, hi) => g(fc.integer, { min: lo, max: hi }),
  pick: (choices) => choices[g(fc.nat, { max: choices.length - 1 })],
});

/** Uniform in [-1, 1) from one seed (the mulberry32 generator). */
function values(size: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: size }, () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1;
  });
}

const inputsOf = <S>(family: Family<S>, spec: S, seed: number): Float32Array[] =>
  family.inputs(spec).map(({ size }, i) => values(size, seed + i));

async function run<S>(family: Family<S>, spec: S, lowered: Lowered, inputs: readonly Values[], extras: Values[] = []) {
  const prepared = await prepare(real, lowered, inputs, family.outputs(spec), extras);
  prepared.dispatch();
  const [y] = await prepared.read();
  prepared.destroy();
  return y;
}

/** Largest error relative to the largest magnitude of the definition. */
function distance(got: Values, want: Float64Array): number {
  const top = want.reduce((m, x) => Math.max(m, Math.abs(x)), 0) || 1;
  return want.reduce((m, x, i) => Math.max(m, Number.isNaN(got[i]) ? Infinity : Math.abs(got[i] - x)), 0) / top;
}

const definition = <S>(family: Family<S>, spec: S, inputs: readonly Float32Array[]): Float64Array =>
  family.reference(
    spec,
    inputs.map((x) => Float64Array.from(x)),
  )[0];

// biome-ignore lint/suspicious/noExplicitAny: a list of families of different specs
const families = [matmul, convForward, convInputGrad, convWeightGrad] as readonly Family<any>[];

const LARGE = ["shuffle-large", "shuffle-tall"];
const row = (rows: number, cols: number) => ({ offset: 0, batch: [rows * cols, 0] as const, row: cols, col: 1 });
const product = (m: number, n: number, k: number): MatmulSpec => ({
  m,
  n,
  k,
  batch: [1, 1],
  a: row(m, k),
  b: row(k, n),
});
/** B is stored [n, k], as the weights of linear layers are. */
const transposed = (m: number, n: number, k: number): MatmulSpec => ({
  ...product(m, n, k),
  b: { offset: 0, batch: [n * k, 0], row: 1, col: k },
});
const convolution = (change: Partial<ConvSpec>): ConvSpec => ({
  batch: 2,
  in: [1, 6, 6],
  out: [1, 6, 6],
  channels: 8,
  filters: 20,
  kernel: [1, 3, 3],
  stride: [1, 1, 1],
  padding: [0, 1, 1],
  dilation: [1, 1, 1],
  ...change,
});
const texts = (l: Lowered): string[] => l.passes.map((p) => p.source.wgsl);

describe.each(families)("$name", (family) => {
  test.skipIf(!real)("equals its definition on every kind of machine", async () => {
    const ran = new Set<string>();
    for (const [name, caps] of Object.entries(machines())) {
      await fc.assert(
        fc.asyncProperty(fc.gen(), fc.nat(), async (g, seed) => {
          const spec = family.draw(drawer(g));
          const variant = choose(family, spec, caps);
          ran.add(variant.name);
          const inputs = inputsOf(family, spec, seed);
          const want = [definition(family, spec, inputs)];
          const wrong = await kernelProblem(real, family, spec, variant.emit(spec, caps), inputs, want);
          expect(wrong, `${variant.name} on ${JSON.stringify(spec)}`).toBeNull();
        }),
        { seed: SEED, numRuns: name === "real" ? 14 : 5, endOnFailure: true },
      );
    }
    const expected = real.caps.subgroupSize
      ? ["portable", "shared", "shuffle", "shuffle-narrow"]
      : ["portable", "shared"];
    expect([...ran].sort()).toEqual(expected);
  });

  test("every kernel of every variant compiles on Dawn's null backend", async () => {
    const sources = new Map<string, string>();
    fc.assert(
      fc.property(fc.gen(), (g) => {
        const spec = family.draw(drawer(g));
        // The two large tiles are chosen for sizes that are never drawn, but emit for all.
        for (const caps of [...[4, 8, 16].map(withSubgroups), MINIMUM_CAPS, noSubgroups])
          for (const variant of family.variants)
            if (variant.supports(spec, caps) || (LARGE.includes(variant.name) && caps.subgroupSize > 0))
              for (const { source, operands } of variant.emit(spec, caps).passes) {
                sources.set(source.wgsl, source.label);
                // Else it counts as a large dispatch; a table is made once.
                expect(source.flops !== undefined || operands.length === 1, `${source.label}: operations`).toBe(true);
              }
      }),
      { seed: SEED, numRuns: 100 },
    );
    for (const [code, label] of sources) {
      const module = checker.device.createShaderModule({ code, label });
      const { messages } = await module.getCompilationInfo();
      expect(messages.filter((m) => m.type === "error").map((m) => `${label}:${m.lineNum} ${m.message}`)).toEqual([]);
    }
    expect(sources.size).toBeGreaterThan(10);
  });
});

describe("one text for all sizes", () => {
  test.each([withSubgroups(8), MINIMUM_CAPS, noSubgroups])("%o", (caps) => {
    const emit = <S>(family: Family<S>, spec: S): string[] => texts(choose(family, spec, caps).emit(spec, caps));
    expect(emit(matmul, product(8, 32, 16))).toEqual(emit(matmul, product(1000, 36, 100)));
    const sizes = [
      convolution({}),
      convolution({
        in: [3, 9, 5],
        out: [2, 5, 3],
        channels: 24,
        filters: 64,
        kernel: [2, 3, 3],
        stride: [1, 2, 2],
      }),
    ];
    for (const family of [convForward, convInputGrad, convWeightGrad]) {
      const [small, large] = sizes.map((s) => emit(family, { ...s, channels: s.channels + 16 }));
      // The pass that sums a split k is there or not; on a GPU that depends on the sizes.
      const product = (all: string[]): string[] => all.filter((t) => !t.includes("u.parts; part++"));
      expect(product(large)).toEqual(product(small));
    }
    // Forward and input gradient share the product's pipeline, the table's and, where there is one, that of no bias.
    const shared = emit(convForward, convolution({ channels: 20 })).filter((t) =>
      emit(convInputGrad, convolution({ channels: 20 })).includes(t),
    );
    expect(shared.length).toBe(caps === MINIMUM_CAPS || caps === noSubgroups ? 2 : 3);
  });
});

/** y = acc + bias[col] + residual[row, col]. */
const biasResidual: Epilogue = {
  operands: 2,
  label: "bias+residual",
  code: (width) => {
    const type = width === 4 ? "vec4<f32>" : "f32";
    const index = width === 4 ? ["col / 4u", "(row * u.n + col) / 4u"] : ["col", "row * u.n + col"];
    return {
      bindings: ["bias", "residual"].map((name) => ({ name, type })),
      wgsl: `fn epilogue(acc: ${type}, row: u32, col: u32) -> ${type} { return acc + bias[${index[0]}] + residual[${index[1]}]; }`,
    };
  },
};

describe.skipIf(!real)("on the adapter", () => {
  test.each([20, 18])("bias and residual are added to %i columns", async (n) => {
    for (const caps of n === 20 ? [real.caps, MINIMUM_CAPS] : [real.caps]) {
      for (const [family, spec, rows] of [
        [matmul, { ...product(13, n, 12), batch: [3, 1], epilogue: biasResidual }, 39],
        [convForward, convolution({ filters: n, epilogue: biasResidual }), 72],
        // Small images: rows are computed in another order than stored.
        [
          convForward,
          convolution({ batch: 18, in: [1, 2, 2], out: [1, 2, 2], filters: n, epilogue: biasResidual }),
          72,
        ],
      ] as [Family<unknown>, unknown, number][]) {
        const inputs = inputsOf(family, spec, 1);
        const [bias, residual] = [values(n, 5), values(rows * n, 6)];
        const want = definition(family, spec, inputs).map((y, i) => y + bias[i % n] + residual[i]);
        const got = await run(family, spec, choose(family, spec, caps).emit(spec, caps), inputs, [bias, residual]);
        expect(distance(got, want)).toBeLessThan(1e-5);
      }
    }
  });

  test("long sums are split, equal their definition, and have the same bits on every run", async () => {
    const spec = convolution({ batch: 4, in: [1, 24, 24], out: [1, 24, 24], channels: 4 });
    for (const caps of [real.caps, MINIMUM_CAPS]) {
      const lowered = choose(convWeightGrad, spec, caps).emit(spec, caps);
      expect(lowered.passes.map((p) => p.source.label).at(-1)).toMatch(/sum parts/);
      const inputs = inputsOf(convWeightGrad, spec, 2);
      const first = await run(convWeightGrad, spec, lowered, inputs);
      expect(distance(first, definition(convWeightGrad, spec, inputs))).toBeLessThan(1e-4);
      expect(await run(convWeightGrad, spec, lowered, inputs)).toEqual(first);
    }
  });

  test.each(LARGE)("%s is right where it ends", async (name) => {
    if (!real.caps.subgroupSize) return;
    const variant = matmul.variants.find((v) => v.name === name)!;
    for (const spec of [product(37, 68, 44), product(16, 64, 8), transposed(37, 68, 44)]) {
      const inputs = inputsOf(matmul, spec, 3);
      const got = await run(matmul, spec, variant.emit(spec, real.caps), inputs);
      expect(distance(got, definition(matmul, spec, inputs))).toBeLessThan(1e-5);
    }
  });

  test.each([
    ["left", "lower"],
    ["left", "upper"],
    ["result", "lower"],
    ["result", "upper"],
  ] as const)("only one half of a matrix counts: %s, %s", async (of, half) => {
    const column = { offset: 0, batch: [0, 0], row: 1, col: 36 } as const; // A stored transposed
    const cases: [MatmulSpec, Caps, string?][] = [
      [product(37, 68, 44), real.caps, "shuffle-large"],
      [{ ...product(36, 36, 20), a: column }, real.caps],
      [product(70, 18, 37), MINIMUM_CAPS],
      [product(9, 3, 21), noSubgroups],
    ];
    for (const [plain, caps, name] of cases) {
      const diagonals = name === undefined ? [2] : [-17, 0, 20];
      for (const diagonal of diagonals) {
        const spec: MatmulSpec = { ...plain, triangle: { of, half, diagonal } };
        const variant = real.caps.subgroupSize ? matmul.variants.find((v) => v.name === name) : undefined;
        const inputs = inputsOf(matmul, spec, 4);
        const lowered = (variant ?? choose(matmul, spec, caps)).emit(spec, caps);
        expect(await kernelProblem(real, matmul, spec, lowered, inputs, [definition(matmul, spec, inputs)])).toBeNull();
      }
    }
  });

  test("multiply-adds that do not count are not counted", () => {
    const whole = product(256, 256, 32);
    const flops = (spec: MatmulSpec): number =>
      choose(matmul, spec, real.caps)
        .emit(spec, real.caps)
        .passes.reduce((sum, p) => sum + (p.source.flops ?? 0), 0);
    const triangle = { of: "result", half: "lower", diagonal: 0 } as const;
    expect(flops({ ...whole, triangle }) / flops(whole)).toBeCloseTo(257 / 512, 6);
    expect(flops({ ...whole, triangle: { ...triangle, half: "upper", diagonal: 1 } }) / flops(whole)).toBeCloseTo(
      255 / 512,
      6,
    );
  });

  test.each([
    ["odd sizes", {}],
    ["no padding, and images that are not square", { in: [1, 5, 7], out: [1, 3, 5], padding: [0, 0, 0] }],
    ["more padding before the data than taps reach", { in: [2, 3, 4], out: [2, 6, 6], padding: [0, 3, 2] }],
    ["few channels", { channels: 3, filters: 5, in: [1, 7, 7], out: [1, 7, 7] }],
  ] as [string, Partial<ConvSpec>][])("Winograd's variants equal their definition: %s", async (_, change) => {
    const spec = convolution({ in: [1, 7, 5], out: [1, 7, 5], ...change });
    for (const family of [convForward, convInputGrad, convWeightGrad]) {
      const inputs = inputsOf(family, spec, 7);
      const want = [definition(family, spec, inputs)];
      const variant = family.candidates?.find((v) => v.name === "winograd");
      expect(variant?.supports(spec, real.caps)).toBe(true);
      expect(await kernelProblem(real, family, spec, variant!.emit(spec, real.caps), inputs, want)).toBeNull();
    }
  });

  test.each([
    ["three filters", { filters: 3 }],
    [
      "strides and dilation",
      { filters: 4, stride: [1, 2, 2], dilation: [1, 1, 2], padding: [0, 1, 2], out: [1, 3, 3] },
    ],
    [
      "one filter in three dimensions",
      { filters: 1, kernel: [3, 3, 3], padding: [1, 1, 1], in: [3, 6, 6], out: [3, 6, 6] },
    ],
  ] as [string, Partial<ConvSpec>][])("variants for few filters equal their definition: %s", async (_, change) => {
    const spec = convolution(change);
    for (const family of [convForward, convWeightGrad]) {
      const inputs = inputsOf(family, spec, 8);
      const want = [definition(family, spec, inputs)];
      const variant = family.candidates?.find((v) => v.name === "few-filters");
      expect(variant?.supports(spec, real.caps)).toBe(true);
      expect(await kernelProblem(real, family, spec, variant!.emit(spec, real.caps), inputs, want)).toBeNull();
    }
    const caps = withSubgroups(8);
    const chosen = (s: ConvSpec): boolean[] =>
      [convForward, convWeightGrad].map((f) => choose(f, s, caps).name === "few-filters");
    expect(chosen({ ...spec, channels: 32 })).toEqual(spec.stride[1] === 1 ? [true, true] : [false, false]);
    expect(chosen({ ...spec, channels: 32, filters: 8 })).toEqual([false, false]);
  });

  test("Winograd's variants are for 3 x 3 taps with stride 1, and chosen where channels are many and scratch is small", () => {
    const caps = withSubgroups(8);
    const large = convolution({ batch: 8, in: [1, 32, 32], out: [1, 32, 32], channels: 64, filters: 64 });
    const chosen = (s: ConvSpec, on = caps): boolean[] =>
      [convForward, convInputGrad, convWeightGrad].map((f) => choose(f, s, on).name === "winograd");
    expect(chosen(large)).toEqual([true, true, true]);
    expect(chosen(large, MINIMUM_CAPS)).toEqual([false, false, false]);
    const others: Partial<ConvSpec>[] = [
      { channels: 4 },
      { batch: 800 },
      { stride: [1, 2, 2], out: [1, 16, 16] },
      { kernel: [3, 3, 3], in: [3, 32, 32] },
    ];
    for (const change of others) expect(chosen({ ...large, ...change })).toEqual([false, false, false]);
    const strided = convolution({ stride: [1, 2, 2], out: [1, 3, 3] });
    for (const family of [convForward, convInputGrad, convWeightGrad])
      expect(family.candidates?.find((v) => v.name === "winograd")?.supports(strided, caps)).toBe(false);
  });

  test("large products get large tiles, and a transposed B is read in place by few rows", () => {
    if (!real.caps.subgroupSize) return;
    const chosen = (s: MatmulSpec): string => choose(matmul, s, real.caps).name;
    expect([product(1024, 512, 512), product(4096, 32, 512), transposed(1024, 512, 512)].map(chosen)).toEqual([
      "shuffle-large",
      "shuffle-tall",
      "shuffle-large",
    ]);
    const spec = transposed(48, 64, 128);
    for (const caps of [real.caps, MINIMUM_CAPS])
      expect(
        choose(matmul, spec, caps)
          .emit(spec, caps)
          .passes.filter((p) => p.source.label.startsWith("relayout")),
      ).toEqual([]);
  });

  test.each([
    ["a tap one element off", convForward, convolution({}), "% u.channels) / u.unit;", "% u.channels) / u.unit + 1;"],
    ["a padding bit lost", convForward, convolution({}), "(hit >= vec3<i32>()) & ", ""],
    ["the last part forgotten", convWeightGrad, convolution({ batch: 64 }), "part < u.parts", "part < u.parts - 1u"],
    ["one k of a block dropped", matmul, product(9, 36, 24), "var kk = k;", "var kk = k + 1u;"],
    ["winograd, padding read", convForward, convolution({}), "select(0f, x[", "select(x[0], x["],
    ["few-filters, a tap twice", convForward, convolution({ filters: 4 }), "u.taps + tap]", "u.taps + max(tap, 1u)]"],
    ["winograd, a sign", convWeightGrad, convolution({}), "0.5f * (t01 - t02)", "0.5f * (t01 + t02)"],
  ] as [string, Family<unknown>, unknown, string, string][])(
    "a planted bug is caught: %s",
    async (label, family, spec, from, to) => {
      const variant = family.candidates?.find((v) => label.startsWith(v.name)) ?? choose(family, spec, real.caps);
      const lowered = variant.emit(spec, real.caps);
      const plant = (source: KernelSource): KernelSource => ({ ...source, wgsl: source.wgsl.replace(from, to) });
      const planted = { ...lowered, passes: lowered.passes.map((p) => ({ ...p, source: plant(p.source) })) };
      expect(texts(planted)).not.toEqual(texts(lowered));
      const inputs = inputsOf(family, spec, 4);
      const want = definition(family, spec, inputs);
      expect(distance(await run(family, spec, lowered, inputs), want)).toBeLessThan(family.rtol);
      expect(distance(await run(family, spec, planted, inputs), want)).toBeGreaterThan(family.rtol);
    },
  );

  test("a kernel with too many taps is refused by name", () => {
    const spec = convolution({ kernel: [1, 11, 1] });
    expect(() => choose(convForward, spec, MINIMUM_CAPS).emit(spec, MINIMUM_CAPS)).toThrow(/1x11x1.*10 taps/);
  });
});
