// The inner loops of a product (gemm.ts): three ways to compute a tile of C, from the fastest on its adapter to the
// plainest. They know neither shapes nor strides: they call the address functions of the Gemm they are given.

import type { Gemm, Generator, LoadA } from "./gemm.ts";
import { wgsl } from "./wgsl.ts";

const times = (count: number, line: (i: number) => string): string[] =>
  Array.from({ length: count }, (_, i) => line(i));

/** Layout of a shuffle tile over the lanes of one subgroup. */
interface ShuffleShape {
  readonly subgroup: number;
  /** Lanes that share a row; each has 4 * `columns` columns. The other lanes have other rows. */
  readonly across: number;
  /** Rows of each lane. */
  readonly rows: number;
  /** vec4 columns of each lane. */
  readonly columns: number;
}

/**
 * Idea: no shared memory. A workgroup is one subgroup; a block of k is as long as `across`. Together the lanes of a row
 * hold A[rows, block] in registers, each lane loads its own vec4 of B per k, and A is broadcast by subgroupShuffle.
 * Every element of A and B is loaded once per tile.
 *
 * One workgroup: (subgroup / across * rows) x (across * 4 * columns) of C, over the workgroup's range of k.
 * Memory traffic: (1/rows + 1/cols) loads per multiply-add; C once.
 * Wins on software adapters, where a shuffle costs a tenth of a load and shared memory costs as much as a load.
 *
 * Three things keep the compile time down (LLVM, 15-25 ms for each load, store and loop-carried variable): the loop
 * over k within a block is not unrolled, A comes in vec4s, and the rows are stored by a loop. Both loops count from
 * values unknown at compile time: the driver would unroll them as soon as it could bound the trips or saw an array
 * indexed by the counter, and then compile and run two to four times slower.
 */
export function shuffleTile({ subgroup, across, rows, columns }: ShuffleShape): Generator {
  const tile = { rows: (subgroup / across) * rows, cols: across * 4 * columns };
  return {
    ...tile,
    perWorkgroup: 1,
    name: `shuffle-${tile.rows}x${tile.cols}`,
    alwaysBias: true,
    directives: "enable subgroups;\ndiagnostic(off, subgroup_uniformity);",
    main(g, bias) {
      const a = loadsOfA(g, across, rows);
      return wgsl`
        @compute @workgroup_size(${subgroup})
        fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
          let t = place(wg.y * u.grid_width + wg.x);
          if (outside(t)) { return; }
          let member = lane % ${across}u;
          let first = lane - member;
          let row0 = t.row + (lane / ${across}u) * ${rows}u;
          let col0 = t.col + member * 4u;
          ${a.setup}
          ${times(columns, (j) => `let column${j} = b_column(t.batch, col0 + ${j * across * 4}u);`)}
          ${times(rows * columns, (i) => `var acc${i} = vec4<f32>();`)}
          for (var k = t.k_begin; k < t.k_end; k += ${across}u) {
            ${a.load}
            let end = min(k + ${across}u, t.k_end);
            ${blockOfK(g, a, rows, columns)}
          }
          ${bias ? times(columns, (j) => `let bias${j} = bias[min(col0 + ${j * across * 4}u, u.n - 4u) / 4u];`) : ""}
          ${putRows(rows, columns, across * 4, bias)}
        }
      `;
    },
  };
}

/** The product of a block of k: for each row of B, each row of A is broadcast and multiplied. */
function blockOfK(g: Gemm, a: LoadsOfA, rows: number, columns: number): string[] {
  if (g.b.load !== "k4")
    return [
      "for (var kk = k; kk < end; kk++) {",
      "let q = kk - k;",
      ...times(columns, (j) => `let b${j} = b_at(column${j}, kk);`),
      ...a.select,
      ...times(rows, (i) => {
        const lines = times(columns, (j) => `acc${i * columns + j} = fma(s, b${j}, acc${i * columns + j});`);
        return `{ let s = vec4<f32>(${a.broadcast(i)}); ${lines.join(" ")} }`;
      }),
      "}",
    ];
  // Four k of four columns at a time: the rows of B are the columns of these 4 x 4 blocks. Unrolled, because picking
  // components by a counter costs as much as it saves; each accumulator is touched once.
  const product = (i: number, j: number): string =>
    [0, 1, 2, 3].reduce((sum, x) => `fma(s${x}, b${j}_${x}, ${sum})`, `acc${i * columns + j}`);
  const row = (j: number, x: number): string => times(4, (c) => `w${j}_${c}.${"xyzw"[x]}`).join(", ");
  return [
    "for (var kk = k; kk < end; kk += 4u) {",
    "let q = kk - k;",
    ...times(4 * columns, (i) => `let w${i >> 2}_${i % 4} = b_along(column${i >> 2}, ${i % 4}u, kk);`),
    ...times(4 * columns, (i) => `let b${i >> 2}_${i % 4} = vec4<f32>(${row(i >> 2, i % 4)});`),
    ...times(rows, (i) => {
      const lines = times(columns, (j) => `acc${i * columns + j} = ${product(i, j)};`);
      return `{ ${times(4, (x) => `let s${x} = vec4<f32>(${a.broadcast4(i, x)});`).join(" ")} ${lines.join(" ")} }`;
    }),
    "}",
  ];
}

