// Softmax over the rows of a matrix. No masks and no scaling: those are elementwise and fuse elsewhere; attention has its
// own kernel that never writes the scores. Called through engine/ops/composite.ts.

import { ROW_ARGS, rowOfThread, type Team, teamGrid, teams } from "./team.ts";
import { type Caps, type Family, type Lowered, storage, uniforms, type Variant, wgsl } from "./wgsl.ts";

export interface SoftmaxSpec {
  readonly rows: number;
  readonly cols: number;
}

const widthOf = (spec: SoftmaxSpec): 1 | 4 => (spec.cols % 4 === 0 ? 4 : 1);

/**
 * Idea: each lane keeps a running maximum and a sum of exponentials relative to it (Milakov & Gimelshein 2018), so that
 * one read finds both; the exponentials are computed again for the write, because exp is cheaper than a store and a load.
 * A workgroup computes `workgroup / lanes` rows. Traffic: 2 reads and 1 write of the matrix.
 * The team says when which wins: see team.ts.
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
  ]);
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
      let steps = select(0u, u.steps, row < u.rows);
      let base = row * u.steps;
      var top = -3.0e38f;
      var sum = 0.0f;
      for (var c = lane; c < steps; c += u.lanes) {
        let v = x[base + c];
        let higher = max(top, ${hmax});
        let e = exp(v - higher);
        sum = sum * exp(top - higher) + ${hsum};
        top = higher;
      }
      let all = share(vec2<f32>(top, sum), local);
      let inverse = 1.0f / all.y;
      for (var c = lane; c < steps; c += u.lanes) {
        y[base + c] = exp(x[base + c] - all.x) * inverse;
      }
    }
  `;
  const source = {
    label: `softmaxRows/${team.name}x${width}`,
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

/** x [rows, cols] -> exp(x - max) / sum over cols. Inputs are finite; a mask is a large negative number, not -inf. */
export const softmaxRows: Family<SoftmaxSpec> = {
  name: "softmaxRows",
  variants: teams.map(variant),
  inputs: (s) => [{ dtype: "f32", size: s.rows * s.cols }],
  outputs: (s) => [{ dtype: "f32", size: s.rows * s.cols }],
  reference({ rows, cols }, [x]) {
    const y = new Float64Array(rows * cols);
    for (let r = 0; r < rows; r++) {
      let top = -Infinity;
      for (let c = 0; c < cols; c++) top = Math.max(top, x[r * cols + c]);
      let sum = 0;
      for (let c = 0; c < cols; c++) sum += Math.exp(x[r * cols + c] - top);
      for (let c = 0; c < cols; c++) y[r * cols + c] = Math.exp(x[r * cols + c] - top) / sum;
    }
    return [y];
  },
  draw: (d) => ({
    rows: d.pick([1, 2, 31, 32, 33, d.int(1, 300)]),
    cols: d.pick([1, 3, 4, 64, 77, 256, 1028, d.int(1, 80) * 4, d.int(1, 300)]),
  }),
  rtol: 1e-5,
  why: "WGSL allows exp an error of 3 + 2|x| ULP",
};

export const families: readonly Family<unknown>[] = [softmaxRows];
