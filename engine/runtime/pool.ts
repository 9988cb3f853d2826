// Device memory: every buffer the engine makes comes from here and goes back here. Buffers of one size are reused, because a
// fresh one costs its zero-fill; what a collected tensor leaves behind is returned by the FinalizationRegistry.

import type { MemoryStats } from "../device.ts";
import { DeviceError } from "../error.ts";

const USAGE = (): number => GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;

/** Free buffers kept per size: enough for the ping-pong of a step's results. */
const KEEP = 4;

export class Pool {
  readonly #device: GPUDevice;
  readonly #free = new Map<number, GPUBuffer[]>();
  readonly #limit: number;
  #buffers = 0;
  #bytes = 0;
  readonly #returned = new FinalizationRegistry<GPUBuffer>((b) => this.release(b));

  constructor(device: GPUDevice) {
    this.#device = device;
    this.#limit = device.limits.maxStorageBufferBindingSize;
  }

  /** A storage buffer of at least `bytes`, contents undefined. Throws DeviceError past the adapter's binding limit. */
  take(bytes: number, what: string): GPUBuffer {
    if (bytes > this.#limit) {
      throw new DeviceError(
        `${what} needs ${bytes} bytes in one binding, this adapter allows ${this.#limit} (maxStorageBufferBindingSize): split the tensor or use smaller batches`,
      );
    }
    return this.arena(bytes, what);
  }

  /** As `take`, for memory that is bound in parts: only the buffer limit applies. */
  arena(bytes: number, what: string): GPUBuffer {
    const reused = this.#free.get(bytes)?.pop();
    if (reused) return reused;
    if (bytes > this.#device.limits.maxBufferSize) {
      throw new DeviceError(
        `${what} needs ${bytes} bytes, this adapter's largest buffer has ${this.#device.limits.maxBufferSize}: use a smaller batch`,
      );
    }
    this.#buffers++;
    this.#bytes += bytes;
    return this.#device.createBuffer({ size: bytes, usage: USAGE(), label: what });
  }

  release(buffer: GPUBuffer): void {
    const list = this.#free.get(buffer.size) ?? [];
    this.#free.set(buffer.size, list);
    if (list.length < KEEP) list.push(buffer);
    else this.destroy(buffer);
  }

  destroy(buffer: GPUBuffer): void {
    this.#buffers--;
    this.#bytes -= buffer.size;
    buffer.destroy();
  }

  /** Gives `buffer` back when `owner` is collected. */
  follow(owner: object, buffer: GPUBuffer): void {
    this.#returned.register(owner, buffer);
  }

  stats(): MemoryStats {
    return { buffers: this.#buffers, bytes: this.#bytes };
  }
}
