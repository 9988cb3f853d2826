// The number of a thread in its workgroup, on software adapters. Kernels ask WGSL for it, `local_invocation_index`; Mesa's
// software driver computes that from three coordinates by 24 integer divisions per subgroup, more than a vector's load and
// store. Subgroups have numbers that cost nothing. Called by engine/plan/plan.ts and engine/testing/runner.ts.

import type { Caps } from "./wgsl.ts";

/** A one-dimensional `main` that asks for its thread's number: size, parameters before, name, and what follows up to `{`. */
const MAIN = /(@workgroup_size\((\d+)\)\s+fn main\([^{]*)@builtin\(local_invocation_index\) (\w+): u32([^{]*\{)/;

/**
 * The text with another number in place of `local_invocation_index`, on a software adapter: that of the subgroup and of the
 * thread in it where workgroups are whole subgroups, else the first coordinate, at 8 divisions. Each numbers the threads of a
 * workgroup from 0. Other adapters have the index ready, and a `main` of more dimensions, or with subgroups' numbers already, stays.
 */
export function withLanes(text: string, { adapter, subgroupSize, subgroupIds }: Caps): string {
  const main = MAIN.exec(text);
  if (adapter !== "cpu" || !main || /@builtin\((local_invocation_id|subgroup_\w+)\)/.test(main[0])) return text;
  const [whole, before, size, name, after] = main;
  const rewritten = (builtins: string, value: string): string =>
    text.replace(whole, () => `${before}${builtins}${after}${value && `\n  let ${name} = ${value};`}`);
  const subgroups = subgroupSize > 0 ? Number(size) / subgroupSize : 0;
  const inside = "@builtin(subgroup_invocation_id)";
  if (subgroups === 1) return enabled(rewritten(`${inside} ${name}: u32`, ""));
  if (subgroupIds && Number.isInteger(subgroups) && subgroups > 1)
    return enabled(
      rewritten(
        `@builtin(subgroup_id) ${name}_group: u32, ${inside} ${name}_in_group: u32`,
        `${name}_group * ${subgroupSize}u + ${name}_in_group`,
      ),
    );
  return rewritten(`@builtin(local_invocation_id) ${name}_at: vec3<u32>`, `${name}_at.x`);
}

function enabled(text: string): string {
  return text.includes("enable subgroups;") ? text : `enable subgroups;\n${text}`;
}
