// Group -> kernels, in one of three ways, a file of emit/ each: elementwise, around a reduction, around a kernel written by
// hand. Here: which way, and what holds for every dispatch: no buffer is bound twice, 16-bit floats are enabled where they
// are bound. Called by plan.ts.

import { elementwiseKernel } from "../../kernels/elementwise.ts";
import type { Caps, KernelSource } from "../../kernels/wgsl.ts";
import { bufferType } from "../dtype.ts";
import type { Node } from "../graph.ts";
import { numel } from "../shape.ts";
import type { EmitContext, Emitted, EmittedPass, Slot } from "./emit/dispatch.ts";
import { emitElementwise } from "./emit/elementwise.ts";
import { emitKernel } from "./emit/kernel.ts";
import { emitReduce } from "./emit/reduce.ts";
import type { Group } from "./fuse.ts";

export type { EmittedPass, Slot } from "./emit/dispatch.ts";
export { type Kernel, kernelOf } from "./emit/kernel.ts";

export function emit(group: Group, context: EmitContext): Emitted {
  const { passes, scratch } = separate(emitGroup(group, context), context);
  return { passes: passes.map(enabled), scratch };
}

function emitGroup(group: Group, context: EmitContext): Emitted {
  if (!group.core) return emitElementwise(group.roots, context);
  return group.core.op.lower.kind === "reduce"
    ? emitReduce(group, group.core, context)
    : emitKernel(group, group.core, context);
}

/** Texts that bind 16-bit floats say so in their first line. */
function enabled(pass: EmittedPass): EmittedPass {
  const { wgsl } = pass.source;
  if (!/array<(vec4<)?f16>/.test(wgsl) || wgsl.includes("enable f16;")) return pass;
  return { ...pass, source: { ...pass.source, wgsl: `enable f16;\n${wgsl}` } };
}

/** A kernel that is given the same buffer twice (x @ x^T) gets a copy for the second: bindings must not overlap. */
function separate(emitted: Emitted, { caps }: EmitContext): Emitted {
  const copies: EmittedPass[] = [];
  const scratch = [...emitted.scratch];
  const passes = emitted.passes.map((pass) => {
    const seen = new Set<string>();
    const slots = pass.slots.map((slot): Slot => {
      if ("scratch" in slot || !seen.has(slot.place)) {
        if ("place" in slot) seen.add(slot.place);
        return slot;
      }
      const copy: Slot = { scratch: scratch.push(numel(slot.node.shape)) - 1 };
      copies.push({ source: copyKernel(slot.node, caps), slots: [slot, copy] });
      return copy;
    });
    return { ...pass, slots };
  });
  return { passes: [...copies, ...passes], scratch };
}

function copyKernel({ shape, dtype }: Node, caps: Caps): KernelSource {
  const array = `array<vec4<${bufferType(dtype, caps.f16)}>>`;
  return elementwiseKernel(
    {
      label: "copy",
      bindings: ["a", "b"]
        .map((name, i) => `@group(0) @binding(${i}) var<storage, read_write> ${name}: ${array};`)
        .join("\n"),
      storages: 2,
      fields: [],
      body: ["b[i] = a[i];"],
      count: Math.ceil(numel(shape) / 4),
      boundedBy: dtype === "f16" ? undefined : "b", // see emit/elementwise.ts
    },
    caps,
  );
}
