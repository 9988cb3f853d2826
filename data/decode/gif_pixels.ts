// The pixels of a GIF's frames: LZW of variable width (GIF89a specification, appendix F: codes of up to 12 bits, least
// significant bit first, a clear code, and a table that stays as it is once full) to colours, and those onto the canvas.
// The loops are in WebAssembly, which copies several pixels at once from anywhere: a code takes the same few
// instructions whatever its string. Decoding only, for gif.ts; ../encode uses gifenc.

import { type Source, Wasm } from "../wasm.ts";

const MAX_BITS = 12;
const MAX_CODES = 1 << MAX_BITS;
const PIXEL = 4;
/** Bytes that are copied at a time; those too many are overwritten by what follows. */
const CHUNK = 32;

/**
 * The first parts of the memory: of each code where its string starts and its length in bytes, two i32; and the strings
 * of literals, which are the colours. All other strings stand in the output already: the string before, and behind it
 * the first pixel of the one after.
 */
const ENTRY = 8;
const COLOURS = ENTRY * MAX_CODES;
const CANVAS = COLOURS + PIXEL * 256 + CHUNK;

/**
 * Strings of the first `size` bits at `data`, to `to` until `full` is reached or passed. Returns where they end, or of a
 * code that is not in the table yet: -(code * 2^13 + codes in the table).
 */
const decode: Source = {
  params: "data size to full literalBits",
  returns: "i32",
  locals: "clear next bits at after code start length previous previousLength done Half",
  body: `
    i32.const 1  local.get literalBits  i32.shl  local.tee clear  i32.const 2  i32.add  local.set next
    local.get literalBits  i32.const 1  i32.add  local.set bits
    loop
      local.get at  local.get bits  i32.add  local.tee after  local.get size  i32.gt_u
      local.get to  local.get full  i32.ge_u  i32.or
      if  local.get to  return  end

      local.get data  local.get at  i32.const 3  i32.shr_u  i32.add  i32.load
      local.get at  i32.const 7  i32.and  i32.shr_u
      i32.const 1  local.get bits  i32.shl  i32.const 1  i32.sub  i32.and  local.set code
      local.get after  local.set at

      local.get code  local.get clear  i32.eq
      if
        local.get clear  i32.const 2  i32.add  local.set next
        local.get literalBits  i32.const 1  i32.add  local.set bits
        i32.const 0  local.set previousLength
        br 1
      end
      local.get code  local.get clear  i32.sub  i32.const 1  i32.eq
      if  local.get to  return  end

      local.get code  local.get next  local.get previousLength  i32.const 0  i32.ne  i32.add  i32.ge_u
      if
        i32.const 0  local.get code  i32.const 13  i32.shl  local.get next  i32.add  i32.sub  return
      end
      local.get previousLength  i32.const 0  i32.ne  local.get next  i32.const ${MAX_CODES}  i32.lt_u  i32.and
      if
        local.get next  i32.const 3  i32.shl  local.tee start  local.get previous  i32.store
        local.get start  local.get previousLength  i32.const ${PIXEL}  i32.add  i32.store+4
        local.get next  i32.const 1  i32.add  local.set next
      end
      local.get next  local.get bits  i32.shr_u  local.get bits  i32.const ${MAX_BITS}  i32.lt_u  i32.and
      if  local.get bits  i32.const 1  i32.add  local.set bits  end

      local.get code  i32.const 3  i32.shl  local.tee start  i32.load+4  local.set length
      local.get start  i32.load  local.set start
      i32.const 0  local.set done
      loop
        local.get start  local.get done  i32.add  v128.load+16  local.set Half
        local.get to  local.get done  i32.add  local.get start  local.get done  i32.add  v128.load  v128.store
        local.get to  local.get done  i32.add  local.get Half  v128.store+16
        local.get done  i32.const ${CHUNK}  i32.add  local.tee done  local.get length  i32.lt_u  br_if 0
      end
      local.get start  local.get length  i32.add  local.get to  i32.gt_u
      if
        local.get to  local.get length  i32.add  i32.const ${PIXEL}  i32.sub  local.get start  i32.load  i32.store
      end
      local.get to  local.set previous
      local.get length  local.set previousLength
      local.get to  local.get length  i32.add  local.set to
      br 0
    end
    local.get to`,
};

