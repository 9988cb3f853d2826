// Products on matrix units, which the adapter at hand need not have: chosen by capability, type-checked and made into
// pipelines by Dawn's null backend, and run with the hardware's operations written out as WGSL functions, which checks
// everything else (staging, edges, epilogue, placement) against the family's float64 definition.

import { afterAll, describe, expect, test } from "vitest";
import { openDawn } from "../engine/runtime/dawn.ts";
import { tensor } from "../engine/tensor.ts";
import { convForward, convWeightGrad } from "../kernels/conv.ts";
import { matmul } from "../kernels/matmul.ts";
import type { MatmulSpec } from "../kernels/matmul_spec.ts";
import { type Caps, choose, type KernelSource, type Lowered, type MatrixShape, MINIMUM_CAPS } from "../kernels/wgsl.ts";
import { openBare, prepare } from "./kernel_runner.ts";

const single: MatrixShape = { m: 8, n: 8, k: 8, input: "f32", result: "f32" };
const half: MatrixShape = { m: 16, n: 16, k: 16, input: "f16", result: "f32" };
const withMatrices = (...matrices: MatrixShape[]): Caps => ({ ...MINIMUM_CAPS, subgroupSize: 32, f16: true, matrices });

const real = await openBare();
const dawn = await openDawn({ backend: "null" });
afterAll(() => {
  real?.device.destroy();
  dawn.release();
});

/** A[m, k] B[k, n], each stored as it is ("n") or transposed ("t"). */
function product(layout: string, m: number, n: number, k: number, halves = false): MatmulSpec {
  const operand = (stored: string, rows: number, cols: number): MatmulSpec["a"] => ({
    offset: 0,
    batch: [0, 0],
    row: stored === "n" ? cols : 1,
    col: stored === "n" ? 1 : rows,
  });
  return { m, n, k, batch: [1, 1], a: operand(layout[0], m, k), b: operand(layout[1], k, n), halves };
}

const convolution = {
  batch: 2,
  in: [1, 6, 6],
  out: [1, 6, 6],
  channels: 8,
  filters: 20,
  kernel: [1, 3, 3],
  stride: [1, 1, 1],
  padding: [0, 1, 1],
  dilation: [1, 1, 1],
} as const;

describe("the choice", () => {
  const chosen = (spec: MatmulSpec, caps: Caps): string => {
    const { passes } = choose(matmul, spec, caps).emit(spec, caps);
    return passes.map((p) => p.source.label).join() || "";
  };

  test("f32 products take f32 units, f16 units only what f16 holds exactly", () => {
    expect(chosen(product("nn", 64, 64, 64), withMatrices(half, single))).toMatch(/matrix-f32-8x8x8/);
    expect(chosen(product("nn", 64, 64, 64, true), withMatrices(half, single))).toMatch(/matrix-f16-16x16x16/);
    expect(chosen(product("nn", 64, 64, 64), withMatrices(half))).toMatch(/shared/);
    expect(chosen(product("nn", 64, 64, 64, true), { ...withMatrices(half), f16: false })).toMatch(/shared/);
  });

  test("not without fixed subgroups of 32, nor where C has few columns, nor where the tile does not divide", () => {
    expect(chosen(product("nn", 64, 64, 64), { ...withMatrices(single), subgroupSize: 0 })).toMatch(/shared/);
    expect(chosen(product("nn", 64, 16, 64), withMatrices(single))).toMatch(/shared/);
    expect(chosen(product("nn", 64, 64, 64), withMatrices({ ...single, m: 12 }))).toMatch(/shared/);
    expect(chosen(product("nn", 64, 64, 64), MINIMUM_CAPS)).toMatch(/shared/);
  });

  test("f16 tensors say that they are, and so do the gradients of their product", () => {
    const f16 = (...shape: number[]) => tensor(new Float32Array(shape[0] * shape[1]), shape).cast("f16");
    const node = f16(4, 8).matmul(f16(8, 4)).node.src[0];
    expect([node.op.name, node.attrs]).toEqual(["matmul", { halves: true }]);
    const plain = tensor([1, 2, 3, 4], [2, 2]);
    expect(plain.matmul(plain).node.attrs).toEqual({});
  });
});

