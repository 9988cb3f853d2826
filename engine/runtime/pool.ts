// Device memory: every buffer the engine makes comes from here and goes back here. Buffers are reused, because a fresh one
// costs its zero-fill; those that nobody uses are bounded (KEPT), and the ones that lay longest are given up. What a collected
// tensor leaves behind is returned by the FinalizationRegistry.

import type { MemoryStats } from "../device.ts";
import { DeviceError, type OutOfMemoryError } from "../error.ts";
import { type LiveBuffer, outOfMemoryError } from "./errors.ts";

/** What a buffer is for. Those for values and for reading back are shared; one for scalars is its owner's alone. */
export type Use = "values" | "read-back" | "scalars";

const usageOf = (use: Use): number =>
  ({
    values: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
    "read-back": GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    scalars: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
  })[use];

/** Bounds of what is kept although nobody uses it: as many bytes as are in use or `bytes`, whichever is more. */
export const KEPT = { bytes: 2 ** 25, buffers: 128 };
/** A free buffer serves a request that is smaller by up to this factor. */
const FIT = 1.25;
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

/** Sizes are asked of the wrapper's object once: it is slow to answer. */
interface Kept {
  readonly size: number;
  readonly use: Use;
}

export class Pool {
  readonly #device: GPUDevice;
  readonly #options: PoolOptions;
  readonly #all = new Map<GPUBuffer, Kept>();
  /** Buffers that nobody uses, in the order in which they came back. */
  readonly #free = new Set<GPUBuffer>();
  /** Buffers in use and what for. */
  readonly #live = new Map<GPUBuffer, string>();
  #bytes = 0;
  #freeBytes = 0;
  readonly #returned = new FinalizationRegistry<GPUBuffer>((b) => this.release(b));

  constructor(device: GPUDevice, options: PoolOptions) {
    this.#device = device;
    this.#options = options;
  }

  /**
   * A buffer of at least `bytes`, contents undefined. Throws DeviceError past the largest buffer, OutOfMemoryError past the
   * limit.
   */
  take(bytes: number, what: string, use: Use = "values"): GPUBuffer {
    const reused = this.#fitting(bytes, use);
    if (!reused) return this.#make(bytes, what, use);
    this.#free.delete(reused);
    this.#freeBytes -= this.#sizeOf(reused);
    this.#live.set(reused, what);
    return reused;
  }

  /** The smallest free buffer that will do; of equal ones that which was used last. */
  #fitting(bytes: number, use: Use): GPUBuffer | undefined {
    let found: GPUBuffer | undefined;
    let most = bytes * FIT;
    for (const buffer of this.#free) {
      const kept = this.#all.get(buffer) as Kept;
      if (kept.use !== use || kept.size < bytes || kept.size > most) continue;
      found = buffer;
      most = kept.size;
    }
    return found;
  }

  #make(bytes: number, what: string, use: Use): GPUBuffer {
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
    const buffer = this.#device.createBuffer({ size: bytes, usage: usageOf(use), label: what });
    void this.#device.popErrorScope().then((error) => {
      if (error) this.#options.onOutOfMemory(outOfMemoryError({ label: what, bytes }, error.message, this.largest()));
    });
    this.#bytes += bytes;
    this.#all.set(buffer, { size: bytes, use });
    this.#live.set(buffer, what);
    return buffer;
  }

  #sizeOf(buffer: GPUBuffer): number {
    return (this.#all.get(buffer) as Kept).size;
  }

  /** Gives a buffer back. It may still be read by what was submitted before. */
  release(buffer: GPUBuffer): void {
    const { size, use } = this.#all.get(buffer) as Kept;
    if (use === "scalars") {
      this.destroy(buffer);
      return;
    }
    this.#live.delete(buffer);
    this.#free.add(buffer);
    this.#freeBytes += size;
    for (const oldest of this.#free) {
      const inUse = this.#bytes - this.#freeBytes;
      if (this.#free.size <= KEPT.buffers && this.#freeBytes <= Math.max(KEPT.bytes, inUse)) break;
      this.destroy(oldest);
    }
  }

  destroy(buffer: GPUBuffer): void {
    const size = this.#sizeOf(buffer);
    this.#bytes -= size;
    if (this.#free.delete(buffer)) this.#freeBytes -= size;
    this.#live.delete(buffer);
    this.#all.delete(buffer);
    buffer.destroy();
  }

  /** Destroys the buffers that nobody uses. */
  trim(): void {
    for (const buffer of this.#free) this.destroy(buffer);
  }

  /** Gives `buffer` back when `owner` is collected. */
  follow(owner: object, buffer: GPUBuffer): void {
    this.#returned.register(owner, buffer);
  }

  stats(): MemoryStats {
    return { buffers: this.#all.size, bytes: this.#bytes };
  }

  /** The largest buffers in use, largest first. */
  largest(count = LISTED): LiveBuffer[] {
    const live = [...this.#live].map(([buffer, label]) => ({ label, bytes: this.#sizeOf(buffer) }));
    return live.sort((a, b) => b.bytes - a.bytes || (a.label < b.label ? -1 : 1)).slice(0, count);
  }
}
