// The numbers that kernels/lane.ts gives threads: each of 0 to the workgroup's size once, whatever the adapter can tell about
// subgroups; and which texts it leaves alone.

import { describe, expect, test } from "vitest";
import { withLanes } from "../kernels/lane.ts";
import { type Caps, type KernelSource, MINIMUM_CAPS } from "../kernels/wgsl.ts";
import { onGpu } from "./device.ts";
import { prepare } from "./kernel_runner.ts";

const CPU: Caps = { ...MINIMUM_CAPS, adapter: "cpu", subgroupSize: 8, subgroupIds: true };

/** Adds 1 to `seen[lane]` in a workgroup of its own for each of three rows. */
function counting(size: number): KernelSource {
  const wgsl = `
    @group(0) @binding(0) var<storage, read_write> seen: array<u32>;
    @compute @workgroup_size(${size})
    fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
      seen[wg.x * ${size}u + lane] = lane + 1u;
    }`;
  return { label: `count ${size}`, wgsl, workgroups: [3, 1, 1], uniforms: [] };
}

onGpu("threads are numbered from 0, each once", async ({ dawn }) => {
  const machines: Caps[] = [dawn.caps, { ...dawn.caps, subgroupIds: false }, { ...dawn.caps, subgroupSize: 0 }];
  for (const caps of machines)
    for (const size of [8, 12, 64, 256]) {
      const lowered = { passes: [{ source: counting(size), operands: [0] }], scratch: [] };
      const prepared = await prepare({ device: dawn.device, caps }, lowered, [], [{ dtype: "u32", size: 3 * size }]);
      prepared.dispatch();
      const [seen] = await prepared.read();
      prepared.destroy();
      expect([...seen]).toEqual(Array.from({ length: 3 * size }, (_, i) => (i % size) + 1));
    }
});

describe("texts", () => {
  const { wgsl } = counting(64);
  test.each<[string, Partial<Caps>, RegExp]>([
    ["whole subgroups", {}, /let lane = lane_group \* 8u \+ lane_in_group;/],
    ["one subgroup", { subgroupSize: 64 }, /@builtin\(subgroup_invocation_id\) lane: u32/],
    ["no numbers of subgroups", { subgroupIds: false }, /let lane = lane_at\.x;/],
    ["part of a subgroup", { subgroupSize: 128 }, /let lane = lane_at\.x;/],
    ["no subgroups", { subgroupSize: 0 }, /let lane = lane_at\.x;/],
  ])("%s", (_, caps, wanted) => {
    const text = withLanes(wgsl, { ...CPU, ...caps });
    expect(text).toMatch(wanted);
    expect(text).not.toContain("local_invocation_index");
    expect(text.includes("enable subgroups;")).toBe(text.includes("@builtin(subgroup"));
  });

  test("left alone: other adapters, more dimensions, numbers that are asked for already", () => {
    const square = wgsl.replace("(64)", "(8, 8)");
    const both = wgsl.replace(") {", ", @builtin(subgroup_id) group: u32) {");
    expect(withLanes(wgsl, { ...CPU, adapter: "gpu" })).toBe(wgsl);
    expect(withLanes(square, CPU)).toBe(square);
    expect(withLanes(both, CPU)).toBe(both);
  });
});
