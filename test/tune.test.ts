// Tuning: what a choice does, that only what computes the right thing and is clearly faster is chosen, that the extra tiles are
// right, and the file: where it is looked for, what is refused.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { describe as describeResult, summary } from "../cli/tune.ts";
import { trace } from "../engine/compile.ts";
import { openDevice, useDevice } from "../engine/device.ts";
import { DeviceError } from "../engine/error.ts";
import { makePlan } from "../engine/plan/plan.ts";
import type { GpuDevice } from "../engine/runtime/gpu.ts";
import { kernelInputs, kernelProblem } from "../engine/testing/kernels.ts";
import { leftOut, type TuneCase, tune, tuneCases, withResult } from "../engine/tune.ts";
import { readTuning, type TuningFile, tuningPath } from "../engine/tuning.ts";
import { matmul } from "../kernels/matmul.ts";
import { candidatesOf, choose, type Family, MINIMUM_CAPS, tuningKey, type Variant } from "../kernels/wgsl.ts";
import { onGpu } from "./device.ts";

const folder = mkdtempSync(join(tmpdir(), "gifgrad-tune-"));
afterAll(() => rmSync(folder, { recursive: true }));

const product = (m: number, n: number, k: number) => ({
  m,
  n,
  k,
  batch: [1, 1] as const,
  a: { offset: 0, batch: [0, 0] as const, row: k, col: 1 },
  b: { offset: 0, batch: [0, 0] as const, row: n, col: 1 },
});

test("a choice serves its class of shapes, and only where its variant can", () => {
  const cpu = { ...MINIMUM_CAPS, adapter: "cpu" as const, subgroupSize: 8 };
  const spec = product(40, 36, 36);
  const tuned = { [tuningKey("matmul", spec)]: "shuffle-8x2" };
  expect(choose(matmul, spec, cpu).name).toBe("shuffle");
  expect(choose(matmul, spec, { ...cpu, tuned }).name).toBe("shuffle-8x2");
  expect(choose(matmul, product(63, 40, 60), { ...cpu, tuned }).name).toBe("shuffle-8x2");
  expect(choose(matmul, product(64, 36, 36), { ...cpu, tuned }).name).toBe("shuffle");
  // Another machine's choice: this one has no subgroups.
  expect(choose(matmul, spec, { ...MINIMUM_CAPS, tuned }).name).toBe("shared");
  const unknown = { [tuningKey("matmul", spec)]: "gone" };
  expect(choose(matmul, spec, { ...cpu, tuned: unknown }).name).toBe("shuffle");
});

test("a class is the powers of two of what is whole", () => {
  const key = (x: object): string => tuningKey("f", x);
  expect(key({ m: 5, list: [8, 0], nested: { n: 100 } })).toBe("f m4 list(8,0) nested(n64)");
  expect(key({ m: 7, eps: 1e-5, epilogue: {} })).toBe(key({ m: 4, eps: 1e-3 }));
  expect(key({ m: 8 })).not.toBe(key({ m: 7 }));
  expect(key({ causal: true })).not.toBe(key({ causal: false }));
});

/** y = 2x, by a default that dawdles, one that does not, and one that is fast and wrong. */
interface Twice {
  readonly size: number;
}
const twiceBy = (name: string, body: string): Variant<Twice> => ({
  name,
  supports: () => true,
  emit: ({ size }) => ({
    passes: [
      {
        source: {
          label: name,
          wgsl: `@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let i = id.x;
  if (i >= arrayLength(&x)) { return; }
  ${body}
}`,
          workgroups: [Math.ceil(size / 64), 1, 1],
          uniforms: [],
          flops: size,
        },
        operands: [0, 1],
      },
    ],
    scratch: [],
  }),
});
const SLOW = "var s = 0f; for (var j = 0u; j < 300u + u32(x[i] * 1e-9f); j++) { s += sin(x[i] + f32(j)); }";
const twice: Family<Twice> = {
  name: "twice",
  variants: [twiceBy("dawdles", `${SLOW} y[i] = 2f * x[i] + s * 1e-12f;`)],
  candidates: [twiceBy("wrong", "y[i] = 3f * x[i];"), twiceBy("direct", "y[i] = 2f * x[i];")],
  inputs: ({ size }) => [{ dtype: "f32", size }],
  outputs: ({ size }) => [{ dtype: "f32", size }],
  reference: (_, [x]) => [x.map((v) => 2 * v)],
  draw: (d) => ({ size: d.int(1, 100) }),
  rtol: 1e-6,
  why: "one product",
};

