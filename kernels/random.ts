// Counter-based random numbers: Threefry-2x32-20 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
// and uniform and normal variates made from its words with integer arithmetic only, so that every adapter, the reference
// and the host get the same bits. The host twins live here too: `threefry2x32`, `uniformAt`, `normalAt`. Called by
// engine/ops/random.ts, and by host code that needs the same stream.

import { type Caps, type Family, foldGrid, type Lowered, storage, uniforms, type Variant, wgsl } from "./wgsl.ts";

export interface RandomSpec {
  readonly count: number;
  readonly kind: "bits" | "uniform" | "normal";
  /** Tells apart the draws that one step makes from one state. */
  readonly draw: number;
}

const ROTATIONS = [13, 15, 26, 6, 17, 29, 16, 24];
const PARITY = 0x1bd11bda;
const ROUNDS = 20;

/** One Threefry block: key and counter words in, two independent random words out. */
export function threefry2x32(key0: number, key1: number, counter0: number, counter1: number): [number, number] {
  const keys = [key0, key1, key0 ^ key1 ^ PARITY];
  let x0 = (counter0 + key0) | 0;
  let x1 = (counter1 + key1) | 0;
  for (let round = 0; round < ROUNDS; round++) {
    const r = ROTATIONS[round % 8];
    x0 = (x0 + x1) | 0;
    x1 = ((x1 << r) | (x1 >>> (32 - r))) ^ x0;
    if (round % 4 === 3) {
      const s = (round + 1) / 4;
      x0 = (x0 + keys[s % 3]) | 0;
      x1 = (x1 + keys[(s + 1) % 3] + s) | 0;
    }
  }
  return [x0 >>> 0, x1 >>> 0];
}

/** Key words and step counter, as in the state operand (whose fourth word is unused). */
export type RandomState = readonly [key0: number, key1: number, counter: number, ...rest: number[]];

/** The random word of one element of one draw. */
export function bitsAt(state: RandomState, draw: number, element: number): number {
  return threefry2x32(state[0], state[1], Math.floor(element / 2) >>> 0, (state[2] + draw) >>> 0)[element % 2];
}

/** Uniform in [0, 1): the top 24 bits, so that f32 holds it exactly. */
export function uniformAt(state: RandomState, draw: number, element: number): number {
  return (bitsAt(state, draw, element) >>> 8) * 2 ** -24;
}

/** Standard normal: see `normalTable`. Exact in f32. */
export function normalAt(state: RandomState, draw: number, element: number, table?: ArrayLike<number>): number {
  return normalOf(bitsAt(state, draw, element), table);
}

/** Entries of `normalTable`. */
export const NORMAL_TABLE_SIZE = 32 * 64 + 1;
/** Binary point of its entries. */
const NORMAL_POINT = 20;

/**
 * Quantiles of the normal tail in units of 2^-20. A word is a sign bit and 31 bits t that stand for the tail probability
 * p = (2t + 1) / 2^33 in (0, 1/2). Entry 64 * octave + segment holds Q^-1(p) at p = 2^(octave - 33) (1 + segment / 64):
 * octaves follow the tail to 6.3 sigma, and linear interpolation between entries is within 2e-5 of the quantile.
 */
export function normalTable(): Int32Array {
  const table = new Int32Array(NORMAL_TABLE_SIZE);
  let z = 0;
  for (let e = NORMAL_TABLE_SIZE - 1; e >= 0; e--) {
    const p = 2 ** ((e >> 6) - 33) * (1 + (e & 63) / 64);
    // Q is convex and decreasing right of 0: Newton's steps from the left never overshoot.
    for (let step = 0; step < 8; step++) z += (normalTail(z) - p) / normalDensity(z);
    table[e] = Math.round(z * 2 ** NORMAL_POINT);
  }
  return table;
}

let cached: Int32Array | undefined;
function hostTable(): Int32Array {
  cached ??= normalTable();
  return cached;
}

const normalDensity = (z: number): number => Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI);

/** P(Z > z), z >= 0: Abramowitz & Stegun 26.2.11 (series) near 0, 26.2.14 (continued fraction) in the tail. */
function normalTail(z: number): number {
  if (z < 3) {
    let term = z;
    let sum = z;
    for (let n = 3; n < 99; n += 2) {
      term *= (z * z) / n;
      sum += term;
    }
    return 0.5 - normalDensity(z) * sum;
  }
  let fraction = z;
  for (let n = 100; n > 0; n--) fraction = z + n / fraction;
  return normalDensity(z) / fraction;
}

/** The normal variate of a random word: octave by leading zeros, 6 bits of segment, 16 bits of interpolation. */
export function normalOf(word: number, table: ArrayLike<number> = hostTable()): number {
  const odd = ((word << 1) | 1) >>> 0;
  const zeros = Math.clz32(odd);
  const mantissa = (odd << zeros) >>> 0;
  const e = (31 - zeros) * 64 + ((mantissa >>> 25) & 63);
  const step = (table[e + 1] - table[e]) * ((mantissa >>> 9) & 0xffff);
  const x = table[e] + ((step + 0x8000) >> 16);
  return (word >>> 31 ? 0 - x : x) * 2 ** -NORMAL_POINT;
}

