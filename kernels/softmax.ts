// Softmax over the rows of a matrix, or over the part of each that causal attention sees. Other masks and scaling are
// elementwise and fuse elsewhere; attention has its own kernel that never writes the scores. Called through engine/ops/composite.ts.

import { ROW_ARGS, rowOfThread, type Team, teamGrid, teams } from "./team.ts";
import { type Caps, type Family, type Lowered, storage, uniforms, type Variant, wgsl } from "./wgsl.ts";

export interface SoftmaxSpec {
  readonly rows: number;
  readonly cols: number;
  /**
   * Matrices of `queries` rows of which row i has the columns j <= i + past; all others are zero, and so are rows that have none.
   * `rows` counts those of all matrices.
   */
  readonly causal?: { readonly queries: number; readonly past: number };
}

const widthOf = (spec: SoftmaxSpec): 1 | 4 => (spec.cols % 4 === 0 ? 4 : 1);

/**
 * Idea: each lane keeps a running maximum and a sum of exponentials relative to it (Milakov & Gimelshein 2018), so that
 * one read finds both; the exponentials are computed again for the write, because exp is cheaper than a store and a load.
 * A workgroup computes `workgroup / lanes` rows. Traffic: 2 reads and 1 write of the matrix.
 * Of causal rows only what they have is read, all is written. The team says when which wins: see team.ts.
 */
function emit(team: Team, spec: SoftmaxSpec, caps: Caps): Lowered {
  const width = widthOf(spec);
  const [type, hmax, hsum] =
    width === 4 ? ["vec4<f32>", "max(max(v.x, v.y), max(v.z, v.w))", "dot(e, vec4<f32>(1.0))"] : ["f32", "v", "e"];
  const steps = spec.cols / width;
  const workgroup = team.workgroup(caps);
  const lanes = team.lanes(steps, caps);
  const u = uniforms(2, [
    ["rows", "u32", spec.rows],
    ["steps", "u32", steps],
    ["lanes", "u32", lanes],
    ...(spec.causal
      ? ([
          ["queries", "u32", spec.causal.queries],
          ["past", "i32", spec.causal.past],
          ["cols", "i32", spec.cols],
        ] as const)
      : []),
  ]);
  // Elements of the row; those of the last load that are not among them count as very low.
  const seen = spec.causal
    ? `let seen = select(0, clamp(i32(row % u.queries) + 1 + u.past, 0, u.cols), row < u.rows);
      let steps = (u32(seen) + ${width - 1}u) / ${width}u;`
    : "let steps = select(0u, u.steps, row < u.rows);";
  const at = width === 4 ? "vec4<i32>(i32(c) * 4) + vec4<i32>(0, 1, 2, 3)" : "i32(c)";
  const load = spec.causal
    ? `select(${type}(-3.0e38f), x[base + c], ${at} < ${type.replace("f32", "i32")}(seen))`
    : "x[base + c]";
  const rest = spec.causal
    ? `for (var c = steps + lane; c < select(0u, u.steps, row < u.rows); c += u.lanes) { y[base + c] = ${type}(0.0); }`
    : "";
  // The maximum starts at a finite value: infinities and NaN are not reliable in WGSL.
  const text = wgsl`
    ${team.enable}
    ${storage([
      ["x", type],
      ["y", type],
    ])}
    ${u.wgsl}
    fn merge(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
      let top = max(a.x, b.x);
      return vec2<f32>(top, a.y * exp(a.x - top) + b.y * exp(b.x - top));
    }
    ${team.share("vec2<f32>", caps)}
    @compute @workgroup_size(${workgroup})
    fn main(${ROW_ARGS}) {
      ${rowOfThread(workgroup)}
      ${seen}
      let base = row * u.steps;
      var top = -3.0e38f;
      var sum = 0.0f;
      for (var c = lane; c < steps; c += u.lanes) {
        let v = ${load};
        let higher = max(top, ${hmax});
        let e = exp(v - higher);
        sum = sum * exp(top - higher) + ${hsum};
        top = higher;
      }
      let all = share(vec2<f32>(top, sum), local);
      let inverse = 1.0f / all.y;
      for (var c = lane; c < steps; c += u.lanes) {
        y[base + c] = exp(${load} - all.x) * inverse;
      }
      ${rest}
    }
  `;
  const source = {
    label: `softmaxRows${spec.causal ? " causal" : ""}/${team.name}x${width}`,
    wgsl: text,
    workgroups: teamGrid(spec.rows, workgroup, lanes, caps),
    uniforms: u.words,
    flops: 7 * spec.rows * spec.cols,
  };
  return { passes: [{ source, operands: [0, 1] }], scratch: [] };
}

const variant = (team: Team): Variant<SoftmaxSpec> => ({
  name: team.name,
  supports: (spec, caps) => team.supports(spec.rows, spec.cols / widthOf(spec), caps),
  emit: (spec, caps) => emit(team, spec, caps),
});

/** Columns that a row has. */
const seenOf = ({ cols, causal }: SoftmaxSpec, row: number): number =>
  causal ? Math.max(0, Math.min(cols, (row % causal.queries) + 1 + causal.past)) : cols;

/** x [rows, cols] -> exp(x - max) / sum over the columns that the row has, zero elsewhere. Inputs are finite; a mask is a large negative number, not -inf. */
export const softmaxRows: Family<SoftmaxSpec> = {
  name: "softmaxRows",
  variants: teams.map(variant),
  inputs: (s) => [{ dtype: "f32", size: s.rows * s.cols }],
  outputs: (s) => [{ dtype: "f32", size: s.rows * s.cols }],
  reference(spec, [x]) {
    const { rows } = spec;
    const y = new Float64Array(rows * spec.cols);
    for (let r = 0; r < rows; r++) {
      const row = x.subarray(r * spec.cols, r * spec.cols + seenOf(spec, r));
      const top = row.reduce((a, b) => Math.max(a, b), -Infinity);
      const e = row.map((v) => Math.exp(v - top));
      const sum = e.reduce((a, b) => a + b, 0);
      e.forEach((v, c) => {
        y[r * spec.cols + c] = v / sum;
      });
    }
    return [y];
  },
  draw: (d) => {
    const rows = d.pick([1, 2, 31, 32, 33, d.int(1, 300)]);
    const cols = d.pick([1, 3, 4, 64, 77, 256, 1028, d.int(1, 80) * 4, d.int(1, 300)]);
    const causal = { queries: d.pick([1, 5, rows]), past: d.pick([0, 1, -2, cols, d.int(-9, 99)]) };
    return d.int(0, 2) > 0 ? { rows, cols } : { rows, cols, causal };
  },
  rtol: 1e-5,
  why: "WGSL allows exp an error of 3 + 2|x| ULP",
};

export const families: readonly Family<unknown>[] = [softmaxRows];
