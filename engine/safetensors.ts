// The safetensors container: 8 bytes of header length, a JSON header (name -> dtype, shape, data_offsets), then the data.
// The reader refuses every file that the format does not allow, before it allocates; the writer gives the same bytes for
// the same tensors. Called by checkpoint.ts and by importers of foreign weights; knows no Parameter and no device.

import type { FileHandle } from "node:fs/promises";
import { replaceFile } from "./atomic.ts";
import type { Data } from "./dtype.ts";
import { show } from "./error.ts";
import { element, encode, firstMisfit, HOST_ARRAYS, hostArray, type WritableType } from "./safetensors/elements.ts";
import {
  type Entry,
  encodeHeader,
  type Header,
  inFileOrder,
  MAX_HEADER,
  parseHeader,
  type Refuse,
  SafetensorsError,
  type TensorInfo,
} from "./safetensors/header.ts";
import { numel, type Shape } from "./shape.ts";
import { CHUNK, fileSource, memorySource, type Source, type TensorStore } from "./source.ts";

export { SafetensorsError, type TensorInfo } from "./safetensors/header.ts";

// ---- reading -------------------------------------------------------------------------------------------------------

/** An open file: its header, checked, and its tensors one at a time. */
export class SafetensorsFile implements TensorStore {
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly #source: Source;
  readonly #dataStart: number;

  /** Use `openSafetensors` or `parseSafetensors`. */
  constructor(source: Source, header: Header, dataStart: number) {
    this.tensors = header.tensors;
    this.metadata = header.metadata;
    this.#source = source;
    this.#dataStart = dataStart;
  }

  /**
   * Values in row-major order, widened: floats to Float32Array (F64 rounds), signed integers to Int32Array, unsigned ones
   * and BOOL to Uint32Array.
   * @throws SafetensorsError when the name is unknown or a 64-bit integer needs more than 32 bits
   */
  async read(name: string): Promise<Data> {
    const info = this.#info(name);
    return this.#fill(name, info, hostArray(info.dtype, numel(info.shape)));
  }

  /** As `read`, exact in float64. @throws SafetensorsError when the name is unknown or an integer exceeds 2^53 */
  async readFloat64(name: string): Promise<Float64Array> {
    const info = this.#info(name);
    return this.#fill(name, info, new Float64Array(numel(info.shape)));
  }

