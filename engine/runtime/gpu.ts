// Device "gpu": a program is planned and recorded at its first call (recording.ts); a call is one command buffer with one
// compute pass that replays the recording. Nothing waits except `read` and `settle`. Opened by engine/device.ts.

import type { Caps } from "../../kernels/wgsl.ts";
import type { Device, FeedValue, MemoryStats, Program, Tracing } from "../device.ts";
import { type Data, elementBytes } from "../dtype.ts";
import { DeviceError, type DeviceLostError } from "../error.ts";
import { dispatchInfos, explainPlan } from "../plan/explain.ts";
import { makePlan, type Place, type Plan, type PlanOptions, tensorBytes } from "../plan/plan.ts";
import { numel } from "../shape.ts";
import { Storage } from "../storage.ts";
import { debugging, observed, timed } from "../timeline.ts";
import { Assistant } from "./assistant.ts";
import { type Dawn, openDawn } from "./dawn.ts";
import { deviceLostError } from "./errors.ts";
import { waitFor } from "./patience.ts";
import { Pipelines } from "./pipelines.ts";
import { Pool } from "./pool.ts";
import { type KernelTime, profile } from "./profile.ts";
import { type Memory, type Recorded, Recorder, type Recording, type ResultSet } from "./recording.ts";
import { Residents } from "./residents.ts";
import { Tracer } from "./tracing.ts";

export interface GpuOptions {
  /** Overrides of what the adapter offers. */
  readonly caps?: Partial<Caps>;
  /** Opens the adapter at WebGPU's guaranteed limits, without optional features. */
  readonly minimum?: boolean;
  /** Most bytes of device memory; past them a call throws OutOfMemoryError. */
  readonly memoryLimit?: number;
  readonly plan?: PlanOptions;
  /** Tuned choices of kernels for an adapter, by its name. */
  readonly tuned?: (adapter: string) => Caps["tuned"];
}

export async function openGpu(options: GpuOptions = {}): Promise<GpuDevice> {
  const dawn = await openDawn({ minimum: options.minimum });
  try {
    const tuned = options.tuned?.(dawn.adapterName);
    return new GpuDevice(dawn, tuned ? { ...options, caps: { tuned, ...options.caps } } : options);
  } catch (e) {
    dawn.release(); // else the process would not end
    throw e;
  }
}

const CLOSED =
  "the device is closed: make one that is still open current again with useDevice(first), or call openDevice()";

export class GpuDevice implements Device {
  readonly name: string;
  readonly caps: Caps;
  readonly dawn: Dawn;
  readonly #device: GPUDevice;
  readonly #pool: Pool;
  readonly #planOptions: PlanOptions;
  readonly #residents: Residents;
  readonly #recorder: Recorder;
  readonly #recordings = new WeakMap<Program, Recording>();
  readonly #pipelines: Pipelines;
  readonly #assistant: Assistant | null;
  readonly #pending: Promise<void>[] = [];
  #failure: DeviceError | null = null;
  #lost: DeviceLostError | null = null;
  #closed = false;
  #tracer: Tracer | null = null;

