// Bytes by range, from a file or from memory: what readers of tensor files read through, so that a file of many gigabytes
// is never in memory whole. The readers themselves are safetensors.ts and torch/.

import { open } from "node:fs/promises";
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

export async function fileSource(path: string): Promise<Source> {
  const handle = await open(path, "r");
  const stat = await handle.stat();
  if (stat.isDirectory()) {
    await handle.close();
    throw new Error(`${path}: is a folder, not a file of tensors`);
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
