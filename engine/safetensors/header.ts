// The JSON header of a safetensors file: name -> dtype, shape, data_offsets, and free text under "__metadata__". Everything
// that the format forbids is refused here, on the header alone; the bytes of the tensors are the business of
// safetensors.ts.

import { show } from "../error.ts";
import { numel, type Shape } from "../shape.ts";
import { element, FILE_TYPES, type FileType, isFileType } from "./elements.ts";

/** A file that is not valid safetensors, or values that do not fit. The message names the file and the tensor. */
export class SafetensorsError extends Error {
  override name = "SafetensorsError";
}

export interface TensorInfo {
  readonly dtype: FileType;
  readonly shape: Shape;
  /** Bytes [begin, end) of the data, which starts after the header. */
  readonly begin: number;
  readonly end: number;
}

/** Bytes a header may have: the limit of the format. */
export const MAX_HEADER = 100_000_000;

export interface Header {
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** Throws with the file's name before what is wrong. */
export type Refuse = (what: string) => never;
const METADATA = "__metadata__";

/** The checked header of a file whose tensors take `dataBytes`; null: as many as they say. Calls `refuse` with the first thing that is wrong. */
export function parseHeader(bytes: ArrayBuffer, dataBytes: number | null, refuse: Refuse): Header {
  const text = decodeText(bytes, refuse);
  if (!text.startsWith("{")) refuse("the header does not begin with {");
  const json = parseJson(text, refuse);
  const repeated = repeatedKey(text);
  if (repeated !== undefined) refuse(`the header names "${repeated}" twice`);
  const tensors = new Map<string, TensorInfo>();
  let metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(json)) {
    if (name === METADATA) metadata = checkMetadata(value, refuse);
    else
      tensors.set(
        name,
        checkTensor(value, (what) => refuse(`tensor "${name}": ${what}`)),
      );
  }
  const claimed = [...tensors.values()].reduce((most, { end }) => Math.max(most, end), 0);
  checkCoverage(tensors, dataBytes ?? claimed, refuse);
  return { tensors, metadata };
}

function decodeText(bytes: ArrayBuffer, refuse: Refuse): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return refuse("the header is not UTF-8");
  }
}

/** JSON.parse defines "__proto__" as an ordinary property, so no name can reach a prototype. */
function parseJson(text: string, refuse: Refuse): object {
  try {
    return JSON.parse(text) as object;
  } catch (error) {
    return refuse(`the header is not JSON: ${(error as Error).message}`);
  }
}

/** A key that some object of the JSON text holds twice; JSON.parse silently keeps the last. */
function repeatedKey(json: string): string | undefined {
  const open: Set<string>[] = [];
  for (let i = 0; i < json.length; i++) {
    if (json[i] === "{") open.push(new Set());
    else if (json[i] === "}") open.pop();
    if (json[i] !== '"') continue;
    const start = i++;
    while (json[i] !== '"') i += json[i] === "\\" ? 2 : 1;
    let next = i + 1;
    while (" \t\r\n".includes(json[next])) next++;
    if (json[next] !== ":") continue;
    const key = JSON.parse(json.slice(start, i + 1)) as string;
    const keys = open[open.length - 1];
    if (keys.has(key)) return key;
    keys.add(key);
  }
  return undefined;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function checkMetadata(value: unknown, refuse: Refuse): Record<string, string> {
  if (!isRecord(value)) return refuse(`${METADATA} is not an object`);
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== "string") refuse(`${METADATA}: "${key}" is not a string`);
  }
  return value as Record<string, string>;
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function checkTensor(value: unknown, refuse: Refuse): TensorInfo {
  if (!isRecord(value)) return refuse("its entry is not an object");
  const { dtype, shape, data_offsets: offsets, ...others } = value;
  for (const key of Object.keys(others)) refuse(`unknown field "${key}"`);
  if (!isFileType(dtype)) return refuse(`dtype ${JSON.stringify(dtype)} is none of ${FILE_TYPES.join(", ")}`);
  if (!Array.isArray(shape) || !shape.every(isSize)) return refuse("its shape is not a list of whole numbers from 0");
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    return refuse("data_offsets are not two whole numbers from 0");
  }
  const [begin, end] = offsets as number[];
  if (end < begin) refuse(`data_offsets end at ${end}, before they begin at ${begin}`);
  const bytes = byteSize(shape, dtype);
  if (bytes === undefined) return refuse(`a shape of ${show(shape)} is too large`);
  if (bytes !== end - begin) refuse(`${dtype}${show(shape)} takes ${bytes} bytes, data_offsets span ${end - begin}`);
  return { dtype, shape, begin, end };
}

