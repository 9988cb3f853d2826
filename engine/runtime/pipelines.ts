// WGSL to pipelines. Keyed by their text: Dawn would compile an identical second one again. A text that the device refuses
// becomes a KernelError, which arrives later, by way of `fail`, because WebGPU checks shaders asynchronously.

import type { KernelSource } from "../../kernels/wgsl.ts";
import type { DeviceError } from "../error.ts";
import { debugging, timed } from "../timeline.ts";
import type { NewKernel } from "./assistant.ts";
import { type Complaint, kernelError } from "./errors.ts";

/** What a kernel is for, in case it is refused: its step, and the names of the ops fused into it. */
export interface Purpose {
  readonly step: string;
  ops(): string;
}

export class Pipelines {
  readonly #device: GPUDevice;
  readonly #fail: (error: DeviceError) => void;
  readonly #known = new Map<string, GPUComputePipeline>();
  #checks: Promise<void>[] = [];
  #fresh: NewKernel[] = [];

  constructor(device: GPUDevice, fail: (error: DeviceError) => void) {
    this.#device = device;
    this.#fail = fail;
  }

  /** The pipeline of `source`, whose bindings are `storages` buffers and then its uniforms, if it has any. */
  get(source: KernelSource, storages: number, purpose: Purpose): GPUComputePipeline {
    const known = this.#known.get(source.wgsl);
    if (known) return known;
    if (debugging("wgsl")) console.error(`// ${source.label}\n${source.wgsl}`);
    const made = timed("compile", purpose.step, () => this.#make(source, storages, purpose));
    this.#known.set(source.wgsl, made);
    this.#fresh.push({ source, storages });
    return made;
  }

  /** The kernels that were new since this was last asked. */
  takeFresh(): readonly NewKernel[] {
    return this.#fresh.splice(0);
  }

  /** Resolves when it is known of every pipeline asked for so far whether the device took it. */
  async settled(): Promise<void> {
    await Promise.all(this.#checks.splice(0));
  }

  #make(source: KernelSource, storages: number, purpose: Purpose): GPUComputePipeline {
    const { label } = source;
    this.#device.pushErrorScope("validation");
    const { layout, module } = pipelineParts(this.#device, source, storages);
    const pipeline = this.#device.createComputePipeline({ layout, compute: { module, entryPoint: "main" }, label });
    this.#checks.push(
      this.#device.popErrorScope().then(async (error) => {
        if (!error) return;
        this.#known.delete(source.wgsl);
        const complaints = await complaintsOf(module, error.message);
        this.#fail(kernelError(purpose.step, source, purpose.ops(), complaints, error.message));
      }),
    );
    return pipeline;
  }
}

/** What a pipeline is made of: `storages` storage bindings and then the uniforms, and the shader. */
export function pipelineParts(
  device: GPUDevice,
  source: KernelSource,
  storages: number,
): { groupLayout: GPUBindGroupLayout; layout: GPUPipelineLayout; module: GPUShaderModule } {
  const entry = (binding: number, type: GPUBufferBindingType): GPUBindGroupLayoutEntry => ({
    binding,
    visibility: GPUShaderStage.COMPUTE,
    buffer: { type },
  });
  const entries = Array.from({ length: storages }, (_, i) => entry(i, "storage"));
  if (source.uniforms.length > 0) entries.push(entry(storages, "uniform"));
  const groupLayout = device.createBindGroupLayout({ entries });
  const layout = device.createPipelineLayout({ bindGroupLayouts: [groupLayout] });
  return { groupLayout, layout, module: device.createShaderModule({ code: source.wgsl, label: source.label }) };
}

/** The compiler's errors; where it tells nothing, what Dawn's message says of the place. */
async function complaintsOf(module: GPUShaderModule, message: string): Promise<readonly Complaint[]> {
  const { messages } = await module.getCompilationInfo();
  const errors = messages.filter((m) => m.type === "error");
  if (errors.length > 0) return errors;
  const [, line, column, text] = /:(\d+):(\d+) error: (.*)/.exec(message) ?? [];
  return text ? [{ lineNum: Number(line), linePos: Number(column), length: 1, message: text }] : [];
}