describe.each([
  ["f32", withMatrices(single), false],
  ["f16", withMatrices(half), true],
] as const)("%s units", (_, caps, halves) => {
  test("every way of loading makes a pipeline on the null backend", async () => {
    const sources = new Map<string, KernelSource>();
    const add = ({ passes }: Lowered): void => {
      for (const { source } of passes) sources.set(source.wgsl, source);
    };
    for (const layout of ["nn", "nt", "tn", "tt"])
      for (const odd of [0, 1]) {
        const spec = product(layout, 64 + odd, 64 + odd, 32 + odd, halves);
        add(choose(matmul, spec, caps).emit(spec, caps));
      }
    for (const family of [convForward, convWeightGrad]) add(choose(family, convolution, caps).emit(convolution, caps));
    for (const { wgsl, label } of sources.values()) {
      const module = dawn.device.createShaderModule({ code: wgsl, label });
      const { messages } = await module.getCompilationInfo();
      expect(messages.map((m) => `${label}:${m.lineNum} ${m.message}`)).toEqual([]);
      await dawn.device.createComputePipelineAsync({ layout: "auto", compute: { module, entryPoint: "main" } });
    }
    expect([...sources.values()].filter((s) => s.label.includes("matrix-")).length).toBeGreaterThan(4);
  });
});

/** Hardware's operations in WGSL, with the sums in workgroup memory: each thread of a group does 32 of its 32 x 32. */
function emulated(wgsl: string): string {
  // Trip counts that the driver cannot know: it would unroll what it can, and compile for half a minute.
  const functions = `
fn many(n: u32) -> u32 { return min(n, u.m * 4096u); }
var<workgroup> sums: array<f32, 4096>;
fn element(row: u32, col: u32, e: u32) -> u32 { return (row + e / 32u) * 64u + col + e % 32u; }
fn multiply(a: u32, b: u32, row: u32, col: u32, lane: u32) {
  for (var e = lane; e < many(1024u); e += 32u) {
    var sum = sums[element(row, col, e)];
    for (var j = 0u; j < many(8u); j++) { sum = fma(tile_a[a + e / 32u * 16u + j], tile_b[b + j * 64u + e % 32u], sum); }
    sums[element(row, col, e)] = sum;
  }
}
fn keep(at: u32, row: u32, col: u32, lane: u32) {
  for (var e = lane; e < many(1024u); e += 32u) { tile_c[at + e / 32u * 64u + e % 32u] = sums[element(row, col, e)]; }
}
`;
  const body = wgsl
    .replace(/enable [^;]*;|diagnostic[^;]*;/g, "")
    .replace(", @builtin(subgroup_id) group: u32", "")
    .replace("let row = group", "let group = id / 32u; let row = group")
    .replace(/let ([ab])0 = subgroupMatrixLoad<[^>]*>, row_major>\(&tile_., (.*), \d+u\);/g, "let $1_at = $2;")
    .replace(/var acc0_0 = [^;]*;/, "")
    .replace(/acc0_0 = subgroupMatrixMultiplyAccumulate[^;]*;/g, "multiply(a_at_, b_at_, row, col, id % 32u);")
    .replace(/subgroupMatrixStore<row_major>\(&tile_c, (.*), acc0_0, 64u\)/g, "keep($1, row, col, id % 32u)")
    .replace(/let ([ab])_at = /g, "let $1_at_ = ");
  return functions + body;
}

/** Largest error relative to the largest magnitude of the definition. */
async function distance(spec: MatmulSpec, change: (s: KernelSource) => KernelSource = (s) => s): Promise<number> {
  if (!real) throw new Error("no adapter");
  // A shape as large as the quarter of a tile: one matrix of each kind.
  const shape = { ...single, m: 32, n: 32 };
  const caps = { ...withMatrices(shape), maxInvocations: 256 };
  const inputs = matmul
    .inputs(spec)
    .map(({ size }, i) => Float32Array.from({ length: size }, (_, e) => Math.sin(e * (i + 2) + i)));
  const { passes, scratch } = choose(matmul, spec, caps).emit(spec, caps);
  const source = (s: KernelSource): KernelSource =>
    s.label.includes("matrix-") ? change({ ...s, wgsl: emulated(s.wgsl) }) : s;
  const lowered = { scratch, passes: passes.map((p) => ({ ...p, source: source(p.source) })) };
  const prepared = await prepare(real, lowered, inputs, matmul.outputs(spec));
  prepared.dispatch();
  const [got] = await prepared.read();
  prepared.destroy();
  const [want] = matmul.reference(
    spec,
    inputs.map((x) => Float64Array.from(x)),
  );
  const top = want.reduce((a, x) => Math.max(a, Math.abs(x)), 0);
  return want.reduce((a, x, i) => Math.max(a, Math.abs(got[i] - x)), 0) / top;
}

describe.skipIf(!real)("with emulated units", () => {
  // One layout: the emulation takes the software driver ten seconds to compile.
  test("a product equals its definition, edges included", async () => {
    expect(await distance(product("nt", 72, 68, 20))).toBeLessThan(1e-5);
  });

  test("a planted bug is caught: the last k are forgotten", async () => {
    const planted = (s: KernelSource): KernelSource => ({
      ...s,
      uniforms: s.uniforms.map((word, i) => (i === 2 ? 16 : word)),
    });
    expect(await distance(product("nt", 72, 68, 20), planted)).toBeGreaterThan(1e-3);
  });
});
