// A trace of what host and device do, as a file that Perfetto and chrome://tracing open: the Trace Event Format
// (docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU), times in microseconds. Host phases come from
// timeline.ts; kernels are timed by the device, each in a pass of its own, so a traced step is a little slower than another.

import { processFor } from "../env.ts";
import { DeviceError } from "../error.ts";
import { type DispatchInfo, dispatchInfos } from "../plan/explain.ts";
import type { Plan } from "../plan/plan.ts";
import { observe, type Span } from "../timeline.ts";
import { type KernelTime, sumByLabel } from "./profile.ts";

/** One event of the format: a complete span ("X"), the ends of an asynchronous one ("b", "e"), or a name ("M"). */
export interface TraceEvent {
  readonly name: string;
  readonly ph: "X" | "b" | "e" | "M";
  readonly ts: number;
  readonly dur?: number;
  readonly pid: number;
  readonly tid: number;
  readonly cat?: string;
  readonly id?: number;
  readonly args?: Readonly<Record<string, unknown>>;
}

export interface TraceFile {
  readonly traceEvents: readonly TraceEvent[];
  readonly displayTimeUnit: "ms";
  readonly otherData: Readonly<Record<string, string>>;
}

/** WebGPU's most queries of one set; a dispatch takes two. */
const QUERIES = 4096;
const [HOST, DEVICE] = [1, 2];

/** Timestamps on their way back from the device. */
interface Reading {
  readonly step: string;
  /** Which call of the step, from 1. */
  readonly call: number;
  readonly infos: readonly DispatchInfo[];
  readonly querySet: GPUQuerySet;
  readonly resolved: GPUBuffer;
  readonly times: GPUBuffer;
}

interface Timed {
  readonly info: DispatchInfo;
  readonly step: string;
  readonly call: number;
  /** Nanoseconds of the device's clock. */
  readonly begin: number;
  readonly end: number;
}

export class Tracer {
  readonly #device: GPUDevice;
  readonly #details: Readonly<Record<string, string>>;
  readonly #file: string;
  readonly #wait: (done: Promise<unknown>) => Promise<unknown>;
  readonly #node = processFor("a trace, which is a file");
  /** What is known of the dispatches of each plan, and how often it was encoded. */
  readonly #plans = new WeakMap<Plan, { readonly infos: readonly DispatchInfo[]; calls: number }>();
  readonly #stopObserving: () => void;
  readonly #spans: Span[] = [];
  readonly #kernels: Timed[] = [];
  readonly #sets: GPUQuerySet[] = [];
  readonly #reading = new Set<Promise<void>>();
  /** Host milliseconds minus device milliseconds: no kernel began before its submission did, so the largest seen. */
  #offset = Number.NEGATIVE_INFINITY;

  /** `wait`: how to wait for what this device has promised. */
  constructor(
    device: GPUDevice,
    details: Readonly<Record<string, string>>,
    file: string,
    wait: (done: Promise<unknown>) => Promise<unknown>,
  ) {
    this.#device = device;
    this.#details = details;
    this.#file = file;
    this.#wait = wait;
    const { getBuiltinModule } = this.#node;
    const folder = getBuiltinModule("node:path").dirname(file);
    if (!getBuiltinModule("node:fs").existsSync(folder))
      // before the work, not behind it
      throw new DeviceError(`a trace cannot be written to ${file}: there is no folder ${folder}`);
    this.#stopObserving = observe((span) => this.#spans.push(span));
    this.#node.once("exit", this.flush);
  }

  /** Encodes every dispatch of `plan` by calling `encode(pass, i)`, each in a timed pass; `submitted` is for afterwards: when submission began. */
  encode(
    encoder: GPUCommandEncoder,
    plan: Plan,
    encode: (pass: GPUComputePassEncoder, i: number) => void,
  ): { submitted(at: number): void } {
    const known = this.#plans.get(plan) ?? { infos: dispatchInfos(plan), calls: 0 };
    this.#plans.set(plan, known);
    const { infos } = known;
    const call = ++known.calls;
    const reads: Reading[] = [];
    for (let first = 0; first < infos.length; first += QUERIES / 2) {
      const slice = infos.slice(first, first + QUERIES / 2);
      const querySet = this.#querySet();
      slice.forEach((_, i) => {
        const writes = { beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 };
        const pass = encoder.beginComputePass(querySet ? { timestampWrites: { querySet, ...writes } } : {});
        encode(pass, first + i);
        pass.end();
      });
      if (querySet)
        reads.push({
          step: plan.name,
          call,
          infos: slice,
          querySet,
          ...this.#resolve(encoder, querySet, slice.length),
        });
    }
    return {
      submitted: (at) => {
        // What was not read when the device goes is missing from the trace; the device's own errors say why.
        for (const r of reads) {
          const reading: Promise<void> = this.#read(r, at)
            .catch(() => {})
            .finally(() => this.#reading.delete(reading));
          this.#reading.add(reading);
        }
      },
    };
  }

  /** Null where the adapter cannot tell the time: the trace then has the host's side only. */
  #querySet(): GPUQuerySet | null {
    if (!this.#device.features.has("timestamp-query")) return null;
    return this.#sets.pop() ?? this.#device.createQuerySet({ type: "timestamp", count: QUERIES });
  }

  #resolve(encoder: GPUCommandEncoder, set: GPUQuerySet, count: number): Pick<Reading, "resolved" | "times"> {
    const size = 16 * count;
    const resolved = this.#device.createBuffer({ size, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC });
    const times = this.#device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
    encoder.resolveQuerySet(set, 0, 2 * count, resolved, 0);
    encoder.copyBufferToBuffer(resolved, 0, times, 0, size);
    return { resolved, times };
  }

