// Functions whose gradient is not what their ops would give: a user's own (customVjp), or the same one computed from values
// that are made again when it is needed (checkpoint). Both put one node over the function's result, whose value is the
// result and whose gradient is theirs. Called by models; no op record uses it.

import { backward } from "./autograd.ts";
import { isFloat } from "./dtype.ts";
import { DTypeError, ShapeError, show } from "./error.ts";
import { type Node, substitute, toposort, witnessed } from "./graph.ts";
import type { Attrs, CompositeDef } from "./ops/op.ts";
import { numel, type Shape, sameShape } from "./shape.ts";
import { apply, Tensor } from "./tensor.ts";

/** One result, or several. */
export type Results = Tensor | readonly Tensor[];
/** Gradients of the results, one of each shape: a tensor for one, a list for several. */
export type Cotangents<R extends Results> = R extends Tensor ? Tensor : readonly Tensor[];

interface Packed extends Attrs {
  /** Shapes of the results that the value holds one after another; null when it is the one result. */
  readonly shapes: readonly Shape[] | null;
}

type Gradient = (g: Tensor, value: Tensor, ins: readonly Tensor[], attrs: Packed) => readonly (Tensor | null)[];

/**
 * Composite (value, ...inputs) -> value, with a gradient for the inputs. Their dtypes are their own affair: nothing is
 * computed. Not in the op table: it has no random calls.
 */
function overlay(name: string, gradient: Gradient | null): CompositeDef<Packed> {
  return {
    name,
    shape: ([value]) => value,
    decompose: ([value]) => value,
    half: true,
    vjp: gradient ? (g, [value, ...ins], _, attrs) => [null, ...gradient(g, value, ins, attrs)] : undefined,
    lower: { kind: "parts" },
    draw: () => {
      throw new Error(`${name} belongs to a function and has no random calls`);
    },
    rtol: 0,
  };
}

// ---- several results as one ------------------------------------------------------------------------------------------

/** Results in one tensor, because a node has one value; movement ops, so that nothing is copied where they are unpacked. */
function pack(name: string, results: Results): Tensor {
  if (results instanceof Tensor) return results;
  if (results.some((t) => t.dtype !== results[0].dtype || !isFloat(t.dtype)))
    throw new DTypeError(
      `${name}: several results must all be f32, or all f16, got ${results.map((t) => t.dtype).join(", ")} (cast them, or return one alone)`,
    );
  const [first, ...rest] = results.map((t) => t.reshape([numel(t.shape)]));
  if (!first) throw new ShapeError(`${name}: the function returned no tensor`);
  return first.concat(rest, 0);
}

/** The inverse of `pack`, for results of the given shapes. */
function unpack(packed: Tensor, shapes: readonly Shape[]): Tensor[] {
  let at = 0;
  return shapes.map((shape) => {
    const part = packed.slice(0, at, at + numel(shape));
    at += numel(shape);
    return part.reshape(shape);
  });
}

function shapesOf(results: Results): readonly Shape[] | null {
  return results instanceof Tensor ? null : results.map((t) => t.shape);
}

function unpackLike<R extends Results>(packed: Tensor, shapes: readonly Shape[] | null): R {
  return (shapes ? unpack(packed, shapes) : packed) as Results as R;
}

// ---- a gradient of one's own -----------------------------------------------------------------------------------------

let custom = 0;

/**
 * `f` with another gradient: `const round = customVjp((x) => x.add(0.5).floor(), (g) => [g])` is a straight-through
 * rounding. `gradient` is given the gradients of the results, the inputs and the results, and returns one gradient per
 * input, of its shape (and cast to its dtype), or null for none. It may use ops freely, and is differentiated itself for
 * second derivatives. What `f` captures counts as constant. Throws ShapeError when a gradient has not the shape of its input.
 */
export function customVjp<X extends readonly Tensor[], R extends Results>(
  f: (...xs: X) => R,
  gradient: (g: Cotangents<R>, xs: X, results: R) => readonly (Tensor | null)[],
): (...xs: X) => R {
  const name = `customVjp ${++custom}${f.name ? ` ${f.name}` : ""}`;
  const record = overlay(name, (g, value, ins, { shapes }) => {
    const cotangents = unpackLike(g, shapes) as Results as Cotangents<R>;
    return checked(name, gradient(cotangents, ins as readonly Tensor[] as X, unpackLike(value, shapes)), ins);
  });
  return (...xs) => {
    const results = f(...xs);
    const shapes = shapesOf(results);
    return unpackLike(apply(record, [pack(name, results), ...xs], { shapes }), shapes);
  };
}

function checked(
  name: string,
  gradients: readonly (Tensor | null)[],
  ins: readonly Tensor[],
): readonly (Tensor | null)[] {
  if (gradients.length !== ins.length)
    throw new ShapeError(`${name}: ${ins.length} inputs and ${gradients.length} gradients (null stands for none)`);
  const i = gradients.findIndex((g, j) => g && !sameShape(g.shape, ins[j].shape));
  if (i >= 0)
    throw new ShapeError(
      `${name}: gradient ${i} has shape ${show(gradients[i]?.shape ?? [])}, its input ${show(ins[i].shape)}`,
    );
  return gradients.map((g, j) => (g && isFloat(g.dtype) && isFloat(ins[j].dtype) ? g.cast(ins[j].dtype) : g));
}

// ---- recomputation ---------------------------------------------------------------------------------------------------

/** Composite (x, g) -> x: the same value under another name, so that what is made of it is not what was made of x. */
const again = overlay("value again", null);

/** Composite (result, ...what it was made of) -> result: its gradient makes everything between once more. */
const checkpointed = overlay("checkpoint", (g, value, ins) => {
  const fresh = ins.map((x) => apply(again, [x, g]).node);
  const [made] = substitute([value.node], new Map(ins.map((x, i) => [x.node, fresh[i]])));
  const received = backward(made, new Set(fresh), g, true);
  return fresh.map((n) => received.get(n) ?? null);
});

/**
 * `f`, remembering only its inputs and results: what it computes on the way is computed again for the gradient, from the
 * same random numbers (Chen et al. 2016, arXiv 1604.06174). The results and the gradients are those of `f`: to the bit,
 * except where an op that is differentiated through its parts (attention) now runs as one kernel in the forward pass. It
 * costs the forward pass of `f` once more and saves the memory of its intermediate values, so it pays around each of the
 * blocks of a deep network. Tensors that `f` captures, such as parameters, get their gradients; a value from inside that is
 * seen outside in another way than as a result does not.
 */
export function checkpoint<X extends readonly Tensor[], R extends Results>(f: (...xs: X) => R): (...xs: X) => R {
  return (...xs) => {
    const { result, asked } = witnessed(() => {
      const results = f(...xs);
      return { packed: pack("checkpoint", results), shapes: shapesOf(results) };
    });
    const { packed, shapes } = result;
    const inputs = new Set(xs.map((x) => x.node));
    const outside = restsOn(packed.node, (n) => asked.has(n) && !inputs.has(n));
    return unpackLike(apply(checkpointed, [packed, ...outside], { shapes }), shapes);
  };
}

/** What a result was made of outside the function: its inputs, other values that it found there, and leaves. */
function restsOn(result: Node, inside: (n: Node) => boolean): Tensor[] {
  const order = toposort([result], (n) => (inside(n) ? n.src : []));
  return order.filter((n) => !inside(n)).map((n) => new Tensor(n));
}
