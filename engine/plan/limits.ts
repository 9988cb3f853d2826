// What an adapter can bind: a plan that asks for more is refused when it is made, with the value, the limit and what to do.
// Only what is stored counts; a value that is fused into its reader never has memory, however large its shape.

import type { Caps } from "../../kernels/wgsl.ts";
import { DeviceError, SMALLER, show, tooLargeError } from "../error.ts";
import { bytesOf, opsOf } from "./explain.ts";
import type { Dispatch, Plan } from "./plan.ts";

/** Throws DeviceError when a dispatch binds more bytes at once than `caps.maxBinding`, or more buffers than it may. */
export function checkLimits(plan: Plan, caps: Caps): void {
  for (const d of [...plan.setup, ...plan.dispatches]) {
    d.places.forEach((p, i) => {
      const bytes = bytesOf(p);
      if (bytes > caps.maxBinding) throw tooLarge(plan, d, i, bytes, caps);
    });
    if (d.places.length > caps.maxBindings) {
      throw new DeviceError(
        `${plan.name}: the kernel "${d.source.label}" binds ${d.places.length} buffers, this adapter allows ${caps.maxBindings} (maxStorageBuffersPerShaderStage): split the expression with a reduction or a compiled step in between`,
      );
    }
  }
}

function tooLarge(plan: Plan, d: Dispatch, i: number, bytes: number, caps: Caps): DeviceError {
  const slot = d.slots[i];
  const what =
    "scratch" in slot
      ? `scratch of ${opsOf(d.groups, plan)}`
      : `${slot.node.op.name} ${slot.node.dtype}${show(slot.node.shape)}`;
  const leaf = "node" in slot && slot.node.op.lower.kind === "leaf";
  const { name } = plan;
  return tooLargeError(`${name}: ${what}`, bytes, caps.maxBinding, leaf ? SMALLER.leaf : SMALLER.computed);
}
