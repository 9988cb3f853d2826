// Scans: results that each need the one before. linearScan is h_i = a_i h_{i-1} + b_i, from which products and recurrences
// follow; cumsum is the same without a. Along the middle axis of [outer, length, inner], forwards or backwards, so no
// operand is transposed. Called through engine/ops/scan.ts.

import {
  type Caps,
  type Family,
  type Field,
  foldGrid,
  type Lowered,
  storage,
  uniforms,
  type Variant,
  wgsl,
} from "./wgsl.ts";

export interface ScanSpec {
  readonly outer: number;
  readonly length: number;
  readonly inner: number;
  /** From the last element to the first: h_i = a_i h_{i+1} + b_i. */
  readonly reverse: boolean;
}

const WORKGROUP = 64;
const rowsOf = (s: ScanSpec): number => s.outer * s.inner;

/** Where the elements of a row lie; a row is one (outer, inner) pair. */
function fields(s: ScanSpec, part: number): Field[] {
  return [
    ["rows", "u32", rowsOf(s)],
    ["length", "u32", s.length],
    ["inner", "u32", s.inner],
    ["first", "i32", s.reverse ? (s.length - 1) * s.inner : 0],
    ["step", "i32", s.reverse ? -s.inner : s.inner],
    ["part", "u32", part],
    ["parts", "u32", Math.ceil(s.length / part)],
  ];
}

interface Text {
  readonly name: string;
  readonly bindings: readonly (readonly [string, string])[];
  readonly flops: number;
  /** Statements for `worker`, which is one row, or one part of one row. */
  readonly body: string;
}

function pass(
  family: string,
  { name, bindings, flops, body }: Text,
  s: ScanSpec,
  part: number,
  workers: number,
  caps: Caps,
) {
  const u = uniforms(bindings.length, [...fields(s, part), ["workers", "u32", workers]]);
  const text = wgsl`
    ${storage(bindings)}
    ${u.wgsl}
    fn place(row: u32, i: u32) -> u32 {
      let start = (row / u.inner) * u.length * u.inner + row % u.inner;
      return u32(i32(start) + u.first + i32(i) * u.step);
    }
    @compute @workgroup_size(${WORKGROUP})
    fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) local: u32) {
      let worker = (wg.y * grid.x + wg.x) * ${WORKGROUP}u + local;
      if (worker >= u.workers) { return; }
      ${body}
    }
  `;
  const workgroups = foldGrid(Math.ceil(workers / WORKGROUP), caps);
  return { label: `${family}/${name}`, wgsl: text, workgroups, uniforms: u.words, flops };
}

const f32s = (...names: string[]): [string, string][] => names.map((n) => [n, "f32"]);

/**
 * Idea: a thread walks along one row. Traffic: every element once in, once out. Wins when there are rows enough for all
 * cores; needs no scratch.
 */
function emitThread(family: string, scaled: boolean, s: ScanSpec, caps: Caps): Lowered {
  const body = `
      var h = 0.0f;
      for (var i = 0u; i < u.length; i++) {
        let at = place(worker, i);
        h = ${scaled ? "a[at] * h + b[at]" : "h + b[at]"};
        y[at] = h;
      }`;
  const flops = (scaled ? 2 : 1) * rowsOf(s) * s.length;
  const text = { name: "thread", bindings: f32s("b", ...(scaled ? ["a"] : []), "y"), flops, body };
  const source = pass(family, text, s, s.length, rowsOf(s), caps);
  return { passes: [{ source, operands: scaled ? [0, 1, 2] : [0, 1] }], scratch: [] };
}

/** Least elements of a part: shorter ones cost more in the walk over parts than they gain. */
const PART = 64;

/**
 * Idea: rows are cut into parts. A part is an affine map of what enters it, h -> A h + H with A the product of its a and H
 * its scan from zero: the first pass finds A and H of every part, the second walks over the parts of a row and finds what
 * enters each, the third scans every part from there. Traffic: the operands twice, the result once.
 * Wins for few long rows. A is kept finite, because a later zero times infinity would not be zero.
 */
