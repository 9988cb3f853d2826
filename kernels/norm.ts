// Mean and inverse standard deviation for group norm and layer norm. Applying them (scale, shift, activation) is
// elementwise and fuses elsewhere; the backward pass is made of reductions. Called through engine/ops/composite.ts.

import { ROW_ARGS, rowOfThread, type Team, teamGrid, teams } from "./team.ts";
import { type Caps, type Family, type Lowered, storage, uniforms, type Variant, wgsl } from "./wgsl.ts";

/**
 * x viewed as [outer, inner, groups, channels]; statistics over inner and channels. Channels-last group norm is
 * outer = batch, inner = pixels (times frames); layer norm is outer = rows, inner = 1, groups = 1.
 */
export interface MomentsSpec {
  readonly outer: number;
  readonly inner: number;
  readonly groups: number;
  readonly channels: number;
  readonly eps: number;
}

const widthOf = (spec: MomentsSpec): 1 | 4 => (spec.channels % 4 === 0 ? 4 : 1);
const stepsOf = (spec: MomentsSpec): number => (spec.inner * spec.channels) / widthOf(spec);

/**
 * Idea: one read. Each lane sums x - k and (x - k)^2 with k its own first element, so that a large common mean cancels
 * exactly instead of catastrophically, then lanes merge (count, mean, M2) by Chan, Golub & LeVeque 1979, eq. 1.5.
 * The lanes of a team are split once over channels and positions, which keeps divisions out of the loop.
 * A workgroup computes `workgroup / lanes` statistics. Traffic: x once. The team says when which wins: see team.ts.
 */
function emit(team: Team, spec: MomentsSpec, caps: Caps): Lowered {
  const width = widthOf(spec);
  const [type, first, hsum, hdot] =
    width === 4
      ? ["vec4<f32>", ".x", "dot(sum, vec4<f32>(1.0))", "dot(squares, vec4<f32>(1.0))"]
      : ["f32", "", "sum", "squares"];
  const steps = spec.channels / width;
  const workgroup = team.workgroup(caps);
  const lanes = team.lanes(stepsOf(spec), caps);
  const u = uniforms(2, [
    ["rows", "u32", spec.outer * spec.groups],
    ["lanes", "u32", lanes],
    ["channel_lanes", "u32", Math.min(lanes, 2 ** Math.floor(Math.log2(steps)))],
    ["inner", "u32", spec.inner],
    ["groups", "u32", spec.groups],
    ["steps", "u32", steps],
    ["eps", "f32", spec.eps],
  ]);
  const text = wgsl`
    ${team.enable}
    ${storage([
      ["x", type],
      ["y", "vec2<f32>"],
    ])}
    ${u.wgsl}
    // (count, mean, sum of squared deviations); an empty part has count 0.
    fn merge(a: vec3<f32>, b: vec3<f32>) -> vec3<f32> {
      let n = a.x + b.x;
      let delta = b.y - a.y;
      let share_b = b.x / max(n, 1.0f);
      return vec3<f32>(n, a.y + delta * share_b, a.z + b.z + delta * delta * a.x * share_b);
    }
    ${team.share("vec3<f32>", caps)}
    @compute @workgroup_size(${workgroup})
    fn main(${ROW_ARGS}) {
      ${rowOfThread(workgroup)}
      let inner = select(0u, u.inner, row < u.rows);
      let stride = u.groups * u.steps;
      let base = (row / u.groups) * u.inner * stride + (row % u.groups) * u.steps;
      let c0 = lane & (u.channel_lanes - 1u);
      let i0 = lane / u.channel_lanes;
      let i_step = u.lanes / u.channel_lanes;
      let k = x[base + select(0u, i0 * stride + c0, i0 < inner)]${first};
      var n = 0.0f;
      var sum = ${type}(0.0);
      var squares = ${type}(0.0);
      for (var i = i0; i < inner; i += i_step) {
        for (var c = c0; c < u.steps; c += u.channel_lanes) {
          let d = x[base + i * stride + c] - k;
          sum += d;
          squares = fma(d, d, squares);
          n += ${width}.0f;
        }
      }
      let total = ${hsum};
      let mean = total / max(n, 1.0f);
      let all = share(vec3<f32>(n, k + mean, max(0.0f, ${hdot} - total * mean)), local);
      if (lane == 0u && row < u.rows) {
        y[row] = vec2<f32>(all.y, inverseSqrt(all.z / all.x + u.eps));
      }
    }
  `;
  const source = {
    label: `moments/${team.name}x${width}`,
    wgsl: text,
    workgroups: teamGrid(spec.outer * spec.groups, workgroup, lanes, caps),
    uniforms: u.words,
    flops: 4 * spec.outer * spec.inner * spec.groups * spec.channels,
  };
  return { passes: [{ source, operands: [0, 1] }], scratch: [] };
}

const variant = (team: Team): Variant<MomentsSpec> => ({
  name: team.name,
  supports: (spec, caps) => team.supports(spec.outer * spec.groups, stepsOf(spec), caps),
  emit: (spec, caps) => emit(team, spec, caps),
});

/** x [outer, inner, groups, channels] -> [outer, groups, 2] = (mean, 1 / sqrt(biased variance + eps)). */
export const moments: Family<MomentsSpec> = {
  name: "moments",
  variants: teams.map(variant),
  inputs: (s) => [{ dtype: "f32", size: s.outer * s.inner * s.groups * s.channels }],
  outputs: (s) => [{ dtype: "f32", size: s.outer * s.groups * 2 }],
  reference({ outer, inner, groups, channels, eps }, [x]) {
    const y = new Float64Array(outer * groups * 2);
    const each = (o: number, g: number, f: (v: number) => void): void => {
      for (let i = 0; i < inner; i++)
        for (let c = 0; c < channels; c++) f(x[((o * inner + i) * groups + g) * channels + c]);
    };
    for (let o = 0; o < outer; o++) {
      for (let g = 0; g < groups; g++) {
        let mean = 0;
        let variance = 0;
        each(o, g, (v) => {
          mean += v / (inner * channels);
        });
        each(o, g, (v) => {
          variance += (v - mean) ** 2 / (inner * channels);
        });
        y.set([mean, 1 / Math.sqrt(variance + eps)], (o * groups + g) * 2);
      }
    }
    return [y];
  },
  draw: (d) => {
    const layer = d.pick([true, false]);
    return {
      outer: layer ? d.pick([1, 31, 33, 300]) : d.int(1, 3),
      inner: layer ? 1 : d.pick([1, 7, 8, 64, 130, d.int(1, 100)]),
      groups: layer ? 1 : d.pick([1, 2, 8]),
      channels: layer ? d.pick([32, 77, 320, d.int(1, 40) * 4]) : d.pick([1, 3, 4, 8, 20, d.int(1, 9)]),
      eps: d.pick([1e-5, 1e-3]),
    };
  },
  rtol: 1e-5,
  why: "sums of up to a few thousand f32",
};

export const families: readonly Family<unknown>[] = [moments];