  async #read({ step, call, infos, querySet, resolved, times }: Reading, submitted: number): Promise<void> {
    await times.mapAsync(GPUMapMode.READ);
    const ns = Array.from(new BigUint64Array(times.getMappedRange()), Number);
    times.destroy();
    resolved.destroy();
    this.#sets.push(querySet);
    this.#offset = Math.max(this.#offset, submitted - ns[0] / 1e6);
    infos.forEach((info, i) => {
      this.#kernels.push({ info, step, call, begin: ns[2 * i], end: Math.max(ns[2 * i], ns[2 * i + 1]) });
    });
  }

  /** Writes the file once the device has reported all kernels submitted so far. */
  async stop(): Promise<KernelTime[]> {
    await this.#wait(Promise.all(this.#reading));
    this.flush();
    return kernelTimes(this.#snapshot());
  }

  /** Ends the trace and writes what has been reported until now, at once: a process may be ending. */
  flush = (): void => {
    this.#stopObserving();
    this.#node.removeListener("exit", this.flush);
    this.#node.getBuiltinModule("node:fs").writeFileSync(this.#file, JSON.stringify(this.#snapshot()));
  };

  #snapshot(): TraceFile {
    return {
      traceEvents: [
        ...names(this.#details.adapter),
        ...this.#spans.flatMap(hostEvents),
        ...this.#kernels.map((k) => this.#event(k)),
      ],
      displayTimeUnit: "ms",
      otherData: this.#details,
    };
  }

  #event({ info, step, call, begin, end }: Timed): TraceEvent {
    const { label, family, flops, bytes, args } = info;
    const ns = Math.max(1, end - begin);
    const rates = { "GFLOP/s": round(flops / ns), "GB/s": round(bytes / ns) };
    return {
      name: label,
      cat: family,
      ph: "X",
      ts: begin / 1e3 + this.#offset * 1e3,
      dur: (end - begin) / 1e3,
      pid: DEVICE,
      tid: 1,
      args: { step, call, family, flops, bytes, ...rates, ...args },
    };
  }
}

const round = (x: number): number => Number(x.toPrecision(3));

function names(adapter: string): TraceEvent[] {
  const name = (what: "process_name" | "thread_name", pid: number, text: string): TraceEvent => ({
    name: what,
    ph: "M",
    ts: 0,
    pid,
    tid: 1,
    args: { name: text },
  });
  return [
    name("process_name", HOST, "host"),
    name("thread_name", HOST, "phases of a step"),
    name("process_name", DEVICE, adapter),
    name("thread_name", DEVICE, "kernels"),
  ];
}

let nextId = 1;

/** Waits may overlap each other, which only asynchronous events may; the other phases nest. */
function hostEvents({ phase, name, start, end }: Span): TraceEvent[] {
  const at = { pid: HOST, tid: 1, cat: phase };
  if (phase !== "wait" && phase !== "first run")
    return [{ ...at, name: phase, ph: "X", ts: start * 1e3, dur: (end - start) * 1e3, args: { step: name } }];
  const id = nextId++;
  return [
    { ...at, name: phase, ph: "b", id, ts: start * 1e3, args: { for: name } },
    { ...at, name: phase, ph: "e", id, ts: end * 1e3 },
  ];
}

/**
 * Kernel times of a trace by family, for the table of profile.ts. The first call of a step does not count where there are
 * others: software adapters compile in it.
 */
export function kernelTimes({ traceEvents }: Pick<TraceFile, "traceEvents">): KernelTime[] {
  const kernels = traceEvents.flatMap((e) =>
    e.pid === DEVICE && e.ph === "X" ? [{ ms: (e.dur ?? 0) / 1e3, ...(e.args as unknown as KernelArgs) }] : [],
  );
  const repeated = new Set(kernels.filter((k) => k.call > 1).map((k) => k.step));
  return sumByLabel(
    kernels
      .filter((k) => k.call > 1 || !repeated.has(k.step))
      .map(({ family, ms, flops, bytes }) => ({ label: family, dispatches: 1, ms, flops, bytes })),
  );
}

interface KernelArgs {
  readonly step: string;
  readonly call: number;
  readonly family: string;
  readonly flops: number;
  readonly bytes: number;
}
