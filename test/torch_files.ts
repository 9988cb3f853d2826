// Torch checkpoint files made here, byte by byte, for tests of the reader: a pickler of state dictionaries in torch's own
// manner, the zip container and the old one. Written from the formats, independently of engine/torch.

import { deflateRawSync } from "node:zlib";

export interface MadeStorage {
  readonly dtype: keyof typeof TYPES;
  readonly values: readonly number[];
}
export interface MadeTensor {
  readonly storage: number;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  /** Wrapped as an nn.Parameter. */
  readonly parameter?: boolean;
}
export interface Made {
  readonly storages: readonly MadeStorage[];
  readonly tensors: Readonly<Record<string, MadeTensor>>;
}

type Put = (view: DataView, at: number, value: number, little: boolean) => void;
/** Storage class, bytes and writer of the element types that a test can write without rounding. */
export const TYPES = {
  F32: { name: "FloatStorage", bytes: 4, put: ((v, at, x, le) => v.setFloat32(at, x, le)) as Put },
  F64: { name: "DoubleStorage", bytes: 8, put: ((v, at, x, le) => v.setFloat64(at, x, le)) as Put },
  BF16: { name: "BFloat16Storage", bytes: 2, put: ((v, at, x, le) => v.setUint16(at, upper(x), le)) as Put },
  I64: { name: "LongStorage", bytes: 8, put: ((v, at, x, le) => v.setBigInt64(at, BigInt(x), le)) as Put },
  I16: { name: "ShortStorage", bytes: 2, put: ((v, at, x, le) => v.setInt16(at, x, le)) as Put },
  U8: { name: "ByteStorage", bytes: 1, put: ((v, at, x) => v.setUint8(at, x)) as Put },
} as const;

const upper = (x: number): number => new Uint32Array(Float32Array.of(x).buffer)[0] >>> 16;

function elements({ dtype, values }: MadeStorage, little: boolean): Uint8Array {
  const { bytes, put } = TYPES[dtype];
  const view = new DataView(new ArrayBuffer(bytes * values.length));
  for (const [i, x] of values.entries()) put(view, i * bytes, x, little);
  return new Uint8Array(view.buffer);
}

// ---- pickle

const ascii = (text: string): number[] => [...Buffer.from(text, "utf8")];
const u32 = (n: number): number[] => [n & 255, (n >>> 8) & 255, (n >>> 16) & 255, (n >>> 24) & 255];
const int = (n: number): number[] => (n < 256 ? [0x4b, n] : [0x4a, ...u32(n)]);
const text = (s: string): number[] => [0x58, ...u32(Buffer.byteLength(s)), ...ascii(s)];
/** GLOBAL, or the text and STACK_GLOBAL of protocol 4. */
const global = (name: string, protocol: number): number[] => {
  const [module, member] = [name.slice(0, name.lastIndexOf(".")), name.slice(name.lastIndexOf(".") + 1)];
  return protocol < 4 ? [0x63, ...ascii(`${module}\n${member}\n`)] : [...text(module), ...text(member), 0x93];
};
const tuple = (...items: number[][]): number[] => [0x28, ...items.flat(), 0x74];
const call = (callee: number[], args: number[]): number[] => [...callee, ...args, 0x52];
const pickle = (protocol: number, body: number[]): number[] => [0x80, protocol, ...body, 0x2e];

const key = (i: number): string => `${1000 + i}`;

/** Text of the pickle of { name: tensor } as an OrderedDict with `_metadata`, as state_dict() gives it. */
function stateDict({ storages, tensors }: Made, protocol: number, last: number[]): number[] {
  const ordered = call(global("collections.OrderedDict", protocol), [0x29]);
  const items = Object.entries(tensors).map(([name, t]) => [...text(name), ...tensor(t, storages, protocol, last)]);
  const state = [0x7d, ...text("_metadata"), ...ordered, 0x73];
  return [...ordered, 0x28, ...items.flat(), 0x75, ...state, 0x62];
}