/**
 * Stores the registers acc0.. row by row; `step` columns lie between the vec4s of a row. A bias is added before the loop:
 * inside it would be loaded again for every row, as long as a store may have changed it.
 */
function putRows(rows: number, columns: number, step: number, bias = false): string[] {
  return [
    `var acc: array<vec4<f32>, ${rows * columns}>;`,
    ...times(rows * columns, (i) => `acc[${i}] = acc${i}${bias ? ` + bias${i % columns}` : ""};`),
    `for (var row = row0; row < min(row0 + ${rows}u, u.m); row++) {`,
    ...times(columns, (j) => `put(t, row, col0 + ${j * step}u, acc[(row - row0) * ${columns}u + ${j}u]);`),
    "}",
  ];
}

interface LoadsOfA {
  readonly setup: readonly string[];
  readonly load: readonly string[];
  /** Before the rows of one k = q of the block are broadcast; then the broadcast of row i. */
  readonly select: readonly string[];
  broadcast(i: number): string;
  /** Row i at k = q + x, where q is divisible by four. */
  broadcast4(i: number, x: number): string;
}

/** Who loads what of A[rows, block], and which lane has A[row i, k + q]. */
function loadsOfA(g: Gemm, across: number, rows: number): LoadsOfA {
  const skip = (loads: number): string[] =>
    g.sparse ? [`if (!subgroupAny(${times(loads, (v) => `(r${v}.y & c.y) == c.y`).join(" || ")})) { continue; }`] : [];
  if (g.a.load === "k4") {
    // A vec4 load covers 4 rows x the block: member -> (row = member / quads, k quad = member % quads).
    const quads = across / 4;
    const lane = (i: number): string => `first + q / 4u + ${(i % 4) * quads}u`;
    return {
      setup: times(rows / 4, (v) => `let r${v} = a_row(t.batch, row0 + ${4 * v}u + member / ${quads}u);`),
      load: [
        `let c = a_col(k + (member % ${quads}u) * 4u);`,
        ...skip(rows / 4),
        ...times(rows / 4, (v) => `let a${v} = a_at(r${v}, c);`),
      ],
      select: times(rows / 4, (v) => `let s${v} = a${v}[q % 4u];`),
      broadcast: (i) => `subgroupShuffle(s${i >> 2}, ${lane(i)})`,
      broadcast4: (i, x) => `subgroupShuffle(a${i >> 2}.${"xyzw"[x]}, ${lane(i)})`,
    };
  }
  if (g.a.load === "m4") {
    // member -> k; the components are 4 rows.
    const broadcast4 = (i: number, x: number): string =>
      `subgroupShuffle(a${i >> 2}.${"xyzw"[i % 4]}, first + q + ${x}u)`;
    return {
      setup: times(rows / 4, (v) => `let r${v} = a_row(t.batch, row0 + ${4 * v}u);`),
      load: ["let c = a_col(k + member);", ...skip(rows / 4), ...times(rows / 4, (v) => `let a${v} = a_at(r${v}, c);`)],
      select: [],
      broadcast: (i) => broadcast4(i, 0),
      broadcast4,
    };
  }
  // member -> k, one row per load. Each lane works out the address of some rows only, and they are shuffled around.
  const broadcast4 = (i: number, x: number): string => `subgroupShuffle(a${i}, first + q + ${x}u)`;
  return {
    setup: [
      ...times(Math.ceil(rows / across), (s) => `let own${s} = a_row(t.batch, row0 + ${s * across}u + member);`),
      ...times(rows, (i) => `let r${i} = subgroupShuffle(own${Math.floor(i / across)}, first + ${i % across}u);`),
    ],
    load: ["let c = a_col(k + member);", ...skip(rows), ...times(rows, (i) => `let a${i} = a_at(r${i}, c);`)],
    select: [],
    broadcast: (i) => broadcast4(i, 0),
    broadcast4,
  };
}

/** Workgroup memory of `sharedTile`, bytes. */
export const SHARED_BYTES = 2 * 64 * 16 * 4;

/**
 * Idea: the textbook tile. 256 threads copy A[64, 16] and B[16, 64] into workgroup memory, then each computes 4 x 4.
 * One workgroup: 64 x 64 of C. Memory traffic: (1/64 + 1/64) loads per multiply-add; 8 KiB of workgroup memory.
 * Wins on GPUs, where workgroup memory is many times faster than a cache. A is stored k-major and as scalars, because
 * WGSL lets a store to one component of a vec4 write the whole vec4. What is loaded past the end of k is not used.
 */
