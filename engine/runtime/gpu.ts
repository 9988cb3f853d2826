// Device "gpu": plans become pipelines, buffers and pre-built bind groups; a call of a program is one command buffer with one
// compute pass. Nothing waits except `read` and `settle`.

import type { Caps, KernelSource } from "../../kernels/wgsl.ts";
import type { Device, FeedValue, MemoryStats, Program } from "../device.ts";
import type { Data } from "../dtype.ts";
import { env } from "../env.ts";
import { DeviceError, StaleTensorError } from "../error.ts";
import { explainPlan, makePlan, type Place, type Plan, type PlanOptions, paddedBytes } from "../plan/plan.ts";
import { numel } from "../shape.ts";
import { Storage } from "../storage.ts";
import { type Dawn, openDawn } from "./dawn.ts";
import { Pool } from "./pool.ts";
import { type KernelTime, profile } from "./profile.ts";

interface Resident {
  readonly buffer: GPUBuffer;
  version: number;
}

interface Memory {
  readonly buffer: GPUBuffer;
  readonly offset: number;
}

/** One recorded dispatch: everything needed to replay it. */
interface Recorded {
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly x: number;
  readonly y: number;
  readonly z: number;
}

interface OutputSet {
  readonly storages: Record<string, Storage>;
  readonly buffers: ReadonlyMap<string, GPUBuffer>;
}

interface Recording {
  readonly plan: Plan;
  readonly dispatches: readonly Recorded[];
  readonly arena: GPUBuffer | null;
  readonly constants: readonly GPUBuffer[];
  readonly inputs: ReadonlyMap<string, GPUBuffer>;
  readonly uniforms: GPUBuffer | null;
  /** Results of the last two calls of a reused program. */
  readonly sets: OutputSet[];
  calls: number;
}

export async function openGpu(caps: Partial<Caps>, plan: PlanOptions = {}): Promise<GpuDevice> {
  return new GpuDevice(await openDawn(), caps, plan);
}

export class GpuDevice implements Device {
  readonly name: string;
  readonly caps: Caps;
  readonly dawn: Dawn;
  readonly #device: GPUDevice;
  readonly #pool: Pool;
  readonly #planOptions: PlanOptions;
  readonly #resident = new WeakMap<Storage, Resident>();
  readonly #recordings = new WeakMap<Program, Recording>();
  readonly #pipelines = new Map<string, GPUComputePipeline>();
  readonly #staging = new Map<number, GPUBuffer[]>();
  readonly #pending: Promise<void>[] = [];
  #failure: string | null = null;
  #closed = false;

