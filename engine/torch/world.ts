// The names that a torch file may use, and what they stand for here: tensors, parameters, storages, dtypes and ordered
// dictionaries become descriptions; the settings objects that trainers save beside them become bags of attributes. The
// list is closed. Any other name ends the reading with an error that says it; nothing is ever looked up or run.

import type { FileType } from "../safetensors/elements.ts";
import { Global, PickleError, Thing, Tuple, type Value, type World } from "./pickle.ts";

/** Elements in a row somewhere in the file. */
export class StorageRef extends Thing {
  readonly kind = "storage";
  readonly key: string;
  readonly dtype: FileType;
  /** Elements. */
  readonly length: number;
  /** A part of the storage `key`, from its element `start` on. */
  readonly part: boolean;
  readonly start: number;

  constructor(key: string, dtype: FileType, length: number, start?: number) {
    super();
    this.key = key;
    this.dtype = dtype;
    this.length = length;
    this.part = start !== undefined;
    this.start = start ?? 0;
  }
}

/** A view of a storage; offset and strides count elements of `dtype`. */
export class TensorRef extends Thing {
  readonly kind = "tensor";
  readonly storage: StorageRef;
  readonly dtype: FileType;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];

  constructor(storage: StorageRef, dtype: FileType, view: Pick<TensorRef, "offset" | "shape" | "strides">) {
    super();
    this.storage = storage;
    this.dtype = dtype;
    this.offset = view.offset;
    this.shape = view.shape;
    this.strides = view.strides;
  }
}

/** An object of settings: the name of its class, what it was made from, and its attributes. */
export class Bag extends Thing {
  readonly kind = "bag";
  readonly type: string;
  readonly args: readonly Value[];
  readonly attributes = new Map<Value, Value>();

  constructor(type: string, args: readonly Value[]) {
    super();
    this.type = type;
    this.args = args;
  }
}

/** A global that the file may not use. */
export class ForbiddenGlobal extends PickleError {
  override name = "ForbiddenGlobal";
}

const STORAGES: Readonly<Record<string, FileType>> = {
  FloatStorage: "F32",
  DoubleStorage: "F64",
  HalfStorage: "F16",
  BFloat16Storage: "BF16",
  LongStorage: "I64",
  IntStorage: "I32",
  ShortStorage: "I16",
  CharStorage: "I8",
  ByteStorage: "U8",
  BoolStorage: "BOOL",
  UntypedStorage: "U8",
};

const DTYPES: Readonly<Record<string, FileType>> = {
  float32: "F32",
  float64: "F64",
  float16: "F16",
  bfloat16: "BF16",
  float8_e5m2: "F8_E5M2",
  float8_e4m3fn: "F8_E4M3",
  int64: "I64",
  int32: "I32",
  int16: "I16",
  int8: "I8",
  uint64: "U64",
  uint32: "U32",
  uint16: "U16",
  uint8: "U8",
  bool: "BOOL",
};

/** Full name -> element type. Storages of files written on a GPU have a module of their own. */
const STORAGE_GLOBALS = new Map<string, FileType>(
  Object.entries(STORAGES).flatMap(([name, dtype]): [string, FileType][] =>
    ["torch", "torch.cuda", "torch.storage"].map((module) => [`${module}.${name}`, dtype]),
  ),
);
const DTYPE_GLOBALS = new Map(Object.entries(DTYPES).map(([name, dtype]) => [`torch.${name}`, dtype]));

type Call = (args: readonly Value[]) => Value;
const OMEGACONF = ["dictconfig.DictConfig", "listconfig.ListConfig", "nodes.AnyNode", "base.Metadata"];

/** Classes whose objects are settings: kept as bags, or as names where the file only mentions them. */
const INERT = new Set([
  "argparse.Namespace",
  ...[...OMEGACONF, "base.ContainerMetadata"].map((name) => `omegaconf.${name}`),
  "typing.Any",
  "pathlib.PosixPath",
  "pathlib.WindowsPath",
  "torch.device",
  "torch.Tensor",
  "torch.nn.parameter.Parameter",
  "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
  "numpy.dtype",
  "numpy.core.multiarray.scalar",
  "numpy._core.multiarray.scalar",
  ...["dict", "list", "int", "float", "str", "bool"].flatMap((name) => [`builtins.${name}`, `__builtin__.${name}`]),
]);

