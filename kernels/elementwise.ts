// One thread per output element, or per four of them, around an expression that engine/plan/emit/ writes. The body
// computes and stores; this file gives it a grid and the index `i` of its (vector) element.

import { type Caps, type Field, foldGrid, type KernelSource, uniforms, wgsl } from "./wgsl.ts";

export interface ElementwiseSpec {
  readonly label: string;
  /** Declarations of the storage bindings, and how many they are. */
  readonly bindings: string;
  readonly storages: number;
  /** Sizes and strides that the body reads as `u.<name>`. */
  readonly fields: readonly Field[];
  /** Statements that read `i`, the index of the element, or of the group of four, and store the result. */
  readonly body: readonly string[];
  /** Elements, or groups of four, to compute. */
  readonly count: number;
  /** Arithmetic operations of the whole dispatch. */
  readonly flops?: number;
  /** Name of a binding whose length bounds `i`: such a kernel needs no uniforms at all. */
  readonly boundedBy?: string;
}

const WORKGROUP = 64;

export function elementwiseKernel(spec: ElementwiseSpec, caps: Caps): KernelSource {
  const groups = Math.ceil(spec.count / WORKGROUP);
  const bound = spec.boundedBy ? `arrayLength(&${spec.boundedBy})` : "u.count";
  const u = uniforms(spec.storages, [
    ...(spec.boundedBy ? [] : [["count", "u32", spec.count] as const]),
    ...spec.fields,
  ]);
  // The row width of a folded grid is read back from the dispatch itself, so that the text does not depend on the size.
  const text = wgsl`
    ${spec.bindings}
    ${u.wgsl}
    @compute @workgroup_size(${WORKGROUP})
    fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
      let i = (wg.y * grid.x + wg.x) * ${WORKGROUP}u + lane;
      if (i >= ${bound}) { return; }
      ${spec.body}
    }
  `;
  return {
    label: spec.label,
    wgsl: text,
    workgroups: foldGrid(Math.max(1, groups), caps),
    uniforms: u.words,
    flops: spec.flops,
  };
}
