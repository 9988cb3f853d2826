// A band matrix applied along one axis: every output element is a weighted sum of a few neighbouring input elements. Averages
// over windows, interpolation, and the gradients of both (the transposed band) are this kernel. Called through
// engine/ops/resample.ts.

import {
  type Caps,
  type Draw,
  type Family,
  type Field,
  f32bits,
  foldGrid,
  type Lowered,
  storage,
  wgsl,
} from "./wgsl.ts";

/** Row i of the band is weights[i][k] at column starts[i] + k; rows may be empty. */
export interface BandSpec {
  readonly rows: number;
  readonly columns: number;
  readonly starts: readonly number[];
  readonly weights: readonly (readonly number[])[];
}

/** x [outer, columns, inner] -> y [outer, rows, inner]. */
export interface ResampleSpec extends BandSpec {
  readonly outer: number;
  readonly inner: number;
}

/**
 * Words of the table in the uniforms, each at the start of 16 bytes, as the layout of uniform arrays wants it (picking one of
 * four costs more than the load). Two sizes, so that there are few texts; 64 KiB is WebGPU's least limit.
 */
const TABLES = [512, 4094] as const;

const most = (b: BandSpec): number => b.weights.reduce((n, row) => Math.max(n, row.length), 0);
const wordsOf = (b: BandSpec): number => b.rows * (1 + most(b));

/** Whether the band's table fits the uniforms of a dispatch. */
export function fitsTable(b: BandSpec): boolean {
  return wordsOf(b) <= TABLES[1] && b.columns <= 0xffff && most(b) <= 0xffff;
}

/** Per row: start and count in one word, then the bits of the weights. */
function tableOf(b: BandSpec): number[] {
  const stride = 1 + most(b);
  const words = new Array<number>(b.rows * stride).fill(0);
  b.weights.forEach((row, i) => {
    words[i * stride] = b.starts[i] | (row.length << 16);
    row.forEach((weight, k) => {
      words[i * stride + 1 + k] = f32bits(weight);
    });
  });
  return words.map((w) => w >>> 0);
}

/**
 * Idea: a thread is a few neighbouring elements of y along inner and walks their row of the band, which is a table in the
 * uniforms: one text serves every band. Sixteen elements where they divide: the divisions and the table are then paid once
 * for four vectors. Traffic: y once, and as many loads of x as the row has weights.
 */
function emitBand(s: ResampleSpec, caps: Caps): Lowered {
  const vector = s.inner % 4 === 0 ? 4 : 1;
  const type = vector === 4 ? "vec4<f32>" : "f32";
  const run = s.inner % 16 === 0 ? 4 : 1;
  const count = (s.outer * s.rows * s.inner) / vector / run;
  const table = TABLES.find((size) => wordsOf(s) <= size) ?? TABLES[1];
  const fields: Field[] = [
    ["count", "u32", count],
    ["rows", "u32", s.rows],
    ["columns", "u32", s.columns],
    ["inner", "u32", s.inner / vector / run],
    ["stride", "u32", 1 + most(s)],
    ["unused_0", "u32", 0],
    ["unused_1", "u32", 0],
    ["unused_2", "u32", 0], // the table is aligned
  ];
  const each = (line: (j: number) => string): string[] => Array.from({ length: run }, (_, j) => line(j));
  const text = wgsl`
    ${storage([
      ["x", type],
      ["y", type],
    ])}
    struct Uniforms {
      ${fields.map(([name, scalar]) => `${name}: ${scalar},`)}
      band: array<vec4<u32>, ${table}>,
    }
    @group(0) @binding(2) var<uniform> u: Uniforms;
    @compute @workgroup_size(64)
    fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) local: u32) {
      let e = (wg.y * grid.x + wg.x) * 64u + local;
      if (e >= u.count) { return; }
      let line = e / u.inner;
      let outer = line / u.rows;
      let at = (line - outer * u.rows) * u.stride;
      let span = u.band[at].x;
      let pitch = u.inner * ${run}u;
      var source = (outer * u.columns + (span & 0xffffu)) * pitch + (e - line * u.inner) * ${run}u;
      ${each((j) => `var acc${j} = ${type}();`)}
      for (var k = 1u; k <= (span >> 16u); k++) {
        let weight = bitcast<f32>(u.band[at + k].x);
        ${each((j) => `acc${j} += weight * x[source + ${j}u];`)}
        source += pitch;
      }
      ${each((j) => `y[e * ${run}u + ${j}u] = acc${j};`)}
    }
  `;
  const words = new Array<number>(fields.length + 4 * table).fill(0);
  fields.forEach(([, , value], i) => {
    words[i] = value;
  });
  tableOf(s).forEach((word, i) => {
    words[fields.length + 4 * i] = word;
  });
  const workgroups = foldGrid(Math.max(1, Math.ceil(count / 64)), caps);
  const flops = 2 * s.outer * s.inner * s.weights.reduce((sum, row) => sum + row.length, 0);
  const source = { label: `resample/band_x${vector * run}_${table}`, wgsl: text, workgroups, uniforms: words, flops };
  return { passes: [{ source, operands: [0, 1] }], scratch: [] };
}

/** Bands whose rows start anywhere and have any number of weights; long ones need the large table. */
export function drawBand(d: Draw): BandSpec {
  const columns = d.pick([1, 2, 5, 9, 33]);
  const rows = d.pick([1, 3, 8, 17, 400]);
  const starts = Array.from({ length: rows }, () => d.int(0, columns - 1));
  const seed = d.int(1, 99);
  const weights = starts.map((start, i) =>
    Array.from({ length: Math.min(columns - start, i % 7 === 6 ? 0 : 1 + ((i + seed) % 4)) }, (_, k) =>
      Math.sin(seed * (i + 1) * (k + 2)),
    ),
  );
  return { rows, columns, starts, weights };
}

export const resample: Family<ResampleSpec> = {
  name: "resample",
  variants: [{ name: "band", supports: () => true, emit: emitBand }],
  inputs: (s) => [{ dtype: "f32", size: s.outer * s.columns * s.inner }],
  outputs: (s) => [{ dtype: "f32", size: s.outer * s.rows * s.inner }],
  reference(s, [x]) {
    const y = new Float64Array(s.outer * s.rows * s.inner);
    for (let a = 0; a < s.outer; a++)
      s.weights.forEach((row, i) => {
        row.forEach((weight, k) => {
          for (let c = 0; c < s.inner; c++)
            y[(a * s.rows + i) * s.inner + c] += weight * x[(a * s.columns + s.starts[i] + k) * s.inner + c];
        });
      });
    return [y];
  },
  draw: (d) => ({ ...drawBand(d), outer: d.int(1, 3), inner: d.pick([1, 3, 4, 12, 32]) }),
  rtol: 1e-6,
  why: "a handful of products, each rounded once, and weights rounded once",
  sums: true,
};

export const families: readonly Family<ResampleSpec>[] = [resample];
