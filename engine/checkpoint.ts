// Named parameters to a safetensors file and back, and from torch checkpoints. The containers themselves are safetensors.ts
// and torch/; which checkpoint to load, and the numbered folders of a training run, are train/'s business.

import type { Data, DType } from "./dtype.ts";
import { show } from "./error.ts";
import { element, fileType, type WritableType } from "./safetensors/elements.ts";
import { writeSafetensors } from "./safetensors.ts";
import { type Shape, sameShape } from "./shape.ts";
import type { TensorFile } from "./source.ts";
import type { Parameter } from "./state.ts";
import { openTensors } from "./tensor_file.ts";
import { TorchFile } from "./torch/index.ts";

/** A checkpoint that does not fit the model. The message lists every missing, extra and misshapen name. */
export class LoadError extends Error {
  override name = "LoadError";
}

export interface SaveOptions {
  /**
   * Element type of floating-point parameters in the file, rounded to nearest even: "BF16" keeps the range of f32 and 8
   * bits of precision, "F16" 11 bits and values up to 65504. Default: that of each parameter, without loss.
   */
  readonly floats?: "F32" | "F16" | "BF16";
}

/**
 * Writes all parameters to a safetensors file, atomically; equal values and metadata give equal bytes. Reads one parameter
 * at a time from the open device: run no step that assigns to them until it is done.
 */
export async function save(
  path: string,
  state: ReadonlyMap<string, Parameter>,
  meta: Readonly<Record<string, string>> = {},
  { floats }: SaveOptions = {},
): Promise<void> {
  const typeOf = (dtype: DType): WritableType => (KINDS[dtype] === "float" && floats) || fileType(dtype);
  const source = (parameter: Parameter) => ({
    dtype: typeOf(parameter.dtype),
    shape: parameter.shape,
    values: () => parameter.data(), // waits for the GPU
  });
  const tensors = new Map([...state].map(([name, parameter]) => [name, source(parameter)] as const));
  await writeSafetensors(path, tensors, meta);
}

/**
 * One map of all that a run saves: `joinState({ model: model.state(), adam: adam.state(), rng: rng.state })` names each
 * tensor by its part, "model.up.weight". Throws where two parts make one name.
 */
export function joinState(
  parts: Readonly<Record<string, ReadonlyMap<string, Parameter> | Parameter>>,
): Map<string, Parameter> {
  const all = new Map<string, Parameter>();
  for (const [part, state] of Object.entries(parts)) {
    const named = state instanceof Map ? [...state].map(([name, p]) => [`${part}.${name}`, p]) : [[part, state]];
    for (const [name, p] of named as [string, Parameter][]) {
      if (all.has(name)) throw new Error(`joinState: two parameters are called ${name}`);
      all.set(name, p);
    }
  }
  return all;
}

export interface LoadOptions {
  /** Takes only names that begin with this, without it: "state_dict." of a nested checkpoint. */
  readonly prefix?: string;
  /** Name in the file, less the prefix -> name in `into`; null leaves the tensor out. Default: the same name. */
  rename?(name: string): string | null;
  /** Accepts missing and extra names: what both sides have is loaded. Shapes and types must still agree. */
  readonly partial?: boolean;
  /**
   * How convolution weights lie in the file: "torch" has [out, in, ...kernel], and they are reordered. Default: "torch" for
   * torch files, "own" for safetensors; those written by torch programs need "torch".
   */
  readonly layout?: "own" | "torch";
  /** What messages call a file that is given open; default "the file". */
  readonly label?: string;
}

/**
 * Replaces the values of `into` by those of a safetensors or torch file, by its path or already open (`parseTensors` of
 * fetched bytes, in a browser), and returns its metadata (of a torch file: the numbers and texts beside the tensors, by
 * path). Floats of any width fill f32 and f16 parameters, signed integers i32,
 * unsigned ones u32 and bool. Of a tied weight, which `into` has under several names, one is enough.
 * @throws LoadError when names, shapes or types differ, or values of tied names: nothing is loaded then. SafetensorsError or TorchFileError when the
 * file is damaged, or would run code if it were unpickled.
 */
export async function load(
  from: string | TensorFile,
  into: ReadonlyMap<string, Parameter>,
  options: LoadOptions = {},
): Promise<Record<string, string>> {
  if (typeof from !== "string") return loadOpen(from, options.label ?? "the file", into, options);
  const file = await openTensors(from);
  try {
    return await loadOpen(file, from, into, options);
  } finally {
    await file.close();
  }
}

