// Named parameters to a safetensors file and back. The container itself is safetensors.ts; which checkpoint to load, and
// the numbered folders of a training run, are train/'s business.

import type { DType } from "./dtype.ts";
import { show } from "./error.ts";
import { element, fileType } from "./safetensors/elements.ts";
import { openSafetensors, type SafetensorsFile, type TensorInfo, writeSafetensors } from "./safetensors.ts";
import { sameShape } from "./shape.ts";
import type { Parameter } from "./state.ts";

/** A checkpoint that does not fit the model. The message lists every missing, extra and misshapen name. */
export class LoadError extends Error {
  override name = "LoadError";
}

/**
 * Writes all parameters to a safetensors file, atomically; equal values and metadata give equal bytes. Reads one parameter
 * at a time from the open device: run no step that assigns to them until it is done.
 */
export async function save(
  path: string,
  state: ReadonlyMap<string, Parameter>,
  meta: Readonly<Record<string, string>> = {},
): Promise<void> {
  const source = (parameter: Parameter) => ({
    dtype: fileType(parameter.dtype),
    shape: parameter.shape,
    values: () => parameter.data(), // waits for the GPU
  });
  const tensors = new Map([...state].map(([name, parameter]) => [name, source(parameter)] as const));
  await writeSafetensors(path, tensors, meta);
}

export interface LoadOptions {
  /** Name in the file -> name in `into`; null leaves the tensor out. Default: the same name. */
  rename?(name: string): string | null;
  /** Accepts missing and extra names: what both sides have is loaded. Shapes and types must still agree. */
  readonly partial?: boolean;
}

/**
 * Replaces the values of `into` by those of the file and returns its metadata. Floats of any width fill f32 parameters,
 * signed integers i32, unsigned ones u32 and bool.
 * @throws LoadError when names, shapes or types differ: nothing is loaded then. SafetensorsError when the file is damaged.
 */
export async function load(
  path: string,
  into: ReadonlyMap<string, Parameter>,
  options: LoadOptions = {},
): Promise<Record<string, string>> {
  const file = await openSafetensors(path);
  try {
    const pairs = match(path, file, into, options);
    for (const { name, parameter } of pairs) parameter.write(await file.read(name));
    return { ...file.metadata };
  } finally {
    await file.close();
  }
}

interface Pair {
  /** The name in the file. */
  readonly name: string;
  readonly parameter: Parameter;
}

function match(
  path: string,
  file: SafetensorsFile,
  into: ReadonlyMap<string, Parameter>,
  { rename = (name) => name, partial = false }: LoadOptions,
): Pair[] {
  const taken = new Map<string, Pair>();
  const problems: string[] = [];
  for (const [name, info] of file.tensors) {
    const target = rename(name);
    if (target === null) continue;
    const parameter = into.get(target);
    const other = taken.get(target)?.name;
    if (other !== undefined) problems.push(`twice: ${target}, from ${other} and ${name}`);
    else if (parameter) {
      taken.set(target, { name, parameter });
      const reason = mismatch(info, parameter);
      if (reason) problems.push(`misshapen: ${target}: ${reason}`);
    } else if (!partial) problems.push(`extra: ${target}`);
  }
  const missing = partial ? [] : [...into.keys()].filter((name) => !taken.has(name));
  problems.push(...missing.map((name) => `missing: ${name}`));
  if (problems.length > 0) throw new LoadError(`${path} does not fit:\n  ${problems.join("\n  ")}`);
  return [...taken.values()];
}

const KINDS = {
  f32: "float",
  f16: "float",
  i32: "signed",
  u32: "unsigned",
  bool: "unsigned",
} as const satisfies Record<DType, string>;

function mismatch(info: TensorInfo, parameter: Parameter): string | undefined {
  const fits = sameShape(info.shape, parameter.shape) && element(info.dtype).kind === KINDS[parameter.dtype];
  return fits
    ? undefined
    : `${info.dtype}${show(info.shape)} in the file, ${parameter.dtype}${show(parameter.shape)} here`;
}
