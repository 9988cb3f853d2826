// The second decision of fusion: what is stored in any case. Results are, and what hand-written kernels read, which is where
// movement ops before a kernel become strides, if the kernel can take them, or a copy. Called by fuse.ts.

import type { Node } from "../../graph.ts";
import { contiguous, type KernelLowering, literalOf } from "../../ops/op.ts";
import { flatten, SplitRequest, unflatten } from "../../ops/view.ts";
import { sameShape } from "../../shape.ts";
import { identity } from "../expr.ts";
import type { Draft, Operand } from "./draft.ts";

export function storeForced(draft: Draft): void {
  const { options } = draft;
  for (const n of draft.wanted) draft.store(n);
  for (const n of draft.order) {
    const { lower } = n.op;
    if (lower.kind === "kernel")
      draft.operands.set(
        n,
        draft.sources(n).map((s) => operandOf(s, lower, draft)),
      );
    if (!options.fuse && lower.kind !== "leaf") draft.store(n);
  }
}

/** How a kernel reads `n`: through movement ops where its strides allow it, else from a contiguous copy. */
function operandOf(n: Node, lower: KernelLowering<unknown>, draft: Draft): Operand {
  const { fuse } = draft.options;
  const through = fuse ? layoutOf(n, draft) : null;
  const same = through && sameShape(through.layout.strides, contiguous(n.shape).strides) && through.layout.offset === 0;
  if (through && (same || lower.strided?.(through.layout, n.shape))) {
    draft.store(through.node);
    return through;
  }
  // A copy of halves stays halves: kernels widen what they load.
  const copied = fuse && widens(n) ? draft.sources(n)[0] : n;
  draft.store(copied);
  return { node: copied, layout: contiguous(n.shape) };
}

/** The node below a chain of movement ops, and the affine layout of `n` in it; null when it is not affine. */
function layoutOf(n: Node, draft: Draft): Operand | null {
  const space = n.shape;
  let node = n;
  let linear = identity(space);
  try {
    while (!draft.stored(node)) {
      const lower = node.op.lower;
      if (widens(node)) {
        node = draft.sources(node)[0];
        continue;
      }
      if (lower.kind !== "view") break;
      let src = 0;
      // A reshape keeps row-major positions, so only the other movements need to know where in the shape they are.
      if (!lower.linear) {
        const pieces = lower.read(node.attrs, node, unflatten(linear, node.shape), space);
        if (pieces.length !== 1 || pieces[0].when.length > 0) break;
        src = pieces[0].src;
        linear = flatten(space, pieces[0].at, draft.sources(node)[src].shape);
      }
      node = draft.sources(node)[src];
    }
  } catch (e) {
    if (e instanceof SplitRequest) return null;
    throw e;
  }
  if (literalOf(node) !== undefined || linear.quotients.length > 0) return null;
  const strides = contiguous(n.shape).strides.map((s, i) => (n.shape[i] === 1 ? s : linear.coef[i]));
  return { node, layout: { offset: linear.off, strides } };
}

/** Is it the f32 cast of an f16 value? Kernels widen what they load, so that they read the f16 itself. */
function widens(n: Node): boolean {
  return "widens" in n.op && n.op.widens === true && n.dtype === "f32" && n.src[0].dtype === "f16";
}
