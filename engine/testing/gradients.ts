// Derivatives against central differences, both in float64 on the reference: first ones, Hessian-vector products, and those
// of whole networks along random directions. The cotangent is random: with one of all ones a permute that forgets to
// permute its gradient passes.

import type fc from "fast-check";
import { hvp, vjp } from "../autograd.ts";
import { leaf, type Node } from "../graph.ts";
import { placeholder } from "../ops/leaf.ts";
import type { Array64, Sample } from "../ops/op.ts";
import { evaluate64, hostValues } from "../reference.ts";
import { numel, sameShape } from "../shape.ts";
import { Tensor } from "../tensor.ts";
import {
  type Check,
  CheckError,
  type CheckOptions,
  describeCall,
  forAll,
  type Report,
  runChecks,
  Skip,
} from "./check.ts";
import { magnitude } from "./close.ts";
import { uniforms, values, type Wanted } from "./draw.ts";
import { type LeafValues, readLeaves } from "./leaves.ts";

/** Inputs of a function under test: tensors without memory, and the float64 values they stand for. */
export class Inputs {
  readonly values = new Map<Node, Array64>();
  readonly #next: () => number;

  constructor(seed: number) {
    this.#next = uniforms(seed);
  }

  make(wanted: Wanted, domain?: readonly [number, number]): Tensor {
    const node = leaf(placeholder, { name: `x${this.values.size}` }, wanted.shape, wanted.dtype ?? "f32");
    this.values.set(node, { shape: wanted.shape, data: Float64Array.from(values(wanted, this.#next, domain)) });
    return new Tensor(node);
  }

  /** Reads what `roots` rest on besides: parameters, and tensors that were computed before. Throws DeviceError. */
  async read(roots: readonly Tensor[]): Promise<void> {
    for (const [node, array] of await readLeaves(roots)) this.values.set(node, array);
  }

  /** The value of a leaf: an input, one that was read, or one that the host has. Throws DeviceError. */
  readonly leaf: LeafValues = (n) => this.values.get(n) ?? hostValues(n.storage);

  evaluate(roots: readonly Tensor[]): Float64Array[] {
    const found = evaluate64(
      roots.map((t) => t.node),
      this.leaf,
    );
    return roots.map((t) => (found.get(t.node) as Array64).data);
  }

  /** `body` with every tensor of `wrt` moved by t times its direction. */
  moved<T>(wrt: readonly Tensor[], directions: readonly ArrayLike<number>[], t: number, body: () => T): T {
    const arrays = wrt.map((x) => (this.values.get(x.node) as Array64).data);
    const before = arrays.map((a) => a.slice());
    arrays.forEach((a, i) => {
      for (let j = 0; j < a.length; j++) a[j] += t * directions[i][j];
    });
    try {
      return body();
    } finally {
      arrays.forEach((a, i) => {
        a.set(before[i]);
      });
    }
  }
}

/**
 * Half the distance between the two points of a central difference. With the first, rounding and truncation errors are both
 * near 1e-10; the others are tried when it disagrees, because a kink that lies within one step seldom lies within the next.
 */
const STEPS = [1e-5, 1e-6, 1e-7];
/** Elements per input that are checked one by one; beyond, a random sample of them. */
const MOST = 16;

export interface GradientOptions {
  /**
   * Largest |analytic - numeric|, relative to |numeric| or, where that is smaller, to the gradient's largest element but at
   * most 1; 1e-6 leaves room for the third derivatives of rsqrt and log.
   */
  readonly tolerance?: number;
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** Roundings of analytic gradients that cancel to nothing, such as those of a normalisation over one element. */
const CANCELLED = 1e-13;

/**
 * The slope of `at` at 0 when `got` is not it, else null; `size` is the gradient's largest element. Errors count relative to
 * it, because under an absolute bound every gradient of a small function is right. What is then too strict is a slope that
 * is nothing but rounding, M 1e-16 / h for terms of size M that cancel: it tells nothing finer than what it itself changes
 * by from step to step.
 */
function disagreement(
  at: (t: number) => number,
  got: number,
  size: number,
  { tolerance = 1e-6 }: GradientOptions,
): number | null {
  const slopes: number[] = [];
  for (const h of STEPS) {
    const slope = (at(h) - at(-h)) / (2 * h);
    if (Math.abs(got - slope) <= tolerance * Math.max(Math.min(1, size), Math.abs(slope)) + CANCELLED) return null;
    slopes.push(slope);
  }
  const [first] = slopes;
  const error = Math.abs(got - first);
  const noise = 2 * (Math.max(...slopes) - Math.min(...slopes));
  return error <= noise && error <= tolerance * Math.max(1, Math.abs(first)) ? null : first;
}

function one(length: number, at: number): Float64Array {
  const v = new Float64Array(length);
  v[at] = 1;
  return v;
}

const some = (length: number, next: () => number): number[] =>
  length <= MOST
    ? Array.from({ length }, (_, i) => i)
    : Array.from({ length: MOST }, () => Math.floor(next() * length));

/** A sentence about the first gradient that has not the shape of its input, or null. */
function misshapen(gradients: readonly Tensor[], wrt: readonly Tensor[]): string | null {
  const i = gradients.findIndex((g, j) => !sameShape(g.shape, wrt[j].shape));
  return i < 0 ? null : `gradient of input ${i} has shape [${gradients[i].shape.join()}], not [${wrt[i].shape.join()}]`;
}

/** Inputs that are differentiated: what is whole numbers, or rounded to f16, has no slope. */
export const floats = (ins: readonly Tensor[]): Tensor[] => ins.filter((t) => t.dtype === "f32");

export const nothingToDifferentiate = (): Skip => new Skip("no float32 input");

/** `out` and its derivatives: all that a check evaluates, for `Inputs.read`. A gradient may rest on more than `out` does. */
export function differentiated(out: Tensor, wrt: readonly Tensor[], second: boolean): Tensor[] {
  const like = (x: Tensor): Tensor => new Tensor(leaf(placeholder, { name: "like" }, x.shape, "f32"));
  if (second) return [out, ...hvp(out.mul(like(out)).sum(), wrt, wrt.map(like))];
  return [out, ...vjp(out, wrt, like(out))];
}

/** A sentence about the first wrong element of a gradient, or null. `wrt` are tensors that `inputs` made. */
export function gradientProblem(
  out: Tensor,
  wrt: readonly Tensor[],
  inputs: Inputs,
  seed: number,
  o: GradientOptions = {},
): string | null {
  const cotangent = inputs.make({ shape: out.shape }, [0.5, 1.5]);
  const weights = (inputs.values.get(cotangent.node) as Array64).data;
  const gradients = vjp(out, wrt, cotangent);
  const shapes = misshapen(gradients, wrt);
  if (shapes) return shapes;
  const analytic = inputs.evaluate(gradients);
  const next = uniforms(seed);
  const along =
    (x: Tensor, direction: Float64Array) =>
    (t: number): number =>
      inputs.moved([x], [direction], t, () => dot(inputs.evaluate([out])[0], weights));
  for (const [i, x] of wrt.entries()) {
    const n = numel(x.shape);
    const size = magnitude(analytic[i]);
    for (const e of some(n, next)) {
      const want = disagreement(along(x, one(n, e)), analytic[i][e], size, o);
      if (want !== null) return `gradient of input ${i}, element ${e}: expected ${want}, got ${analytic[i][e]}`;
    }
    const direction = Float64Array.from({ length: n }, () => next() - 0.5);
    const got = dot(analytic[i], direction);
    const want = disagreement(along(x, direction), got, size, o);
    if (want !== null) return `gradient of input ${i} along a random direction: expected ${want}, got ${got}`;
  }
  return null;
}

/**
 * A sentence about the first wrong element of a Hessian-vector product, or null: hvp of a weighted sum of `out` against
 * central differences of its gradient. A gradient that is itself a constant by mistake shows here, not in the first order.
 */
export function hvpProblem(
  out: Tensor,
  wrt: readonly Tensor[],
  inputs: Inputs,
  o: GradientOptions = {},
): string | null {
  const loss = out.mul(inputs.make({ shape: out.shape }, [0.5, 1.5])).sum();
  const v = wrt.map((x) => inputs.make({ shape: x.shape }, [-1, 1]));
  const directions = v.map((t) => (inputs.values.get(t.node) as Array64).data);
  const analytic = inputs.evaluate(hvp(loss, wrt, v));
  const gradients = vjp(loss, wrt, inputs.make({ shape: loss.shape }, [1, 1]));
  const known = new Map<number, Float64Array[]>();
  const at = (t: number): Float64Array[] => {
    const values = known.get(t) ?? inputs.moved(wrt, directions, t, () => inputs.evaluate(gradients));
    known.set(t, values);
    return values;
  };
  for (const [i, x] of wrt.entries())
    for (let e = 0; e < numel(x.shape); e++) {
      const want = disagreement((t) => at(t)[i][e], analytic[i][e], magnitude(analytic[i]), o);
      if (want !== null)
        return `second derivative along v, input ${i}, element ${e}: expected ${want}, got ${analytic[i][e]}`;
    }
  return null;
}

/** A call of a function under test: shapes, dtypes, and attributes that `f` is given. */
export interface Call<A = object> {
  readonly inputs: readonly (Sample<A>["inputs"][number] & { readonly domain?: readonly [number, number] })[];
  readonly attrs?: A;
}

export interface GradcheckOptions extends CheckOptions, GradientOptions {
  /** What the counterexample is called; the function's name when absent. */
  readonly name?: string;
  /** Check Hessian-vector products too; true when absent. */
  readonly second?: boolean;
}

/**
 * Checks the gradients of `f` at random calls: `gradcheck(([x, y]) => x.mul(y).tanh(), arbitrary)`, with an arbitrary of
 * fast-check that gives shapes (see `drawn` to write one as choices). Float32 inputs are differentiated, values lie in
 * [-2, 2] or in each input's `domain`, where `f` must be smooth. What `f` captures (parameters, values computed before) is
 * read from the open device at every case. Throws CheckError with the smallest counterexample, TypeError when no case has a
 * float32 input, DeviceError inside CheckError when a captured value cannot be read.
 */
export async function gradcheck<A extends object = object>(
  f: (inputs: readonly Tensor[], attrs: A) => Tensor,
  arbitrary: fc.Arbitrary<Call<A>>,
  o: GradcheckOptions = {},
): Promise<Report> {
  const subject = o.name ?? (f.name || "f");
  const check = (law: string, problem: typeof gradientProblem): Check => ({
    subject,
    law,
    needs: "host",
    run: (budget) =>
      forAll(arbitrary, budget, async (call, seed) => {
        const inputs = new Inputs(seed);
        const ins = call.inputs.map((wanted) => inputs.make(wanted, wanted.domain));
        const wrt = floats(ins);
        if (wrt.length === 0) return nothingToDifferentiate();
        const out = f(ins, call.attrs ?? ({} as A));
        await inputs.read(differentiated(out, wrt, law === SECOND));
        const wrong = problem(out, wrt, inputs, seed, o);
        const shapes = call.inputs.map((i) => i.shape);
        return wrong && `${describeCall(subject, shapes, call.attrs ?? {})}: ${wrong}`;
      }),
  });
  const first = check("gradient", gradientProblem);
  const second = check(SECOND, (out, wrt, inputs, _, options) =>
    hvpProblem(out, wrt, inputs, { tolerance: 10 * (options?.tolerance ?? 1e-6) }),
  );
  const report = await runChecks(o.second === false ? [first] : [first, second], o);
  if (Object.keys(report.cases).length === 0)
    throw new TypeError(
      `gradcheck of ${subject}: no case has a float32 input, so nothing was differentiated (whole numbers and f16 have no slopes)`,
    );
  return report;
}

const SECOND = "second derivative";

export interface DirectionalOptions extends GradientOptions {
  readonly seed?: number;
  /** Random directions to try, each over all of `wrt` at once; 3 when absent. */
  readonly directions?: number;
  /** Check the Hessian-vector product too; false when absent. */
  readonly second?: boolean;
}

/**
 * Checks gradients of a whole network, `await directional(model.loss(x), model.parameters())`: the slope of a weighted sum of
 * `out` along random directions in the space of all of `wrt`, which are leaves (parameters, or tensors made of values).
 * Everything is float64 on the host, whichever device is open. Throws CheckError.
 */
export async function directional(out: Tensor, wrt: readonly Tensor[], o: DirectionalOptions = {}): Promise<void> {
  const seed = o.seed ?? 1;
  const inputs = new Inputs(seed);
  await inputs.read(differentiated(out, wrt, o.second === true));
  const stray = wrt.findIndex((x) => !inputs.values.has(x.node));
  if (stray >= 0) throw new TypeError(`directional: tensor ${stray} of wrt is not a leaf that the output depends on`);
  for (let i = 0; i < (o.directions ?? 3); i++) {
    const wrong = directionProblem(out, wrt, inputs, seed + i, o);
    if (wrong) throw new CheckError(`direction ${i} (seed ${seed}): ${wrong}`);
  }
  const wrong = o.second ? hvpProblem(out, wrt, inputs, { tolerance: o.tolerance ?? 1e-5 }) : null;
  if (wrong) throw new CheckError(`${wrong} (seed ${seed})`);
}

/** The slope along one random direction in all of `wrt`, with a message that gives both sides. */
function directionProblem(
  out: Tensor,
  wrt: readonly Tensor[],
  inputs: Inputs,
  seed: number,
  o: GradientOptions,
): string | null {
  const cotangent = inputs.make({ shape: out.shape }, [0.5, 1.5]);
  const weights = (inputs.values.get(cotangent.node) as Array64).data;
  const next = uniforms(seed);
  const directions = wrt.map((x) => Float64Array.from({ length: numel(x.shape) }, () => next() - 0.5));
  const analytic = inputs.evaluate(vjp(out, wrt, cotangent));
  const got = analytic.reduce((sum, g, i) => sum + dot(g, directions[i]), 0);
  const at = (t: number): number => inputs.moved(wrt, directions, t, () => dot(inputs.evaluate([out])[0], weights));
  const want = disagreement(at, got, Math.max(...analytic.map(magnitude)), o);
  return want === null ? null : `slope over ${wrt.length} tensors: expected ${want}, got ${got}`;
}
