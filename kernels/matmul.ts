// Batched matrix multiplication C[b0, b1] = A[b0, b1] B[b0, b1] with any strides on the operands (so transposition and
// broadcast over the batch cost no copy) and an optional epilogue. Here: the address functions of
// strided operands, the list of variants. The loops are in gemm_tiles.ts. Called by engine/ops and engine/plan.

import { type Gemm, type Generator, type LoadA, type LoadB, lowerGemm, type Relayout } from "./gemm.ts";
import { tileVariants } from "./gemm_variants.ts";
import { counts, loadOfA, loadOfB, type MatmulSpec, type StridedOperand, type Triangle } from "./matmul_spec.ts";
import { matvec } from "./matvec.ts";
import type { Caps, Draw, Family, Lowered, Operand } from "./wgsl.ts";

/** A copy of B as [b0, b1, k, n] without the broadcast batches, and how to read it: worth it, since rows of A share it. */
function contiguousB(s: MatmulSpec): { relayout: Relayout; b: StridedOperand } {
  const [b0, b1] = [0, 1].map((i) => (s.b.batch[i] === 0 ? 1 : s.batch[i]));
  return {
    relayout: { sizes: [b0, b1, s.k, s.n], offset: s.b.offset, strides: [...s.b.batch, s.b.row, s.b.col] },
    b: { offset: 0, batch: [b0 > 1 ? b1 * s.k * s.n : 0, b1 > 1 ? s.k * s.n : 0], row: s.n, col: 1 },
  };
}

const ROW: Record<LoadA, string> = {
  k4: "min(row, u.m - 1u)",
  m4: "min(row, u.m - 4u) / 4u",
  any: "min(row, u.m - 1u)",
};

/** What of a load of A counts where only one half does: `row` and `k` of its first element, both signed. */
const COUNTED: Record<LoadA, (compare: string) => string> = {
  k4: (compare) => `select(vec4<f32>(), v, vec4<i32>(k, k + 1, k + 2, k + 3) ${compare} vec4<i32>(row + u.diagonal))`,
  m4: (compare) =>
    `select(vec4<f32>(), v, vec4<i32>(k) ${compare} vec4<i32>(row, row + 1, row + 2, row + 3) + u.diagonal)`,
  any: (compare) => `select(0.0f, v, k ${compare} row + u.diagonal)`,
};

function addressA(load: LoadA, triangle: Triangle | undefined): string {
  const type = load === "any" ? "f32" : "vec4<f32>";
  const counted = triangle?.of === "left" ? COUNTED[load](triangle.half === "lower" ? "<=" : ">=") : null;
  const [row, k] = counted ? ["row", "k"] : ["0u", "0u"];
  return `
fn a_row(batch: u32, row: u32) -> vec2<u32> {
  let outer = divide(batch, u.batch1);
  let base = u.a_offset + outer * u.a_batch0 + (batch - outer * u.batch1) * u.a_batch1;
  return vec2<u32>(base + ${ROW[load]}${load === "m4" ? "" : " * u.a_row"}, ${row});
}
fn a_col(k: u32) -> vec2<u32> { return vec2<u32>(${load === "k4" ? "k / 4u" : "k * u.a_col"}, ${k}); }
fn a_at(r: vec2<u32>, c: vec2<u32>) -> ${type} {
  ${counted ? `let v = a[r.x + c.x]; let row = i32(r.y); let k = i32(c.y); return ${counted};` : "return a[r.x + c.x];"}
}`;
}

function addressB(load: LoadB): string {
  const base = `let outer = divide(batch, u.batch1);
  let base = u.b_offset + outer * u.b_batch0 + (batch - outer * u.batch1) * u.b_batch1;`;
  if (load === "n4")
    return `
alias Column = u32;
fn b_column(batch: u32, col: u32) -> Column {
  ${base}
  return base + min(col, u.n - 4u) / 4u;
}
fn b_at(c: Column, k: u32) -> vec4<f32> { return b[c + k * u.b_row]; }`;
  return `
alias Column = vec4<u32>;
fn b_column(batch: u32, col: u32) -> Column {
  ${base}
  return vec4<u32>(base) + min(vec4<u32>(col, col + 1u, col + 2u, col + 3u), vec4<u32>(u.n - 1u)) * u.b_col;
}
${load === "k4" ? "fn b_along(c: Column, j: u32, k: u32) -> vec4<f32> { return b[c[j] + k / 4u]; }" : SCALAR_B}`;
}

const SCALAR_B = `fn b_at(c: Column, k: u32) -> vec4<f32> {
  let p = c + k * u.b_row;
  return vec4<f32>(b[p.x], b[p.y], b[p.z], b[p.w]);
}`;

/** The product as its tiles see it: offsets and strides in units of one load. */
function gemm(s: MatmulSpec, load: LoadA, loadB: LoadB): Gemm {
  const ua = load === "any" ? 1 : 4;
  const ub = loadB === "any" ? 1 : 4;
  return {
    label: `matmul ${load} ${loadB}`,
    m: s.m,
    n: s.n,
    k: s.k,
    batch: s.batch[0] * s.batch[1],
    a: { load, wgsl: addressA(load, s.triangle) },
    triangle: s.triangle,
    b: { load: loadB, wgsl: addressB(loadB) },
    fields: [
      ["batch1", "u32", s.batch[1]],
      ["a_offset", "u32", s.a.offset / ua],
      ["a_batch0", "u32", s.a.batch[0] / ua],
      ["a_batch1", "u32", s.a.batch[1] / ua],
      ["a_row", "u32", s.a.row / ua],
      ["a_col", "u32", s.a.col / ua],
      ["b_offset", "u32", s.b.offset / ub],
      ["b_batch0", "u32", s.b.batch[0] / ub],
      ["b_batch1", "u32", s.b.batch[1] / ub],
      ["b_row", "u32", s.b.row / ub],
      ["b_col", "u32", s.b.col / ub],
    ],
    epilogue: s.epilogue,
  };
}

