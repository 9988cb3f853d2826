// The inner loop of a product (gemm.ts) on matrix units: WGSL's experimental subgroup matrices, which Dawn offers on GPUs
// that have them (tensor cores, simdgroup matrices). Chosen by capability only, never assumed. Called by gemm_variants.ts.

import type { Gemm, Generator, LoadA } from "./gemm.ts";
import { type Caps, type MatrixShape, wgsl } from "./wgsl.ts";

const times = (count: number, line: (i: number) => string): string[] =>
  Array.from({ length: count }, (_, i) => line(i));

/** Rows and columns of C that one workgroup computes, and k that it stages at a time. */
const TILE = 64;
const DEPTH = 16;
/** Each of the 4 subgroups of a workgroup computes a quarter of the tile. */
const QUARTER = 32;
const THREADS = 128;

/** Bytes of workgroup memory: A and B staged, and half of C for the epilogue. */
const bytesOf = (shape: MatrixShape): number => 2 * TILE * DEPTH * (shape.input === "f16" ? 2 : 4) + QUARTER * TILE * 4;

/**
 * The first shape of the adapter that fits the tile and sums in f32; null when there is none. f16 inputs only for operands
 * that f16 holds exactly (`halves`): the products are then exact, and the sums are those of f32.
 */
export function matrixShape(caps: Caps, halves: boolean): MatrixShape | null {
  if (caps.adapter !== "gpu" || caps.subgroupSize !== THREADS / 4 || caps.maxInvocations < THREADS) return null;
  const fits = (s: MatrixShape): boolean =>
    s.result === "f32" &&
    QUARTER % s.m === 0 &&
    QUARTER % s.n === 0 &&
    DEPTH % s.k === 0 &&
    bytesOf(s) <= caps.maxWorkgroupMemory;
  const of = (input: MatrixShape["input"]): MatrixShape | undefined =>
    caps.matrices?.find((s) => s.input === input && fits(s));
  return (halves && caps.f16 ? of("f16") : undefined) ?? of("f32") ?? null;
}

/**
 * Idea: the shared tile, multiplied by matrix units. 128 threads stage A[64, 16] and B[16, 64] in workgroup memory, zeros
 * past the end of k; each of 4 subgroups multiplies a 32 x 32 quarter in hardware shapes. C goes through workgroup memory
 * too, because a matrix's elements belong to no particular lane and the epilogue needs to know theirs.
 * One workgroup: 64 x 64 of C. Memory traffic: (1/64 + 1/64) loads per multiply-add; 12 to 16 KiB of workgroup memory.
 * Wins wherever there are matrix units. Type-checked on Dawn's null backend; what it gains has not been measured.
 */
export function matrixTile(shape: MatrixShape): Generator {
  const { m, n, k, input } = shape;
  const left = `subgroup_matrix_left<${input}, ${k}, ${m}>`;
  const right = `subgroup_matrix_right<${input}, ${n}, ${k}>`;
  const result = `subgroup_matrix_result<f32, ${n}, ${m}>`;
  const [across, down] = [QUARTER / n, QUARTER / m];
  const each = (line: (i: number, j: number) => string): string[] =>
    times(down * across, (e) => line(Math.floor(e / across), e % across));
  const step = (k0: number): string[] => [
    "{",
    ...times(
      down,
      (i) =>
        `let a${i} = subgroupMatrixLoad<${left}, row_major>(&tile_a, (row + ${i * m}u) * ${DEPTH}u + ${k0}u, ${DEPTH}u);`,
    ),
    ...times(
      across,
      (j) => `let b${j} = subgroupMatrixLoad<${right}, row_major>(&tile_b, ${k0 * TILE}u + col + ${j * n}u, ${TILE}u);`,
    ),
    ...each((i, j) => `acc${i}_${j} = subgroupMatrixMultiplyAccumulate(a${i}, b${j}, acc${i}_${j});`),
    "}",
  ];
  return {
    rows: TILE,
    cols: TILE,
    perWorkgroup: 1,
    name: `matrix-${input}-${m}x${n}x${k}`,
    directives: `${input === "f16" ? "enable f16;\n" : ""}enable subgroups;\nenable chromium_experimental_subgroup_matrix;\ndiagnostic(off, chromium.subgroup_matrix_uniformity);`,
    main: (g) => wgsl`
      var<workgroup> tile_a: array<${input}, ${TILE * DEPTH}>;
      var<workgroup> tile_b: array<${input}, ${TILE * DEPTH}>;
      var<workgroup> tile_c: array<f32, ${QUARTER * TILE}>;
      @compute @workgroup_size(${THREADS})
      fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) id: u32, @builtin(subgroup_id) group: u32) {
        let t = place(wg.y * u.grid_width + wg.x);
        if (outside(t)) { return; }
        let row = group / 2u * ${QUARTER}u;
        let col = group % 2u * ${QUARTER}u;
        ${COPY_A[g.a.load](input).setup}
        ${copyB(g, input).setup}
        ${each((i, j) => `var acc${i}_${j} = ${result}(0.0f);`)}
        for (var k = t.k_begin; k < t.k_end; k += ${DEPTH}u) {
          ${COPY_A[g.a.load](input).copy}
          ${copyB(g, input).copy}
          workgroupBarrier();
          ${times(DEPTH / k, (s) => step(s * k).join("\n"))}
          workgroupBarrier();
        }
        for (var half = 0u; half < 2u; half++) {
          if (group / 2u == half) {
            ${each((i, j) => `subgroupMatrixStore<row_major>(&tile_c, ${i * m * TILE}u + col + ${j * n}u, acc${i}_${j}, ${TILE}u);`)}
          }
          workgroupBarrier();
          for (var e = id; e < ${(QUARTER * TILE) / 4}u; e += ${THREADS}u) {
            let c = vec4<f32>(tile_c[e * 4u], tile_c[e * 4u + 1u], tile_c[e * 4u + 2u], tile_c[e * 4u + 3u]);
            put(t, t.row + half * ${QUARTER}u + e / ${TILE / 4}u, t.col + e % ${TILE / 4}u * 4u, c);
          }
          workgroupBarrier();
        }
      }
    `,
  };
}