  constructor(dawn: Dawn, caps: Partial<Caps>, plan: PlanOptions) {
    this.dawn = dawn;
    this.name = dawn.adapterName;
    this.caps = { ...dawn.caps, ...caps };
    this.#device = dawn.device;
    this.#pool = new Pool(dawn.device);
    this.#planOptions = plan;
    dawn.device.onuncapturederror = (e) => this.#fail(e.error.message);
    void dawn.device.lost.then((info) => {
      if (!this.#closed) this.#fail(`the device was lost (${info.reason}): ${info.message}`);
    });
  }

  run(program: Program, feed: Readonly<Record<string, FeedValue>>): Record<string, Storage> {
    this.#check();
    const known = this.#recordings.get(program);
    if (!known) this.#device.pushErrorScope("validation");
    try {
      const recording = known ?? this.#record(program);
      const out = this.#submit(recording, feed, program.reused);
      if (program.reused) this.#hold(program, recording, known === undefined);
      else this.#discard(recording);
      return out;
    } finally {
      if (!known) this.#watch(program.name);
    }
  }

  async read(storage: Storage): Promise<Data> {
    this.#check();
    const { buffer } = this.#use(storage);
    const bytes = paddedBytes(numel(storage.shape));
    const staging =
      this.#staging.get(bytes)?.pop() ??
      this.#device.createBuffer({ size: bytes, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
    const encoder = this.#device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, 0, staging, 0, bytes);
    this.#device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    const copy = staging.getMappedRange().slice(0, numel(storage.shape) * 4);
    staging.unmap();
    this.#staging.set(bytes, [...(this.#staging.get(bytes) ?? []).slice(-1), staging]);
    await Promise.all(this.#pending.splice(0));
    this.#check();
    return storage.dtype === "f32"
      ? new Float32Array(copy)
      : storage.dtype === "i32"
        ? new Int32Array(copy)
        : new Uint32Array(copy);
  }

  explain(program: Program): string {
    return explainPlan(this.#recordings.get(program)?.plan ?? makePlan(program, this.caps, this.#planOptions));
  }

  /** Times every dispatch of a program that has been run, by kernel. State is updated by the replays: for tuning only. */
  async profile(program: Program, rounds?: number): Promise<KernelTime[]> {
    const recording = this.#recordings.get(program);
    if (!recording) throw new DeviceError(`${program.name}: run it once before profiling it`);
    const replays = recording.dispatches.map((d, i) => ({
      label: recording.plan.dispatches[i].source.label,
      submit: () => this.#runOnce([d]),
    }));
    return profile(replays, () => this.#device.queue.onSubmittedWorkDone(), rounds);
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
    };
  }

  async settle(): Promise<void> {
    await this.#device.queue.onSubmittedWorkDone();
    await Promise.all(this.#pending.splice(0));
    this.#check();
  }

  close(): void {
    this.#closed = true;
    this.dawn.release();
  }

  // ---- recording ---------------------------------------------------------------------------------------------------

  #record(program: Program): Recording {
    const plan = makePlan(program, this.caps, this.#planOptions);
    if (env.DEBUG === "plan") console.error(explainPlan(plan));
    const arena = plan.arena.bytes > 0 ? this.#pool.arena(plan.arena.bytes, `${plan.name} arena`) : null;
    const inputs = new Map(
      plan.inputs.map((i) => [i.name, this.#pool.take(paddedBytes(numel(i.shape)), `input ${i.name} of ${plan.name}`)]),
    );
    const constants = plan.setup.map((d) =>
      this.#pool.take((d.places[0] as { bytes: number }).bytes, `table of ${plan.name}`),
    );
    const range = (p: Place): GPUBufferBinding => {
      if (p.kind === "arena") return { buffer: arena as GPUBuffer, offset: plan.arena.offsets[p.index], size: p.bytes };
      if (p.kind === "input") return { buffer: inputs.get(p.name) as GPUBuffer };
      return { buffer: p.kind === "constant" ? constants[p.index] : this.#use(p.storage).buffer };
    };
    const all = [...plan.setup, ...plan.dispatches];
    const { buffer: uniforms, offsets } = this.#uniforms(plan.name, all);
    const recorded = all.map(({ source, places }, i) =>
      this.#recordDispatch(source, places.map(range), uniforms, offsets[i]),
    );
    this.#runOnce(recorded.slice(0, plan.setup.length));
    return {
      plan,
      dispatches: recorded.slice(plan.setup.length),
      arena,
      constants,
      inputs,
      uniforms,
      sets: [],
      calls: 0,
    };
  }

  #recordDispatch(
    source: KernelSource,
    places: readonly GPUBufferBinding[],
    uniforms: GPUBuffer | null,
    offset: number,
  ): Recorded {
    const entries: GPUBindGroupEntry[] = places.map((resource, binding) => ({ binding, resource }));
    if (source.uniforms.length > 0) {
      entries.push({
        binding: places.length,
        resource: { buffer: uniforms as GPUBuffer, offset, size: Math.ceil(source.uniforms.length / 4) * 16 },
      });
    }
    const pipeline = this.#pipeline(source, places.length);
    const [x, y, z] = source.workgroups;
    return {
      pipeline,
      group: this.#device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }),
      x,
      y,
      z,
    };
  }

  #runOnce(dispatches: readonly Recorded[]): void {
    if (dispatches.length === 0) return;
    const encoder = this.#device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const d of dispatches) this.#encode(pass, d);
    pass.end();
    this.#device.queue.submit([encoder.finish()]);
  }

  /** The scalars of all dispatches in one buffer, written once: they are constants of the recording. */
  #uniforms(name: string, dispatches: Plan["dispatches"]): { buffer: GPUBuffer | null; offsets: number[] } {
    const align = 256;
    let bytes = 0;
    const offsets = dispatches.map(({ source }) => {
      const at = bytes;
      if (source.uniforms.length > 0) bytes += Math.ceil((source.uniforms.length * 4) / align) * align;
      return at;
    });
    if (bytes === 0) return { buffer: null, offsets };
    const words = new Uint32Array(bytes / 4);
    dispatches.forEach(({ source }, i) => {
      words.set(source.uniforms, offsets[i] / 4);
    });
    const buffer = this.#device.createBuffer({
      size: bytes,
      usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
      label: `${name} uniforms`,
    });
    this.#device.queue.writeBuffer(buffer, 0, words);
    return { buffer, offsets };
  }

  /** Pipelines are keyed by their text: Dawn would compile an identical second one again. */
  #pipeline(source: KernelSource, bindings: number): GPUComputePipeline {
    const known = this.#pipelines.get(source.wgsl);
    if (known) return known;
    if (env.DEBUG === "wgsl") console.error(`// ${source.label}\n${source.wgsl}`);
    const entry = (binding: number, type: GPUBufferBindingType): GPUBindGroupLayoutEntry => ({
      binding,
      visibility: GPUShaderStage.COMPUTE,
      buffer: { type },
    });
    const entries = Array.from({ length: bindings }, (_, i) => entry(i, "storage"));
    if (source.uniforms.length > 0) entries.push(entry(bindings, "uniform"));
    const layout = this.#device.createPipelineLayout({
      bindGroupLayouts: [this.#device.createBindGroupLayout({ entries })],
    });
    const module = this.#device.createShaderModule({ code: source.wgsl, label: source.label });
    const pipeline = this.#device.createComputePipeline({
      layout,
      compute: { module, entryPoint: "main" },
      label: source.label,
    });
    this.#pipelines.set(source.wgsl, pipeline);
    return pipeline;
  }

  /** Keeps a recording for as long as its program lives; afterwards its memory goes back to the pool. */
  #hold(program: Program, recording: Recording, isNew: boolean): void {
    if (!isNew) return;
    this.#recordings.set(program, recording);
    const { arena, constants, inputs } = recording;
    for (const buffer of [arena, ...constants, ...inputs.values()]) if (buffer) this.#pool.follow(program, buffer);
  }

  #discard({ arena, constants, inputs, uniforms }: Recording): void {
    for (const b of [arena, ...constants, ...inputs.values()]) if (b) this.#pool.release(b);
    uniforms?.destroy();
  }

  // ---- running -----------------------------------------------------------------------------------------------------

  #submit(recording: Recording, feed: Readonly<Record<string, FeedValue>>, reused: boolean): Record<string, Storage> {
    const { plan } = recording;
    for (const s of plan.storages) this.#use(s); // uploads what the host has written since
    const encoder = this.#device.createCommandEncoder({ label: plan.name });
    for (const input of plan.inputs)
      this.#feed(encoder, recording.inputs.get(input.name) as GPUBuffer, feed[input.name], input.name, plan);
    const pass = encoder.beginComputePass();
    for (const d of recording.dispatches) this.#encode(pass, d);
    pass.end();
    const set = reused ? this.#nextSet(recording) : this.#makeSet(plan, null);
    const copy = (from: Memory, to: Memory, bytes: number): void =>
      encoder.copyBufferToBuffer(from.buffer, from.offset, to.buffer, to.offset, bytes);
    for (const o of plan.outputs)
      copy(
        this.#memoryOf(recording, o.place),
        { buffer: set.buffers.get(o.name) as GPUBuffer, offset: 0 },
        paddedBytes(numel(o.shape)),
      );
    for (const { from, to, bytes } of plan.copies)
      copy(this.#memoryOf(recording, from), this.#memoryOf(recording, to), bytes);
    this.#device.queue.submit([encoder.finish()]);
    recording.calls++;
    return set.storages;
  }

  #encode(pass: GPUComputePassEncoder, { pipeline, group, x, y, z }: Recorded): void {
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(x, y, z);
  }

  #feed(encoder: GPUCommandEncoder, target: GPUBuffer, value: FeedValue | undefined, name: string, plan: Plan): void {
    if (value === undefined) throw new DeviceError(`${plan.name}: input ${name} was not fed`);
    if (typeof value === "number") this.#device.queue.writeBuffer(target, 0, new Float32Array([value]));
    else {
      // Values that only the host has, such as a fresh batch, go straight into the input: no buffer of their own to collect.
      const host = this.#resident.has(value) || value.mutable ? null : value.host();
      if (host) this.#device.queue.writeBuffer(target, 0, host.buffer as ArrayBuffer, host.byteOffset, host.byteLength);
      else encoder.copyBufferToBuffer(this.#use(value).buffer, 0, target, 0, target.size);
    }
  }

  #memoryOf({ plan, arena, constants, inputs }: Recording, place: Place): Memory {
    if (place.kind === "arena") return { buffer: arena as GPUBuffer, offset: plan.arena.offsets[place.index] };
    if (place.kind === "constant") return { buffer: constants[place.index], offset: 0 };
    return {
      buffer: place.kind === "input" ? (inputs.get(place.name) as GPUBuffer) : this.#use(place.storage).buffer,
      offset: 0,
    };
  }

  /** The older of two sets of results; whoever still holds it is told when the third call overwrites it. */
  #nextSet(recording: Recording): OutputSet {
    const { plan, sets, calls } = recording;
    const made = this.#makeSet(plan, { recording, call: calls, buffers: sets[calls % 2]?.buffers });
    sets[calls % 2] = made;
    return made;
  }

  #makeSet(
    plan: Plan,
    ring: { recording: Recording; call: number; buffers?: ReadonlyMap<string, GPUBuffer> } | null,
  ): OutputSet {
    const buffers = new Map<string, GPUBuffer>();
    const storages: Record<string, Storage> = {};
    for (const { name, shape, dtype } of plan.outputs) {
      const buffer =
        ring?.buffers?.get(name) ?? this.#pool.take(paddedBytes(numel(shape)), `result ${name} of ${plan.name}`);
      const storage = new Storage(shape, dtype, null);
      if (ring) {
        const { recording, call } = ring;
        storage.stale = () =>
          recording.calls > call + 2
            ? `result "${name}" of call ${call + 1} of ${plan.name} was overwritten by call ${call + 3} (use keep() to hold on to it)`
            : null;
      } else this.#pool.follow(storage, buffer);
      this.#resident.set(storage, { buffer, version: 0 });
      buffers.set(name, buffer);
      storages[name] = storage;
    }
    return { storages, buffers };
  }

  /** The storage's buffer on this device, uploaded if the host has newer values. */
  #use(storage: Storage): Resident {
    const stale = storage.stale?.();
    if (stale) throw new StaleTensorError(stale);
    const held = this.#resident.get(storage);
    if (held && held.version === storage.version) return held;
    const host = storage.host();
    if (!host) throw new DeviceError("a tensor's values live on another device or were lost with it");
    const bytes = paddedBytes(host.length);
    const buffer = held?.buffer ?? this.#pool.take(bytes, `tensor [${storage.shape.join(", ")}]`);
    if (!held) this.#pool.follow(storage, buffer);
    if (host.length > 0)
      this.#device.queue.writeBuffer(buffer, 0, host.buffer as ArrayBuffer, host.byteOffset, host.byteLength);
    const resident = { buffer, version: storage.version };
    this.#resident.set(storage, resident);
    if (storage.mutable) storage.releaseHost();
    return resident;
  }

  // ---- errors ------------------------------------------------------------------------------------------------------

  #watch(name: string): void {
    const scope = this.#device.popErrorScope().then((error) => {
      if (error) this.#fail(`${name}: ${error.message}`);
    });
    this.#pending.push(scope);
    if (this.#pending.length > 64) this.#pending.splice(0, 32);
  }

  #fail(message: string): void {
    this.#failure ??= message;
  }

  #check(): void {
    if (this.#closed) throw new DeviceError("the device is closed");
    if (this.#failure) {
      const message = this.#failure;
      this.#failure = null;
      throw new DeviceError(message);
    }
  }
}
