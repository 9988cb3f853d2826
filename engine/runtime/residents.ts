// Where storages lie on the device: the buffer of each, uploaded when the host has newer values, and how host values lie in one.
// Called by gpu.ts and recording.ts; buffers come from pool.ts.

import type { Caps } from "../../kernels/wgsl.ts";
import { type Data, packHalves, roundHalf, unpackHalf } from "../dtype.ts";
import { DeviceError, StaleTensorError } from "../error.ts";
import { tensorBytes } from "../plan/plan.ts";
import type { Storage } from "../storage.ts";
import type { Pool } from "./pool.ts";

interface Resident {
  readonly buffer: GPUBuffer;
  readonly version: number;
}

export class Residents {
  readonly #device: GPUDevice;
  readonly #pool: Pool;
  readonly #caps: Pick<Caps, "f16">;
  readonly #known = new WeakMap<Storage, Resident>();

  constructor(device: GPUDevice, pool: Pool, caps: Pick<Caps, "f16">) {
    this.#device = device;
    this.#pool = pool;
    this.#caps = caps;
  }

  /** The storage's buffer, with its values of now. Throws where they were overwritten, or are on another device only. */
  use(storage: Storage): GPUBuffer {
    const stale = storage.stale?.();
    if (stale) throw new StaleTensorError(stale);
    const held = this.#known.get(storage);
    if (held && held.version === storage.version) return held.buffer;
    const host = storage.host();
    if (!host) throw new DeviceError("a tensor's values live on another device or were lost with it");
    const buffer =
      held?.buffer ?? this.#pool.take(tensorBytes(storage, this.#caps), `tensor [${storage.shape.join(", ")}]`);
    if (!held) this.#pool.follow(storage, buffer);
    if (host.length > 0) this.write(buffer, storage, host);
    this.#known.set(storage, { buffer, version: storage.version });
    if (storage.mutable) storage.releaseHost();
    return buffer;
  }

  /** From now on the values of `storage`, which is new, are those in `buffer`. */
  place(storage: Storage, buffer: GPUBuffer): void {
    this.#known.set(storage, { buffer, version: storage.version });
  }

  /** The values of one that only the host has, such as a fresh batch; null where the device has, or is to keep, a copy. */
  hostOnly(storage: Storage): Data | null {
    return this.#known.has(storage) || storage.mutable ? null : storage.host();
  }

  /** Host values as they lie in a buffer. Parameters of f16 may have values that no f16 is: they are rounded here. */
  write(buffer: GPUBuffer, { dtype }: Pick<Storage, "dtype">, host: Data): void {
    const data = dtype !== "f16" ? host : this.#caps.f16 ? packHalves(host) : Float32Array.from(host, roundHalf);
    this.#device.queue.writeBuffer(buffer, 0, data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
  }

  /** What lies in a buffer as host values. */
  unpack({ dtype }: Pick<Storage, "dtype">, bytes: ArrayBuffer): Data {
    if (dtype === "f16" && this.#caps.f16) return Float32Array.from(new Uint16Array(bytes), unpackHalf);
    if (dtype === "f32" || dtype === "f16") return new Float32Array(bytes);
    return dtype === "i32" ? new Int32Array(bytes) : new Uint32Array(bytes);
  }
}