onGpu("the tuner takes the fast one and reports the wrong one", async (device) => {
  const spec = { size: 4096 };
  const c: TuneCase = { family: twice, spec, key: tuningKey("twice", spec), flops: 4096 };
  const result = await tune(device.dawn, c);
  expect(result.choice).toBe("direct");
  expect(Object.keys(result.wrong)).toEqual(["wrong"]);
  expect(result.wrong.wrong).toMatch(/^output 0, element \d+: expected/);
  expect(Object.keys(result.times)).toEqual(["dawdles", "direct"]);
  const empty: TuningFile = { format: 1, adapter: device.name, choices: {}, measured: {} };
  const file = withResult(empty, result);
  expect(file.choices).toEqual({ "twice size4096": "direct" });
  expect(withResult(file, { ...result, choice: null }).choices).toEqual({});
  // The same variants the other way round: the default is fastest and stays.
  const [slow, fast] = [twice.variants[0], (twice.candidates as Variant<Twice>[])[1]];
  const kept = await tune(device.dawn, { ...c, family: { ...twice, variants: [fast], candidates: [slow] } });
  expect([kept.choice, kept.left]).toEqual([null, null]);
});

test("what was faster and left says why, and the last line how the file is used", () => {
  expect(leftOut({ a: 2, b: 1 }, "a", "b")).toBeNull();
  expect(leftOut({ a: 1, b: 2 }, "a", null)).toBeNull();
  expect(leftOut({ a: 2, b: 1.95 }, "a", null)).toBe("b: less than 7 % faster");
  const left = leftOut({ a: 2, b: 1 }, "a", null);
  expect(left).toBe("b: not confirmed twice");
  const words = describeResult({ key: "twice size4096", times: { a: 2, b: 1 }, wrong: {}, choice: null, left });
  expect(words).toBe("twice size4096: a, as it is; b: not confirmed twice (ms: b 1.000, a 2.000)");
  expect(summary(3, "/cache/x.json", undefined)).toBe("3 choices in /cache/x.json; openDevice() uses them");
  expect(summary(1, "/here/o.json", "o.json")).toMatch(/^1 choice in .* uses it$/);
  expect(summary(3, "/here/o.json", "o.json")).toBe(
    '3 choices in /here/o.json; openDevice({ tuned: "o.json" }) uses them',
  );
});

onGpu("tiles that only tuning chooses are right", async ({ dawn }) => {
  const spec = product(33, 36, 40);
  const inputs = kernelInputs(matmul.inputs(spec), 1);
  const want = matmul.reference(
    spec,
    inputs.map((v) => Float64Array.from(v)),
  );
  const standard = new Set(matmul.variants.map((v) => v.name));
  for (const v of candidatesOf(matmul, spec, dawn.caps)) {
    if (standard.has(v.name)) continue; // checked by kernels_gemm.test.ts
    const problem = await kernelProblem(dawn, matmul, spec, v.emit(spec, dawn.caps), inputs, want);
    expect(problem, v.name).toBeNull();
  }
});

onGpu("openDevice takes a file of its own adapter, and refuses others", async (shared) => {
  const path = join(folder, "tuning.json");
  const file = (o: Partial<TuningFile>): void =>
    writeFileSync(path, JSON.stringify({ format: 1, adapter: shared.name, choices: {}, measured: {}, ...o }));
  const spec = product(40, 36, 36);
  const [standard, other] = candidatesOf(matmul, spec, shared.caps).map((v) => v.name);
  const program = trace("product", ({ x, w }) => ({ y: x.matmul(w) }), {
    x: { shape: [40, 36], dtype: "f32" },
    w: { shape: [36, 36], dtype: "f32" },
  });
  const [found] = tuneCases([program], shared.dawn);
  expect(found.family.name).toBe("matmul");
  const label = async (tuned: string | false): Promise<string> => {
    const device = (await openDevice({ tuned })) as GpuDevice;
    const { dispatches } = makePlan(program, device.caps);
    device.close();
    return dispatches.at(-1)?.source.label as string;
  };
  try {
    file({ choices: { [found.key]: other } });
    const labels = [await label(path), await label(false)];
    expect(labels[0]).not.toBe(labels[1]);
    expect(standard).not.toBe(other);
    file({ adapter: "another" });
    await expect(openDevice({ tuned: path })).rejects.toThrow(/was measured on another, this is/);
    writeFileSync(path, "{");
    await expect(openDevice({ tuned: path })).rejects.toThrow(DeviceError);
    await expect(openDevice({ tuned: join(folder, "none.json") })).rejects.toThrow(/does not exist: make it with/);
  } finally {
    useDevice(shared);
  }
});

test("a file is looked for by adapter, in the cache folder of the user", () => {
  const before = process.env.XDG_CACHE_HOME;
  process.env.XDG_CACHE_HOME = folder;
  expect(tuningPath("llvmpipe: Mesa 25.0.7 (LLVM 15.0.6)")).toBe(
    join(folder, "gifgrad", "tune", "llvmpipe-mesa-25.0.7-llvm-15.0.6.json"),
  );
  if (before === undefined) delete process.env.XDG_CACHE_HOME;
  else process.env.XDG_CACHE_HOME = before;
  expect(readTuning(join(folder, "nothing.json"), "x")).toBeNull();
});
