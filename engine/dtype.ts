// Element types: what they are called, how they lie in memory, and float16 packing. Arithmetic is f32, i32, u32 and bool;
// values of f16 are computed as f32 and rounded (see half.ts), and take two bytes where the adapter has shader-f16.

import { DTypeError, got } from "./error.ts";

const DTYPES = ["f32", "i32", "u32", "bool", "f16"] as const;
/** What an element is. Numbers of each are 32 bits wide on a device, f16 16 where the adapter has such floats. */
export type DType = (typeof DTYPES)[number];
/** Values on the host: f32 and f16 as Float32Array, i32 as Int32Array, u32 and bool (0 or 1) as Uint32Array. */
export type Data = Float32Array | Int32Array | Uint32Array;

/** WGSL type of a loaded value of this dtype. A bool is stored as 0 or 1 in a u32; an f16 is computed with as f32. */
export function storageType(dtype: DType): "f32" | "i32" | "u32" {
  if (dtype === "f16") return "f32";
  return dtype === "bool" ? "u32" : dtype;
}

/** WGSL type that a storage buffer of this dtype holds; `halves`: the adapter has 16-bit floats. */
export function bufferType(dtype: DType, halves: boolean): "f32" | "i32" | "u32" | "f16" {
  return dtype === "f16" && halves ? "f16" : storageType(dtype);
}

/** Bytes of one element in a buffer. */
export function elementBytes(dtype: DType, halves: boolean): number {
  return dtype === "f16" && halves ? 2 : 4;
}

/** Throws unless `dtype` is one. */
export function checkDType(op: string, dtype: DType): void {
  if (!DTYPES.includes(dtype))
    throw new DTypeError(`${op}: ${got(dtype)} is not a dtype (one of ${DTYPES.join(", ")})`);
}

export function isFloat(dtype: DType): boolean {
  return dtype === "f32" || dtype === "f16";
}

/** A host array of `length` zeros. */
export function emptyData(dtype: DType, length: number): Data {
  if (dtype === "f32" || dtype === "f16") return new Float32Array(length);
  return dtype === "i32" ? new Int32Array(length) : new Uint32Array(length);
}

/** Host values converted to the typed array of `dtype`. */
export function toData(dtype: DType, values: ArrayLike<number>): Data {
  const out = emptyData(dtype, values.length);
  for (let i = 0; i < values.length; i++)
    out[i] = dtype === "bool" ? Number(values[i] !== 0) : dtype === "f16" ? roundHalf(values[i]) : values[i];
  return out;
}

/** dtype of a host array. */
export function dtypeOf(data: Data): DType {
  return data instanceof Float32Array ? "f32" : data instanceof Int32Array ? "i32" : "u32";
}

const bits = new DataView(new ArrayBuffer(4));

/** float32 -> float16 bit pattern, round to nearest even, overflow to infinity. */
export function packHalf(x: number): number {
  bits.setFloat32(0, x);
  const word = bits.getUint32(0);
  const sign = (word >>> 16) & 0x8000;
  const exponent = ((word >>> 23) & 0xff) - 112;
  const mantissa = word & 0x7fffff;
  if (exponent >= 31) return sign | 0x7c00 | (exponent === 143 && mantissa !== 0 ? 0x200 : 0);
  if (exponent < -10) return sign;
  const full = exponent > 0 ? (exponent << 23) | mantissa : (mantissa | 0x800000) >>> (1 - exponent);
  const lost = exponent > 0 ? 0 : (mantissa | 0x800000) & ((1 << (1 - exponent)) - 1);
  const half = full >>> 13;
  const rest = full & 0x1fff;
  const up = rest > 0x1000 || (rest === 0x1000 && (lost !== 0 || (half & 1) === 1));
  return sign | (half + Number(up));
}

/** float16 bit pattern -> number. */
export function unpackHalf(h: number): number {
  const sign = h & 0x8000 ? -1 : 1;
  const exponent = (h >>> 10) & 31;
  const mantissa = h & 0x3ff;
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent === 0 ? sign * mantissa * 2 ** -24 : sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

/** The nearest number that float16 holds, ties to even; from 65520 on infinity. */
export function roundHalf(x: number): number {
  return unpackHalf(packHalf(x));
}

/** Bit patterns of numbers, in an even number of elements: what is copied to a device is a multiple of four bytes. */
export function packHalves(values: ArrayLike<number>): Uint16Array<ArrayBuffer> {
  const out = new Uint16Array(values.length + (values.length % 2));
  for (let i = 0; i < values.length; i++) out[i] = packHalf(values[i]);
  return out;
}
