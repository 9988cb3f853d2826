// Small dispatches that become one: the values they compute, the texts they are joined from, and when it is done.
// Random programs are chained in fuse.test.ts, and their chains type-checked for other machines in null.test.ts.

import { describe, expect, test } from "vitest";
import { trace } from "../engine/compile.ts";
import type { Data } from "../engine/dtype.ts";
import { compile, type Tensor, tensor, useDevice } from "../engine/index.ts";
import { layerNorm } from "../engine/nn/index.ts";
import { chained } from "../engine/plan/chain.ts";
import { type Dispatch, makePlan, type Place, type PlanOptions } from "../engine/plan/plan.ts";
import { type GpuDevice, openGpu } from "../engine/runtime/gpu.ts";
import { bitDifference } from "../engine/testing/close.ts";
import { chainKernel, takeApart } from "../kernels/chain.ts";
import { type Caps, type KernelSource, MINIMUM_CAPS, type Pass } from "../kernels/wgsl.ts";
import { gpu, onGpu } from "./device.ts";
import { prepare } from "./kernel_runner.ts";

const WEIGHT = Float32Array.from({ length: 256 }, (_, i) => Math.sin(i));

/** Layers of a product, norm, softmax and a row's sum: each is one dispatch or two, and small. */
function layers(n: number): (x: Tensor) => Tensor {
  const weight = tensor(WEIGHT, [16, 16]);
  return (x) =>
    Array.from({ length: n }).reduce<Tensor>((y) => {
      const z = layerNorm(y.matmul(weight)).softmax(-1);
      return y.sub(z.mul(z.sum(0, { keepdims: true })));
    }, x);
}
const planOf = (n: number, options?: PlanOptions, caps = MINIMUM_CAPS) =>
  makePlan(
    trace("layers", ({ x }) => ({ y: layers(n)(x) }), { x: { shape: [8, 16], dtype: "f32" } }),
    caps,
    options,
  );
const labels = (options?: PlanOptions, n = 4): string[] => planOf(n, options).dispatches.map((d) => d.source.label);

describe("a plan is chained", () => {
  test("where that saves much, in the order of its dispatches", () => {
    expect(labels({ chain: false }).join()).toBe(
      labels()
        .flatMap((l) => l.split(" + "))
        .join(),
    );
    expect(labels().length).toBeLessThan(0.8 * labels({ chain: false }).length);
  });
  test("not where it saves little, nor unfused, nor when it runs once", () => {
    expect(labels({}, 1)).toEqual(labels({ chain: false }, 1));
    expect(labels({ fuse: false })).toEqual(labels({ fuse: false, chain: false }));
    const program = trace("once", ({ x }) => ({ y: layers(4)(x) }), { x: { shape: [8, 16], dtype: "f32" } });
    const once = makePlan({ ...program, reused: false }, MINIMUM_CAPS).dispatches;
    expect(once).toHaveLength(labels({ chain: false }).length);
  });
  test("within the bindings of the adapter, and without many workgroups", () => {
    const { dispatches } = planOf(4, { chain: "all" }, { ...MINIMUM_CAPS, maxBindings: 5 });
    expect(Math.max(...dispatches.map((d) => d.places.length))).toBe(5);
    const large = trace("large", ({ x }) => ({ y: layers(4)(x) }), { x: { shape: [4096, 16], dtype: "f32" } });
    const joined = makePlan(large, MINIMUM_CAPS, { chain: "all" }).dispatches.filter((d) => d.groups.length > 1);
    for (const { places } of joined) expect(Math.max(...places.map((p) => p.bytes))).toBeLessThan(4096 * 64);
  });
});

onGpu("a chain computes the bits of the dispatches it is made of", async () => {
  const values = Float32Array.from({ length: 128 }, (_, i) => Math.cos(i));
  const found: Data[] = [];
  for (const chain of [false, "all"] as const) {
    const device = useDevice(await openGpu({ plan: { chain } }));
    const step = compile(({ x }: { x: Tensor }) => ({ y: layers(2)(x) }));
    found.push(await step({ x: tensor(values, [8, 16]) }).y.data());
    device.close();
  }
  await gpu();
  expect(bitDifference(found[1], found[0])).toBeNull();
});

// ---- texts -----------------------------------------------------------------------------------------------------------

/** y = f(x, i) for `threads` threads, in workgroups of `size`, with buffers as they are declared. */
function kernel(element: [x: string, y: string], body: string, size = 64, workgroups = 1): KernelSource {
  const declared = ["x", "y"].map(
    (name, i) => `@group(0) @binding(${i}) var<storage, read_write> ${name}: array<${element[i]}>;`,
  );
  const wgsl = `${declared.join("\n")}
struct Uniforms {
  n: u32,
}
@group(0) @binding(2) var<uniform> u: Uniforms;
const LAST = 63u;
fn mirrored(i: u32) -> u32 { return LAST - i; }
@compute @workgroup_size(${size})
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = wg.x * ${size}u + lane;
  if (i >= u.n) { return; }
  ${body}
}
`;
  return { label: "kernel", wgsl, workgroups: [workgroups, 1, 1], uniforms: [size * workgroups] };
}
const twice = kernel(["f32", "f32"], "y[i] = 2.0 * x[i];");
const mirror = kernel(["f32", "f32"], "y[i] = x[mirrored(i)];");

