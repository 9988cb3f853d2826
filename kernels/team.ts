// Row kernels with one text: `lanes` threads (a team) share a row, and only the way they combine their partial results
// differs. A thread alone combines nothing, a subgroup shuffles, a workgroup uses a tree in shared memory. softmax.ts
// and norm.ts write their bodies on top of this; generic reductions live elsewhere.

import { type Caps, foldGrid, wgsl } from "./wgsl.ts";

/** How many threads share a row and how they merge what each has found. */
export interface Team {
  readonly name: string;
  /** Whether this way is worth it for `rows` rows of `steps` loads each. */
  supports(rows: number, steps: number, caps: Caps): boolean;
  workgroup(caps: Caps): number;
  /** Threads per row: a power of two that divides the workgroup. Passed as a uniform, never baked. */
  lanes(steps: number, caps: Caps): number;
  /** Extensions the kernel starts with. */
  readonly enable: string;
  /** Defines `fn share(mine: T, local: u32) -> T`, the merge of a whole team; `merge(a, b)` is the kernel's own. */
  share(type: string, caps: Caps): string;
}

/** Enough rows to give every core several workgroups, so that rows need not be split. */
const MANY_ROWS = 256;

/** One subgroup is one row. Wins on CPU adapters for few long rows: a shuffle costs a tenth of a shared-memory load. */
export const subgroupTeam: Team = {
  name: "subgroup",
  supports: (rows, steps, caps) =>
    caps.adapter === "cpu" && caps.subgroupSize > 1 && rows < MANY_ROWS && steps >= 2 * caps.subgroupSize,
  workgroup: (caps) => caps.subgroupSize,
  lanes: (_steps, caps) => caps.subgroupSize,
  enable: "enable subgroups;\ndiagnostic(off, subgroup_uniformity);",
  share(type, caps) {
    const masks: number[] = [];
    for (let mask = 1; mask < caps.subgroupSize; mask *= 2) masks.push(mask);
    return wgsl`
      fn share(mine: ${type}, local: u32) -> ${type} {
        var v = mine;
        ${masks.map((mask) => `v = merge(v, subgroupShuffleXor(v, ${mask}u));`)}
        return v;
      }
    `;
  },
};

/** Up to 256 threads share a row, several short rows share a workgroup. Wins on GPUs: neighbours load neighbours. */
export const sharedTeam: Team = {
  name: "shared",
  supports: (_rows, steps, caps) => caps.adapter === "gpu" && caps.maxInvocations >= 256 && steps > 1,
  workgroup: () => 256,
  lanes: (steps) => Math.min(256, 2 ** Math.ceil(Math.log2(steps))),
  enable: "",
  share: (type) => wgsl`
    var<workgroup> parts: array<${type}, 256>;
    fn share(mine: ${type}, local: u32) -> ${type} {
      parts[local] = mine;
      workgroupBarrier();
      for (var half = u.lanes >> 1u; half > 0u; half >>= 1u) {
        if ((local & (u.lanes - 1u)) < half) {
          parts[local] = merge(parts[local], parts[local + half]);
        }
        workgroupBarrier();
      }
      return parts[local & ~(u.lanes - 1u)];
    }
  `,
};

/** A thread is a row. Needs nothing; also the fastest on CPU adapters, where a strided load costs what any other does. */
export const threadTeam: Team = {
  name: "thread",
  supports: () => true,
  workgroup: () => 32,
  lanes: () => 1,
  enable: "",
  share: (type) => `fn share(mine: ${type}, local: u32) -> ${type} { return mine; }\n`,
};

export const teams: readonly Team[] = [subgroupTeam, sharedTeam, threadTeam];

/** Parameters of `main` and the lines that give each thread its `row` and its `lane` in the team. */
export const ROW_ARGS =
  "@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) local: u32";

/** Needs the uniform `lanes`. Rows past the end still take part in barriers: they have work only where `row < u.rows`. */
export function rowOfThread(workgroup: number): string {
  return wgsl`
    let row = ((wg.y * grid.x + wg.x) * ${workgroup}u + local) / u.lanes;
    let lane = local & (u.lanes - 1u);
  `;
}

/** Workgroups for `rows` teams of `lanes` threads. */
export function teamGrid(rows: number, workgroup: number, lanes: number, caps: Caps): [number, number, number] {
  return foldGrid(Math.ceil((rows * lanes) / workgroup), caps);
}