function tensor(t: MadeTensor, storages: readonly MadeStorage[], protocol: number, last: number[]): number[] {
  const { dtype, values } = storages[t.storage];
  const type = global(`torch.${TYPES[dtype].name}`, protocol);
  const id = tuple(text("storage"), type, text(key(t.storage)), text("cpu"), int(values.length), last);
  const hooks = call(global("collections.OrderedDict", protocol), [0x29]);
  const sizes = (list: readonly number[]): number[] => tuple(...list.map(int));
  const view = tuple([...id, 0x51], int(t.offset), sizes(t.shape), sizes(t.strides), [0x89], hooks);
  const made = call(global("torch._utils._rebuild_tensor_v2", protocol), view);
  return t.parameter ? call(global("torch._utils._rebuild_parameter", protocol), tuple(made, [0x88], hooks)) : made;
}

// ---- containers

export interface ZipOptions {
  readonly protocol?: number;
  readonly bigEndian?: boolean;
  readonly deflate?: boolean;
}

export function torchZip(
  made: Made,
  { protocol = 2, bigEndian = false, deflate = false }: ZipOptions = {},
): Uint8Array {
  const members: [string, Uint8Array][] = [
    ["archive/data.pkl", Uint8Array.from(pickle(protocol, stateDict(made, protocol, [])))],
    ["archive/byteorder", Buffer.from(bigEndian ? "big" : "little")],
    ...made.storages.map((s, i): [string, Uint8Array] => [`archive/data/${key(i)}`, elements(s, !bigEndian)]),
    ["archive/version", Buffer.from("3\n")],
  ];
  return zip(members, deflate);
}

/** A zip archive; check sums are left 0, as torch does when it is told not to compute them. */
export function zip(members: readonly (readonly [string, Uint8Array])[], deflate = false): Uint8Array {
  const parts: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let at = 0;
  for (const [name, content] of members) {
    const packed = deflate ? deflateRawSync(content) : content;
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(deflate ? 8 : 0, 4);
    common.writeUInt32LE(packed.length, 14);
    common.writeUInt32LE(content.length, 18);
    common.writeUInt16LE(name.length, 22);
    const central = Buffer.alloc(14);
    central.writeUInt32LE(at, 10);
    directory.push(Buffer.from("PK\x01\x02\x14\x00", "latin1"), common, central, Buffer.from(name));
    const local = [Buffer.from("PK\x03\x04", "latin1"), common, Buffer.from(name), packed];
    parts.push(...local);
    at += local.reduce((sum, part) => sum + part.length, 0);
  }
  const listed = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write("PK\x05\x06", "latin1");
  end.writeUInt16LE(members.length, 8);
  end.writeUInt16LE(members.length, 10);
  end.writeUInt32LE(listed.length, 12);
  end.writeUInt32LE(at, 16);
  return Buffer.concat([...parts, listed, end]);
}

export function torchLegacy(made: Made): Uint8Array {
  const magic = [0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
  const used = [...new Set(Object.values(made.tensors).map((t) => t.storage))].sort((a, b) => a - b);
  const keys = [0x5d, 0x28, ...used.flatMap((i) => text(key(i))), 0x65];
  const pickles = [magic, [0x4d, 0xe9, 0x03], [0x7d], stateDict(made, 2, [0x4e]), keys].map((body) => pickle(2, body));
  const data = used.map((i) => {
    const count = Buffer.alloc(8);
    count.writeBigInt64LE(BigInt(made.storages[i].values.length));
    return Buffer.concat([count, elements(made.storages[i], true)]);
  });
  return Buffer.concat([Uint8Array.from(pickles.flat()), ...data]);
}

/** A pickle that calls `name` with one text, in the zip container. */
export function torchCalling(name: string): Uint8Array {
  const body = call(global(name, 2), tuple(text("touch gifgrad_was_here")));
  return zip([["archive/data.pkl", Uint8Array.from(pickle(2, body))]]);
}
