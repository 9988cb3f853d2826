// What applying an op means, whatever the op: its shape and dtype rules run, f16 is computed with as f32, and what cannot be
// bound is refused, all at the line that asked. On nodes; the methods beside this file wrap the result. Called by value.ts
// and tensor.ts.

import { bindingLimit } from "../device.ts";
import { elementBytes } from "../dtype.ts";
import { DTypeError, SMALLER, show, tooLargeError } from "../error.ts";
import { intern, type Node } from "../graph.ts";
import { cast } from "../ops/elementwise.ts";
import { type AnyOp, type Attrs, floats, isComposite } from "../ops/op.ts";
import { numel } from "../shape.ts";

export const none: Attrs = {};

/** The node of `op(ins)`. Throws ShapeError and DTypeError as the op does, DeviceError where the device could not bind it. */
export function applied(op: AnyOp, ins: readonly Node[], attrs: Attrs): Node {
  const single = ins.some((n) => n.dtype === "f16") && !takesHalves(op);
  const result = single ? inSingle(op, ins, attrs) : make(op, ins, attrs);
  checkBindings(op, ins, result);
  return result;
}

function make(op: AnyOp, ins: readonly Node[], attrs: Attrs): Node {
  const shape = op.shape(
    ins.map((n) => n.shape),
    attrs,
  );
  const types = ins.map((n) => n.dtype);
  return intern(op, ins, attrs, shape, dtypeRule(op)(types, attrs));
}

/** Its own; kernels are written for f32 unless they say otherwise; what only moves or picks values keeps their dtype. */
function dtypeRule(op: AnyOp): NonNullable<AnyOp["dtype"]> {
  if (op.dtype) return op.dtype;
  return op.lower.kind === "kernel" ? floats(op.name) : ([first]) => first;
}

function takesHalves(op: AnyOp): boolean {
  return op.lower.kind === "view" || ("half" in op && op.half === true);
}

/** Operands of f16 are computed with as f32, sums and products too; a float result is rounded to f16 once. */
function inSingle(op: AnyOp, ins: readonly Node[], attrs: Attrs): Node {
  if (ins.some((n) => n.dtype === "f32"))
    throw new DTypeError(`${op.name}: dtypes differ: ${ins.map((n) => n.dtype).join(" and ")} (cast one of them)`);
  const result = make(
    op,
    ins.map((n) => (n.dtype === "f16" ? applied(cast, [n], { to: "f32" }) : n)),
    "halves" in op && op.halves === true ? { ...attrs, halves: true } : attrs,
  );
  return result.dtype === "f32" ? applied(cast, [result], { to: "f16" }) : result;
}

/**
 * Leaves, and what kernels and reductions compute, have memory in any plan, and so a limit; values between may pass through
 * registers, and are checked when there is a plan (plan/limits.ts). Composites too: they may be taken apart.
 */
function checkBindings(op: AnyOp, ins: readonly Node[], result: Node): void {
  const { maxBinding, f16 } = bindingLimit();
  if (maxBinding === Number.POSITIVE_INFINITY) return;
  const stored = !isComposite(op) && (op.lower.kind === "kernel" || op.lower.kind === "reduce");
  const given = ins.filter(({ op: { lower } }) => lower.kind === "leaf" && !lower.value);
  for (const n of stored ? [...given, result] : given) {
    const bytes = numel(n.shape) * elementBytes(n.dtype, f16);
    if (bytes <= maxBinding) continue;
    const [role, advice] = n === result ? ["result", SMALLER.computed] : ["operand", SMALLER.leaf];
    throw tooLargeError(`${op.name}: the ${role} ${n.dtype}${show(n.shape)}`, bytes, maxBinding, advice);
  }
}