function chainFor(caps: Caps, sources: readonly KernelSource[]): KernelSource | null {
  const kernels = sources.map((s) => takeApart(s)).filter((k) => k !== null);
  const operands = sources.map((_, i): Pass["operands"] => [i, i + 1]);
  return kernels.length < sources.length ? null : chainKernel(kernels, operands, sources.length + 1, caps);
}
const chainOf = (...sources: KernelSource[]): KernelSource | null => chainFor(MINIMUM_CAPS, sources);

/** y = x plus how often the thread's place in memory of the workgroup was used before: by workgroups before it, if that is shared. */
function tallying(workgroups: number): KernelSource {
  const source = kernel(["f32", "f32"], "y[i] = x[i] + seen[lane]; seen[lane] += 1.0;", 32, workgroups);
  return {
    ...source,
    wgsl: source.wgsl.replace("const LAST", "var<workgroup> seen: array<f32, 32>;\nconst LAST"),
  };
}

/** The last of the chain's places, for x = 1, 2, ..., 64. */
async function run({ dawn }: GpuDevice, source: KernelSource, places: number): Promise<number[]> {
  const x = Float32Array.from({ length: 64 }, (_, i) => i + 1);
  const outputs = Array.from({ length: places - 1 }, () => ({ dtype: "f32" as const, size: 64 }));
  const pass = { source, operands: Array.from({ length: places }, (_, i) => i) };
  const prepared = await prepare(dawn, { passes: [pass], scratch: [] }, [x], outputs);
  prepared.dispatch();
  const last = (await prepared.read()).at(-1) as Float32Array;
  prepared.destroy();
  return [...last];
}
const mirrored = Array.from({ length: 64 }, (_, i) => 2 * (64 - i));

onGpu("kernels of one chain see what those before them wrote, whoever wrote it", async (device) => {
  const chain = chainOf(twice, mirror) as KernelSource;
  expect(await run(device, chain, 3)).toEqual(mirrored);
  const unordered = { ...chain, wgsl: chain.wgsl.replace("storageBarrier();", "") };
  expect(unordered.wgsl).not.toBe(chain.wgsl);
  expect(await run(device, unordered, 3)).not.toEqual(mirrored);
});

onGpu("kernels of one chain may differ in their workgroups and in how they see a buffer", async (device) => {
  const small = kernel(["f32", "f32"], "y[i] = 2.0 * x[i];", 8, 8);
  const wide = kernel(["vec4<f32>", "vec4<f32>"], "y[i] = x[15u - i].wzyx;", 16);
  const pairs = kernel(
    ["vec2<u32>", "vec2<u32>"],
    "y[i] = x[i]; if (i >= arrayLength(&x)) { y[0] = vec2<u32>(); }",
    32,
  );
  for (const sources of [
    [small, wide],
    [small, wide, pairs],
    [small, pairs, mirror],
  ])
    expect(await run(device, chainOf(...sources) as KernelSource, sources.length + 1)).toEqual(mirrored);
});

onGpu("memory of a workgroup is zero where one begins, also of the second", async (device) => {
  const short = kernel(["f32", "f32"], "y[i] = 2.0 * x[i];", 32, 2);
  const doubled = Array.from({ length: 32 }, (_, i) => 2 * (i + 1));
  const once = chainOf(short, tallying(1)) as KernelSource;
  expect((await run(device, once, 3)).slice(0, 32)).toEqual(doubled);
  expect(chainOf(short, tallying(2))).toBeNull();
  const joined = { ...once, uniforms: once.uniforms.map((n, i) => (i === 2 ? 2 : i === 3 ? 64 : n)) };
  expect((await run(device, joined, 3)).slice(32)).toEqual(doubled.map((y) => y + 64 + 1));
});

test("a buffer that is floats to one kernel and whole numbers to another is declared as bits", () => {
  const whole = kernel(["i32", "i32"], "y[i] = x[i] + 1;");
  const declared = (...sources: KernelSource[]): string[] =>
    [...(chainOf(...sources) as KernelSource).wgsl.matchAll(/place_\d: array<(\w+)>/g)].map(([, type]) => type);
  expect(declared(twice, whole)).toEqual(["f32", "u32", "i32"]);
  expect(declared(whole, twice)).toEqual(["i32", "u32", "f32"]);
  expect(declared(twice, mirror)).toEqual(["f32", "f32", "f32"]);
});

test("a subgroup is not shared by workgroups", () => {
  const ofFour = kernel(["f32", "f32"], "y[i] = subgroupAdd(x[i]);", 4, 16);
  const withSubgroups = (subgroupSize: number): Caps => ({ ...MINIMUM_CAPS, subgroupSize });
  expect([0, 4, 8].map((n) => chainFor(withSubgroups(n), [twice, ofFour]) !== null)).toEqual([false, true, false]);
});