/** Undefined when a product on the way is no exact number any more, even if a later size is 0. */
function byteSize(shape: Shape, dtype: FileType): number | undefined {
  let bytes = element(dtype).bytes;
  for (const size of shape) {
    bytes *= size;
    if (!Number.isSafeInteger(bytes)) return undefined;
  }
  return bytes;
}

/** The tensors fill the data exactly: nothing hides between them or behind them, and none shares bytes. */
function checkCoverage(tensors: ReadonlyMap<string, TensorInfo>, dataBytes: number, refuse: Refuse): void {
  let at = 0;
  for (const [name, { begin, end }] of [...tensors].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end)) {
    if (begin < at) refuse(`tensor "${name}": begins at byte ${begin}, inside the one before it (up to ${at})`);
    if (begin > at) refuse(`tensor "${name}": begins at byte ${begin}, but the one before it ends at ${at}`);
    if (end > dataBytes) refuse(`tensor "${name}": ends at byte ${end} of ${dataBytes}; the file is cut off`);
    at = end;
  }
  if (at < dataBytes) refuse(`${dataBytes - at} bytes behind the last tensor`);
}

// ---- writing -------------------------------------------------------------------------------------------------------

export interface Entry {
  readonly dtype: FileType;
  readonly shape: Shape;
}

/** Wide types first, so that every tensor begins at a multiple of its element's size; otherwise as the format's own writer. */
const ORDER: readonly FileType[] = [
  ...(["U64", "I64", "F64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16"] as const),
  ...(["F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"] as const),
];

/** The order of the data: by type, then by name, as the reference implementation has it. */
export function inFileOrder<T extends Entry>(tensors: ReadonlyMap<string, T>): [name: string, tensor: T][] {
  return [...tensors].sort(([a, x], [b, y]) => ORDER.indexOf(x.dtype) - ORDER.indexOf(y.dtype) || (a < b ? -1 : 1));
}

/** Length and header, padded with spaces to 8 bytes, of a file with these tensors one behind the other. */
export function encodeHeader(
  order: readonly (readonly [string, Entry])[],
  metadata: Readonly<Record<string, string>>,
  refuse: Refuse,
): Uint8Array {
  const keys = Object.keys(metadata).sort();
  const texts = keys.map((key) => `${JSON.stringify(key)}:${JSON.stringify(metadata[key])}`);
  // Assembled as text: an object would put names like "0" first.
  const entries = texts.length > 0 ? [`"${METADATA}":{${texts.join(",")}}`] : [];
  let at = 0;
  for (const [name, { dtype, shape }] of order) {
    if (name === METADATA) refuse(`a tensor cannot be called ${METADATA}`);
    const end = at + numel(shape) * element(dtype).bytes;
    entries.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [at, end] })}`);
    at = end;
  }
  const text = new TextEncoder().encode(`{${entries.join(",")}}`);
  const length = Math.ceil(text.length / 8) * 8;
  if (length > MAX_HEADER) refuse(`a header of ${length} bytes is over ${MAX_HEADER}`);
  const out = new Uint8Array(8 + length).fill(0x20);
  new DataView(out.buffer).setBigUint64(0, BigInt(length), true);
  out.set(text, 8);
  return out;
}
