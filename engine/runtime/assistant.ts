// A second device that compiles kernels while the first one does. Mesa's software driver compiles a kernel when it is first
// dispatched, on its queue's one thread, and keeps the machine code in a cache on disk, which all devices share. So a program
// of new kernels is compiled from both ends: the first device runs it forwards, this one dispatches a workgroup of each
// kernel from the last one backwards, and where they meet each finds what the other has made. runtime/gpu.ts calls it.

import type { KernelSource } from "../../kernels/wgsl.ts";
import { pipelineParts } from "./pipelines.ts";

/** A kernel as a pipeline was asked for it. */
export interface NewKernel {
  readonly source: KernelSource;
  readonly storages: number;
}

/** Fewer new kernels than this are not worth a device. */
const FEW = 8;
/** How long the first device is left alone, in ms: with a filled cache most programs have run by then. */
const PATIENCE = 250;
/** A kernel that is dispatched in fewer ms was in the cache: the least that compiling one takes is about twice as long. */
const CACHED = 30;
/** After as many cached kernels in a row the rest is taken to be cached too. */
const ENOUGH = 3;
/** Bytes of each binding: no kernel's scalars take more, and reads outside of it are WebGPU's to fend off. */
const BINDING = 1024;

export class Assistant {
  readonly #open: () => Promise<GPUDevice>;
  #busy = false;
  #closed = false;

  constructor(open: () => Promise<GPUDevice>) {
    this.#open = open;
  }

  /**
   * Compiles `kernels`, in the order of their first dispatch, from the last one on, until `done` resolves. One program at a
   * time: the kernels of another are left to the first device. Never fails: what is wrong with a kernel the first device finds.
   */
  async help(kernels: readonly NewKernel[], done: () => Promise<unknown>): Promise<void> {
    if (this.#busy || this.#closed || kernels.length < FEW) return;
    this.#busy = true;
    let over = false;
    const finished = done().then(
      () => {
        over = true;
      },
      () => {
        over = true;
      },
    );
    let device: GPUDevice | null = null;
    try {
      await Promise.race([finished, pause(PATIENCE)]);
      if (over || this.#closed) return;
      device = await this.#open();
      device.onuncapturederror = (e) => e.preventDefault();
      await compileBackwards(device, kernels, () => over || this.#closed);
    } catch {
      // The first device does without.
    } finally {
      device?.destroy();
      this.#busy = false;
    }
  }

  close(): void {
    this.#closed = true;
  }
}

async function compileBackwards(device: GPUDevice, kernels: readonly NewKernel[], over: () => boolean): Promise<void> {
  const most = Math.max(...kernels.map((k) => k.storages)) + 1;
  const buffer = device.createBuffer({ size: most * BINDING, usage: GPUBufferUsage.STORAGE });
  const scalars = device.createBuffer({ size: BINDING, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
  let cached = 0;
  for (let i = kernels.length - 1; i >= 0 && cached < ENOUGH && !over(); i--) {
    const { source, storages } = kernels[i];
    const { layout, module, groupLayout } = pipelineParts(device, source, storages);
    const pipeline = await device.createComputePipelineAsync({ layout, compute: { module, entryPoint: "main" } });
    const entries: GPUBindGroupEntry[] = Array.from({ length: storages }, (_, binding) => ({
      binding,
      resource: { buffer, offset: binding * BINDING, size: BINDING }, // apart: all of them are written to
    }));
    if (source.uniforms.length > 0) {
      device.queue.writeBuffer(scalars, 0, new Uint32Array(source.uniforms)); // loops end where they do in the program
      entries.push({ binding: storages, resource: { buffer: scalars } });
    }
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout: groupLayout, entries }));
    pass.dispatchWorkgroups(1);
    pass.end();
    const start = performance.now();
    device.queue.submit([encoder.finish()]);
    await device.queue.onSubmittedWorkDone();
    cached = performance.now() - start < CACHED ? cached + 1 : 0;
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