async function loadOpen(
  file: TensorFile,
  label: string,
  into: ReadonlyMap<string, Parameter>,
  options: LoadOptions,
): Promise<Record<string, string>> {
  const torch = (options.layout ?? (file instanceof TorchFile ? "torch" : "own")) === "torch";
  const pairs = match(label, file, into, { ...options, layout: torch ? "torch" : "own" });
  await checkTies(label, file, pairs);
  for (const { name, parameter } of pairs) {
    const values = await file.read(name);
    parameter.write(torch && isConv(parameter) ? fromTorch(values, parameter.shape) : values);
  }
  return { ...file.metadata };
}

/** Throws LoadError when names of one parameter have different values in the file. */
async function checkTies(label: string, file: TensorFile, pairs: readonly Pair[]): Promise<void> {
  const first = new Map<Parameter, string>();
  for (const { name, parameter } of pairs) {
    const other = first.get(parameter);
    first.set(parameter, other ?? name);
    if (other === undefined) continue;
    const [a, b] = [await file.read(other), await file.read(name)];
    if (!a.every((v, i) => Object.is(v, b[i])))
      throw new LoadError(`${label} does not fit:\n  tied here, different there: ${other} and ${name}`);
  }
}

const isConv = ({ layout, shape }: Parameter): boolean => layout === "conv" && shape.length > 2;

/** Shape of a parameter in torch's files, which have [out, in, ...kernel] for [...kernel, in, out]. */
export function torchShape(parameter: Parameter): Shape {
  const { shape } = parameter;
  return !isConv(parameter) ? shape : [shape[shape.length - 1], shape[shape.length - 2], ...shape.slice(0, -2)];
}

/** Values in torch's order, [out, in, ...kernel], as [...kernel, in, out] = `shape`. */
function fromTorch(values: Data, shape: Shape): Data {
  const [inputs, outputs] = shape.slice(-2);
  const taps = values.length / (inputs * outputs);
  const out = values.slice();
  for (let o = 0; o < outputs; o++)
    for (let i = 0; i < inputs; i++)
      for (let k = 0; k < taps; k++) out[(k * inputs + i) * outputs + o] = values[(o * inputs + i) * taps + k];
  return out;
}

interface Pair {
  /** The name in the file. */
  readonly name: string;
  readonly parameter: Parameter;
}

function match(
  label: string,
  file: TensorFile,
  into: ReadonlyMap<string, Parameter>,
  { prefix = "", rename = (name) => name, partial = false, layout }: LoadOptions,
): Pair[] {
  const taken = new Map<string, Pair>();
  const problems: string[] = [];
  for (const [name, info] of file.tensors) {
    const target = name.startsWith(prefix) ? rename(name.slice(prefix.length)) : null;
    if (target === null) continue;
    const parameter = into.get(target);
    const other = taken.get(target)?.name;
    if (other !== undefined) problems.push(`twice: ${target}, from ${other} and ${name}`);
    else if (parameter) {
      taken.set(target, { name, parameter });
      const reason = mismatch(info, parameter, layout === "torch" && isConv(parameter));
      if (reason) problems.push(`misshapen: ${target}: ${reason}`);
    } else if (!partial) problems.push(`extra: ${target}`);
  }
  const filled = new Set([...taken.values()].map((pair) => pair.parameter));
  const missing = partial ? [] : [...into].filter(([, parameter]) => !filled.has(parameter));
  problems.push(...missing.map(([name]) => `missing: ${name}`));
  if (problems.length > 0) throw new LoadError(`${label} does not fit:\n  ${problems.join("\n  ")}`);
  return [...taken.values()];
}

const KINDS = {
  f32: "float",
  f16: "float",
  i32: "signed",
  u32: "unsigned",
  bool: "unsigned",
} as const satisfies Record<DType, string>;

function mismatch(info: Stored, parameter: Parameter, reorder: boolean): string | undefined {
  const wanted = reorder ? torchShape(parameter) : parameter.shape;
  if (sameShape(info.shape, wanted) && element(info.dtype).kind === KINDS[parameter.dtype]) return undefined;
  const here = `${parameter.dtype}${show(wanted)} here${reorder ? " in torch's order of axes" : ""}`;
  return `${info.dtype}${show(info.shape)} in the file, ${here}`;
}

type Stored = TensorFile["tensors"] extends ReadonlyMap<string, infer T> ? T : never;