test("what cannot be joined is left alone", () => {
  const changed = (from: string, to: string): KernelSource => {
    expect(mirror.wgsl).toContain(from);
    return { ...mirror, wgsl: mirror.wgsl.replace(from, to) };
  };
  const parameters = "@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32";
  expect(chainOf(twice, mirror)).not.toBeNull();
  for (const odd of [
    changed("const LAST", "override LAST"),
    changed("const LAST", "var<private> own: u32;\nconst LAST"),
    changed(
      "@builtin(local_invocation_index) lane",
      "@builtin(global_invocation_id) at: vec3<u32>, @builtin(local_invocation_index) lane",
    ),
    changed("@workgroup_size(64)", "@workgroup_size(8, 8)"),
    changed("x: array<f32>", "x: array<atomic<u32>>"),
    changed("fn mirrored", "struct Pair { mirrored: u32, u: u32 }\nfn mirrored"),
    kernel(["vec4<f32>", "f32"], "let p = &x[i]; y[i] = (*p).x;"),
    kernel(["vec4<f32>", "f32"], "x[i] += vec4<f32>(1.0); y[i] = x[i].x;"),
    kernel(["vec4<f32>", "f32"], "x[i].y = 1.0; y[i] = x[i].x;"),
    kernel(["f32", "f32"], "workgroupBarrier(); y[i] = x[i];", 32),
    // Names inside that are names outside, or that the chain gives; what is not named word by word.
    kernel(["f32", "f32"], "let x = x[i]; y[i] = x;"),
    kernel(["f32", "f32"], "let place_1 = x[i]; y[i] = place_1;"),
    kernel(["f32", "f32"], "let n__1 = x[i]; y[i] = n__1;"),
    kernel(["f32", "f32"], "let all = u; y[i] = x[i] + f32(all.n);"),
    kernel(["f32", "f32"], "y[i] = vec2<f32>(x[i]). x;"),
    kernel(["f32", "f32"], "y[i] = x[i]; /* y[i] = 1.0; */"),
    changed("const LAST", "struct Pair { x: u32 }\nconst LAST"),
    changed("const LAST", "fn first(u: vec2<f32>) -> f32 { return u.x; }\nconst LAST"),
    changed("const LAST", "fn first(all: Uniforms) -> u32 { return all.n; }\nconst LAST"),
    changed(parameters, "at: At, @builtin(local_invocation_index) lane: u32"),
  ])
    expect(chainOf(twice, odd)?.wgsl ?? null).toBeNull();
});

// ---- which are small -------------------------------------------------------------------------------------------------

/** Dispatches one after another, each on memory of its own. */
function dispatchesOf(sources: readonly KernelSource[], bytes = 256): Dispatch[] {
  return sources.map((source, i) => {
    const places = [i, i + 1].map((index): Place => ({ kind: "arena", index, bytes }));
    return { source, places, groups: [], slots: [], written: new Set() };
  });
}
const keyOf = (p: Place): string => (p.kind === "arena" ? `${p.index}` : p.kind);
const lengths = (dispatches: Dispatch[], caps: Caps): number[] =>
  chained(dispatches, caps, { keyOf, always: true }).map((d) => d.source.label.split(" + ").length);

test("no dispatch is lost where the same text has more workgroups elsewhere", () => {
  const short = kernel(["f32", "f32"], "y[i] = 2.0 * x[i];", 32, 1);
  const cpu: Caps = { ...MINIMUM_CAPS, adapter: "cpu" };
  const parts = [short, tallying(1), short, tallying(2)].map((s) => ({ ...s, flops: 0 }));
  expect(lengths(dispatchesOf(parts), cpu)).toEqual([3, 1]);
});

test("on a software adapter small is what moves and computes little, and says so", () => {
  const cpu: Caps = { ...MINIMUM_CAPS, adapter: "cpu" };
  const of = (flops: number | undefined, bytes = 256, workgroups = 1): number[] =>
    lengths(
      dispatchesOf(
        [0, 1].map(() => ({ ...kernel(["f32", "f32"], "y[i] = x[i];", 64, workgroups), flops })),
        bytes,
      ),
      cpu,
    );
  expect(of(64)).toEqual([2]);
  expect(of(64, 256, 9)).toEqual([2]);
  expect(of(2 ** 17)).toEqual([1, 1]);
  expect(of(undefined)).toEqual([1, 1]);
  expect(of(64, 2 ** 17)).toEqual([1, 1]);
});

test("on a GPU small is a single workgroup", () => {
  const of = (workgroups: number): number[] =>
    lengths(dispatchesOf([0, 1].map(() => kernel(["f32", "f32"], "y[i] = x[i];", 64, workgroups))), MINIMUM_CAPS);
  expect([of(1), of(2)]).toEqual([[2], [1, 1]]);
});
