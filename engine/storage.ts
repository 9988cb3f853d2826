// Storage: the identity of values that outlive an expression (data from the host, parameters, results of a step).
// It knows nothing of devices: each device keeps its own copy in a WeakMap keyed by the Storage, so that garbage
// collection of the last tensor frees device memory without anyone calling dispose.

import type { Data, DType } from "./dtype.ts";
import type { Shape } from "./shape.ts";

export class Storage {
  readonly shape: Shape;
  readonly dtype: DType;
  /** True for state that programs update in place: the device's copy is then the current one. */
  readonly mutable: boolean;
  /** Counts host writes, so that a device knows when its copy is old. */
  version = 0;
  /** For results of a compiled step: which call made it, and how to tell that a later call has overwritten it. */
  stale?: () => string | null;
  #host: Data | (() => Data) | null;

  constructor(shape: Shape, dtype: DType, host: Data | (() => Data) | null, mutable = false) {
    this.shape = shape;
    this.dtype = dtype;
    this.mutable = mutable;
    this.#host = host;
  }

  /** Values as last written by the host; initialisers run on first use, so that counting parameters costs nothing. */
  host(): Data | null {
    if (typeof this.#host === "function") this.#host = this.#host();
    return this.#host;
  }

  /** Does the host have the values, or what makes them? */
  get onHost(): boolean {
    return this.#host !== null;
  }

  /** Replaces the values from the host; devices upload them before the next use. */
  write(data: Data | (() => Data)): void {
    this.#host = data;
    this.version++;
  }

  /** A device has taken the values over (mutable) or holds a copy: large host arrays need not stay. */
  releaseHost(): void {
    this.#host = null;
  }
}
