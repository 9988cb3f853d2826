// A torch checkpoint as named tensors: those of a state dictionary by their keys, those deeper in a checkpoint by the path
// of keys and indices ("state_dict.layer.weight", "optimizer_states.0.state.0.exp_avg"), a bare one as "tensor". Everything
// is checked when the file is opened; elements are read, gathered by their strides and widened when asked for.

import type { Data } from "../dtype.ts";
import { show } from "../error.ts";
import { element, type FileType, firstMisfit, hostArray } from "../safetensors/elements.ts";
import { numel, type Shape, stridesOf } from "../shape.ts";
import { CHUNK, fileSource, memorySource, type Source, type TensorStore } from "../source.ts";
import type { Archive, Extent } from "./archive.ts";
import { TorchFileError } from "./error.ts";
import { flatten } from "./flatten.ts";
import { openLegacy } from "./legacy.ts";
import type { Value } from "./pickle.ts";
import type { TensorRef } from "./world.ts";
import { isZip, openZip } from "./zip.ts";

export class TorchFile implements TensorStore {
  readonly tensors: ReadonlyMap<string, TensorRef>;
  /** Numbers, texts and bools beside the tensors, by path. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The whole pickled value, as inert data (pickle.ts, world.ts). */
  readonly value: Value;
  readonly #source: Source;
  readonly #archive: Archive;

  /** Use `openTorch` or `parseTorch`. */
  constructor(source: Source, archive: Archive) {
    const { tensors, scalars } = flatten(source.label, archive.value);
    this.#source = source;
    this.#archive = archive;
    this.value = archive.value;
    this.tensors = tensors;
    this.metadata = Object.fromEntries([...scalars].map(([name, value]) => [name, String(value)]));
    for (const [name, ref] of tensors) this.#check(name, ref);
  }

  /** Throws TorchFileError when the name is unknown or a 64-bit integer needs more than 32 bits. */
  async read(name: string): Promise<Data> {
    const ref = this.#ref(name);
    return this.#fill(name, ref, hostArray(ref.dtype, numel(ref.shape)));
  }

  /** As `read`, exact in float64. Throws TorchFileError when an integer exceeds 2^53. */
  async readFloat64(name: string): Promise<Float64Array> {
    const ref = this.#ref(name);
    return this.#fill(name, ref, new Float64Array(numel(ref.shape)));
  }

  async close(): Promise<void> {
    await this.#source.close();
  }

  #ref(name: string): TensorRef {
    return this.tensors.get(name) ?? this.#refuse(`there is no tensor "${name}"`);
  }

  #refuse(what: string): never {
    throw new TorchFileError(this.#source.label, what);
  }

  /** The storage is there, as long as the pickle says, and the view lies inside it. */
  #check(name: string, { storage, dtype, offset, shape, strides }: TensorRef): void {
    const refuse = (what: string): never => this.#refuse(`tensor "${name}": ${what}`);
    const extent = this.#archive.extent(storage.key);
    if (!extent) throw refuse(`its storage ${storage.key} is missing`);
    const width = element(storage.dtype).bytes;
    const claimed = (storage.start + storage.length) * width;
    if (storage.part ? extent.bytes < claimed : extent.bytes !== claimed)
      refuse(`its storage ${storage.key} has ${extent.bytes} bytes, expected ${claimed}`);
    const available = Math.floor((storage.length * width) / element(dtype).bytes);
    const end = viewEnd(offset, shape, strides);
    if (!(end <= available)) refuse(`its view ends at element ${end} of a storage of ${available}`);
    if (!(numel(shape) <= Math.max(available, MOST_EXPANDED)))
      refuse(`${show(shape)} repeats the ${available} elements of its storage too often`);
  }

  async #fill<T extends Data | Float64Array>(name: string, ref: TensorRef, out: T): Promise<T> {
    const { dtype, shape, strides } = ref;
    if (out.length === 0) return out;
    const { decode } = element(dtype);
    const count = spanOf(ref);
    const span = isContiguous(ref) ? undefined : new Float64Array(count);
    let at = 0;
    for await (const raw of this.#raw(ref, 0, count)) {
      const values = decode(raw);
      if (span) span.set(values, at);
      else this.#put(name, dtype, values, out, at);
      at += values.length;
    }
    if (span) this.#put(name, dtype, gathered(span, shape, strides), out, 0);
    return out;
  }

  /** @throws TorchFileError when the name is unknown */
  async *pieces(name: string, from = 0, to?: number): AsyncGenerator<Uint8Array> {
    const ref = this.#ref(name);
    const stop = to ?? numel(ref.shape);
    if (from >= stop) return;
    if (isContiguous(ref)) {
      for await (const raw of this.#raw(ref, from, stop)) yield new Uint8Array(raw);
      return;
    }
    const { bytes: width } = element(ref.dtype);
    const span = new Uint8Array(spanOf(ref) * width);
    let at = 0;
    for await (const raw of this.#raw(ref, 0, spanOf(ref))) {
      span.set(new Uint8Array(raw), at);
      at += raw.byteLength;
    }
    const words = gathered(new WORDS[width](span.buffer), ref.shape, ref.strides);
    yield new Uint8Array(words.buffer).slice(from * width, stop * width);
  }

  /** Bytes of the elements [from, to) behind the view's first, as they lie in its storage, little-endian, in pieces. */
  async *#raw({ storage, dtype, offset }: TensorRef, from: number, to: number): AsyncGenerator<ArrayBuffer> {
    const { bytes: width } = element(dtype);
    const start = storage.start * element(storage.dtype).bytes + offset * width;
    const extent = this.#archive.extent(storage.key) as Extent;
    const step = CHUNK / width;
    for (let at = from; at < to; at += step) {
      const raw = await extent.read(start + at * width, start + Math.min(at + step, to) * width);
      yield this.#archive.bigEndian ? swapped(raw, width) : raw;
    }
  }

  #put(name: string, dtype: FileType, values: ArrayLike<number>, out: Data | Float64Array, at: number): void {
    const bad = firstMisfit(values, dtype, out);
    if (bad >= 0)
      this.#refuse(`tensor "${name}" (${dtype}): ${values[bad]} is more than ${out.constructor.name} can hold`);
    out.set(values, at);
  }
}