export const sharedTile: Generator = {
  rows: 64,
  cols: 64,
  perWorkgroup: 1,
  name: "shared-64x64",
  directives: "",
  main: (g) => wgsl`
    var<workgroup> tile_a: array<f32, 1024>;
    var<workgroup> tile_b: ${g.b.load === "k4" ? "array<f32, 1024>" : "array<vec4<f32>, 256>"};
    @compute @workgroup_size(256)
    fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) id: u32) {
      let t = place(wg.y * u.grid_width + wg.x);
      if (outside(t)) { return; }
      let row0 = t.row + id / 16u * 4u;
      let col0 = t.col + id % 16u * 4u;
      ${SHARED_A[g.a.load].setup}
      ${SHARED_B[g.b.load === "k4" ? "k4" : "n4"].setup}
      ${times(4, (i) => `var acc${i} = vec4<f32>();`)}
      for (var k = t.k_begin; k < t.k_end; k += 16u) {
        ${SHARED_A[g.a.load].copy}
        ${SHARED_B[g.b.load === "k4" ? "k4" : "n4"].copy}
        workgroupBarrier();
        let end = min(k + 16u, t.k_end);
        for (var kk = k; kk < end; kk++) {
          ${SHARED_B[g.b.load === "k4" ? "k4" : "n4"].row}
          let a = (kk - k) * 64u + id / 16u * 4u;
          ${times(4, (i) => `acc${i} = fma(vec4<f32>(tile_a[a + ${i}u]), b, acc${i});`)}
        }
        workgroupBarrier();
      }
      ${putRows(4, 1, 0)}
    }
  `,
};

/** Copies of A[64 rows, 16 k] by 256 threads. Each thread keeps its row, so that half of the address is computed once. */
const SHARED_A: Record<LoadA, { setup: string; copy: string[] }> = {
  k4: {
    setup: "let r = a_row(t.batch, t.row + id / 4u);",
    copy: [
      "let a4 = a_at(r, a_col(k + (id % 4u) * 4u));",
      ...times(4, (c) => `tile_a[((id % 4u) * 4u + ${c}u) * 64u + id / 4u] = a4[${c}];`),
    ],
  },
  m4: {
    setup: "let r = a_row(t.batch, t.row + (id % 16u) * 4u);",
    copy: [
      "let a4 = a_at(r, a_col(k + id / 16u));",
      ...times(4, (c) => `tile_a[(id / 16u) * 64u + (id % 16u) * 4u + ${c}u] = a4[${c}];`),
    ],
  },
  any: {
    setup: "let r = a_row(t.batch, t.row + id % 64u);",
    copy: times(4, (j) => `tile_a[id + ${256 * j}u] = a_at(r, a_col(k + id / 64u + ${4 * j}u));`),
  },
};

/** Copies of B[16 k, 64 columns], and the four columns of one row that a thread multiplies with. */
const SHARED_B: Record<"n4" | "k4", { setup: string; copy: string[]; row: string }> = {
  n4: {
    setup: "let column = b_column(t.batch, col0);",
    copy: ["tile_b[id] = b_at(column, k + id / 16u);"],
    row: "let b = tile_b[(kk - k) * 16u + id % 16u];",
  },
  k4: {
    setup: "let column = b_column(t.batch, t.col + id / 4u);",
    copy: [
      "let b4 = b_along(column, 0u, k + (id % 4u) * 4u);",
      ...times(4, (c) => `tile_b[((id % 4u) * 4u + ${c}u) * 64u + id / 4u] = b4[${c}];`),
    ],
    row: "let b_row = (kk - k) * 64u + id % 16u * 4u; let b = vec4<f32>(tile_b[b_row], tile_b[b_row + 1u], tile_b[b_row + 2u], tile_b[b_row + 3u]);",
  },
};

/**
 * Idea: no subgroups, no workgroup memory, no assumption. Each thread keeps 4 x 4 of C in registers and walks over k.
 * One workgroup: 64 threads; neighbouring threads have neighbouring columns, then rows, so a narrow C wastes nothing.
 * Memory traffic: 1/2 load per multiply-add. Wins where C has at most 4 columns, and as the last resort.
 */
export const portableTile: Generator = {
  rows: 4,
  cols: 4,
  perWorkgroup: 64,
  name: "portable",
  directives: "",
  main: (g) => {
    if (g.a.load !== "any") throw new Error(`portable tile: A must be loaded as scalars, not ${g.a.load}`);
    return wgsl`
      @compute @workgroup_size(64)
      fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) id: u32) {
        let t = place((wg.y * u.grid_width + wg.x) * 64u + id);
        if (outside(t)) { return; }
        let row0 = t.row;
        let col0 = t.col;
        ${times(4, (i) => `let r${i} = a_row(t.batch, row0 + ${i}u);`)}
        let column = b_column(t.batch, col0);
        ${times(4, (i) => `var acc${i} = vec4<f32>();`)}
        for (var k = t.k_begin; k < t.k_end; k++) {
          let c = a_col(k);
          let b = b_at(column, k);
          ${times(4, (i) => `acc${i} = fma(vec4<f32>(a_at(r${i}, c)), b, acc${i});`)}
        }
        ${putRows(4, 1, 0)}
      }
    `;
  },
};
