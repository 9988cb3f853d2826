// Runs one lowered kernel on a bare WebGPU device, without the engine: bind, dispatch, read back. For kernel tests and
// kernel timing only; the engine's own runtime is engine/runtime.

import { create, globals } from "webgpu";
import type { Caps, KernelSource, Lowered, Operand } from "../kernels/wgsl.ts";

Object.assign(globalThis, globals);

export interface BareDevice {
  readonly device: GPUDevice;
  readonly caps: Caps;
  readonly gpu: unknown; // keeps Dawn's instance alive
}

/** A device with every limit the adapter has, or null when there is none. `options` as for webgpu's `create`. */
export async function openBare(options: string[] = []): Promise<BareDevice | null> {
  process.env.XDG_RUNTIME_DIR ||= "/tmp";
  const gpu = create(options);
  const adapter = await gpu.requestAdapter();
  if (!adapter) return null;
  const wanted = ["subgroups", "shader-f16", "timestamp-query"].filter((f) => adapter.features.has(f));
  const l = adapter.limits;
  const device = await adapter.requestDevice({
    requiredFeatures: wanted as GPUFeatureName[],
    requiredLimits: {
      maxStorageBuffersPerShaderStage: l.maxStorageBuffersPerShaderStage,
      maxStorageBufferBindingSize: l.maxStorageBufferBindingSize,
      maxBufferSize: l.maxBufferSize,
      maxComputeInvocationsPerWorkgroup: l.maxComputeInvocationsPerWorkgroup,
      maxComputeWorkgroupSizeX: l.maxComputeWorkgroupSizeX,
      maxComputeWorkgroupStorageSize: l.maxComputeWorkgroupStorageSize,
    },
  });
  const info = adapter.info as GPUAdapterInfo & { subgroupMinSize?: number; subgroupMaxSize?: number };
  const fixed = adapter.features.has("subgroups") && info.subgroupMinSize === info.subgroupMaxSize;
  const caps: Caps = {
    adapter: /llvmpipe|lavapipe|swiftshader|software|cpu/i.test(
      `${info.vendor} ${info.architecture} ${info.device} ${info.description}`,
    )
      ? "cpu"
      : "gpu",
    subgroupSize: fixed ? (info.subgroupMaxSize ?? 0) : 0,
    f16: adapter.features.has("shader-f16"),
    maxBindings: l.maxStorageBuffersPerShaderStage,
    maxInvocations: l.maxComputeInvocationsPerWorkgroup,
    maxWorkgroupMemory: l.maxComputeWorkgroupStorageSize,
    maxWorkgroupsPerDim: l.maxComputeWorkgroupsPerDimension,
    maxBinding: l.maxStorageBufferBindingSize,
    maxBuffer: l.maxBufferSize,
  };
  return { device, caps, gpu };
}

export type Values = Float32Array | Int32Array | Uint32Array;

/** A lowered kernel made ready to be dispatched again and again (timing), with its outputs readable. */
export interface Prepared {
  dispatch(): void;
  read(): Promise<Values[]>;
  destroy(): void;
}

interface Compiled {
  readonly pipeline: GPUComputePipeline;
  readonly bindGroupLayout: GPUBindGroupLayout;
}

/** Pipelines of each device by source text: software adapters compile every pipeline anew, for 50 ms and more. */
const pipelinesOf = new WeakMap<GPUDevice, Map<string, Compiled>>();

async function pipelineFor(device: GPUDevice, source: KernelSource, operands: number): Promise<Compiled> {
  const known = pipelinesOf.get(device) ?? new Map<string, Compiled>();
  pipelinesOf.set(device, known);
  const found = known.get(source.wgsl);
  if (found) return found;
  const module = device.createShaderModule({ code: source.wgsl, label: source.label });
  // Explicit, because layout "auto" leaves out the bindings that a kernel declares and does not use.
  const bindGroupLayout = device.createBindGroupLayout({
    entries: Array.from({ length: operands + (source.uniforms.length > 0 ? 1 : 0) }, (_, binding) => ({
      binding,
      visibility: GPUShaderStage.COMPUTE,
      buffer: { type: binding < operands ? ("storage" as const) : ("uniform" as const) },
    })),
  });
  const layout = device.createPipelineLayout({ bindGroupLayouts: [bindGroupLayout] });
  const pipeline = await device.createComputePipelineAsync({ layout, compute: { module, entryPoint: "main" } });
  const compiled = { pipeline, bindGroupLayout };
  known.set(source.wgsl, compiled);
  return compiled;
}

/** Compiles and binds; `extras` are the epilogue's operands. Throws with Dawn's message when the WGSL is refused. */
export async function prepare(
  { device }: BareDevice,
  lowered: Lowered,
  inputs: readonly Values[],
  outputs: readonly Operand[],
  extras: readonly Values[] = [],
): Promise<Prepared> {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const make = (elements: number): GPUBuffer =>
    device.createBuffer({ size: Math.max(16, Math.ceil(elements / 4) * 16), usage });
  const filled = (v: Values): GPUBuffer => {
    const buffer = make(v.length);
    device.queue.writeBuffer(buffer, 0, v.buffer as ArrayBuffer, v.byteOffset, v.byteLength);
    return buffer;
  };
  const outBuffers = outputs.map((o) => make(o.size));
  const buffers = [...inputs.map(filled), ...extras.map(filled), ...outBuffers, ...lowered.scratch.map(make)];
  const passes: { pipeline: GPUComputePipeline; group: GPUBindGroup; xyz: readonly [number, number, number] }[] = [];
  const extra: GPUBuffer[] = [];
  for (const { source, operands } of lowered.passes) {
    const { pipeline, bindGroupLayout } = await pipelineFor(device, source, operands.length);
    const entries = operands.map((o, binding) => ({ binding, resource: { buffer: buffers[o] } }));
    if (source.uniforms.length > 0) {
      const buffer = device.createBuffer({
        size: Math.ceil(source.uniforms.length / 4) * 16,
        usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
      });
      device.queue.writeBuffer(buffer, 0, new Uint32Array(source.uniforms));
      entries.push({ binding: operands.length, resource: { buffer } });
      extra.push(buffer);
    }
    passes.push({
      pipeline,
      group: device.createBindGroup({ layout: bindGroupLayout, entries }),
      xyz: source.workgroups,
    });
  }
  return {
    dispatch() {
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      for (const p of passes) {
        pass.setPipeline(p.pipeline);
        pass.setBindGroup(0, p.group);
        pass.dispatchWorkgroups(...p.xyz);
      }
      pass.end();
      device.queue.submit([encoder.finish()]);
    },
    async read() {
      const result: Values[] = [];
      for (let i = 0; i < outputs.length; i++) {
        const { size, dtype } = outputs[i];
        const staging = device.createBuffer({
          size: outBuffers[i].size,
          usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
        });
        const encoder = device.createCommandEncoder();
        encoder.copyBufferToBuffer(outBuffers[i], 0, staging, 0, outBuffers[i].size);
        device.queue.submit([encoder.finish()]);
        await staging.mapAsync(GPUMapMode.READ);
        const bytes = staging.getMappedRange().slice(0, size * 4);
        staging.destroy();
        result.push(
          dtype === "f32" ? new Float32Array(bytes) : dtype === "i32" ? new Int32Array(bytes) : new Uint32Array(bytes),
        );
      }
      return result;
    },
    destroy() {
      for (const b of [...buffers, ...extra]) b.destroy();
    },
  };
}