/** Puts the pixels at `from` that are not 0 on those at `to`. */
const draw: Source = {
  params: "from to count",
  locals: "Pixels",
  body: `
    loop
      local.get to
      local.get to  v128.load  local.get from  v128.load  local.tee Pixels
      local.get Pixels  i32.const 0  i32x4.splat  i32x4.eq
      v128.const 0 0 0 0 1 0 0 0 2 0 0 0 3 0 0 0  local.get count  i32x4.splat  i32x4.ge_s
      v128.or  v128.bitselect  v128.store
      local.get from  i32.const 16  i32.add  local.set from
      local.get to  i32.const 16  i32.add  local.set to
      local.get count  i32.const 4  i32.sub  local.tee count  i32.const 0  i32.gt_s  br_if 0
    end`,
};

const wasm = new Wasm<{
  decode(data: number, size: number, to: number, full: number, literalBits: number): number;
  draw(from: number, to: number, count: number): void;
}>({ decode, draw });

const entries = Int32Array.from({ length: 2 * 256 }, (_, i) => (i % 2 === 0 ? COLOURS + (i / 2) * PIXEL : PIXEL));

/** Bytes of memory that are kept for the next animation: enough for most stickers. */
const KEPT = 16 << 20;

/** A canvas and the frame in hand. One at a time: each takes the memory of the one before. */
export class GifPixels {
  readonly canvas: Uint8ClampedArray;
  readonly #bytes: Uint8Array;
  /** Where the frame's pixels are, and behind them its data. */
  readonly #frame: number;

  /** For a canvas of so many pixels, transparent, and frames of at most `framePixels` from `dataBytes` of sub-blocks. */
  constructor(canvasPixels: number, framePixels: number, dataBytes: number) {
    this.#frame = CANVAS + PIXEL * canvasPixels + CHUNK;
    const end = this.#frame + PIXEL * (framePixels + MAX_CODES) + CHUNK + dataBytes + CHUNK;
    const memory = wasm.memory(end);
    this.#bytes = new Uint8Array(memory);
    this.canvas = new Uint8ClampedArray(memory, CANVAS, PIXEL * canvasPixels).fill(0);
  }

  /**
   * Decodes a frame of `count` pixels from the data sub-blocks at `at` of `file`.
   * @param colours RGBA of each literal, 0 where nothing is drawn
   * @returns how many pixels there are before the end code or the end of the data, at most `count`
   * @throws Error on a code that is not in the table yet
   */
  decode(file: Uint8Array, at: number, literalBits: number, colours: Uint8Array, count: number): number {
    const data = this.#frame + PIXEL * (count + MAX_CODES) + CHUNK;
    let size = 0;
    for (let block = at; file[block] !== 0; block += 1 + file[block]) {
      this.#bytes.set(file.subarray(block + 1, block + 1 + file[block]), data + size);
      size += file[block];
    }
    new Int32Array(this.#bytes.buffer, 0, entries.length).set(entries);
    this.#bytes.set(colours, COLOURS);
    const full = this.#frame + PIXEL * count;
    const end = wasm.functions.decode(data, 8 * size, this.#frame, full, literalBits);
    if (end < 0) throw new Error(`the LZW data is corrupt (code ${-end >> 13}, table of ${-end & 8191})`);
    return Math.min(count, (end - this.#frame) / PIXEL);
  }

  /** Draws `count` (not 0) pixels of the frame from pixel `from` of it, at pixel `to` of the canvas. */
  draw(from: number, to: number, count: number): void {
    wasm.functions.draw(this.#frame + PIXEL * from, CANVAS + PIXEL * to, count);
  }

  /** Lets go of the memory of a large animation. */
  close(): void {
    wasm.release(KEPT);
  }
}