const NORMAL_OF = wgsl`
  fn normal_of(word: u32) -> f32 {
    let odd = (word << 1u) | 1u;
    let zeros = countLeadingZeros(odd);
    let mantissa = odd << zeros;
    let e = (31u - zeros) * 64u + ((mantissa >> 25u) & 63u);
    let low = table[e];
    let step = (table[e + 1u] - low) * i32((mantissa >> 9u) & 0xffffu);
    let x = low + ((step + 0x8000) >> 16u);
    return f32(select(x, -x, (word >> 31u) == 1u)) * ${2 ** -NORMAL_POINT};
  }
`;

/** `each`: operations per number, which are half those of a block of two words. */
const OUTPUT = {
  bits: { type: "u32", each: 57, value: (word: string) => word },
  uniform: { type: "f32", each: 59, value: (word: string) => `f32(${word} >> 8u) * ${2 ** -24}` },
  normal: { type: "f32", each: 75, value: (word: string) => `normal_of(${word})` },
} as const;

/** The rounds unrolled: the rotations are constants, and there is nothing to load. */
function threefryText(): string {
  const lines: string[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const r = ROTATIONS[round % 8];
    lines.push(`x0 += x1; x1 = ((x1 << ${r}u) | (x1 >> ${32 - r}u)) ^ x0;`);
    if (round % 4 === 3) {
      const s = (round + 1) / 4;
      lines.push(`x0 += key${s % 3}; x1 += key${(s + 1) % 3} + ${s}u;`);
    }
  }
  return lines.join("\n");
}

/**
 * Idea: a thread turns one Threefry block into two neighbouring elements; a workgroup makes 128. Traffic: the output, and
 * for normals two table entries per element (8 KB, cached). One variant for all adapters: there is nothing to share.
 */
function emit(spec: RandomSpec, caps: Caps): Lowered {
  const normal = spec.kind === "normal";
  const out = OUTPUT[spec.kind];
  const bindings: [string, string][] = [
    ["state", "u32"],
    ["y", out.type],
  ];
  if (normal) bindings.splice(1, 0, ["table", "i32"]);
  const u = uniforms(bindings.length, [
    ["count", "u32", spec.count],
    ["stream", "u32", spec.draw],
  ]);
  const text = wgsl`
    ${storage(bindings)}
    ${u.wgsl}
    ${normal ? NORMAL_OF : ""}
    @compute @workgroup_size(64)
    fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) local: u32) {
      let block = (wg.y * grid.x + wg.x) * 64u + local;
      let element = block * 2u;
      if (element >= u.count) { return; }
      let key0 = state[0];
      let key1 = state[1];
      let key2 = key0 ^ key1 ^ ${PARITY}u;
      var x0 = block + key0;
      var x1 = state[2] + u.stream + key1;
      ${threefryText()}
      y[element] = ${out.value("x0")};
      if (element + 1u < u.count) { y[element + 1u] = ${out.value("x1")}; }
    }
  `;
  const workgroups = foldGrid(Math.ceil(spec.count / 128), caps);
  const source = {
    label: `random/${spec.kind}`,
    wgsl: text,
    workgroups,
    uniforms: u.words,
    flops: spec.count * out.each,
  };
  return { passes: [{ source, operands: bindings.map((_, i) => i) }], scratch: [] };
}

const threefry: Variant<RandomSpec> = { name: "threefry", supports: () => true, emit };

/**
 * Inputs: state u32[4] = (key0, key1, counter, unused); for normals also `normalTable()`. Output [count]: u32 bits,
 * uniform f32 in [0, 1) or standard normal f32. Element e takes word e % 2 of the block with counter words
 * (e / 2, counter + draw).
 */
export const random: Family<RandomSpec> = {
  name: "random",
  variants: [threefry],
  inputs: (s) => [
    { dtype: "u32", size: 4, below: 2 ** 32 },
    // Any small entries do for a comparison with the reference; the real table is `normalTable()`.
    ...(s.kind === "normal" ? [{ dtype: "i32", size: NORMAL_TABLE_SIZE, below: 2 ** 14 } as const] : []),
  ],
  outputs: (s) => [{ dtype: OUTPUT[s.kind].type, size: s.count }],
  reference({ count, kind, draw }, [state, table]) {
    const words: RandomState = [state[0], state[1], state[2]];
    const at = {
      bits: (e: number) => bitsAt(words, draw, e),
      uniform: (e: number) => uniformAt(words, draw, e),
      normal: (e: number) => normalAt(words, draw, e, table),
    }[kind];
    return [Float64Array.from({ length: count }, (_, e) => at(e))];
  },
  draw: (d) => ({
    count: d.pick([1, 2, 127, 128, 129, d.int(1, 2000)]),
    kind: d.pick(["bits", "uniform", "normal"] as const),
    draw: d.int(0, 1000),
  }),
  rtol: 0, // integers
};

export const families: readonly Family<unknown>[] = [random];
