// Row gather (embedding lookup) and its gradient. The gradient is deterministic: no float atomics, every row is summed
// in increasing position. Called through engine/ops/gather.ts.

import { argsortPasses } from "./sort.ts";
import { type Caps, type Family, foldGrid, type Lowered, type Scalar, storage, uniforms, wgsl } from "./wgsl.ts";

/** table [rows, dim], index [count]. An index outside the table is clamped into it, forwards and backwards. */
export interface GatherSpec {
  readonly rows: number;
  readonly dim: number;
  readonly count: number;
}

const WORKGROUP = 64;
const widthOf = (spec: GatherSpec): 1 | 4 => (spec.dim % 4 === 0 ? 4 : 1);
const typeOf = (spec: GatherSpec): string => (widthOf(spec) === 4 ? "vec4<f32>" : "f32");

/** Threads that share a row: neighbours on a GPU must touch neighbours; on a CPU adapter that only costs bookkeeping. */
function lanesOf(spec: GatherSpec, caps: Caps): number {
  const steps = spec.dim / widthOf(spec);
  const most = caps.adapter === "cpu" ? Math.max(1, caps.subgroupSize) : WORKGROUP;
  return Math.min(most, 2 ** Math.ceil(Math.log2(steps)));
}

const ARGS =
  "@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) local: u32";
const ROW = wgsl`
  let row = ((wg.y * grid.x + wg.x) * ${WORKGROUP}u + local) / u.lanes;
  let lane = local & (u.lanes - 1u);
`;
const CLAMPED = "fn row_of(p: u32) -> u32 { return u32(clamp(index[p], 0, i32(u.rows) - 1)); }";

function sizes(
  binding: number,
  spec: GatherSpec,
  lanes: number,
  more: readonly (readonly [string, Scalar, number])[] = [],
) {
  return uniforms(binding, [
    ["rows", "u32", spec.rows],
    ["steps", "u32", spec.dim / widthOf(spec)],
    ["count", "u32", spec.count],
    ["lanes", "u32", lanes],
    ...more,
  ]);
}

/**
 * Idea: `lanes` threads copy one row, the division by the row length is paid once per row. A workgroup copies
 * `64 / lanes` rows. Traffic: the rows once in, once out. The only variant: nothing is shared that could be faster.
 */
function emitGather(spec: GatherSpec, caps: Caps): Lowered {
  const lanes = lanesOf(spec, caps);
  const u = sizes(3, spec, lanes);
  // Bits are copied: a table of whole numbers read as f32 might have its small ones, denormals there, flushed to zero.
  const type = typeOf(spec).replace("f32", "u32");
  const text = wgsl`
    ${storage([
      ["source", type],
      ["index", "i32"],
      ["y", type],
    ])}
    ${u.wgsl}
    ${CLAMPED}
    @compute @workgroup_size(${WORKGROUP})
    fn main(${ARGS}) {
      ${ROW}
      if (row >= u.count) { return; }
      let from_row = row_of(row) * u.steps;
      for (var c = lane; c < u.steps; c += u.lanes) { y[row * u.steps + c] = source[from_row + c]; }
    }
  `;
  const workgroups = foldGrid(Math.ceil((spec.count * lanes) / WORKGROUP), caps);
  const bytes = 4 * spec.count * (2 * spec.dim + 1);
  const source = {
    label: `gatherRows/copy_x${widthOf(spec)}`,
    wgsl: text,
    workgroups,
    uniforms: u.words,
    flops: 0,
    bytes,
  };
  return { passes: [{ source, operands: [0, 1, 2] }], scratch: [] };
}

/** table [rows, dim], index i32 [count] -> [count, dim]. */
export const gatherRows: Family<GatherSpec> = {
  name: "gatherRows",
  variants: [{ name: "copy", supports: () => true, emit: emitGather }],
  inputs: (s) => [
    { dtype: "f32", size: s.rows * s.dim },
    { dtype: "i32", size: s.count, below: s.rows },
  ],
  outputs: (s) => [{ dtype: "f32", size: s.count * s.dim }],
  reference({ rows, dim, count }, [table, index]) {
    const out = new Float64Array(count * dim);
    for (let p = 0; p < count; p++) {
      const row = Math.max(0, Math.min(rows - 1, index[p]));
      for (let d = 0; d < dim; d++) out[p * dim + d] = table[row * dim + d];
    }
    return [out];
  },
  draw: drawGather,
  rtol: 0, // a copy
};

function drawGather(d: { int(lo: number, hi: number): number; pick<T>(choices: readonly T[]): T }): GatherSpec {
  return {
    rows: d.pick([1, 64, 5000, 65, 5000, d.int(1, 200)]),
    dim: d.pick([1, 4, 7, 32, 64, 260, d.int(1, 80)]),
    count: d.pick([1, 63, 64, 65, 1000, d.int(1, 300)]),
  };
}

