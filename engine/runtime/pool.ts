// Device memory: every buffer the engine makes comes from here and goes back here. Storage buffers of one size are reused,
// because a fresh one costs its zero-fill; what a collected tensor leaves behind is returned by the FinalizationRegistry.

import type { MemoryStats } from "../device.ts";
import { DeviceError, type OutOfMemoryError } from "../error.ts";
import { type LiveBuffer, outOfMemoryError } from "./errors.ts";

const USAGE = (): number => GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;

/** Free buffers kept per size: enough for the ping-pong of a step's results. */
const KEEP = 4;
/** Live buffers that an error lists. */
const LISTED = 8;

export interface PoolOptions {
  /** Bytes of all buffers together, past which `take` throws. */
  readonly memoryLimit?: number;
  /** Most bytes of one buffer. */
  readonly maxBuffer: number;
  /** Told when the device itself runs out of memory, which it says after `take` has returned. */
  onOutOfMemory(error: OutOfMemoryError): void;
}

export class Pool {
  readonly #device: GPUDevice;
  readonly #options: PoolOptions;
  readonly #free = new Map<number, GPUBuffer[]>();
  /** Buffers in use and what for. */
  readonly #live = new Map<GPUBuffer, string>();
  #buffers = 0;
  #bytes = 0;
  readonly #returned = new FinalizationRegistry<GPUBuffer>((b) => this.release(b));

  constructor(device: GPUDevice, options: PoolOptions) {
    this.#device = device;
    this.#options = options;
  }

  /** A storage buffer of `bytes`, contents undefined. Throws DeviceError past the largest buffer, OutOfMemoryError past the limit. */
  take(bytes: number, what: string): GPUBuffer {
    const reused = this.#free.get(bytes)?.pop();
    if (reused) this.#live.set(reused, what);
    return reused ?? this.make(bytes, USAGE(), what);
  }

  /** A buffer for another use, never shared. */
  make(bytes: number, usage: number, what: string): GPUBuffer {
    const { maxBuffer, memoryLimit = Number.POSITIVE_INFINITY } = this.#options;
    if (bytes > maxBuffer) {
      throw new DeviceError(
        `${what} needs ${bytes} bytes in one buffer, this adapter's largest has ${maxBuffer} (maxBufferSize): use a smaller batch`,
      );
    }
    if (this.#bytes + bytes > memoryLimit) this.trim();
    if (this.#bytes + bytes > memoryLimit) {
      const refused = `${this.#bytes.toLocaleString("en")} of the ${memoryLimit.toLocaleString("en")} bytes of memoryLimit are in use`;
      throw outOfMemoryError({ label: what, bytes }, refused, this.largest());
    }
    this.#device.pushErrorScope("out-of-memory");
    const buffer = this.#device.createBuffer({ size: bytes, usage, label: what });
    void this.#device.popErrorScope().then((error) => {
      if (error) this.#options.onOutOfMemory(outOfMemoryError({ label: what, bytes }, error.message, this.largest()));
    });
    this.#buffers++;
    this.#bytes += bytes;
    this.#live.set(buffer, what);
    return buffer;
  }

  release(buffer: GPUBuffer): void {
    const list = this.#free.get(buffer.size) ?? [];
    this.#free.set(buffer.size, list);
    if (buffer.usage === USAGE() && list.length < KEEP) {
      list.push(buffer);
      this.#live.delete(buffer);
    } else this.destroy(buffer);
  }

  destroy(buffer: GPUBuffer): void {
    this.#buffers--;
    this.#bytes -= buffer.size;
    this.#live.delete(buffer);
    buffer.destroy();
  }

  /** Destroys the buffers that nobody uses. */
  trim(): void {
    for (const list of this.#free.values()) for (const buffer of list.splice(0)) this.destroy(buffer);
  }

  /** Gives `buffer` back when `owner` is collected. */
  follow(owner: object, buffer: GPUBuffer): void {
    this.#returned.register(owner, buffer);
  }

  stats(): MemoryStats {
    return { buffers: this.#buffers, bytes: this.#bytes };
  }

  /** The largest buffers in use, largest first. */
  largest(count = LISTED): LiveBuffer[] {
    const live = [...this.#live].map(([buffer, label]) => ({ label, bytes: buffer.size }));
    return live.sort((a, b) => b.bytes - a.bytes || (a.label < b.label ? -1 : 1)).slice(0, count);
  }
}
