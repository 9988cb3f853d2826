// sin and cos in WGSL. The builtins are specified to an absolute error of 2^-11 inside [-pi, pi] and to nothing outside, and
// drivers differ that much; these stay within 3e-7 for |x| <= 1e5 on every one. Beyond, float32 loses the phase here and
// the results are arbitrary, but never outside [-1, 1]. Used by elementwise.ts.

import type { Bind, WgslType } from "./op.ts";

// sin r = r + r^3 P(r^2) for |r| <= pi/2: the minimax polynomial of the relative error, which is 6e-9.
const P = [2.60578047e-6, -1.98096028e-4, 8.33306625e-3, -1.66666596e-1];

// pi in three parts. The first two have 8 bits, so that their products with a multiple of 1/2 below 2^15 are exact in float32.
// So are the differences x - n HIGH and that - n MIDDLE, whose digits all lie between those of x and those of the parts.
const HIGH = 201 / 2 ** 6;
const MIDDLE = 254 / 2 ** 18;
const LOW = Math.PI - HIGH - MIDDLE;

/** With n the multiple of pi nearest to x: sin x = (-1)^n sin(x - n pi). */
export function sinWgsl(x: string, t: WgslType, bind: Bind): string {
  const n = bind(`round(${x} * ${t}(${1 / Math.PI}))`);
  return bounded(x, `${parity(n, t)} * ${sinOfRest(x, n, t, bind)}`, t);
}

/** With n + 1/2 the odd multiple of pi/2 nearest to x: cos x = -(-1)^n sin(x - (n + 1/2) pi). */
export function cosWgsl(x: string, t: WgslType, bind: Bind): string {
  const n = bind(`round(fma(${x}, ${t}(${1 / Math.PI}), ${t}(-0.5)))`);
  return bounded(x, `-${parity(n, t)} * ${sinOfRest(x, bind(`${n} + ${t}(0.5)`), t, bind)}`, t);
}

/** (-1)^n */
function parity(n: string, t: WgslType): string {
  return `fma(fract(${n} * ${t}(0.5)), ${t}(-4.0), ${t}(1.0))`;
}

function sinOfRest(x: string, n: string, t: WgslType, bind: Bind): string {
  const less = (from: string, part: number, most: number): string =>
    bind(`clamp(fma(${n}, ${t}(${-part}), ${from}), ${t}(${-most}), ${t}(${most}))`);
  // For |x| <= 1e5 the clamps change nothing: what is left is at most pi/2 + n (pi - HIGH), then a little over pi/2. But no
  // compiler may look through them: some add the constants up before they multiply, which loses what the others are there for.
  const r = less(less(less(x, HIGH, 64), MIDDLE, 8), LOW, 1.7);
  const square = bind(`${r} * ${r}`);
  const p = P.slice(1).reduce((sum, c) => `fma(${sum}, ${square}, ${t}(${c}))`, `${t}(${P[0]})`);
  return `fma(${square} * ${r}, ${p}, ${r})`;
}

/** `result` held to [-1, 1], and NaN where x is infinite or NaN, which is seen by its bits: compilers assume it away. */
function bounded(x: string, result: string, t: WgslType): string {
  const u = t === "f32" ? "u32" : "vec4<u32>";
  const bits = `bitcast<${u}>(${x})`;
  const inside = `clamp(${result}, ${t}(-1.0), ${t}(1.0))`;
  const odd = `(${bits} & ${u}(0x7f800000u)) == ${u}(0x7f800000u)`;
  return `select(${inside}, bitcast<${t}>(${bits} | ${u}(0x7fc00000u)), ${odd})`;
}
