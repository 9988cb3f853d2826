// Float64 values of what a graph rests on, read from where they live. A value that was computed, a result of a step and a
// parameter after one are on a device alone; without them a check would compare nothing with nothing.

import { type Node, toposort } from "../graph.ts";
import type { Array64 } from "../ops/op.ts";
import { hostValues, ReferenceDevice } from "../reference.ts";
import type { Storage } from "../storage.ts";
import type { Tensor } from "../tensor.ts";
import { openedDevice } from "./check.ts";

/** Float64 values of leaves. Throws DeviceError for one that was not read and is not on the host. */
export type LeafValues = (n: Node) => Array64;

/** The current values of every leaf under `roots`. Throws DeviceError where the open device does not have them. */
export async function readLeaves(roots: readonly Tensor[]): Promise<Map<Node, Array64>> {
  const found = new Map<Node, Array64>();
  for (const node of toposort(roots.map((t) => t.node))) if (node.storage) found.set(node, await current(node.storage));
  return found;
}

/** `readLeaves` as a function, which knows the constants that a decomposition brings with it as well. */
export async function leavesOf(roots: readonly Tensor[]): Promise<LeafValues> {
  const found = await readLeaves(roots);
  return (n) => found.get(n) ?? hostValues(n.storage);
}

/**
 * A GPU device lets go of the host's values of state when it takes them, so what the host has is newer; the reference
 * device leaves them where they are and may have assigned others since.
 */
async function current(storage: Storage): Promise<Array64> {
  const open = openedDevice();
  const host = storage.mutable && open instanceof ReferenceDevice ? null : storage.host();
  if (host || !open) return hostValues(storage);
  return { shape: storage.shape, data: Float64Array.from(await open.read(storage)) };
}