const CALLS: ReadonlyMap<string, Call> = new Map<string, Call>([
  ["collections.OrderedDict", orderedDict],
  ["builtins.set", ([items = []]) => new Set(list(items, "a set's elements"))],
  ["__builtin__.set", ([items = []]) => new Set(list(items, "a set's elements"))],
  ["torch.Size", ([items = new Tuple([])]) => new Tuple(list(items, "a size"))],
  ["torch._utils._rebuild_tensor", rebuild],
  ["torch._utils._rebuild_tensor_v2", rebuild],
  ["torch._utils._rebuild_tensor_v3", ([a, b, c, d, , , dtype]) => rebuild([a, b, c, d, dtype])],
  ["torch._utils._rebuild_parameter", ([data]) => tensorRef(data)],
  ["torch._utils._rebuild_parameter_with_state", ([data]) => tensorRef(data)],
  ["torch._tensor._rebuild_from_type_v2", rebuildFromType],
]);

function rebuildFromType([callee, , args]: readonly Value[]): Value {
  const call = callee instanceof Global && callee.name.startsWith("torch._utils.") ? CALLS.get(callee.name) : undefined;
  if (!call) throw new PickleError("a tensor is rebuilt by what is no function for it");
  return call(list(args, "the arguments of a tensor"));
}

/** The whole meaning of globals in a torch file. Adds every storage that is spoken of to `storages`. */
export function torchWorld(storages: Map<string, StorageRef>): World {
  return {
    global(name) {
      const known = CALLS.has(name) || STORAGE_GLOBALS.has(name) || DTYPE_GLOBALS.has(name) || INERT.has(name);
      if (!known) throw new ForbiddenGlobal(`it uses ${name}, which is not among the names that tensors need`);
      return new Global(name);
    },
    call({ name }, args) {
      const call = CALLS.get(name);
      if (call) return call(args);
      if (INERT.has(name)) return new Bag(name, args);
      throw new PickleError(`it calls ${name}`);
    },
    build,
    persistent(id) {
      const storage = storageRef(id);
      const known = storages.get(storage.key);
      if (known && known.dtype !== storage.dtype) throw new PickleError(`storage ${storage.key} has two dtypes`);
      storages.set(storage.key, storage);
      return storage;
    },
  };
}

function build(object: Value, state: Value): void {
  // An ordered dictionary's own attributes are notes of torch ("_metadata": versions of modules).
  if (object instanceof Map) return;
  if (!(object instanceof Bag)) throw new PickleError("it sets the state of what is no settings object");
  const attributes = state instanceof Map ? state : new Map<Value, Value>([["state", state]]);
  for (const [key, value] of attributes) object.attributes.set(key, value);
}

/** ("storage", type, key, device, length), in old files with (key, start, length) of a part of it, or None. */
function storageRef(id: Value): StorageRef {
  const [tag, type, key, , length, view] = id instanceof Tuple ? id.items : [];
  const dtype = type instanceof Global ? STORAGE_GLOBALS.get(type.name) : undefined;
  if (tag !== "storage" || !dtype || typeof key !== "string") throw new PickleError("it refers to an unknown object");
  if (!(view instanceof Tuple)) return new StorageRef(key, dtype, whole(length, "a storage's length"));
  const [, start, size] = view.items;
  return new StorageRef(key, dtype, whole(size, "a part's length"), whole(start, "a part's start"));
}

function orderedDict([pairs = []]: readonly Value[]): Value {
  return new Map(
    list(pairs, "a dictionary").map((pair): [Value, Value] => {
      const [key, value] = list(pair, "an item of a dictionary");
      return [key, value];
    }),
  );
}

/** (storage, offset, size, strides, ...): the dtype is that of the storage, or the fifth argument where that is one. */
function rebuild([storage, offset, size, strides, type]: readonly Value[]): TensorRef {
  if (!(storage instanceof StorageRef)) throw new PickleError("a tensor without a storage");
  const dtype = type instanceof Global ? DTYPE_GLOBALS.get(type.name) : storage.dtype;
  if (!dtype) throw new PickleError("a tensor of an unknown dtype");
  const [shape, steps] = [sizes(size, "a tensor's shape"), sizes(strides, "a tensor's strides")];
  if (shape.length !== steps.length)
    throw new PickleError(`a shape of rank ${shape.length} with ${steps.length} strides`);
  return new TensorRef(storage, dtype, { offset: whole(offset, "a tensor's offset"), shape, strides: steps });
}

function tensorRef(value: Value): TensorRef {
  if (value instanceof TensorRef) return value;
  throw new PickleError("a parameter without a tensor");
}

function list(value: Value, what: string): readonly Value[] {
  if (value instanceof Tuple) return value.items;
  if (Array.isArray(value)) return value as readonly Value[];
  throw new PickleError(`${what}: no list`);
}

const MAX_RANK = 64;

function sizes(value: Value, what: string): number[] {
  const items = list(value, what);
  if (items.length > MAX_RANK) throw new PickleError(`${what}: ${items.length} axes`);
  return items.map((n) => whole(n, what));
}

function whole(value: Value, what: string): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw new PickleError(`${what}: no whole number from 0`);
}