const macs = (s: MatmulSpec): number => s.batch[0] * s.batch[1] * s.m * s.n * s.k;

/**
 * Is a transposed B read where it lies, on a software adapter? Not for many rows: the tiles that read along k are half as
 * large, and copying B costs as much as some thirty rows of the product. Measured 160 -> 105 ms on an MLP of 256 rows, and
 * 330 -> 190 ms on the scores of attention, 16 x 1024 x 1024 x 32.
 */
const inPlace = (s: MatmulSpec): boolean => loadOfB(s) === "k4" && s.m < 64;

function lower(s: MatmulSpec, tile: Generator, vectors: boolean, caps: Caps): Lowered {
  const load = vectors ? loadOfA(s) : "any";
  const loadB = loadOfB(s);
  if (loadB === "n4" || (vectors && loadB === "k4" && (caps.adapter === "gpu" || inPlace(s))))
    return lowerGemm(gemm(s, load, loadB), tile, caps);
  if (s.n % 4 !== 0) return lowerGemm(gemm(s, load, "any"), tile, caps);
  const { relayout, b } = contiguousB(s);
  return lowerGemm(gemm({ ...s, b }, load, "n4"), tile, caps, relayout);
}

/** Addresses [0, size) of an operand of the given extents. */
const sizeOf = (o: StridedOperand, batch: readonly [number, number], rows: number, cols: number): number =>
  1 + o.offset + (batch[0] - 1) * o.batch[0] + (batch[1] - 1) * o.batch[1] + (rows - 1) * o.row + (cols - 1) * o.col;

function reference(s: MatmulSpec, [a, b]: readonly Float64Array[]): Float64Array[] {
  const y = new Float64Array(s.batch[0] * s.batch[1] * s.m * s.n);
  let out = 0;
  for (let b0 = 0; b0 < s.batch[0]; b0++)
    for (let b1 = 0; b1 < s.batch[1]; b1++)
      for (let i = 0; i < s.m; i++)
        for (let j = 0; j < s.n; j++) {
          const pa = s.a.offset + b0 * s.a.batch[0] + b1 * s.a.batch[1] + i * s.a.row;
          const pb = s.b.offset + b0 * s.b.batch[0] + b1 * s.b.batch[1] + j * s.b.col;
          let sum = 0;
          for (let k = 0; k < s.k; k++)
            if (s.triangle?.of !== "left" || counts(s.triangle, i, k)) sum += a[pa + k * s.a.col] * b[pb + k * s.b.row];
          y[out++] = s.triangle?.of !== "result" || counts(s.triangle, i, j) ? sum : 0;
        }
  return [y];
}

const SIZES = [1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 20, 31, 32, 33, 36, 63, 64, 65];
const MAX_MACS = 200_000;

/** Strides of rows x cols: row-major, column-major, or row-major with a gap and an offset; the batch may broadcast. */
function drawOperand(d: Draw, batch: readonly [number, number], rows: number, cols: number): StridedOperand {
  const style = d.pick(["row", "row", "column", "column", "gap"]);
  const [offset, row, col] = style === "row" ? [0, cols, 1] : style === "column" ? [0, 1, rows] : [5, 2 * cols + 1, 2];
  const one = rows * cols * (style === "gap" ? 4 : 1) + (style === "gap" ? 2 * rows : 0);
  const inner = d.pick([0, 1]) === 0 ? 0 : one;
  return { offset, batch: [d.pick([0, 1]) === 0 ? 0 : one * batch[1], inner], row, col };
}

function draw(d: Draw): MatmulSpec {
  const batch: [number, number] = [d.pick([1, 1, 2]), d.pick([1, 1, 3])];
  const m = d.pick(SIZES);
  const n = d.pick(SIZES);
  const limit = MAX_MACS / (m * n * batch[0] * batch[1]);
  const k = d.pick(SIZES.filter((x) => x <= limit));
  const plain = { m, n, k, batch, a: drawOperand(d, batch, m, k), b: drawOperand(d, batch, k, n) };
  if (d.int(0, 2) > 0) return plain;
  const triangle = {
    of: d.pick(["left", "result"] as const),
    half: d.pick(["lower", "upper"] as const),
    diagonal: d.pick([0, 0, -1, 1, d.int(-20, 20)]),
  };
  return { ...plain, triangle };
}

const tiles = tileVariants<MatmulSpec>({
  columns: (s) => s.n,
  macs,
  alongK: inPlace,
  halves: (s) => s.halves === true,
  lower,
});

export const matmul: Family<MatmulSpec> = {
  name: "matmul",
  variants: [matvec, ...tiles.variants],
  candidates: tiles.candidates,
  inputs: (s): readonly Operand[] => [
    { dtype: "f32", size: sizeOf(s.a, s.batch, s.m, s.k) },
    { dtype: "f32", size: sizeOf(s.b, s.batch, s.k, s.n) },
  ],
  outputs: (s): readonly Operand[] => [{ dtype: "f32", size: s.batch[0] * s.batch[1] * s.m * s.n }],
  reference,
  draw,
  // k <= 65 roundings of 6e-8 each, on terms whose absolute sum may exceed the largest result several times.
  rtol: 2e-5,
  sums: true,
  why: "sums of up to a few hundred products rounded to 6e-8 each",
};