function emitParts(family: string, scaled: boolean, s: ScanSpec, caps: Caps): Lowered {
  const part = Math.max(PART, Math.ceil(Math.sqrt(s.length)));
  const parts = Math.ceil(s.length / part);
  const [rows, workers] = [rowsOf(s), rowsOf(s) * parts];
  const range = `
      let row = worker / u.parts;
      let begin = (worker % u.parts) * u.part;
      let end = min(begin + u.part, u.length);`;
  const operand = scaled ? ["a"] : [];
  const factor = scaled ? ["total_a"] : [];
  const each = scaled ? 2 : 1;
  const totals = {
    name: "totals",
    bindings: f32s("b", ...operand, "total_h", ...factor),
    flops: (scaled ? 5 : 1) * rows * s.length,
    body: `${range}
      var h = 0.0f;
      ${scaled ? "var p = 1.0f;" : ""}
      for (var i = begin; i < end; i++) {
        let at = place(row, i);
        h = ${scaled ? "a[at] * h + b[at]" : "h + b[at]"};
        ${scaled ? "p = clamp(p * a[at], -3.0e38f, 3.0e38f);" : ""}
      }
      total_h[worker] = h;
      ${scaled ? "total_a[worker] = p;" : ""}`,
  };
  const carries = {
    name: "carries",
    bindings: f32s("total_h", ...factor, "enters"),
    flops: each * workers,
    body: `
      var h = 0.0f;
      for (var j = 0u; j < u.parts; j++) {
        let at = worker * u.parts + j;
        enters[at] = h;
        h = ${scaled ? "total_a[at] * h + total_h[at]" : "h + total_h[at]"};
      }`,
  };
  const scan = {
    name: "scan",
    bindings: f32s("b", ...operand, "enters", "y"),
    flops: each * rows * s.length,
    body: `${range}
      var h = enters[worker];
      for (var i = begin; i < end; i++) {
        let at = place(row, i);
        h = ${scaled ? "a[at] * h + b[at]" : "h + b[at]"};
        y[at] = h;
      }`,
  };
  const inputs = scaled ? [0, 1] : [0];
  const y = inputs.length;
  const found = scaled ? [y + 1, y + 2] : [y + 1];
  const enters = y + 1 + found.length;
  return {
    passes: [
      { source: pass(family, totals, s, part, workers, caps), operands: [...inputs, ...found] },
      { source: pass(family, carries, s, part, rows, caps), operands: [...found, enters] },
      { source: pass(family, scan, s, part, workers, caps), operands: [...inputs, enters, y] },
    ],
    scratch: [...found, enters].map(() => workers),
  };
}

/** Rows that keep every core of the machine busy without cutting them. */
const ENOUGH_ROWS = { cpu: 64, gpu: 4096 };

function variants(family: string, scaled: boolean): Variant<ScanSpec>[] {
  return [
    {
      name: "parts",
      supports: (s, caps) => s.length >= 4 * PART && rowsOf(s) < ENOUGH_ROWS[caps.adapter],
      emit: (s, caps) => emitParts(family, scaled, s, caps),
    },
    { name: "thread", supports: () => true, emit: (s, caps) => emitThread(family, scaled, s, caps) },
  ];
}

function family(name: string, scaled: boolean): Family<ScanSpec> {
  const size = (s: ScanSpec): number => rowsOf(s) * s.length;
  return {
    name,
    variants: variants(name, scaled),
    inputs: (s) => {
      const b = { dtype: "f32", size: size(s) } as const;
      // Factors near 1: smaller ones would forget what earlier parts carry over before it shows.
      return scaled ? [b, { ...b, domain: [0.95, 1.02] }] : [b];
    },
    outputs: (s) => [{ dtype: "f32", size: size(s) }],
    reference(s, [b, a]) {
      const y = new Float64Array(size(s));
      for (let o = 0; o < s.outer; o++) {
        for (let k = 0; k < s.inner; k++) {
          let h = 0;
          for (let j = 0; j < s.length; j++) {
            const i = s.reverse ? s.length - 1 - j : j;
            const at = (o * s.length + i) * s.inner + k;
            h = (scaled ? a[at] : 1) * h + b[at];
            y[at] = h;
          }
        }
      }
      return [y];
    },
    draw: (d) => ({
      outer: d.int(1, 5),
      length: d.pick([1, 2, 63, 64, 255, 256, 257, 1000, d.int(1, 100)]),
      inner: d.pick([1, 2, 4, d.int(1, 20)]),
      reverse: d.pick([false, true]),
    }),
    rtol: 2e-5,
    why: "a thousand f32 added one after another; with factors above 1 an error grows with the result it is held against",
  };
}

/** b [outer, length, inner] -> h_i = h_{i-1} + b_i. */
export const cumsum = family("cumsum", false);
/** b and a [outer, length, inner] -> h_i = a_i h_{i-1} + b_i, h before the first being 0. */
export const linearScan = family("linearScan", true);

export const families: readonly Family<unknown>[] = [cumsum, linearScan];
