// Functions whose WGSL builtins are missing or too rough: exp, log1p, erf, pow, and rounding to float16. Each returns an
// expression; what it uses twice it gives to `bind`, which declares a variable in front of it. Used by elementwise.ts; sin and
// cos are in trigonometry.ts.

import type { Bind, WgslType } from "./op.ts";

const whole = (t: WgslType): string => (t === "f32" ? "i32" : "vec4<i32>");
const count = (t: WgslType): string => (t === "f32" ? "u32" : "vec4<u32>");

/** Horner's rule, highest power first. */
const series = (terms: readonly number[], at: string, t: WgslType): string =>
  terms.slice(1).reduce((sum, k) => `fma(${sum}, ${at}, ${t}(${k}))`, `${t}(${terms[0]})`);

/** exp(r) for |r| <= 0.35: its series, whose next term is 1e-8 / 2. */
const expSeries = (r: string, t: WgslType): string =>
  series(
    [5040, 720, 120, 24, 6, 2, 1, 1].map((factorial) => 1 / factorial),
    r,
    t,
  );

/** 1.5 * 2^23: a sum with it is a whole number, rounded to nearest, in the low bits of the sum's pattern. */
const ROUNDER = { value: "12582912.0", bits: "0x4b400000" };

/**
 * exp(x) = 2^n exp(x - n log 2), log 2 in two parts. The builtin may be off by 3 + 2|x| units in the last place, because it
 * may multiply x by 1 / log 2 first, whose rounding is |x| times larger in the result; drivers do use that freedom. One that
 * adds the parts of log 2 up again leaves |x| / 2^24. n is taken from the bits of a sum and put into those of a power of two:
 * a conversion to i32, which WGSL has saturate, and ldexp cost more than all the rest. From -88 down those bits are the bits of
 * 0. 2^128 is no f32, so n stays at 127: above 88.4 the series has to go up to log 2, where it is 1.3e-6 short.
 */
export function expWgsl(x: string, t: WgslType, bind: Bind): string {
  const inside = bind(`clamp(${x}, ${t}(-88.0), ${t}(89.0))`);
  const rounded = `bitcast<${whole(t)}>(${inside} * ${t}(1.44269504) + ${t}(${ROUNDER.value}))`;
  const bits = bind(`min(${rounded}, ${whole(t)}(${ROUNDER.bits} + 127))`);
  const n = bind(`${t}(${bits} - ${whole(t)}(${ROUNDER.bits}))`);
  const high = bind(`clamp(fma(${n}, ${t}(-0.693145751953125), ${inside}), ${t}(-1.0), ${t}(1.0))`); // see trigonometry.ts
  const rest = bind(`fma(${n}, ${t}(-1.42860677e-6), ${high})`);
  return `(${expSeries(rest, t)} * bitcast<${t}>((${bits} << ${count(t)}(23u)) + ${whole(t)}(${127 * 2 ** 23})))`;
}

/** log(1 + e) for e in [0, 1] = 2 atanh(s), s = e / (2 + e): a series in s^2 <= 1/9, good to the last digit of small e too. */
export function log1pWgsl(e: string, t: WgslType, bind: Bind): string {
  const s = bind(`${t}(1.0) - ${t}(2.0) / (${t}(2.0) + ${e})`);
  const square = bind(`${s} * ${s}`);
  const terms = [15, 13, 11, 9, 7, 5, 3, 1].map((n) => 1 / n);
  return `(${t}(2.0) * ${s} * ${series(terms, square, t)})`;
}

