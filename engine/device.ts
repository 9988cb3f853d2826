// What a back end must do, and which one is open. Nothing here knows a back end: `openDevice` loads it, so that a machine
// without Dawn still runs everything on the float64 reference.

import type { Caps } from "../kernels/wgsl.ts";
import type { Data } from "./dtype.ts";
import { env } from "./env.ts";
import { DeviceError, got } from "./error.ts";
import { type Node, toposort } from "./graph.ts";
import { placeholder } from "./ops/leaf.ts";
import type { Storage } from "./storage.ts";

/** A traced computation: named inputs (placeholders), named outputs, and the new values of state leaves. */
export interface Program {
  readonly name: string;
  readonly inputs: Readonly<Record<string, Node>>;
  readonly outputs: Readonly<Record<string, Node>>;
  readonly assigns: readonly (readonly [state: Node, value: Node])[];
  /** Steps that are called again keep two sets of results; a one-off program gives each result its own memory. */
  readonly reused: boolean;
}

/** The program, which must not rest on an input of another step: that has a value only while its own step runs. Throws. */
export function selfContained(program: Program): Program {
  const own = new Set(Object.values(program.inputs));
  const roots = [...Object.values(program.outputs), ...program.assigns.map(([, value]) => value)];
  const foreign = toposort(roots).find((n) => n.op === placeholder && !own.has(n));
  if (foreign)
    throw new Error(
      `${program.name}: a tensor made inside a compiled step, of its input ${got(foreign.attrs.name)}, is used outside it: return it from that step, and use what the step gives`,
    );
  return program;
}

export type FeedValue = Storage | number;

/** Live memory of a device: what a leak test watches. */
export interface MemoryStats {
  readonly buffers: number;
  readonly bytes: number;
}

/** One row of a table of kernels: all dispatches of one label or family together. */
export interface KernelTime {
  readonly label: string;
  readonly dispatches: number;
  readonly ms: number;
  /** Operations and bytes of all of them: 0 operations where the kernels do not say. */
  readonly flops: number;
  readonly bytes: number;
}

/** A trace in progress. */
export interface Tracing {
  /** Waits for the device, writes the file, and gives the time of the kernels by family, most expensive first. */
  stop(): Promise<KernelTime[]>;
}

/** A back end: what tensors and compiled steps run on. */
export interface Device {
  /** The adapter and its driver, for people; a software adapter is called so. */
  readonly name: string;
  /** What it can do, as kernels are told. */
  readonly caps: Caps;
  /** Submits the program and returns its results without waiting for them. */
  run(program: Program, feed: Readonly<Record<string, FeedValue>>): Record<string, Storage>;
  /** The values that lie there, in row-major order. Waits for the device. */
  read(storage: Storage): Promise<Data>;
  /** What the program compiles to, for people. */
  explain(program: Program): string;
  /**
   * Times every dispatch of a program that has been run (`step.program()`), by kernel; `formatProfile` makes the table.
   * State is updated by the replays. Throws DeviceError on the reference device and for a program that has not been run.
   */
  profile(program: Program, rounds?: number): Promise<KernelTime[]>;
  /**
   * Starts writing what host and device do to `file`, for ui.perfetto.dev or chrome://tracing. Each kernel then runs in a
   * pass of its own, timed by the device where the adapter can.
   */
  traceTo(file: string): Tracing;
  /** Bytes and buffers in use now. */
  memory(): MemoryStats;
  /** What the device is, for people: name, kind, features, limits. */
  details(): Readonly<Record<string, string>>;
  /** Waits until everything submitted has run; rejects when the device reported an error since the last call. */
  settle(): Promise<void>;
  /** Gives back what it holds; what lies on it alone is lost. */
  close(): void;
}

let open: Device | null = null;

/** The open device. Throws when there is none. */
export function device(): Device {
  if (!open) throw new DeviceError("no device is open: call `await openDevice()` first");
  return open;
}

/** Bytes that the open device can bind at once, and of how many an f16 is two; no limit while none is open. */
export function bindingLimit(): Pick<Caps, "maxBinding" | "f16"> {
  return open?.caps ?? { maxBinding: Number.POSITIVE_INFINITY, f16: true };
}

export interface DeviceOptions {
  /** "gpu" takes the best WebGPU adapter (a software one counts); "reference" is float64 on the host. */
  readonly device?: "gpu" | "reference";
  /** Overrides of what the adapter offers, to exercise other kernel variants. */
  readonly caps?: Partial<Caps>;
  /** Opens the adapter at WebGPU's guaranteed limits, without subgroups and f16: what runs so runs everywhere. */
  readonly minimum?: boolean;
  /** Most bytes of device memory. A call that needs more throws OutOfMemoryError, with the largest buffers in use. */
  readonly memoryLimit?: number;
  /**
   * A tuning file of this adapter (`gifgrad tune`), or false for none. Absent: the one in the user's cache folder, if there
   * is one. Another choice of kernels may round differently: bits are the same for the same file.
   */
  readonly tuned?: string | false;
}

/** Opens a device and makes it the current one. Throws DeviceError when there is no adapter or device of that name. */
export async function openDevice(options: DeviceOptions = {}): Promise<Device> {
  const kind = options.device ?? (env.DEVICE || "gpu");
  if (kind !== "gpu" && kind !== "reference")
    throw new DeviceError(
      `${options.device ? "openDevice: device" : "DEVICE"}: ${got(kind)} is no device (gpu or reference)`,
    );
  if (kind === "reference") {
    const { ReferenceDevice } = await import("./reference.ts");
    return useDevice(new ReferenceDevice());
  }
  const { openGpu } = await import("./runtime/gpu.ts");
  const { tunedChoices } = await import("./tuning.ts");
  const gpu = useDevice(await openGpu({ ...options, tuned: (adapter) => tunedChoices(options.tuned, adapter) }));
  if (env.TRACE) gpu.traceTo(env.TRACE); // written when the device is closed or the process ends
  return gpu;
}

/** Does `work` on the device that `opening` gives, and makes the one before it current again. Nothing else may run meanwhile. */
export async function onDevice<D extends Device, T>(
  opening: () => D | Promise<D>,
  work: (device: D) => T | Promise<T>,
): Promise<T> {
  const before = open;
  try {
    return await work(useDevice(await opening()));
  } finally {
    open = before;
  }
}

/** Makes `next` the current device and returns it; null closes nothing but forgets the current one. */
export function useDevice<D extends Device | null>(next: D): D {
  open = next;
  return next;
}
