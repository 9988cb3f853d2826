// Products of at most four rows with a matrix that is stored transposed, [n, k]: a linear layer applied to one token, or to a
// handful. The matrix is read once, where it lies, and that is all the time there is to spend. A variant of matmul.ts.

import { loadOfA, loadOfB, type MatmulSpec } from "./matmul_spec.ts";
import { type Caps, foldGrid, type Lowered, storage, uniforms, type Variant, wgsl } from "./wgsl.ts";

const MAX_ROWS = 4;

/**
 * Idea: a lane is a column of C and walks down its own row of the stored matrix in vec4s. The rows of A are shared: each lane
 * loads one vec4 of a block and shuffles hand them round.
 * One workgroup: all rows x (subgroup) columns. Memory traffic: B once, A once per workgroup.
 * Wins on software adapters, which pay per load: the tiles would copy B into the other order first and use an eighth of a tile.
 */
export const matvec: Variant<MatmulSpec> = {
  name: "matvec",
  supports: (s, caps) =>
    caps.adapter === "cpu" &&
    caps.subgroupSize > 0 &&
    s.m <= MAX_ROWS &&
    !s.triangle &&
    loadOfA(s) === "k4" &&
    loadOfB(s) === "k4",
  emit,
};

function emit(s: MatmulSpec, caps: Caps): Lowered {
  const lanes = caps.subgroupSize;
  const rows = s.m === 1 ? 1 : MAX_ROWS; // two texts: for a single row, and for a few
  const epilogue = s.epilogue?.code(1);
  const bindings: [string, string][] = [
    ["a", "vec4<f32>"],
    ["b", "vec4<f32>"],
    ...(epilogue?.bindings ?? []).map((e): [string, string] => [e.name, e.type]),
    ["y", "f32"],
  ];
  const columnTiles = Math.ceil(s.n / lanes);
  const workgroups = foldGrid(columnTiles * s.batch[0] * s.batch[1], caps);
  const u = uniforms(bindings.length, [
    ["m", "u32", s.m],
    ["n", "u32", s.n],
    ["k4", "u32", s.k / 4],
    ["column_tiles", "u32", columnTiles],
    ["batch", "u32", s.batch[0] * s.batch[1]],
    ["batch1", "u32", s.batch[1]],
    ["a_offset", "u32", s.a.offset / 4],
    ["a_batch0", "u32", s.a.batch[0] / 4],
    ["a_batch1", "u32", s.a.batch[1] / 4],
    ["a_row", "u32", s.a.row / 4],
    ["b_offset", "u32", s.b.offset / 4],
    ["b_batch0", "u32", s.b.batch[0] / 4],
    ["b_batch1", "u32", s.b.batch[1] / 4],
    ["b_col", "u32", s.b.col / 4],
  ]);
  const each = (line: (i: number) => string): string[] => Array.from({ length: rows }, (_, i) => line(i));
  const share = (i: number): string =>
    `vec4<f32>(${["x", "y", "z", "w"].map((c) => `subgroupShuffle(a${i}.${c}, q)`).join(", ")})`;
  const put = (i: number): string => `{
        let r = batch * u.m + ${i}u;
        y[r * u.n + col] = ${epilogue ? `epilogue(acc${i}, r, col)` : `acc${i}`};
      }`;
  const text = wgsl`
    enable subgroups;
    diagnostic(off, subgroup_uniformity);
    ${storage(bindings)}
    ${u.wgsl}
    ${epilogue?.wgsl ?? ""}
    @compute @workgroup_size(${lanes})
    fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
      let flat = wg.y * grid.x + wg.x;
      let batch = flat / u.column_tiles;
      if (batch >= u.batch) { return; }
      let col = (flat - batch * u.column_tiles) * ${lanes}u + lane;
      let outer = batch / u.batch1;
      let inner = batch - outer * u.batch1;
      let column = u.b_offset + outer * u.b_batch0 + inner * u.b_batch1 + min(col, u.n - 1u) * u.b_col;
      let rows = u.a_offset + outer * u.a_batch0 + inner * u.a_batch1;
      ${each((i) => `var acc${i} = 0f;`)}
      for (var k = 0u; k < u.k4; k += ${lanes}u) {
        let own = min(k + lane, u.k4 - 1u);
        ${each((i) => `let a${i} = a[rows + min(${i}u, u.m - 1u) * u.a_row + own];`)}
        let end = min(k + ${lanes}u, u.k4);
        for (var kk = k; kk < end; kk++) {
          let q = kk - k;
          let w = b[column + kk];
          ${each((i) => `acc${i} += dot(${share(i)}, w);`)}
        }
      }
      if (col >= u.n) { return; }
      ${each((i) => (rows === 1 ? put(i) : `if (${i}u < u.m) ${put(i)}`))}
    }
  `;
  const extras = s.epilogue?.operands ?? 0;
  const label = ["matmul", "matvec", rows === 1 ? "" : `x${rows}`, s.epilogue?.label].filter(Boolean).join(" ");
  return {
    passes: [
      {
        source: {
          label,
          wgsl: text,
          workgroups,
          uniforms: u.words,
          flops: 2 * s.batch[0] * s.batch[1] * s.m * s.n * s.k,
        },
        operands: Array.from({ length: 3 + extras }, (_, i) => i),
      },
    ],
    scratch: [],
  };
}