/** Threads of the sort: each owns one run of consecutive positions, so that the order inside a row is the positions'. */
const RUNS = 64;

/**
 * Idea: a stable counting sort of the positions by row, then each row sums its segment. One workgroup sorts: thread t
 * counts its own run into tally[row][t], the tallies are scanned in (row, t) order, which gives every run its place in
 * every row, and t places its run one by one: no atomics, no ties. Afterwards tally[row][last] is where the row ends.
 * Then `lanes` threads sum one row. Traffic: g and the output once, 2 x rows x runs words of tallies.
 * Wins as soon as scanning all positions for every row costs more than the tallies.
 */
function emitSort(spec: GatherSpec, caps: Caps): Lowered {
  const runs = runsOf(spec);
  const s = sizes(3, spec, 1, [["runs", "u32", runs]]);
  const sort = wgsl`
    ${storage([
      ["index", "i32"],
      ["tally", "u32"],
      ["order", "u32"],
    ])}
    ${s.wgsl}
    ${CLAMPED}
    var<workgroup> totals: array<u32, ${RUNS}>;
    @compute @workgroup_size(${RUNS})
    fn main(@builtin(local_invocation_index) t: u32) {
      let entries = u.rows * u.runs;
      for (var e = t; e < entries; e += ${RUNS}u) { tally[e] = 0u; }
      storageBarrier();
      let run = (u.count + u.runs - 1u) / u.runs;
      let begin = min(t * run, u.count);
      let end = select(begin, min(begin + run, u.count), t < u.runs);
      for (var p = begin; p < end; p++) { tally[row_of(p) * u.runs + t] += 1u; }
      storageBarrier();
      let chunk = (entries + ${RUNS - 1}u) / ${RUNS}u;
      let low = min(t * chunk, entries);
      let high = min(low + chunk, entries);
      var mine = 0u;
      for (var e = low; e < high; e++) { mine += tally[e]; }
      totals[t] = mine;
      workgroupBarrier();
      var place = 0u;
      for (var i = 0u; i < t; i++) { place += totals[i]; }
      for (var e = low; e < high; e++) {
        let n = tally[e];
        tally[e] = place;
        place += n;
      }
      storageBarrier();
      for (var p = begin; p < end; p++) {
        let e = row_of(p) * u.runs + t;
        let to = tally[e];
        order[to] = p;
        tally[e] = to + 1u;
      }
    }
  `;
  const lanes = lanesOf(spec, caps);
  const w = sizes(4, spec, lanes, [["runs", "u32", runs]]);
  const type = typeOf(spec);
  const sum = wgsl`
    ${storage([
      ["g", type],
      ["y", type],
      ["tally", "u32"],
      ["order", "u32"],
    ])}
    ${w.wgsl}
    fn end_of(row: u32) -> u32 { return tally[row * u.runs + u.runs - 1u]; }
    @compute @workgroup_size(${WORKGROUP})
    fn main(${ARGS}) {
      ${ROW}
      if (row >= u.rows) { return; }
      var begin = 0u;
      if (row > 0u) { begin = end_of(row - 1u); }
      let end = end_of(row);
      for (var c = lane; c < u.steps; c += u.lanes) {
        var acc = ${type}(0.0);
        for (var i = begin; i < end; i++) { acc += g[order[i] * u.steps + c]; }
        y[row * u.steps + c] = acc;
      }
    }
  `;
  const workgroups = foldGrid(Math.ceil((spec.rows * lanes) / WORKGROUP), caps);
  return {
    passes: [
      {
        source: {
          label: "gatherRowsGrad/sort",
          wgsl: sort,
          workgroups: [1, 1, 1],
          uniforms: s.words,
          flops: 2 * (spec.count + spec.rows * runs),
        },
        operands: [1, 3, 4],
      },
      {
        source: {
          label: `gatherRowsGrad/sum_x${widthOf(spec)}`,
          wgsl: sum,
          workgroups,
          uniforms: w.words,
          flops: spec.count * spec.dim,
        },
        operands: [0, 2, 3, 4],
      },
    ],
    scratch: [spec.rows * runs, spec.count],
  };
}

/** Runs of at least 32 positions, and few tallies for big vocabularies: clearing and scanning them is what costs. */
function runsOf(spec: GatherSpec): number {
  return Math.max(1, Math.min(RUNS, Math.ceil(spec.count / 32), Math.floor(2 ** 18 / spec.rows)));
}

/**
 * Idea: the positions sorted by row with as many threads as there are positions (sort.ts), then a thread per number of the
 * result finds its row's segment by binary search and sums it. Traffic: log2(count / 32) passes over the positions, g and
 * the output once. Wins on GPUs for tables of many rows, where the tallies of the counting sort leave it few threads.
 */
