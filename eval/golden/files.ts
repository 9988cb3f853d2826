// Files of golden folders: JSON and safetensors, with errors of one line that name the file.

import { access, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { openSafetensors, type SafetensorsFile } from "../../engine/safetensors.ts";
import type { Shape } from "../../engine/shape.ts";
import { type Tensor, tensor } from "../../engine/tensor.ts";

export async function exists(folder: string, file: string): Promise<boolean> {
  return access(join(folder, file)).then(
    () => true,
    () => false,
  );
}

/** The value of a JSON file; null when it is absent. Throws when it is not JSON. For `recognises`. */
export async function peekJson(folder: string, file: string): Promise<unknown> {
  return (await exists(folder, file)) ? readJson<unknown>(folder, file) : null;
}

export async function readJson<T>(folder: string, file: string): Promise<T> {
  const text = await readFile(join(folder, file), "utf8").catch(() => missing(folder, file));
  try {
    return JSON.parse(text) as T;
  } catch (error) {
    throw new Error(`${file} is not JSON: ${(error as Error).message}`);
  }
}

/** A stored tensor: float64 holds every value that the files have. */
export interface Stored {
  readonly shape: Shape;
  readonly data: Float64Array;
  /** Stored as integers or bools: compared for equality, and i32 on the device. */
  readonly whole: boolean;
}

/** Every tensor of a safetensors file by name. */
export async function readTensors(folder: string, file: string): Promise<Map<string, Stored>> {
  if (!(await exists(folder, file))) return missing(folder, file);
  const opened = await openSafetensors(join(folder, file));
  try {
    return new Map(await Promise.all([...opened.tensors.keys()].map((name) => entry(opened, name))));
  } finally {
    await opened.close();
  }
}

async function entry(file: SafetensorsFile, name: string): Promise<[string, Stored]> {
  const { shape, dtype } = file.tensors.get(name)!;
  return [name, { shape, data: await file.readFloat64(name), whole: !/^B?F\d/.test(dtype) }];
}

/** On the device: floats as f32, whole numbers as i32. */
export function upload({ shape, data, whole }: Stored): Tensor {
  return tensor(whole ? Int32Array.from(data) : Float32Array.from(data), shape);
}

/** `stored.get(name)`, or an error that names it. */
export function need(stored: ReadonlyMap<string, Stored>, name: string): Stored {
  const found = stored.get(name);
  if (!found) throw new Error(`there is no tensor ${name}`);
  return found;
}

function missing(folder: string, file: string): never {
  throw new Error(`${basename(folder)} has no ${file}`);
}
