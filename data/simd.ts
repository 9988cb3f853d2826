// The inner loops of resizing in WebAssembly, where one instruction works on a pixel's four channels: they take a fifth
// of the time of the same loops in JavaScript, and give the same bits on every machine. Written in WebAssembly's own
// instruction names and put together below; how pictures are resized is frames.ts.

/**
 * A function on i32 parameters; `locals` are i32, those that begin with a capital v128. Each `br_if` goes to its own
 * loop.
 */
interface Source {
  readonly params: string;
  readonly locals: string;
  readonly body: string;
}

/**
 * Straight-alpha RGBA bytes at `from` -> four floats a pixel at `to`: 255 + (channel - 255) alpha / 255. The fourth
 * means nothing.
 */
const onWhite: Source = {
  params: "from to count",
  locals: "Pixel White",
  body: `
    i32.const 255  f32.convert_i32_s  f32x4.splat  local.set White
    loop
      local.get to
      local.get from  v128.load32_zero  i16x8.extend_low_i8x16_u  i32x4.extend_low_i16x8_u  f32x4.convert_i32x4_u
      local.tee Pixel  local.get White  f32x4.sub
      local.get Pixel  f32x4.extract_lane_3  f32x4.splat  local.get White  f32x4.div
      f32x4.mul  local.get White  f32x4.add
      v128.store
      local.get from  i32.const 4  i32.add  local.set from
      local.get to  i32.const 16  i32.add  local.set to
      local.get count  i32.const 1  i32.sub  local.tee count  br_if
    end`,
};

/**
 * Pixel i at `to` = sum over k < taps of weight (i, k) times the pixel at `from` + start i + k step. Starts are in
 * bytes; weights lie one behind the other, and those of pixel i + 1 `next` bytes behind those of pixel i.
 */
const weightedSums: Source = {
  params: "from step starts weights next taps to count",
  locals: "at weight left Sum",
  body: `
    loop
      local.get from  local.get starts  i32.load  i32.add  local.set at
      local.get weights  local.set weight
      local.get taps  local.set left
      i32.const 0  f32.convert_i32_s  f32x4.splat  local.set Sum
      loop
        local.get Sum  local.get weight  v128.load32_splat  local.get at  v128.load  f32x4.mul  f32x4.add  local.set Sum
        local.get at  local.get step  i32.add  local.set at
        local.get weight  i32.const 4  i32.add  local.set weight
        local.get left  i32.const 1  i32.sub  local.tee left  br_if
      end
      local.get to  local.get Sum  v128.store
      local.get starts  i32.const 4  i32.add  local.set starts
      local.get weights  local.get next  i32.add  local.set weights
      local.get to  i32.const 16  i32.add  local.set to
      local.get count  i32.const 1  i32.sub  local.tee count  br_if
    end`,
};

/**
 * Opcodes with what follows them: the empty type of a block, depth 0 of a branch, alignment and offset of an access, a
 * lane.
 */
const OPCODES: Readonly<Record<string, readonly number[]>> = {
  loop: [0x03, 0x40],
  end: [0x0b],
  br_if: [0x0d, 0],
  "local.get": [0x20],
  "local.set": [0x21],
  "local.tee": [0x22],
  "i32.const": [0x41],
  "i32.load": [0x28, 2, 0],
  "i32.add": [0x6a],
  "i32.sub": [0x6b],
  "f32.convert_i32_s": [0xb2],
  "v128.load": [0xfd, 0x00, 4, 0],
  "v128.load32_splat": [0xfd, 0x09, 2, 0],
  "v128.load32_zero": [0xfd, 0x5c, 2, 0],
  "v128.store": [0xfd, 0x0b, 4, 0],
  "f32x4.splat": [0xfd, 0x13],
  "f32x4.extract_lane_3": [0xfd, 0x1f, 3],
  "i16x8.extend_low_i8x16_u": [0xfd, 0x89, 0x01],
  "i32x4.extend_low_i16x8_u": [0xfd, 0xa9, 0x01],
  "f32x4.convert_i32x4_u": [0xfd, 0xfb, 0x01],
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

const text = (name: string): number[] => sized([...new TextEncoder().encode(name)]);

/** A module of one memory and these functions, all of them exported (WebAssembly specification, 5.5). */
function assemble(functions: Readonly<Record<string, Source>>): Uint8Array<ArrayBuffer> {
  const sources = Object.values(functions);
  const types = sources.map(({ params }) => [FUNCTION, ...list(words(params).map(() => [I32])), ...list([])]);
  const exported = Object.keys(functions).map((name, i) => [...text(name), 0, i]);
  const section = (id: number, content: readonly number[]): number[] => [id, ...sized(content)];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, list(types)),
    ...section(3, list(sources.map((_, i) => [i]))),
    ...section(5, list([[0, 1]])), // one page, and no maximum
    ...section(7, list([[...text("memory"), 2, 0], ...exported])),
    ...section(10, list(sources.map(code))),
  ]);
}

interface Exports {
  readonly memory: { readonly buffer: ArrayBuffer; grow(pages: number): number };
  onWhite(from: number, to: number, count: number): void;
  weightedSums(
    from: number,
    step: number,
    starts: number,
    weights: number,
    next: number,
    taps: number,
    to: number,
    count: number,
  ): void;
}

/** What is used of the global of that name, which Node's types leave out. */
interface Assembly {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: unknown };
}
const { Instance, Module } = (globalThis as unknown as { readonly WebAssembly: Assembly }).WebAssembly;

export const simd = new Instance(new Module(assemble({ onWhite, weightedSums }))).exports as Exports;

const PAGE = 65536;

/** The memory that the functions work on, of at least so many bytes. What is in it belongs to whoever is at work. */
export function scratch(bytes: number): ArrayBuffer {
  const missing = bytes - simd.memory.buffer.byteLength;
  if (missing > 0) simd.memory.grow(Math.ceil(missing / PAGE));
  return simd.memory.buffer;
}