  /** @throws SafetensorsError when the name is unknown */
  async *pieces(name: string, from = 0, to?: number): AsyncGenerator<Uint8Array> {
    const { dtype, shape, begin } = this.#info(name);
    const { bytes } = element(dtype);
    const stop = this.#dataStart + begin + (to ?? numel(shape)) * bytes;
    for (let at = this.#dataStart + begin + from * bytes; at < stop; at += CHUNK)
      yield new Uint8Array(await this.#source.bytes(at, Math.min(at + CHUNK, stop)));
  }

  /** Everything before the data, as it is in the file: with the same tensors behind it, the same file. */
  async header(): Promise<Uint8Array> {
    return new Uint8Array(await this.#source.bytes(0, this.#dataStart));
  }

  async close(): Promise<void> {
    await this.#source.close();
  }

  #info(name: string): TensorInfo {
    const info = this.tensors.get(name);
    if (!info) throw new SafetensorsError(`${this.#source.label}: there is no tensor "${name}"`);
    return info;
  }

  async #fill<T extends Data | Float64Array>(name: string, info: TensorInfo, out: T): Promise<T> {
    const { bytes, decode } = element(info.dtype);
    const [start, stop] = [this.#dataStart + info.begin, this.#dataStart + info.end];
    for (let at = start; at < stop; at += CHUNK) {
      const values = decode(await this.#source.bytes(at, Math.min(at + CHUNK, stop)));
      const offset = (at - start) / bytes;
      const bad = firstMisfit(values, info.dtype, out);
      if (bad >= 0) {
        const what = `element ${offset + bad} is ${values[bad]}, which ${out.constructor.name} cannot hold`;
        throw new SafetensorsError(`${this.#source.label}: tensor "${name}" (${info.dtype}): ${what}`);
      }
      out.set(values, offset);
    }
    return out;
  }
}

/**
 * Opens a file and reads its header; tensors are read from disk when asked for. Close it afterwards.
 * @throws SafetensorsError naming the file, the tensor and what is wrong; the error of the system when it cannot be read
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  const source = await fileSource(path);
  return safetensors(source).catch(async (error) => {
    await source.close();
    throw error;
  });
}

/** The same for a file that is in memory already; `label` stands for its path in messages. */
export async function parseSafetensors(file: Uint8Array, label = "safetensors"): Promise<SafetensorsFile> {
  return safetensors(memorySource(file, label));
}

/** Reads and checks the header; tensors are read when asked for. */
export async function safetensors(source: Source): Promise<SafetensorsFile> {
  const { label, size } = source;
  const refuse = (what: string): never => {
    throw new SafetensorsError(`${label}: not a valid safetensors file: ${what}`);
  };
  if (size < 8) return refuse(`it has ${size} bytes, fewer than the 8 of the header length`);
  const length = new DataView(await source.bytes(0, 8)).getBigUint64(0, true);
  if (length > MAX_HEADER) return refuse(`header of ${length} bytes; at most ${MAX_HEADER} are allowed`);
  const dataStart = 8 + Number(length);
  if (dataStart > size) return refuse(`header of ${length} bytes in a file of ${size}`);
  const header = parseHeader(await source.bytes(8, dataStart), size - dataStart, refuse);
  return new SafetensorsFile(source, header, dataStart);
}

// ---- writing -------------------------------------------------------------------------------------------------------

/** F16 and BF16 round float values; the others hold the values of their host array as they are. */
export interface TensorSource extends Entry {
  readonly dtype: WritableType;
  /** A function is called when the tensor's turn comes, so that one tensor at a time is in memory. */
  readonly values: Data | (() => Promise<Data>);
}

/** A tensor in bytes as the file shall have them, of any type: row-major and little-endian. */
export interface StoredSource extends Entry {
  readonly pieces: () => AsyncIterable<Uint8Array>;
}

/**
 * Writes the file, atomically. The bytes depend on the tensors and the metadata only, not on the order of the maps: data is
 * sorted by type and name, the metadata by key.
 * @throws SafetensorsError when values do not fit a tensor's shape or type, or a tensor is called "__metadata__"
 */
export async function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, TensorSource | StoredSource>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const order = inFileOrder(tensors);
  const header = encodeHeader(order, metadata, refuseIn(path));
  await replaceFile(path, async (file) => {
    await file.writeFile(header);
    for (const [name, tensor] of order) {
      const where = `${path}: tensor "${name}"`;
      if ("pieces" in tensor) await writePieces(file, where, tensor, tensor.pieces());
      else {
        const data = typeof tensor.values === "function" ? await tensor.values() : tensor.values;
        checkValues(where, tensor.dtype, tensor.shape, data);
        await file.writeFile(encode(data, tensor.dtype));
      }
    }
  });
}

/**
 * Writes a file with a header made by another program (`SafetensorsFile.header`), atomically: its tensors may lie in any
 * order that the format allows.
 * @throws SafetensorsError when the header is not valid, or the pieces of a tensor have another size than it says
 */
export async function writeBehindHeader(
  path: string,
  header: Uint8Array,
  pieces: (name: string) => AsyncIterable<Uint8Array>,
): Promise<void> {
  const order = [...tensorsOf(header, path)].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  await replaceFile(path, async (file) => {
    await file.writeFile(header);
    for (const [name, info] of order) await writePieces(file, `${path}: tensor "${name}"`, info, pieces(name));
  });
}

/** The tensors that a header (`SafetensorsFile.header`) lists. Throws SafetensorsError with `label` when it is not valid. */
export function tensorsOf(header: Uint8Array, label: string): ReadonlyMap<string, TensorInfo> {
  return parseHeader(new Uint8Array(header.subarray(8)).buffer, null, refuseIn(label)).tensors; // a Buffer shares memory
}

const refuseIn =
  (path: string): Refuse =>
  (what) => {
    throw new SafetensorsError(`${path}: ${what}`);
  };

async function writePieces(
  file: FileHandle,
  where: string,
  { dtype, shape }: Entry,
  pieces: AsyncIterable<Uint8Array>,
): Promise<void> {
  const expected = numel(shape) * element(dtype).bytes;
  let written = 0;
  for await (const piece of pieces) {
    await file.writeFile(piece);
    written += piece.byteLength;
  }
  if (written !== expected) throw new SafetensorsError(`${where}: ${written} bytes for ${dtype}${show(shape)}`);
}

function checkValues(where: string, dtype: WritableType, shape: Shape, data: Data): void {
  const wanted = HOST_ARRAYS[element(dtype).kind];
  if (!(data instanceof wanted)) {
    throw new SafetensorsError(`${where}: ${dtype} is written from ${wanted.name}, got ${data.constructor.name}`);
  }
  if (data.length !== numel(shape)) {
    throw new SafetensorsError(`${where}: ${data.length} values for shape ${show(shape)}`);
  }
}
