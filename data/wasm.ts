// Puts together WebAssembly modules from functions written in WebAssembly's own instruction names, for the loops over
// bytes and pixels that take several times as long in JavaScript: simd.ts (resizing) and decode/gif_pixels.ts. One module has
// one memory, which belongs to whoever is at work.

/**
 * A function on i32 parameters; `locals` are i32, those that begin with a capital v128. Numbers in `body` are whatever
 * the instruction before them takes: a constant, or how many blocks out a branch leads.
 */
export interface Source {
  readonly params: string;
  readonly returns?: "i32";
  readonly locals: string;
  readonly body: string;
}

/** Opcodes with what follows them: the empty type of a block, alignment and offset of an access, a lane. */
const OPCODES: Readonly<Record<string, readonly number[]>> = {
  loop: [0x03, 0x40],
  if: [0x04, 0x40],
  end: [0x0b],
  br: [0x0c],
  br_if: [0x0d],
  return: [0x0f],
  "local.get": [0x20],
  "local.set": [0x21],
  "local.tee": [0x22],
  "i32.const": [0x41],
  "i32.load": [0x28, 0, 0],
  "i32.load+4": [0x28, 0, 4],
  "i32.load8_u": [0x2d, 0, 0],
  "i32.load8_u+3": [0x2d, 0, 3],
  "i32.store": [0x36, 0, 0],
  "i32.store+4": [0x36, 0, 4],
  "i32.store8": [0x3a, 0, 0],
  "i32.eq": [0x46],
  "i32.ne": [0x47],
  "i32.lt_u": [0x49],
  "i32.gt_s": [0x4a],
  "i32.gt_u": [0x4b],
  "i32.ge_u": [0x4f],
  "i32.add": [0x6a],
  "i32.sub": [0x6b],
  "i32.and": [0x71],
  "i32.or": [0x72],
  "i32.shl": [0x74],
  "i32.shr_u": [0x76],
  "f32.convert_i32_s": [0xb2],
  "v128.load": [0xfd, 0x00, 0, 0],
  "v128.load+16": [0xfd, 0x00, 0, 16],
  "v128.load32_splat": [0xfd, 0x09, 0, 0],
  "v128.load32_zero": [0xfd, 0x5c, 0, 0],
  "v128.store": [0xfd, 0x0b, 0, 0],
  "v128.store+16": [0xfd, 0x0b, 0, 16],
  "v128.const": [0xfd, 0x0c],
  "v128.or": [0xfd, 0x50],
  "v128.bitselect": [0xfd, 0x52],
  "i32x4.splat": [0xfd, 0x11],
  "i32x4.eq": [0xfd, 0x37],
  "i32x4.ge_s": [0xfd, 0x3f],
  "f32x4.splat": [0xfd, 0x13],
  "f32x4.extract_lane_3": [0xfd, 0x1f, 3],
  "i16x8.extend_low_i8x16_u": [0xfd, 0x89, 0x01],
  "i32x4.extend_low_i16x8_u": [0xfd, 0xa9, 0x01],
  "f32x4.convert_i32x4_u": [0xfd, 0xfb, 0x01],
  "f32x4.nearest": [0xfd, 0x6a],
  "i32x4.trunc_sat_f32x4_s": [0xfd, 0xf8, 0x01],
  "i16x8.narrow_i32x4_s": [0xfd, 0x85, 0x01],
  "i8x16.narrow_i16x8_u": [0xfd, 0x66],
  "i32x4.extract_lane_0": [0xfd, 0x1b, 0],
  "f32x4.add": [0xfd, 0xe4, 0x01],
  "f32x4.sub": [0xfd, 0xe5, 0x01],
  "f32x4.mul": [0xfd, 0xe6, 0x01],
  "f32x4.div": [0xfd, 0xe7, 0x01],
};
const [I32, V128, FUNCTION, END] = [0x7f, 0x7b, 0x60, 0x0b];

/**
 * LEB128 that reads the same signed and unsigned: the last byte's sign bit stays clear, at the cost of a byte now and
 * then.
 */
function leb(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>= 7) {
    if (rest < 64) return [...bytes, rest];
    bytes.push((rest & 127) | 128);
  }
}

const list = (items: readonly (readonly number[])[]): number[] => [...leb(items.length), ...items.flat()];
const sized = (bytes: readonly number[]): number[] => [...leb(bytes.length), ...bytes];
const words = (text: string): string[] => text.split(/\s+/).filter((word) => word !== "");

function code({ params, locals, body }: Source): number[] {
  const names = [...words(params), ...words(locals)];
  const declared = words(locals).map((name) => [1, /^[A-Z]/.test(name) ? V128 : I32]);
  const bytes = words(body).flatMap(
    (word) => OPCODES[word] ?? (names.includes(word) ? names.indexOf(word) : leb(Number(word))),
  );
  return sized([...list(declared), ...bytes, END]);
}

function type({ params, returns }: Source): number[] {
  return [FUNCTION, ...list(words(params).map(() => [I32])), ...list(returns ? [[I32]] : [])];
}

const text = (name: string): number[] => sized([...new TextEncoder().encode(name)]);

/** A module of one memory and these functions, all of them exported (WebAssembly specification, 5.5). */
function assemble(functions: Readonly<Record<string, Source>>): Uint8Array<ArrayBuffer> {
  const sources = Object.values(functions);
  const exported = Object.keys(functions).map((name, i) => [...text(name), 0, i]);
  const section = (id: number, content: readonly number[]): number[] => [id, ...sized(content)];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, list(sources.map(type))),
    ...section(3, list(sources.map((_, i) => [i]))),
    ...section(5, list([[0, 1]])), // one page, and no maximum
    ...section(7, list([[...text("memory"), 2, 0], ...exported])),
    ...section(10, list(sources.map(code))),
  ]);
}

/** What is used of the global of that name, which Node's types leave out. */
interface Assembly {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: unknown };
}
const { Instance, Module } = (globalThis as unknown as { readonly WebAssembly: Assembly }).WebAssembly;

interface Memory {
  readonly buffer: ArrayBuffer;
  grow(pages: number): number;
}
const PAGE = 65536;

/** Runs functions that were written out above. `Functions` are their types, which nothing checks against them. */
export class Wasm<Functions> {
  readonly #module: object;
  #exports: Functions & { readonly memory: Memory };

  constructor(functions: Readonly<Record<keyof Functions & string, Source>>) {
    this.#module = new Module(assemble(functions));
    this.#exports = this.#start();
  }

  #start(): Functions & { readonly memory: Memory } {
    return new Instance(this.#module).exports as Functions & { readonly memory: Memory };
  }

  get functions(): Functions {
    return this.#exports;
  }

  /** The memory that the functions work on, of at least so many bytes. Views of it die when it grows. */
  memory(bytes: number): ArrayBuffer {
    const { memory } = this.#exports;
    const missing = bytes - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / PAGE));
    return memory.buffer;
  }

  /** Begins anew with little memory if there is more than `kept` bytes; what was there lives as long as views of it. */
  release(kept: number): void {
    if (this.#exports.memory.buffer.byteLength > kept) this.#exports = this.#start();
  }
}
