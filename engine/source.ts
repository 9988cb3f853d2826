// Bytes by range, from a file or from memory: what readers of tensor files read through, so that a file of many gigabytes
// is never in memory whole. The readers themselves are safetensors.ts and torch/.

import { constants, open } from "node:fs/promises";
import type { Data } from "./dtype.ts";
import type { FileType } from "./safetensors/elements.ts";
import type { Shape } from "./shape.ts";

/** Bytes read at once: with the result, all the memory that reading a tensor takes. */
export const CHUNK = 1 << 22;

export interface Source {
  /** The path, or what stands for it in messages. */
  readonly label: string;
  readonly size: number;
  /** Exactly the bytes [begin, end), in a buffer of their own. */
  bytes(begin: number, end: number): Promise<ArrayBuffer>;
  close(): Promise<void>;
}

/** An open file of named tensors, whatever its format. */
export interface TensorFile {
  readonly tensors: ReadonlyMap<string, { readonly dtype: FileType; readonly shape: Shape }>;
  readonly metadata: Readonly<Record<string, string>>;
  /** Values in row-major order, widened to 32 bits: floats, signed integers, or unsigned ones and bools. */
  read(name: string): Promise<Data>;
  /** Exact in float64. */
  readFloat64(name: string): Promise<Float64Array>;
  close(): Promise<void>;
}

/** A file of tensors whose stored bytes can be had too, for those who copy tensors without widening them. */
export interface TensorStore extends TensorFile {
  /**
   * The stored bytes of the elements [from, to), by default of all, row-major and little-endian, a few MB at a time: each
   * piece is whole elements in a buffer of its own.
   */
  pieces(name: string, from?: number, to?: number): AsyncIterable<Uint8Array>;
}

export async function fileSource(path: string): Promise<Source> {
  // Without waiting: a named pipe would otherwise be opened when somebody writes to it.
  const handle = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  const stat = await handle.stat();
  if (!stat.isFile()) {
    await handle.close();
    throw new Error(`${path}: is ${stat.isDirectory() ? "a folder" : "no regular file"}, not a file of tensors`);
  }
  const bytes = async (begin: number, end: number): Promise<ArrayBuffer> => {
    const out = new Uint8Array(end - begin);
    for (let done = 0; done < out.length; ) {
      const { bytesRead } = await handle.read(out, done, out.length - done, begin + done);
      if (bytesRead === 0) throw new Error(`${path}: the file became shorter while it was read`);
      done += bytesRead;
    }
    return out.buffer;
  };
  return { label: path, size: stat.size, bytes, close: () => handle.close() };
}

export function memorySource(file: Uint8Array, label: string): Source {
  const bytes = async (begin: number, end: number): Promise<ArrayBuffer> =>
    new Uint8Array(file.subarray(begin, end)).buffer;
  return { label, size: file.byteLength, bytes, close: async () => {} };
}
