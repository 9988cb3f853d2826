// Device "reference": runs a program with the float64 definitions of the ops, node by node. Slow, obvious, and the oracle
// that gradients and kernels are checked against. Runs anywhere.

import { MINIMUM_CAPS } from "../kernels/wgsl.ts";
import type { Device, FeedValue, KernelTime, MemoryStats, Program, Tracing } from "./device.ts";
import { type Data, type DType, roundHalf, toData } from "./dtype.ts";
import { DeviceError } from "./error.ts";
import { type Node, toposort } from "./graph.ts";
import { type Array64, isComposite } from "./ops/op.ts";
import { numel } from "./shape.ts";
import { Storage } from "./storage.ts";
import { Tensor } from "./tensor.ts";

/** Float64 values of `roots`, given those of the leaves they rest on; nodes in `known` have the values that stand there. */
export function evaluate64(
  roots: readonly Node[],
  leaf: (n: Node) => Array64,
  known: ReadonlyMap<Node, Array64> = new Map(),
): Map<Node, Array64> {
  const values = new Map(known);
  for (const node of toposort(roots, (n) => (known.has(n) ? [] : n.src)))
    if (!known.has(node)) values.set(node, evaluateNode(node, values, leaf));
  return values;
}

function evaluateNode(node: Node, values: Map<Node, Array64>, leaf: (n: Node) => Array64): Array64 {
  const { op, attrs, shape } = node;
  if (isComposite(op)) return evaluateComposite(node, values, leaf);
  if (op.lower.kind === "leaf" && !op.lower.value) return leaf(node);
  const out: Array64 = { shape, data: new Float64Array(numel(shape)) };
  op.reference(
    node.src.map((s) => values.get(s) as Array64),
    out,
    attrs,
  );
  if (node.dtype === "i32" || node.dtype === "u32") wrap(out, node.dtype);
  return out;
}

/** Whole numbers have 32 bits. */
function wrap({ data }: Array64, dtype: "i32" | "u32"): void {
  for (let i = 0; i < data.length; i++) data[i] = dtype === "i32" ? data[i] | 0 : data[i] >>> 0;
}

/** A composite means its decomposition: evaluate that on the values of its sources. */
function evaluateComposite(node: Node, values: Map<Node, Array64>, leaf: (n: Node) => Array64): Array64 {
  const whole = decomposed.get(node) ?? decompose(node);
  decomposed.set(node, whole);
  for (const inner of toposort([whole])) if (!values.has(inner)) values.set(inner, evaluateNode(inner, values, leaf));
  return values.get(whole) as Array64;
}

/** Decompositions made so far: a gradient check evaluates the same graph thousands of times. */
const decomposed = new WeakMap<Node, Node>();

function decompose({ op, src, attrs }: Node): Node {
  if (!isComposite(op)) throw new Error(`${op.name} is not a composite`);
  return op.decompose(
    src.map((s) => new Tensor(s)),
    attrs,
  ).node;
}

/**
 * Values that the host has, in float64; those of f16 parameters, which may be values that no f16 is, rounded. Throws
 * DeviceError where there are none: a check that took none for an empty array would find nothing wrong with it.
 */
export function hostValues(storage: Storage | undefined): Array64 {
  if (!storage) throw new DeviceError("a placeholder was used outside the step it belongs to");
  const host = storage.host();
  if (!host) throw new DeviceError("a tensor's values live on another device");
  const data = storage.dtype === "f16" ? Float64Array.from(host, roundHalf) : Float64Array.from(host);
  return { shape: storage.shape, data };
}

/** State has the precision of its dtype: a run that goes on from a saved file must not know that it was interrupted. */
function rounded({ shape, data }: Array64, dtype: DType): Array64 {
  return { shape, data: Float64Array.from(toData(dtype, data)) };
}

export class ReferenceDevice implements Device {
  readonly name = "reference (float64 on the host)";
  readonly caps = { ...MINIMUM_CAPS, maxBinding: Number.POSITIVE_INFINITY, maxBuffer: Number.POSITIVE_INFINITY };
  #values = new WeakMap<Storage, { version: number; array: Array64 }>();

  run(program: Program, feed: Readonly<Record<string, FeedValue>>): Record<string, Storage> {
    const fed = new Map<Node, Array64>();
    for (const [name, node] of Object.entries(program.inputs)) {
      const value = feed[name];
      fed.set(node, typeof value === "number" ? { shape: [], data: Float64Array.of(value) } : this.#load(value));
    }
    const roots = [...Object.values(program.outputs), ...program.assigns.map(([, value]) => value)];
    const values = evaluate64(roots, (n) => fed.get(n) ?? this.#load(n.storage));
    const out = Object.entries(program.outputs).map(([name, node]) => {
      const storage = new Storage(node.shape, node.dtype, null);
      this.#store(storage, values.get(node) as Array64);
      return [name, storage] as const;
    });
    for (const [state, value] of program.assigns)
      if (state.storage) this.#store(state.storage, rounded(values.get(value) as Array64, state.storage.dtype));
    return Object.fromEntries(out);
  }

  async read(storage: Storage): Promise<Data> {
    return toData(storage.dtype, this.#load(storage).data);
  }
  explain(program: Program): string {
    return `${program.name}: evaluated node by node in float64`;
  }
  async profile(): Promise<KernelTime[]> {
    throw new DeviceError("only a GPU device (a software one counts) can be profiled");
  }
  traceTo(): Tracing {
    throw new DeviceError("only a GPU device (a software one counts) can write a trace");
  }
  memory(): MemoryStats {
    return { buffers: 0, bytes: 0 };
  }
  details(): Record<string, string> {
    return { device: this.name, kind: "host" };
  }
  async settle(): Promise<void> {}
  close(): void {}

  #load(storage: Storage | undefined): Array64 {
    const held = storage && this.#values.get(storage);
    if (held && held.version === storage.version) return held.array;
    const array = hostValues(storage);
    if (storage) this.#store(storage, array);
    return array;
  }
  #store(storage: Storage, array: Array64): void {
    this.#values.set(storage, { version: storage.version, array });
  }
}
