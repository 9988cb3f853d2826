// Element types as checkpoint files hold them (little-endian, like every machine this runs on), and their conversion to
// and from host arrays. Bytes in, numbers out: headers, shapes and offsets are the business of safetensors.ts.

import { type Data, type DType, packHalf, unpackHalf } from "../dtype.ts";

/** Element types of safetensors that can be read; the names are the format's. */
export type FileType = keyof typeof ELEMENTS;
/** Element types that can be written. */
export type WritableType = "F32" | "F16" | "BF16" | "I32" | "U32" | "BOOL";

interface Element {
  readonly bytes: number;
  /** Which host array holds its values: Float32Array, Int32Array or Uint32Array. */
  readonly kind: "float" | "signed" | "unsigned";
  decode(buffer: ArrayBuffer): ArrayLike<number>;
}

const ELEMENTS = {
  F64: { bytes: 8, kind: "float", decode: (b) => new Float64Array(b) },
  F32: { bytes: 4, kind: "float", decode: (b) => new Float32Array(b) },
  F16: { bytes: 2, kind: "float", decode: (b) => lookUp(new Uint16Array(b), halves()) },
  BF16: { bytes: 2, kind: "float", decode: (b) => unpackBfloats(new Uint16Array(b)) },
  F8_E5M2: {
    bytes: 1,
    kind: "float",
    decode: (b) =>
      lookUp(
        new Uint8Array(b),
        table(256, (x) => unpackHalf(x << 8)),
      ),
  },
  F8_E4M3: { bytes: 1, kind: "float", decode: (b) => lookUp(new Uint8Array(b), table(256, unpackE4M3)) },
  I64: { bytes: 8, kind: "signed", decode: (b) => Float64Array.from(new BigInt64Array(b), Number) },
  I32: { bytes: 4, kind: "signed", decode: (b) => new Int32Array(b) },
  I16: { bytes: 2, kind: "signed", decode: (b) => new Int16Array(b) },
  I8: { bytes: 1, kind: "signed", decode: (b) => new Int8Array(b) },
  U64: { bytes: 8, kind: "unsigned", decode: (b) => Float64Array.from(new BigUint64Array(b), Number) },
  U32: { bytes: 4, kind: "unsigned", decode: (b) => new Uint32Array(b) },
  U16: { bytes: 2, kind: "unsigned", decode: (b) => new Uint16Array(b) },
  U8: { bytes: 1, kind: "unsigned", decode: (b) => new Uint8Array(b) },
  BOOL: { bytes: 1, kind: "unsigned", decode: (b) => new Uint8Array(b).map((x) => Number(x !== 0)) },
} as const satisfies Record<string, Element>;

/** Which host array holds values of a kind. */
export const HOST_ARRAYS = { float: Float32Array, signed: Int32Array, unsigned: Uint32Array } as const;

export function isFileType(name: unknown): name is FileType {
  return typeof name === "string" && Object.hasOwn(ELEMENTS, name);
}

/** Size and host kind of an element type, and its decoder. */
export function element(type: FileType): Element {
  return ELEMENTS[type];
}

/** A host array for elements of a type, 32 bits wide. */
export function hostArray(type: FileType, length: number): Data {
  const { kind } = element(type);
  return new HOST_ARRAYS[kind](length);
}

/** Index of the first element of a 64-bit integer type that `out` cannot hold exactly; -1 when all fit. */
export function firstMisfit(values: ArrayLike<number>, type: FileType, out: Data | Float64Array): number {
  if (type !== "I64" && type !== "U64") return -1; // only these have more than 32 bits of an integer
  const fits =
    out instanceof Int32Array
      ? (x: number) => x === (x | 0)
      : out instanceof Uint32Array
        ? (x: number) => x === x >>> 0
        : Number.isSafeInteger;
  for (let i = 0; i < values.length; i++) if (!fits(values[i])) return i;
  return -1;
}

/** Names of all element types that can be read, for messages. */
export const FILE_TYPES: readonly string[] = Object.keys(ELEMENTS);

/** The type that holds values of `dtype` without loss. */
export function fileType(dtype: DType): WritableType {
  return ({ f32: "F32", f16: "F16", i32: "I32", u32: "U32", bool: "BOOL" } as const)[dtype];
}

/** The bytes of `values` as `type`; the two short float types round to nearest, ties to even. */
export function encode(values: Data, type: WritableType): Uint8Array {
  if (type === "F16") return bytesOf(Uint16Array.from(values, packHalf));
  if (type === "BF16") return bytesOf(packBfloats(Float32Array.from(values)));
  if (type === "BOOL") return Uint8Array.from(values, (x) => Number(x !== 0));
  return bytesOf(values);
}

function bytesOf(array: Data | Uint16Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function table(length: number, value: (index: number) => number): Float32Array {
  return Float32Array.from({ length }, (_, i) => value(i));
}

let halfTable: Float32Array | undefined;
function halves(): Float32Array {
  halfTable ??= table(65_536, unpackHalf);
  return halfTable;
}

function lookUp(indices: Uint8Array | Uint16Array, values: Float32Array): Float32Array {
  const out = new Float32Array(indices.length);
  for (let i = 0; i < out.length; i++) out[i] = values[indices[i]];
  return out;
}

/** bfloat16 is the upper half of a float32. */
function unpackBfloats(upper: Uint16Array): Float32Array {
  const words = new Uint32Array(upper.length);
  for (let i = 0; i < words.length; i++) words[i] = upper[i] << 16;
  return new Float32Array(words.buffer);
}

function packBfloats(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer);
  // Adding half of the last kept place carries into it; one less than half when that place is even makes ties even. A NaN
  // must not be rounded: the carry could make it an infinity.
  return Uint16Array.from(words, (w, i) =>
    Number.isNaN(values[i]) ? (w >>> 16) | 0x40 : (w + 0x7fff + ((w >>> 16) & 1)) >>> 16,
  );
}

/** 8-bit float of 4 exponent and 3 mantissa bits without infinities (Micikevicius et al. 2022, "FP8 formats"). */
function unpackE4M3(x: number): number {
  const sign = x & 0x80 ? -1 : 1;
  const [exponent, mantissa] = [(x >>> 3) & 15, x & 7];
  if ((x & 0x7f) === 0x7f) return Number.NaN;
  return exponent === 0 ? sign * mantissa * 2 ** -9 : sign * (1 + mantissa / 8) * 2 ** (exponent - 7);
}
