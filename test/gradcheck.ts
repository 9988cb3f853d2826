// Gradients against central differences, both in float64 on the reference. The cotangent is random: with one of all ones a
// permute that forgets to permute its gradient passes.

import { vjp } from "../engine/autograd.ts";
import { leaf, type Node } from "../engine/graph.ts";
import { placeholder } from "../engine/ops/leaf.ts";
import type { Array64 } from "../engine/ops/op.ts";
import { evaluate64 } from "../engine/reference.ts";
import type { Shape } from "../engine/shape.ts";
import { Tensor } from "../engine/tensor.ts";
import { uniforms, values, type Wanted } from "./draw.ts";

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

  evaluate(roots: readonly Tensor[]): Float64Array[] {
    const found = evaluate64(
      roots.map((t) => t.node),
      (n) => this.values.get(n) ?? { shape: n.shape, data: Float64Array.from(n.storage?.host() ?? []) },
    );
    return roots.map((t) => (found.get(t.node) as Array64).data);
  }
}

/** Half the distance between the two points of a central difference: rounding and truncation errors are both near 1e-10. */
const H = 1e-5;
/** Elements per input that are checked one by one; beyond, a random sample of them. */
const MOST = 40;

export interface GradcheckOptions {
  /** Largest |analytic - numeric| relative to max(1, |numeric|); 1e-6 leaves room for the third derivatives of rsqrt and log. */
  readonly tolerance?: number;
}

function dot(a: Float64Array, b: Float64Array): number {
  return a.reduce((sum, x, i) => sum + x * b[i], 0);
}

/** A sentence about the first wrong element of a gradient, or null. `wrt` are tensors that `inputs` made. */
export function gradientProblem(
  out: Tensor,
  wrt: readonly Tensor[],
  inputs: Inputs,
  seed: number,
  o: GradcheckOptions = {},
): string | null {
  const cotangent = inputs.make({ shape: out.shape }, [0.5, 1.5]);
  const weights = (inputs.values.get(cotangent.node) as Array64).data;
  const analytic = inputs.evaluate(vjp(out, wrt, cotangent));
  const next = uniforms(seed);
  for (const [i, x] of wrt.entries()) {
    const { data } = inputs.values.get(x.node) as Array64;
    const along = (direction: (j: number) => number): number => {
      const at = (t: number): number => {
        const before = data.slice();
        for (let j = 0; j < data.length; j++) data[j] += t * direction(j);
        const value = dot(inputs.evaluate([out])[0], weights);
        data.set(before);
        return value;
      };
      return (at(H) - at(-H)) / (2 * H);
    };
    const wrong = (got: number, want: number): boolean =>
      !(Math.abs(got - want) <= (o.tolerance ?? 1e-6) * Math.max(1, Math.abs(want)));
    const elements =
      data.length <= MOST ? [...data.keys()] : Array.from({ length: MOST }, () => Math.floor(next() * data.length));
    for (const e of elements) {
      const numeric = along((j) => Number(j === e));
      if (wrong(analytic[i][e], numeric))
        return `gradient of input ${i}, element ${e}: expected ${numeric}, got ${analytic[i][e]}`;
    }
    const direction = Float64Array.from(data, () => next() - 0.5);
    const [got, want] = [dot(analytic[i], direction), along((j) => direction[j])];
    if (wrong(got, want)) return `gradient of input ${i} along a random direction: expected ${want}, got ${got}`;
  }
  return null;
}

/** "permute, shapes [2,1,2], {"order":[2,0,1]}" */
export function describeCall(name: string, shapes: readonly Shape[], attrs: unknown): string {
  const words = JSON.stringify(attrs);
  return `${name}, shapes ${shapes.map((s) => `[${s.join()}]`).join(" ")}${words === "{}" ? "" : `, ${words}`}`;
}

/** A scalar that depends on every gradient of `out` at every element: what a second derivative is taken of. */
export function gradientSum(out: Tensor, wrt: readonly Tensor[], inputs: Inputs): { total: Tensor; wrt: Tensor[] } {
  const cotangent = inputs.make({ shape: out.shape });
  const parts = vjp(out, wrt, cotangent).map((g) => g.mul(inputs.make({ shape: g.shape })).sum());
  return { total: parts.reduce((a, b) => a.add(b)), wrt: [...wrt, cotangent] };
}