interface Copy {
  readonly setup: readonly string[];
  readonly copy: readonly string[];
}

/** Four staged values from a vec4 at k `at`, zeros past the end; `place(c)` is where component c belongs. */
const four = (at: string, value: string, to: string, input: string, place: (c: number) => string): string =>
  `{ let kk = ${at}; let v = select(vec4<f32>(), ${value}, kk < t.k_end); ${times(4, (c) => `${to}[${place(c)}] = ${input}(v[${c}]);`).join(" ")} }`;

/** Copies of A[64 rows, 16 k], row-major, by 128 threads. */
const COPY_A: Record<LoadA, (input: string) => Copy> = {
  k4: (input) => ({
    setup: times(2, (h) => `let r${h} = a_row(t.batch, t.row + id / 4u + ${32 * h}u);`),
    copy: times(2, (h) =>
      four(
        "k + (id % 4u) * 4u",
        `a_at(r${h}, a_col(kk))`,
        "tile_a",
        input,
        (c) => `(id / 4u + ${32 * h}u) * 16u + (id % 4u) * 4u + ${c}u`,
      ),
    ),
  }),
  m4: (input) => ({
    setup: ["let r = a_row(t.batch, t.row + (id % 16u) * 4u);"],
    copy: times(2, (h) =>
      four(
        `k + id / 16u + ${8 * h}u`,
        "a_at(r, a_col(kk))",
        "tile_a",
        input,
        (c) => `((id % 16u) * 4u + ${c}u) * 16u + id / 16u + ${8 * h}u`,
      ),
    ),
  }),
  any: (input) => ({
    setup: ["let r = a_row(t.batch, t.row + id % 64u);"],
    copy: times(
      8,
      (j) =>
        `{ let kk = k + id / 64u + ${2 * j}u; tile_a[(id % 64u) * 16u + id / 64u + ${2 * j}u] = ${input}(select(0.0f, a_at(r, a_col(kk)), kk < t.k_end)); }`,
    ),
  }),
};

/** Copies of B[16 k, 64 columns], row-major. */
function copyB(g: Gemm, input: string): Copy {
  if (g.b.load === "k4")
    return {
      setup: times(2, (h) => `let column${h} = b_column(t.batch, t.col + id / 4u + ${32 * h}u);`),
      copy: times(2, (h) =>
        four(
          "k + (id % 4u) * 4u",
          `b_along(column${h}, 0u, kk)`,
          "tile_b",
          input,
          (c) => `((id % 4u) * 4u + ${c}u) * 64u + id / 4u + ${32 * h}u`,
        ),
      ),
    };
  return {
    setup: ["let column = b_column(t.batch, t.col + (id % 16u) * 4u);"],
    copy: times(2, (h) =>
      four(
        `k + id / 16u + ${8 * h}u`,
        "b_at(column, kk)",
        "tile_b",
        input,
        (c) => `(id / 16u + ${8 * h}u) * 64u + (id % 16u) * 4u + ${c}u`,
      ),
    ),
  };
}
