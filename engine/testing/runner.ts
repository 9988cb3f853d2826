// Runs one lowered kernel on a bare WebGPU device, without the engine: bind, dispatch, read back. For checking and timing
// kernels only; the engine's own runtime is engine/runtime.

import { withLanes } from "../../kernels/lane.ts";
import type { Caps, KernelSource, Lowered, Operand } from "../../kernels/wgsl.ts";
import { waitFor } from "../runtime/patience.ts";

/** A device and what kernels may rely on there. An open Dawn is one. @internal */
export interface Machine {
  readonly device: GPUDevice;
  readonly caps: Caps;
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

async function pipelineFor({ device, caps }: Machine, source: KernelSource, operands: number): Promise<Compiled> {
  const known = pipelinesOf.get(device) ?? new Map<string, Compiled>();
  pipelinesOf.set(device, known);
  const code = withLanes(source.wgsl, caps);
  const found = known.get(code);
  if (found) return found;
  const module = device.createShaderModule({ code, label: source.label });
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
  known.set(code, compiled);
  return compiled;
}

/** What outputs and scratch hold before the first run: an element that a kernel forgets, or reads too early, shows. */
const GARBAGE = 0x7149f2ca; // 1e30 as f32

/** Compiles and binds; `extras` are the epilogue's operands. Throws with Dawn's message when the WGSL is refused. @internal */
export async function prepare(
  machine: Machine,
  lowered: Lowered,
  inputs: readonly Values[],
  outputs: readonly Operand[],
  extras: readonly Values[] = [],
): Promise<Prepared> {
  const { device, caps } = machine;
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const make = (elements: number): GPUBuffer =>
    device.createBuffer({ size: Math.max(16, Math.ceil(elements / 4) * 16), usage });
  const filled = (v: Values): GPUBuffer => {
    const buffer = make(v.length);
    device.queue.writeBuffer(buffer, 0, v.buffer as ArrayBuffer, v.byteOffset, v.byteLength);
    return buffer;
  };
  const garbage = (elements: number): GPUBuffer => filled(new Uint32Array(elements).fill(GARBAGE));
  const outBuffers = outputs.map((o) => garbage(o.size));
  const buffers = [...inputs.map(filled), ...extras.map(filled), ...outBuffers, ...lowered.scratch.map(garbage)];
  const passes: { pipeline: GPUComputePipeline; group: GPUBindGroup; xyz: readonly [number, number, number] }[] = [];
  const extra: GPUBuffer[] = [];
  for (const { source, operands } of lowered.passes) {
    const { pipeline, bindGroupLayout } = await pipelineFor(machine, source, operands.length);
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
        await waitFor(staging.mapAsync(GPUMapMode.READ), caps.adapter === "cpu");
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
