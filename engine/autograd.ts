// Reverse-mode differentiation: walk the graph backwards once, let each op's record say what its inputs receive, add up.
// The result is an ordinary graph, so gradients of gradients need nothing more.

import { isFloat } from "./dtype.ts";
import { DTypeError, ShapeError, show } from "./error.ts";
import { type Node, toposort } from "./graph.ts";
import { isComposite } from "./ops/op.ts";
import { numel, sameShape } from "./shape.ts";
import { full, Tensor } from "./tensor.ts";

/** Nodes on a path from one of `wrt` to the loss: only these need gradients. */
function between(order: readonly Node[], wrt: ReadonlySet<Node>): Set<Node> {
  const needed = new Set<Node>();
  for (const n of order) if (wrt.has(n) || n.src.some((s) => needed.has(s))) needed.add(n);
  return needed;
}

/** What the inputs of `node` receive when its output receives `g`. */
function pullback(node: Node, g: Tensor): readonly (Tensor | null)[] {
  const { op, attrs } = node;
  const ins = node.src.map((s) => new Tensor(s));
  if (isComposite(op) && !op.vjp) {
    // Stops at the composite's inputs: one that is given twice, or depends on another, gets its share only once.
    const received = backward(op.decompose(ins, attrs).node, new Set(node.src), g, true);
    return node.src.map((s, i) => (node.src.indexOf(s) === i ? (received.get(s) ?? null) : null));
  }
  if (op.vjp === "none") return ins.map(() => null);
  return (op.vjp as NonNullable<typeof op.vjp>)(g, ins, new Tensor(node), attrs);
}

/** What `targets` receive when `out` receives `g`. `stop`: they are inputs, whatever they themselves depend on. */
export function backward(out: Node, targets: ReadonlySet<Node>, g: Tensor, stop: boolean): Map<Node, Tensor> {
  const sources = (n: Node): readonly Node[] => (stop && targets.has(n) ? [] : n.src);
  const order = toposort([out], sources);
  const needed = between(order, targets);
  const received = new Map<Node, Tensor>([[out, g]]);
  for (let i = order.length - 1; i >= 0; i--) {
    const node = order[i];
    const total = received.get(node);
    if (!total || !needed.has(node) || (stop && targets.has(node))) continue;
    if (node.src.some((s) => needed.has(s))) {
      pullback(node, total).forEach((part, j) => {
        const src = node.src[j];
        if (part && needed.has(src)) received.set(src, received.get(src)?.add(part) ?? part);
      });
    }
  }
  return received;
}

/**
 * Gradients of sum(g * out) with respect to `wrt`: g^T (d out / d wrt). Zeros where `out` does not depend on one. Throws
 * ShapeError unless `g` has the shape of `out`, DTypeError where `out` or one of `wrt` holds whole numbers.
 */
export function vjp(out: Tensor, wrt: readonly Tensor[], g: Tensor): Tensor[] {
  if (!sameShape(g.shape, out.shape))
    throw new ShapeError(`vjp: the cotangent has shape ${show(g.shape)}, the output ${show(out.shape)}`);
  if (!isFloat(out.dtype))
    throw new DTypeError(`grad: gradients are of f32 and f16, and this is ${out}: whole numbers have none`);
  const whole = wrt.findIndex((t) => !isFloat(t.dtype));
  if (whole >= 0)
    throw new DTypeError(
      `grad: gradients are with respect to f32 and f16, number ${whole} is ${wrt[whole]} (leave it out, or cast it and use the cast)`,
    );
  // A tensor that has been read stands in the graph twice: as it came about, and as the value that later ops took.
  const targets = wrt.map((t) => [...new Set([t.node, t.history])]);
  const received = backward(out.history, new Set(targets.flat()), g, false);
  const found = targets.map((nodes) => nodes.flatMap((n) => received.get(n) ?? []));
  if (found.length > 0 && found.every((parts) => parts.length === 0)) refuseCut(out);
  return found.map((parts, i) => {
    const [n] = targets[i];
    return parts.length > 0 ? parts.reduce((a, b) => a.add(b)) : full(n.shape, 0, n.dtype === "f16" ? "f16" : "f32");
  });
}

/** Throws when `out`, which depends on nothing that was asked about, rests on values that were read and so became constants. */
function refuseCut(out: Tensor): void {
  if (!toposort([out.history]).some((n) => n.attrs.read === true)) return;
  throw new Error(
    "grad: the result depends on none of these tensors. A value on the way to it was read (data(), item()), and what is computed from a value that was read takes it as a constant: take the gradient first, or inside compile(); keep() makes a constant without this question",
  );
}

/** Gradients of a scalar with respect to each of `wrt`. Throws ShapeError when `loss` is not one number, DTypeError as `vjp`. */
export function grad(loss: Tensor, wrt: readonly Tensor[]): Tensor[] {
  if (numel(loss.shape) !== 1)
    throw new ShapeError(`grad: the loss must be one number, got ${show(loss.shape)} (take its mean or sum)`);
  return vjp(loss, wrt, full(loss.shape, 1, loss.dtype));
}

/**
 * f(...wrt), a scalar, and its gradients: `valueAndGrad(() => model.loss(x), model.parameters())`. They are those of `grad`,
 * so `f` may use tensors of `wrt` that it is not given.
 */
export function valueAndGrad<const W extends readonly Tensor[]>(
  f: (...wrt: W) => Tensor,
  wrt: W,
): { value: Tensor; grads: Tensor[] } {
  const value = f(...wrt);
  return { value, grads: grad(value, wrt) };
}

/**
 * Hessian-vector products (d^2 loss / d wrt^2) v, one per tensor of `wrt`, as the gradient of sum(grad * v): about the cost
 * of two gradients, and no matrix. `v` has the shapes of `wrt` and counts as constant.
 */
export function hvp(loss: Tensor, wrt: readonly Tensor[], v: readonly Tensor[]): Tensor[] {
  if (v.length !== wrt.length)
    throw new ShapeError(`hvp: ${wrt.length} tensors and ${v.length} directions (give one of each shape)`);
  const along = grad(loss, wrt).map((g, i) => {
    if (!sameShape(g.shape, v[i].shape))
      throw new ShapeError(`hvp: direction ${i} has shape ${show(v[i].shape)}, its tensor ${show(g.shape)}`);
    return g.mul(v[i].detach()).sum();
  });
  return grad(
    along.reduce((a, b) => a.add(b), full([], 0)),
    wrt,
  );
}
