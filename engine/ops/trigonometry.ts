// sin and cos in WGSL. The builtins are specified to an absolute error of 2^-11 inside [-pi, pi] and to nothing outside, and
// drivers differ that much; these stay within two units in the last place of 1 for |x| <= 3000 on every one. Used by
// elementwise.ts.

import type { Bind, WgslType } from "./op.ts";

// sin r = r + r^3 P(r^2) for |r| <= pi/2: the minimax polynomial of the relative error, which is 6e-9.
const P = [2.60578047e-6, -1.98096028e-4, 8.33306625e-3, -1.66666596e-1];

// pi in two parts. The first has 12 bits, so that its product with a whole number below 2^12 is exact in float32, and what
// is left of x - n pi keeps all its digits.
const PI_HIGH = 3217 / 1024;
const PI_LOW = Math.PI - PI_HIGH;

/** With n the multiple of pi nearest to x: sin x = (-1)^n sin(x - n pi). */
export function sinWgsl(x: string, t: WgslType, bind: Bind): string {
  const n = bind(`round(${x} * ${t}(${1 / Math.PI}))`);
  return `(${parity(n, t)} * ${sinOfRest(x, n, t, bind)})`;
}

/** With n + 1/2 the odd multiple of pi/2 nearest to x: cos x = -(-1)^n sin(x - (n + 1/2) pi). */
export function cosWgsl(x: string, t: WgslType, bind: Bind): string {
  const n = bind(`round(fma(${x}, ${t}(${1 / Math.PI}), ${t}(-0.5)))`);
  return `(-${parity(n, t)} * ${sinOfRest(x, `(${n} + ${t}(0.5))`, t, bind)})`;
}

/** (-1)^n */
function parity(n: string, t: WgslType): string {
  return `fma(fract(${n} * ${t}(0.5)), ${t}(-4.0), ${t}(1.0))`;
}

function sinOfRest(x: string, n: string, t: WgslType, bind: Bind): string {
  // The clamp changes nothing (what is left is at most a little over pi/2), but no compiler may look through it: some add
  // the two constants up before they multiply, which loses what the second is there for.
  const high = bind(`clamp(fma(${n}, ${t}(${-PI_HIGH}), ${x}), ${t}(-8.0), ${t}(8.0))`);
  const r = bind(`fma(${n}, ${t}(${-PI_LOW}), ${high})`);
  const square = bind(`${r} * ${r}`);
  const p = P.slice(1).reduce((sum, c) => `fma(${sum}, ${square}, ${t}(${c}))`, `${t}(${P[0]})`);
  return `fma(${square} * ${r}, ${p}, ${r})`;
}