function emitMerge(spec: GatherSpec, caps: Caps): Lowered {
  const sorting = { rows: 1, length: spec.count, descending: false, dtype: "i32" } as const;
  const total = spec.rows * spec.dim;
  const u = uniforms(4, [
    ["rows", "u32", spec.rows],
    ["dim", "u32", spec.dim],
    ["count", "u32", spec.count],
    ["total", "u32", total],
  ]);
  const text = wgsl`
    ${storage([
      ["g", "f32"],
      ["index", "i32"],
      ["y", "f32"],
      ["order", "i32"],
    ])}
    ${u.wgsl}
    ${CLAMPED}
    @compute @workgroup_size(${WORKGROUP})
    fn main(${ARGS}) {
      let e = (wg.y * grid.x + wg.x) * ${WORKGROUP}u + local;
      if (e >= u.total) { return; }
      let row = e / u.dim;
      let column = e % u.dim;
      var low = 0u;
      var high = u.count;
      while (low < high) {
        let middle = (low + high) / 2u;
        if (row_of(u32(order[middle])) < row) { low = middle + 1u; } else { high = middle; }
      }
      var acc = 0.0f;
      for (var i = low; i < u.count; i++) {
        let p = u32(order[i]);
        if (row_of(p) != row) { break; }
        acc += g[p * u.dim + column];
      }
      y[e] = acc;
    }
  `;
  const workgroups = foldGrid(Math.ceil(total / WORKGROUP), caps);
  const flops = total * Math.ceil(Math.log2(spec.count + 1)) + spec.count * spec.dim;
  const source = { label: "gatherRowsGrad/segments", wgsl: text, workgroups, uniforms: u.words, flops };
  const [index, order] = [1, 3];
  return {
    passes: [...argsortPasses(sorting, caps, index, order, 4), { source, operands: [0, index, 2, order] }],
    scratch: [spec.count, spec.count],
  };
}

/**
 * Idea: every row looks at all positions and adds the ones that are its own. A workgroup computes `64 / lanes` rows.
 * Traffic: rows x count index reads, so it wins only for a handful of positions; needs no scratch and one compile.
 */
function emitScan(spec: GatherSpec, caps: Caps): Lowered {
  const lanes = lanesOf(spec, caps);
  const u = sizes(3, spec, lanes);
  const type = typeOf(spec);
  const text = wgsl`
    ${storage([
      ["g", type],
      ["index", "i32"],
      ["y", type],
    ])}
    ${u.wgsl}
    ${CLAMPED}
    @compute @workgroup_size(${WORKGROUP})
    fn main(${ARGS}) {
      ${ROW}
      if (row >= u.rows) { return; }
      for (var c = lane; c < u.steps; c += u.lanes) {
        var acc = ${type}(0.0);
        for (var p = 0u; p < u.count; p++) {
          if (row_of(p) == row) { acc += g[p * u.steps + c]; }
        }
        y[row * u.steps + c] = acc;
      }
    }
  `;
  const workgroups = foldGrid(Math.ceil((spec.rows * lanes) / WORKGROUP), caps);
  const flops = spec.rows * lanes * spec.count + spec.count * spec.dim;
  const source = { label: `gatherRowsGrad/scan_x${widthOf(spec)}`, wgsl: text, workgroups, uniforms: u.words, flops };
  return { passes: [{ source, operands: [0, 1, 2] }], scratch: [] };
}

/** g [count, dim], index i32 [count] -> [rows, dim]: row r is the sum of g[p] over index[p] = r, zero where there is none. */
export const gatherRowsGrad: Family<GatherSpec> = {
  name: "gatherRowsGrad",
  variants: [
    {
      name: "merge",
      supports: (s, caps) => caps.adapter === "gpu" && s.count >= 64 && s.rows >= 4096,
      emit: emitMerge,
    },
    { name: "sort", supports: (s) => s.count >= 32 && s.rows >= 4, emit: emitSort },
    { name: "scan", supports: () => true, emit: emitScan },
  ],
  inputs: (s) => [
    { dtype: "f32", size: s.count * s.dim },
    { dtype: "i32", size: s.count, below: s.rows },
  ],
  outputs: (s) => [{ dtype: "f32", size: s.rows * s.dim }],
  reference({ rows, dim, count }, [g, index]) {
    const out = new Float64Array(rows * dim);
    for (let p = 0; p < count; p++) {
      const row = Math.max(0, Math.min(rows - 1, index[p]));
      for (let d = 0; d < dim; d++) out[row * dim + d] += g[p * dim + d];
    }
    return [out];
  },
  draw: drawGather,
  rtol: 2e-5,
  sums: true,
  why: "a row may receive a thousand f32",
};

export const families: readonly Family<unknown>[] = [gatherRows, gatherRowsGrad];