/** A tensor with strides of 0 is larger than its bytes: beyond this many elements that is no checkpoint any more. */
const MOST_EXPANDED = 1 << 24;

/** One behind the last element that the view touches; its offset when it is empty. */
function viewEnd(offset: number, shape: Shape, strides: readonly number[]): number {
  if (shape.includes(0)) return offset;
  return shape.reduce((last, n, i) => last + (n - 1) * strides[i], offset) + 1;
}

/** Elements from the first to the last that the view touches. */
function spanOf({ offset, shape, strides }: TensorRef): number {
  return viewEnd(offset, shape, strides) - offset;
}

function isContiguous({ shape, strides }: TensorRef): boolean {
  return stridesOf(shape).every((s, i) => s === strides[i] || shape[i] === 1);
}

/** Elements of a width as numbers that can be moved without a change. */
const WORDS: Readonly<
  Record<number, Uint8ArrayConstructor | Uint16ArrayConstructor | Uint32ArrayConstructor | BigUint64ArrayConstructor>
> = {
  1: Uint8Array,
  2: Uint16Array,
  4: Uint32Array,
  8: BigUint64Array,
};
type Words = Uint8Array | Uint16Array | Uint32Array | BigUint64Array | Float64Array;

/** Elements of a strided view in row-major order. */
function gathered<T extends Words>(span: T, shape: Shape, strides: readonly number[]): T {
  const out = new (span.constructor as new (length: number) => T)(numel(shape));
  const index = shape.map(() => 0);
  let from = 0;
  for (let i = 0; i < out.length; i++) {
    out[i] = span[from];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += strides[axis];
      if (++index[axis] < shape[axis]) break;
      from -= shape[axis] * strides[axis];
      index[axis] = 0;
    }
  }
  return out;
}

/** The bytes of each element in the other order. */
function swapped(raw: ArrayBuffer, width: number): ArrayBuffer {
  const bytes = new Uint8Array(raw);
  for (let i = 0; i < bytes.length; i += width) bytes.subarray(i, i + width).reverse();
  return raw;
}

/**
 * Opens a torch checkpoint of either container and checks it; tensors are read from disk when asked for. Close it afterwards.
 * @throws TorchFileError naming the file and what is wrong: damage, or a global that is not allowed
 */
export async function openTorch(path: string): Promise<TorchFile> {
  const source = await fileSource(path);
  return torch(source).catch(async (error) => {
    await source.close();
    throw error;
  });
}

/** The same for a file that is in memory already; `label` stands for its path in messages. */
export async function parseTorch(file: Uint8Array, label = "torch"): Promise<TorchFile> {
  return torch(memorySource(file, label));
}

/** Reads and checks everything but the elements. */
export async function torch(source: Source): Promise<TorchFile> {
  const head = new Uint8Array(await source.bytes(0, Math.min(4, source.size)));
  return new TorchFile(source, isZip(head) ? await openZip(source) : await openLegacy(source));
}