/** erf in float64: Taylor series near zero, continued fraction of erfc beyond. */
export function erf64(x: number): number {
  const a = Math.abs(x);
  if (a > 6) return Math.sign(x);
  if (a < 2.5) {
    let term = x;
    let sum = x;
    for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum) && n < 200; n++) {
      term *= (-x * x) / n;
      sum += term / (2 * n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = 0;
  for (let k = 120; k > 0; k--) fraction = k / 2 / (a + fraction);
  return Math.sign(x) * (1 - Math.exp(-a * a) / (Math.sqrt(Math.PI) * (a + fraction)));
}

// Minimax fits, lowest power first: erf(x) = x + x P(x^2) up to 0.95 with error 1e-8, and beyond
// log(1 - erf(t)) = t Q(t), t at most 4, with an error of erf of 6e-10.
const ERF_P = [
  0.12837903201580048, -0.37612202763557434, 0.11279843002557755, -0.026712050661444664, 0.004927229136228561,
  -0.0005701415939256549,
];
const ERF_Q = [
  -1.1286578178405762, -0.6351132392883301, -0.10630040615797043, 0.02381722629070282, -0.0036687401589006186,
  0.00032931327586993575, -0.00001188587339129299,
];

export function erfWgsl(x: string, t: WgslType, bind: Bind): string {
  const size = bind(`min(abs(${x}), ${t}(4.0))`);
  const square = bind(`${x} * ${x}`);
  const small = `fma(${series(ERF_P.toReversed(), square, t)}, ${x}, ${x})`;
  const large = `(sign(${x}) * (${t}(1.0) - exp(${size} * ${series(ERF_Q.toReversed(), size, t)})))`;
  return `select(${large}, ${small}, abs(${x}) <= ${t}(0.95))`;
}

/**
 * WGSL's pow knows no negative base, leaves 0^b to the driver, and may round b log2(a) as a whole, whose rounding is that
 * many times larger in the result. Here |a| = m 2^e with m near 1, so that b e, less its whole part, and b log2(m) are
 * small; the sign is that of odd exponents.
 */
export function powWgsl(a: string, b: string, t: WgslType, bind: Bind): string {
  const parts = bind(`frexp(max(abs(${a}), ${t}(1e-37)))`);
  const low = bind(`${parts}.fract < ${t}(0.70710678)`);
  const m = bind(`${parts}.fract * select(${t}(1.0), ${t}(2.0), ${low})`);
  const e = bind(`${t}(${parts}.exp) - select(${t}(0.0), ${t}(1.0), ${low})`);
  // log2(m) = 2 / log(2) atanh(s), s = (m - 1) / (m + 1): the builtin is only good to 2^-21 near 1.
  const s = bind(`(${m} - ${t}(1.0)) / (${m} + ${t}(1.0))`);
  const square = bind(`${s} * ${s}`);
  const terms = [9, 7, 5, 3, 1].map((k) => 2 / Math.LN2 / k);
  const log = bind(`${s} * ${series(terms, square, t)}`);
  const n = bind(`round(clamp(${b} * (${e} + ${log}), ${t}(-150.0), ${t}(127.0)))`);
  // Upper bits of b, times the small whole number e exactly: an fma may be two roundings.
  const upper = bind(`${b} * ${t}(4097.0) - (${b} * ${t}(4097.0) - ${b})`);
  const exact = `(${upper} * ${e} - ${n} + (${b} - ${upper}) * ${e})`;
  const rest = bind(`clamp(${exact} + ${b} * ${log}, ${t}(-1.0), ${t}(1.0)) * ${t}(${Math.LN2})`);
  const size = `ldexp(${expSeries(rest, t)}, ${whole(t)}(${n}))`;
  const finite = `select(${size}, ${t}(0.0), (${a} == ${t}(0.0)) & (${b} > ${t}(0.0)))`;
  const odd = `${b} - ${t}(2.0) * floor(${b} * ${t}(0.5)) == ${t}(1.0)`;
  return `(${finite} * select(${t}(1.0), ${t}(-1.0), (${a} < ${t}(0.0)) & (${odd})))`;
}

/**
 * x rounded to the nearest value of float16, ties to even, from 65520 on to infinity; still an f32. In integers, because
 * compilers drop a conversion there and back, and quantizeToF16 may flush small values.
 */
export function halfWgsl(x: string, t: WgslType, bind: Bind): string {
  const u = t === "f32" ? "u32" : "vec4<u32>";
  const bits = (n: string): string => `${u}(${n}u)`;
  const magnitude = bind(`bitcast<${u}>(${x}) & ${bits("0x7fffffff")}`);
  // Half of the last kept place less one, and one more where that place is odd: the carry rounds.
  const odd = `((${magnitude} >> ${bits("13")}) & ${bits("1")})`;
  const normal = bind(`(${magnitude} + ${bits("0xfff")} + ${odd}) & ${bits("0xffffe000")}`);
  const bounded = `select(${normal}, max(${magnitude}, ${bits("0x7f800000")}), ${normal} >= ${bits("0x47800000")})`;
  // Below 2^-14 float16 is fixed point: whole multiples of 2^-24.
  const small = `bitcast<${u}>(round(abs(${x}) * 16777216.0f) * 5.9604644775390625e-8f)`;
  const rounded = `select(${bounded}, ${small}, ${magnitude} < ${bits("0x38800000")})`;
  return `bitcast<${t}>(${rounded} | (bitcast<${u}>(${x}) & ${bits("0x80000000")}))`;
}
