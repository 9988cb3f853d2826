// A pickled value as flat names: dictionaries, lists and settings objects are walked, keys and indices joined with dots.
// Values may be shared, even contain themselves; the walk is bounded.

import { TorchFileError } from "./error.ts";
import { Global, Tuple, type Value } from "./pickle.ts";
import { Bag, TensorRef } from "./world.ts";

export interface Flat {
  readonly tensors: ReadonlyMap<string, TensorRef>;
  readonly scalars: ReadonlyMap<string, number | bigint | string | boolean>;
}

const MAX_DEPTH = 64;
const MAX_VALUES = 1 << 20;
const MAX_NAME = 1000; // characters

/** Tensors and plain values by path. Throws TorchFileError when two have one path, or the value has no end. */
export function flatten(label: string, root: Value): Flat {
  const refuse = (what: string): never => {
    throw new TorchFileError(label, what);
  };
  const tensors = new Map<string, TensorRef>();
  const scalars = new Map<string, number | bigint | string | boolean>();
  let seen = 0;
  const add = <T>(map: Map<string, T>, path: string, value: T): void => {
    if (map.has(path)) refuse(`two values are called "${path}"`);
    map.set(path, value);
  };
  const walk = (value: Value, path: string, depth: number): void => {
    if (++seen > MAX_VALUES) refuse(`it holds more than ${MAX_VALUES} values`);
    if (depth > MAX_DEPTH || path.length > MAX_NAME) refuse("its values are nested too deeply");
    if (value instanceof TensorRef) add(tensors, path === "" ? "tensor" : path, value);
    else if (["number", "bigint", "string", "boolean"].includes(typeof value)) add(scalars, path, value as string);
    else for (const [key, child] of children(value)) walk(child, path === "" ? key : `${path}.${key}`, depth + 1);
  };
  walk(root, "", 0);
  return { tensors, scalars };
}

function children(value: Value): Iterable<readonly [string, Value]> {
  if (value instanceof Bag) return children(value.attributes);
  if (value instanceof Map) return pairs(value);
  if (value instanceof Tuple) return value.items.map((item, i) => [String(i), item] as const);
  if (Array.isArray(value)) return (value as readonly Value[]).map((item, i) => [String(i), item] as const);
  return [];
}

/** Keys that are no plain values have no path: what lies below them is left out. */
function* pairs(map: ReadonlyMap<Value, Value>): Generator<readonly [string, Value]> {
  for (const [key, value] of map) {
    if (key instanceof Global) yield [key.name, value];
    else if (key === null || typeof key !== "object") yield [String(key), value];
  }
}