  constructor(dawn: Dawn, { caps, memoryLimit, plan }: GpuOptions) {
    this.dawn = dawn;
    this.name = dawn.adapterName;
    this.caps = { ...dawn.caps, ...caps };
    this.#device = dawn.device;
    const fail = (error: DeviceError): void => this.#fail(error);
    this.#pool = new Pool(dawn.device, { memoryLimit, maxBuffer: this.caps.maxBuffer, onOutOfMemory: fail });
    this.#pipelines = new Pipelines(dawn.device, fail);
    this.#residents = new Residents(dawn.device, this.#pool, this.caps);
    this.#recorder = new Recorder(dawn.device, this.#pool, this.#pipelines, this.#residents);
    this.#assistant = dawn.another ? new Assistant(dawn.another) : null;
    this.#planOptions = plan ?? {};
    dawn.device.onuncapturederror = (e) => fail(new DeviceError(e.error.message));
    void dawn.device.lost.then(({ reason, message }) => {
      if (!this.#closed) this.#lost = deviceLostError(reason, message, this.#pool.largest());
    });
  }

  run(program: Program, feed: Readonly<Record<string, FeedValue>>): Record<string, Storage> {
    this.#check();
    const known = this.#recordings.get(program);
    if (known) return timed("encode", program.name, () => this.#submit(known, feed, program.reused));
    this.#device.pushErrorScope("validation");
    try {
      return this.#firstCall(program, feed);
    } finally {
      this.#watch(program);
    }
  }

  #firstCall(program: Program, feed: Readonly<Record<string, FeedValue>>): Record<string, Storage> {
    const recording = this.#record(program);
    let out: Record<string, Storage> | undefined;
    try {
      out = timed("encode", program.name, () => this.#submit(recording, feed, program.reused));
      void this.#assistant?.help(this.#pipelines.takeFresh(), () => this.#device.queue.onSubmittedWorkDone());
      if (observed()) void timed("first run", program.name, () => this.#device.queue.onSubmittedWorkDone());
      if (program.reused) this.#recordings.set(program, recording);
      if (program.reused) this.#recorder.follow(program, recording);
      return out;
    } finally {
      if (!program.reused || !out) this.#recorder.discard(recording, !out); // a program that runs once, or one that failed
    }
  }

  async read(storage: Storage): Promise<Data> {
    this.#check();
    const buffer = this.#residents.use(storage);
    const copy = await timed("wait", `[${storage.shape.join(", ")}]`, () => this.#copyBack(buffer, storage));
    await Promise.all(this.#pending.splice(0));
    this.#check();
    return this.#residents.unpack(storage, copy);
  }

  #wait<T>(promise: Promise<T>): Promise<T> {
    return waitFor(promise, this.dawn.software);
  }

  async #copyBack(buffer: GPUBuffer, { shape, dtype }: Storage): Promise<ArrayBuffer> {
    const bytes = tensorBytes({ shape, dtype }, this.caps);
    const staging = this.#pool.take(bytes, "read-back", "read-back");
    const encoder = this.#device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, 0, staging, 0, bytes);
    this.#device.queue.submit([encoder.finish()]);
    try {
      await this.#wait(staging.mapAsync(GPUMapMode.READ, 0, bytes));
    } catch (e) {
      this.#pool.destroy(staging);
      return await this.#unreadable(e as Error);
    }
    const copy = staging.getMappedRange(0, bytes).slice(0, numel(shape) * elementBytes(dtype, this.caps.f16));
    staging.unmap();
    this.#pool.release(staging);
    return copy;
  }

  /** Mapping fails when the device is lost or memory is: whichever it was is reported by now, or in the next turn. */
  async #unreadable(cause: Error): Promise<never> {
    await new Promise((resolve) => setTimeout(resolve));
    await Promise.all(this.#pending.splice(0));
    this.#check();
    throw new DeviceError(`a value could not be read back: ${cause.message || cause.name}`);
  }

  explain(program: Program): string {
    return explainPlan(this.#recordings.get(program)?.plan ?? makePlan(program, this.caps, this.#planOptions));
  }

  async profile(program: Program, rounds?: number): Promise<KernelTime[]> {
    const recording = this.#recordings.get(program);
    if (!recording) throw new DeviceError(`${program.name}: run it once before profiling it`);
    const replays = dispatchInfos(recording.plan).map((info, i) => ({
      ...info,
      submit: () => this.#runOnce([recording.sets[0].dispatches[i]]),
    }));
    return profile(replays, () => this.#wait(this.#device.queue.onSubmittedWorkDone()), rounds);
  }

  traceTo(file: string): Tracing {
    if (this.#tracer) throw new DeviceError("a trace is being written already: stop it first");
    const tracer = new Tracer(this.#device, this.details(), file, (done) => this.#wait(done));
    this.#tracer = tracer;
    return {
      stop: () => {
        this.#tracer = null;
        return tracer.stop();
      },
    };
  }

  memory(): MemoryStats {
    return this.#pool.stats();
  }

  details(): Record<string, string> {
    const { software, features, limits } = this.dawn;
    const bytes = (n: number): string => (n >= 2 ** 20 ? `${Math.floor(n / 2 ** 20)} MiB` : `${n} bytes`);
    return {
      adapter: this.name,
      kind: software ? "software" : "gpu",
      features: features.join(", ") || "none",
      subgroups: this.caps.subgroupSize > 0 ? `${this.caps.subgroupSize} lanes` : "not of a fixed size",
      "largest binding": bytes(limits.maxStorageBufferBindingSize),
      "largest buffer": bytes(limits.maxBufferSize),
      "bindings per kernel": String(limits.maxStorageBuffersPerShaderStage),
      "workgroup memory": bytes(limits.maxComputeWorkgroupStorageSize),
      "workgroup invocations": String(limits.maxComputeInvocationsPerWorkgroup),
      ...(this.caps.tuned ? { tuned: `${Object.keys(this.caps.tuned).length} kernel choices` } : {}),
    };
  }

  async settle(): Promise<void> {
    await timed("wait", "settle", () => this.#wait(this.#device.queue.onSubmittedWorkDone()));
    await Promise.all(this.#pending.splice(0));
    this.#check();
  }

  close(): void {
    this.#closed = true;
    this.#tracer?.flush();
    this.#assistant?.close();
    this.dawn.release();
  }

  // ---- recording ---------------------------------------------------------------------------------------------------

  #record(program: Program): Recording {
    const plan = timed("plan", program.name, () => makePlan(program, this.caps, this.#planOptions));
    if (debugging("plan")) console.error(explainPlan(plan));
    const recording = timed("record", program.name, () => this.#recorder.record(plan, program.reused ? 2 : 1));
    this.#runOnce(recording.setup);
    return recording;
  }

  // ---- running -----------------------------------------------------------------------------------------------------

  #submit(recording: Recording, feed: Readonly<Record<string, FeedValue>>, reused: boolean): Record<string, Storage> {
    const { plan } = recording;
    for (const s of plan.storages) this.#residents.use(s); // uploads what the host has written since
    const encoder = this.#device.createCommandEncoder({ label: plan.name });
    for (const input of plan.inputs)
      this.#feed(encoder, recording.inputs.get(input.name) as GPUBuffer, feed[input.name], input, plan);
    const set = recording.sets[recording.calls % recording.sets.length];
    const traced = this.#tracer?.encode(encoder, recording.plan, (pass, i) => this.#encode(pass, [set.dispatches[i]]));
    if (!traced) {
      const pass = encoder.beginComputePass();
      this.#encode(pass, set.dispatches);
      pass.end();
    }
    const copy = (from: Memory, to: Memory, bytes: number): void =>
      encoder.copyBufferToBuffer(from.buffer, from.offset, to.buffer, to.offset, bytes);
    const memory = (p: Place): Memory => this.#recorder.memoryOf(recording, set.results, p);
    for (const { name, place, bytes } of plan.outputs) {
      const to = { buffer: set.results.get(name) as GPUBuffer, offset: 0 };
      // A result that is an input, state, or another result as well was not written where it belongs.
      if (place.kind !== "result" || place.name !== name) copy(memory(place), to, bytes);
    }
    for (const { from, to, bytes } of plan.copies) copy(memory(from), memory(to), bytes);
    const commands = encoder.finish();
    const at = performance.now();
    timed("submit", plan.name, () => this.#device.queue.submit([commands]));
    traced?.submitted(at);
    return this.#handOut(recording, set, reused);
  }

  #runOnce(dispatches: readonly Recorded[]): void {
    if (dispatches.length === 0) return;
    const encoder = this.#device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    this.#encode(pass, dispatches);
    pass.end();
    this.#device.queue.submit([encoder.finish()]);
  }

  /** Neighbours often share a pipeline, such as the updates of a layer's weights: a third of the calls is then saved. */
  #encode(pass: GPUComputePassEncoder, dispatches: readonly Recorded[]): void {
    let last: GPUComputePipeline | null = null;
    for (const { pipeline, group, x, y, z } of dispatches) {
      if (pipeline !== last) pass.setPipeline(pipeline);
      last = pipeline;
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(x, y, z);
    }
  }

  #feed(
    encoder: GPUCommandEncoder,
    target: GPUBuffer,
    value: FeedValue | undefined,
    { name, bytes }: Plan["inputs"][number],
    plan: Plan,
  ): void {
    if (value === undefined) throw new DeviceError(`${plan.name}: input ${name} was not fed`);
    if (typeof value === "number") this.#device.queue.writeBuffer(target, 0, new Float32Array([value]));
    else {
      // Values that only the host has, such as a fresh batch, go straight into the input: no buffer of their own to collect.
      const host = this.#residents.hostOnly(value);
      if (host) this.#residents.write(target, value, host);
      else encoder.copyBufferToBuffer(this.#residents.use(value), 0, target, 0, bytes);
    }
  }

  /** The results of a call. Whoever still holds those of the last but one is told when this one has overwritten them. */
  #handOut(recording: Recording, set: ResultSet, reused: boolean): Record<string, Storage> {
    const { plan } = recording;
    const call = recording.calls++;
    const storages: Record<string, Storage> = {};
    for (const { name, shape, dtype } of plan.outputs) {
      const buffer = set.results.get(name) as GPUBuffer;
      const storage = new Storage(shape, dtype, null);
      if (reused) {
        storage.stale = () =>
          recording.calls > call + 2
            ? `result "${name}" of call ${call + 1} of ${plan.name} was overwritten by call ${call + 3} (use keep() to hold on to it)`
            : null;
      } else this.#pool.follow(storage, buffer);
      this.#residents.place(storage, buffer);
      storages[name] = storage;
    }
    return storages;
  }

  // ---- errors ------------------------------------------------------------------------------------------------------

  /** Closes the scope that `run` opened. What the device finds wrong is reported at the next call or read. */
  #watch(program: Program): void {
    const scope = Promise.all([this.#device.popErrorScope(), this.#pipelines.settled()]).then(([error]) => {
      if (!error) return;
      this.#recordings.delete(program); // so that the next call tries, and fails, again
      this.#fail(new DeviceError(`${program.name}: ${error.message}`)); // unless a refused kernel was the cause
    });
    this.#pending.push(scope);
    if (this.#pending.length > 64) this.#pending.splice(0, 32);
  }

  #fail(error: DeviceError): void {
    this.#failure ??= error;
  }

  #check(): void {
    if (this.#closed) throw new DeviceError(CLOSED);
    const error = this.#lost ?? this.#failure;
    this.#failure = null;
    if (!error) return;
    Error.captureStackTrace?.(error, this.#check); // where it is thrown, not where it was found out
    throw error;
  }
}
