// Ops that work element by element on inputs of one shape (broadcasting is an explicit `expand` before them). Arithmetic
// traps of WGSL are kept out here: no infinities or NaN are relied on, exp and tanh get arguments that cannot overflow.

import type { Draw } from "../../kernels/wgsl.ts";
import { type DType, isFloat, roundHalf } from "../dtype.ts";
import { DTypeError, ShapeError, show } from "../error.ts";
import { sameShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { type Attrs, type Bind, defineOp, floats, type OpDef, type Sample, type WgslType } from "./op.ts";
import { erf64, erfWgsl, expWgsl, halfWgsl, log1pWgsl, powWgsl } from "./special.ts";
import { cosWgsl, sinWgsl } from "./trigonometry.ts";

const none: Attrs = {};

function small(d: Draw): number[] {
  return Array.from({ length: d.int(0, 3) }, () => d.int(1, 5));
}

function draws(count: number): (d: Draw) => Sample<Attrs> {
  return (d) => {
    const shape = small(d);
    return { inputs: Array.from({ length: count }, () => ({ shape })), attrs: none };
  };
}

function sameShapes(name: string): OpDef["shape"] {
  return (ins) => {
    const odd = ins.find((s) => !sameShape(s, ins[0]));
    if (odd) throw new ShapeError(`${name}: shapes differ: ${show(ins[0])} and ${show(odd)}`);
    return ins[0];
  };
}

interface Unary {
  /** Whole numbers too; the others are f32 only. */
  whole?: boolean;
  f(x: number): number;
  df(g: Tensor, x: Tensor, y: Tensor): Tensor;
  wgsl(x: string, t: WgslType, bind: Bind): string;
  domain?: readonly [number, number];
  rtol?: number;
  why?: string;
  /** See OpDef. */
  unit?: number;
}

/** dtype rule of arithmetic on numbers. */
function arithmetic(name: string, t: DType): DType {
  if (t === "bool") throw new DTypeError(`${name}: bool is not a number (cast it: x.cast("f32"))`);
  return t;
}

/** Most f32 builtins are within a few ulp; the ones that are not say so. */
const ULPS = 2e-6;
const FEW = "WGSL's arithmetic and sqrt, within a few ulp";

function unary(name: string, u: Unary): OpDef<Attrs> {
  return defineOp({
    name,
    shape: ([a]) => a,
    dtype: u.whole ? ([t]) => arithmetic(name, t) : floats(name),
    reference: ([a], out) => {
      for (let i = 0; i < out.data.length; i++) out.data[i] = u.f(a.data[i]);
    },
    vjp: (g, [x], y) => [u.df(g, x, y)],
    lower: { kind: "elementwise", wgsl: ([x], t, _, bind) => u.wgsl(x, t, bind) },
    draw: draws(1),
    domain: u.domain,
    unit: u.unit,
    rtol: u.rtol ?? ULPS,
    why: u.why ?? (u.rtol === undefined ? FEW : undefined),
  });
}

interface Binary {
  /** What the op works on: any number when absent. */
  on?: "f32" | "any";
  /** See Lowering. */
  adds?: boolean;
  f(a: number, b: number): number;
  df: ((g: Tensor, a: Tensor, b: Tensor, y: Tensor) => readonly (Tensor | null)[]) | "none";
  wgsl(a: string, b: string, t: WgslType, bind: Bind): string;
  domain?: readonly [number, number];
  dtype?: DType;
  rtol?: number;
  why?: string;
}

function binary(name: string, b: Binary): OpDef<Attrs> {
  const { df } = b;
  const result = b.dtype;
  return defineOp({
    name,
    shape: sameShapes(name),
    dtype: ([x, y]) => {
      if (x !== y) throw new DTypeError(`${name}: dtypes differ: ${x} and ${y} (cast one of them)`);
      if (b.on !== "any") b.on === "f32" ? floats(name)([x]) : arithmetic(name, x);
      return result ?? x;
    },
    reference: ([x, y], out) => {
      for (let i = 0; i < out.data.length; i++) out.data[i] = b.f(x.data[i], y.data[i]);
    },
    vjp: df === "none" ? "none" : (g, [x, y], out) => df(g, x, y, out),
    lower: { kind: "elementwise", wgsl: ([x, y], t, _, bind) => b.wgsl(x, y, t, bind), adds: b.adds },
    draw: draws(2),
    domain: b.domain,
    rtol: b.rtol ?? ULPS,
    why: b.why ?? (b.rtol === undefined ? FEW : undefined),
  });
}

export const neg = unary("neg", { whole: true, f: (x) => -x, df: (g) => g.neg(), wgsl: (x) => `(-${x})` });
export const exp = unary("exp", {
  f: Math.exp,
  df: (g, _, y) => g.mul(y),
  wgsl: expWgsl,
  domain: [-3, 3],
  rtol: 1e-6,
  why: "a series whose last terms round near 1, and an exact power of two",
});
export const log = unary("log", {
  f: Math.log,
  df: (g, x) => g.div(x),
  wgsl: (x) => `log(${x})`,
  domain: [0.2, 5],
  rtol: 1e-5,
  why: "WGSL allows log an absolute error of 2^-21 near 1",
});
export const sqrt = unary("sqrt", {
  f: Math.sqrt,
  df: (g, _, y) => g.div(y.mul(2)),
  wgsl: (x) => `sqrt(${x})`,
  domain: [0.2, 5],
});
export const rsqrt = unary("rsqrt", {
  f: (x) => 1 / Math.sqrt(x),
  df: (g, _, y) => g.mul(y.mul(y).mul(y)).mul(-0.5),
  wgsl: (x) => `inverseSqrt(${x})`,
  domain: [0.2, 5],
});
export const reciprocal = unary("reciprocal", {
  f: (x) => 1 / x,
  df: (g, _, y) => g.mul(y).mul(y).neg(),
  wgsl: (x, t) => `(${t}(1.0) / ${x})`,
  domain: [0.2, 5],
});
export const sin = unary("sin", {
  f: Math.sin,
  df: (g, x) => g.mul(x.cos()),
  wgsl: sinWgsl,
  domain: [-3000, 3000],
  unit: 1,
  why: "one rounding in each of five terms, of numbers near 1 (trigonometry.ts)",
});
export const cos = unary("cos", {
  f: Math.cos,
  df: (g, x) => g.mul(x.sin()).neg(),
  wgsl: cosWgsl,
  domain: [-3000, 3000],
  unit: 1,
  why: "one rounding in each of five terms, of numbers near 1 (trigonometry.ts)",
});
export const tanh = unary("tanh", {
  f: Math.tanh,
  df: (g, _, y) => g.mul(y.mul(y).neg().add(1)),
  wgsl: (x, t) => `tanh(clamp(${x}, ${t}(-15.0), ${t}(15.0)))`,
  domain: [-3, 3],
  rtol: 1e-5,
  why: "a ratio of exponentials, each of up to 3 + 2|x| ULP",
});
export const sigmoid = unary("sigmoid", {
  f: (x) => 1 / (1 + Math.exp(-x)),
  df: (g, _, y) => g.mul(y.mul(y.neg().add(1))),
  wgsl: (x, t) => `(${t}(1.0) / (${t}(1.0) + exp(min(-${x}, ${t}(80.0)))))`,
  domain: [-4, 4],
  rtol: 1e-5,
  why: "exp of up to 3 + 2|x| ULP, and a division",
});
export const abs = unary("abs", {
  whole: true,
  f: Math.abs,
  df: (g, x) => g.mul(x.sign()),
  wgsl: (x) => `abs(${x})`,
  domain: [0.1, 3],
});
export const sign = unary("sign", {
  whole: true,
  f: Math.sign,
  df: (g) => g.mul(0),
  wgsl: (x) => `sign(${x})`,
  domain: [0.1, 3],
});
export const floor = unary("floor", {
  f: Math.floor,
  df: (g) => g.mul(0),
  wgsl: (x) => `floor(${x})`,
  domain: [0.1, 0.9],
});

/** max(x, 0) with slope 0 at 0. One op, so that it can be the epilogue of a product. */
export const relu = unary("relu", {
  whole: true,
  f: (x) => Math.max(x, 0),
  df: (g, x) => x.greater(0).where(g, 0),
  wgsl: (x, t) => `max(${x}, ${t}(0))`,
  domain: [0.1, 3],
});

/** To the nearest whole number, halves to the even one, as IEEE 754 and torch do. */
export const round = unary("round", {
  f: (x) => (x - 2 * Math.round(x / 2) === 0.5 ? Math.floor(x) : Math.round(x)),
  df: (g) => g.mul(0),
  wgsl: (x) => `round(${x})`,
  domain: [0.6, 1.4],
});

/** log(1 + exp(x)) without overflow: max(x, 0) + log(1 + e) with e = exp(-|x|) in (0, 1]. */
export const softplus = unary("softplus", {
  f: (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
  df: (g, x) => g.mul(x.sigmoid()),
  wgsl: (x, t, bind) => `(max(${x}, ${t}(0.0)) + ${log1pWgsl(`exp(-abs(${x}))`, t, bind)})`,
  domain: [-4, 4],
  rtol: 1e-5,
  why: "exp of up to 3 + 2|x| ULP, and a polynomial of a few roundings",
});

/** Identity whose gradient is zero (stop-gradient). */
export const detach = defineOp({
  name: "detach",
  shape: ([a]) => a,
  reference: ([a], out) => out.data.set(a.data),
  vjp: "none",
  lower: { kind: "elementwise", wgsl: ([x]) => x },
  half: true,
  draw: draws(1),
  rtol: 0,
});

/** Error function. WGSL has none: polynomials for small and for large arguments, within two units in the last place of 1. */
export const erf = unary("erf", {
  f: erf64,
  df: (g, x) =>
    g.mul(
      x
        .mul(x)
        .neg()
        .exp()
        .mul(2 / Math.sqrt(Math.PI)),
    ),
  wgsl: erfWgsl,
  domain: [-2.5, 2.5],
  rtol: 1e-6,
  why: "polynomials of float32 coefficients, good to a few ulp of 1",
});

export const add = binary("add", {
  adds: true,
  f: (a, b) => a + b,
  df: (g) => [g, g],
  wgsl: (a, b) => `(${a} + ${b})`,
});
export const sub = binary("sub", { f: (a, b) => a - b, df: (g) => [g, g.neg()], wgsl: (a, b) => `(${a} - ${b})` });
export const mul = binary("mul", {
  f: (a, b) => a * b,
  df: (g, a, b) => [g.mul(b), g.mul(a)],
  wgsl: (a, b) => `(${a} * ${b})`,
});
export const div = binary("div", {
  on: "f32",
  f: (a, b) => a / b,
  df: (g, _, b, y) => [g.div(b), g.mul(y).div(b).neg()],
  wgsl: (a, b) => `(${a} / ${b})`,
  domain: [0.3, 3],
});
export const pow = binary("pow", {
  on: "f32",
  f: (a, b) => a ** b,
  // 0^b has no slope in b where it has a value, and a negative base none at all.
  df: (g, a, b, y) => [g.mul(b).mul(a.pow(b.sub(1))), g.mul(y).mul(a.greater(0).where(a, 1).log())],
  wgsl: powWgsl,
  domain: [0.3, 2],
  rtol: 2e-6,
  why: "two series whose last terms round near 1, a division, and an exact power of two",
});
/** 1 where a > b, 0 where a < b; at ties both inputs get half of the gradient, which keeps max(x, x) right. */
const share = (a: Tensor, b: Tensor): Tensor => a.sub(b).sign().add(1).mul(0.5);
export const maximum = binary("maximum", {
  f: Math.max,
  df: (g, a, b) => [g.mul(share(a, b)), g.mul(share(b, a))],
  wgsl: (a, b) => `max(${a}, ${b})`,
});
export const minimum = binary("minimum", {
  f: Math.min,
  df: (g, a, b) => [g.mul(share(b, a)), g.mul(share(a, b))],
  wgsl: (a, b) => `min(${a}, ${b})`,
});
export const less = binary("less", {
  f: (a, b) => Number(a < b),
  df: "none",
  wgsl: (a, b) => `(${a} < ${b})`,
  dtype: "bool",
});
export const equal = binary("equal", {
  on: "any",
  f: (a, b) => Number(a === b),
  df: "none",
  wgsl: (a, b) => `(${a} == ${b})`,
  dtype: "bool",
});

/** bool: neither NaN nor infinite. By bits, because a compiler may take it that a comparison meets neither. */
export const finite = defineOp({
  name: "isFinite",
  shape: ([a]) => a,
  dtype: (types) => {
    floats("isFinite")(types);
    return "bool";
  },
  reference: ([a], out) => {
    for (let i = 0; i < out.data.length; i++) out.data[i] = Number(Number.isFinite(a.data[i]));
  },
  vjp: "none",
  lower: {
    kind: "elementwise",
    wgsl: ([x], t) => {
      const u = t.startsWith("vec4") ? "vec4<u32>" : "u32";
      return `((bitcast<${u}>(${x}) & ${u}(0x7f800000u)) != ${u}(0x7f800000u))`;
    },
  },
  draw: draws(1),
  rtol: 0,
});

/** cond ? a : b, with cond a bool tensor. */
export const where = defineOp({
  name: "where",
  shape: sameShapes("where"),
  dtype: ([c, a, b]) => {
    if (c !== "bool") throw new DTypeError(`where: the condition must be bool, got ${c}`);
    if (a !== b) throw new DTypeError(`where: dtypes differ: ${a} and ${b}`);
    return a;
  },
  reference: ([c, a, b], out) => {
    for (let i = 0; i < out.data.length; i++) out.data[i] = c.data[i] !== 0 ? a.data[i] : b.data[i];
  },
  vjp: (g, [c]) => [null, c.where(g, 0), c.where(0, g)],
  lower: { kind: "elementwise", wgsl: ([c, a, b]) => `select(${b}, ${a}, ${c})` },
  half: true,
  draw: (d) => {
    const shape = small(d);
    return { inputs: [{ shape, dtype: "bool", below: 2 }, { shape }, { shape }], attrs: none };
  },
  rtol: 0,
});

export interface CastAttrs extends Attrs {
  readonly to: DType;
}

const CONVERT: Readonly<Record<DType, (x: number) => number>> = {
  f32: (x) => x,
  f16: roundHalf,
  i32: (x) => Math.trunc(x) | 0,
  u32: (x) => Math.trunc(x) >>> 0,
  bool: (x) => Number(x !== 0),
};

/** Conversion between dtypes; float to integer rounds towards zero, to f16 to the nearest, ties to even. */
export const cast = defineOp<CastAttrs>({
  name: "cast",
  shape: ([a]) => a,
  dtype: (_, { to }) => to,
  reference: ([a], out, { to }) => {
    for (let i = 0; i < out.data.length; i++) {
      const x = a.data[i];
      out.data[i] = CONVERT[to](x);
    }
  },
  vjp: (g, [x], _, { to }) => [isFloat(to) && isFloat(x.dtype) ? g.cast(x.dtype) : null],
  lower: { kind: "elementwise", wgsl: ([x], t, { to }, bind) => (to === "f16" ? halfWgsl(x, t, bind) : `${t}(${x})`) },
  half: true,
  widens: true,
  draw: (d) => ({ inputs: [{ shape: small(d), dtype: "i32", below: 9 }], attrs: { to: "f32" } }),
  rtol: 0,
});
