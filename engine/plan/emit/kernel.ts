// A group around a kernel written by hand: the spec, from the shapes and layouts of its operands, the variant that suits the
// adapter, and operands of 16 bits. What is fused behind a product is in matmul_epilogue.ts. Called by emit.ts; plan.ts and
// tune.ts ask `kernelOf`.

import { withHalves } from "../../../kernels/half.ts";
import { choose } from "../../../kernels/wgsl.ts";
import type { Node } from "../../graph.ts";
import type { KernelLowering } from "../../ops/op.ts";
import type { Boundary } from "../expr.ts";
import type { Group } from "../fuse.ts";
import { type EmitContext, type Emitted, type EmittedPass, resolveSlots } from "./dispatch.ts";
import { matmulEpilogue } from "./matmul_epilogue.ts";

export interface Kernel {
  readonly family: KernelLowering<unknown>["family"];
  readonly spec: object;
}

/** The family and the spec of the kernel that a group is made around; null where it is made around none. */
export function kernelOf(
  { core, operands }: Pick<Group, "core" | "operands">,
  { sources }: Pick<Boundary, "sources">,
): Kernel | null {
  if (core?.op.lower.kind !== "kernel") return null;
  const lower: KernelLowering<unknown> = core.op.lower;
  const shapes = sources(core).map((s) => s.shape);
  const layouts = operands.map((o) => o.layout);
  return { family: lower.family, spec: lower.spec(shapes, core.attrs, layouts) };
}

export function emitKernel(group: Group, core: Node, context: EmitContext): Emitted {
  const { family, spec } = kernelOf(group, context.boundary) as Kernel;
  const root = group.roots[0];
  const hole = root === core ? null : matmulEpilogue(group, core, context);
  const variant = choose(family, spec, context.caps);
  const lowered = variant.emit(hole ? { ...spec, epilogue: hole.epilogue } : spec, context.caps);
  const slot = (node: Node): { place: string; node: Node } => ({ place: context.place(node), node });
  const list = [...group.operands.map((o) => slot(o.node)), ...(hole?.list ?? []), slot(root)];
  const resolved = resolveSlots(lowered, list);
  const passes = context.caps.f16 ? resolved.passes.map(inHalves) : resolved.passes;
  return { ...resolved, passes };
}

/** Kernels are written for f32: what they read or write in 16 bits is converted at the access. */
function inHalves(pass: EmittedPass): EmittedPass {
  const text = pass.slots.reduce(
    (wgsl, slot, i) => ("node" in slot && slot.node.dtype === "f16" ? withHalves(wgsl, i) : wgsl),
    pass.source.wgsl,
  );
  return { ...pass, source: { ...pass.source, wgsl: text } };
}
