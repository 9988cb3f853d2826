// Stable argsort of the rows of a matrix: ties keep the order of their positions, so equal inputs give equal bits. Values
// are moved by gathers afterwards. Called through engine/ops/sort.ts.

import {
  type Caps,
  type Family,
  foldGrid,
  type KernelSource,
  type Lowered,
  type Pass,
  type Scalar,
  storage,
  uniforms,
  wgsl,
} from "./wgsl.ts";

export interface SortSpec {
  readonly rows: number;
  readonly length: number;
  readonly descending: boolean;
  readonly dtype: "f32" | "i32";
}

const WORKGROUP = 64;
/** Elements that the first pass sorts by counting; each later pass doubles the runs. */
const BLOCK = 32;

/**
 * The order of keys as u32: floats by flipping the sign bit of positive and all bits of negative ones (-0 equals 0, and NaN
 * comes last, as in torch), integers by flipping the sign bit; a descending order is the complement.
 */
const KEY = wgsl`
  fn key(at: u32) -> u32 {
    let bits = x[at];
    let size = select(bits, 0u, bits == 0x80000000u);
    let ordered = select(size | 0x80000000u, ~size, size >= 0x80000000u);
    return select(bits ^ 0x80000000u, ordered, u.floats == 1u) ^ u.flip;
  }
`;

interface SortPass {
  readonly name: string;
  /** Bindings between the keys and the result. */
  readonly from: readonly [string, string][];
  /** Elements of a run. */
  readonly width: number;
  /** Comparisons of a thread; there is one per element. */
  readonly each: number;
  readonly body: string;
}

function pass(s: SortSpec, { name, from, width, each, body }: SortPass, caps: Caps): KernelSource {
  const bindings = [["x", "u32"] as const, ...from, ["after", "i32"] as const];
  const total = s.rows * s.length;
  const u = uniforms(bindings.length, [
    ["total", "u32", total],
    ["length", "u32", s.length],
    ["width", "u32", width],
    ["floats", "u32", s.dtype === "f32" ? 1 : 0],
    ["flip", "u32", s.descending ? 0xffffffff : 0],
  ]);
  const text = wgsl`
    ${storage(bindings)}
    ${u.wgsl}
    ${KEY}
    @compute @workgroup_size(${WORKGROUP})
    fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) local: u32) {
      let e = (wg.y * grid.x + wg.x) * ${WORKGROUP}u + local;
      if (e >= u.total) { return; }
      let p = e % u.length;
      let row = e - p;
      let start = p - p % u.width;
      ${body}
    }
  `;
  const workgroups = foldGrid(Math.ceil(total / WORKGROUP), caps);
  return { label: `argsort/${name}`, wgsl: text, workgroups, uniforms: u.words, flops: total * each };
}

/** One thread per element: its rank in its block is the number of elements before it. */
const COUNT = `
      let own = key(e);
      let end = min(start + u.width, u.length);
      var rank = start;
      for (var j = start; j < end; j++) {
        let other = key(row + j);
        rank += u32(other < own || (other == own && j < p));
      }
      after[row + rank] = i32(p);`;

/** One thread per element: its place in the merged run is its place in its own plus the number before it in the sibling. */
const MERGE = `
      let at = start / u.width;
      let sibling = select(start - u.width, start + u.width, at % 2u == 0u);
      let index = before[e];
      let own = key(row + u32(index));
      // Of equal keys those of the left run come first.
      let left = sibling > start;
      var low = min(sibling, u.length);
      var high = min(sibling + u.width, u.length);
      let begin = low;
      while (low < high) {
        let middle = (low + high) / 2u;
        let other = key(row + u32(before[row + middle]));
        if (other < own || (!left && other == own)) { low = middle + 1u; } else { high = middle; }
      }
      after[row + min(start, sibling) + (p - start) + (low - begin)] = index;`;

/**
 * Idea: merge sort without communication. Blocks of 32 are ranked by counting, then runs are merged pairwise: every element
 * finds its place by a binary search in the other run. log2(length / 32) passes of log2 loads per element; rows of any
 * length. The only variant. `x`, `y` and `spare` are the operands: keys, result, and as much scratch when rows are long.
 */
export function argsortPasses(s: SortSpec, caps: Caps, x: number, y: number, spare: number): readonly Pass[] {
  const widths: number[] = [];
  for (let width = BLOCK; width < s.length; width *= 2) widths.push(width);
  // The two buffers take turns so that the last pass writes the result.
  const target = (i: number): number => ((widths.length - i) % 2 === 0 ? y : spare);
  const count: SortPass = { name: "count", from: [], width: BLOCK, each: Math.min(BLOCK, s.length), body: COUNT };
  const merge = { name: "merge", from: [["before", "i32"]], body: MERGE } satisfies Partial<SortPass>;
  const merges = widths.map((width, i) => ({
    source: pass(s, { ...merge, width, each: Math.log2(width) }, caps),
    operands: [x, target(i), target(i + 1)],
  }));
  return [{ source: pass(s, count, caps), operands: [x, target(0)] }, ...merges];
}

function emitMerge(s: SortSpec, caps: Caps): Lowered {
  return { passes: argsortPasses(s, caps, 0, 1, 2), scratch: s.length > BLOCK ? [s.rows * s.length] : [] };
}

/** x [rows, length] -> i32 [rows, length]: where in its row the element of each rank is. */
export const argsort: Family<SortSpec> = {
  name: "argsort",
  variants: [{ name: "merge", supports: () => true, emit: emitMerge }],
  inputs: (s) => [{ dtype: s.dtype as Scalar, size: s.rows * s.length, below: 20 }],
  outputs: (s) => [{ dtype: "i32", size: s.rows * s.length }],
  reference(s, [x]) {
    const out = new Float64Array(s.rows * s.length);
    const sign = s.descending ? -1 : 1;
    for (let r = 0; r < s.rows; r++) {
      const row = x.subarray(r * s.length, (r + 1) * s.length);
      const order = [...row.keys()].sort((i, j) => sign * (row[i] - row[j]) || i - j);
      out.set(order, r * s.length);
    }
    return [out];
  },
  draw: (d) => ({
    rows: d.pick([1, 2, d.int(1, 5)]),
    length: d.pick([1, 2, 31, 32, 33, 64, 65, 127, 1000, d.int(1, 300)]),
    descending: d.pick([false, true]),
    dtype: d.pick(["f32", "i32"]),
  }),
  rtol: 0, // indices
};

export const families: readonly Family<unknown>[] = [argsort];
