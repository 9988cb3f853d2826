// The inner loops of resizing in WebAssembly, where one instruction works on a pixel's four channels: they take a tenth
// of the time of the same loops in JavaScript, and give the same bits on every machine. Written in WebAssembly's own
// instruction names, for wasm.ts; how pictures are resized is frames.ts.

import { type Source, Wasm } from "./wasm.ts";

/**
 * Straight-alpha RGBA bytes at `from` -> four floats a pixel at `to`: 255 + (channel - 255) alpha / 255. The fourth
 * means nothing. At `shares` are the 256 quotients of alpha, as floats.
 */
const onWhite: Source = {
  params: "from to count shares",
  locals: "White",
  body: `
    i32.const 255  f32.convert_i32_s  f32x4.splat  local.set White
    loop
      local.get to
      local.get from  v128.load32_zero  i16x8.extend_low_i8x16_u  i32x4.extend_low_i16x8_u  f32x4.convert_i32x4_u
      local.get White  f32x4.sub
      local.get from  i32.load8_u+3  i32.const 2  i32.shl  local.get shares  i32.add  v128.load32_splat
      f32x4.mul  local.get White  f32x4.add
      v128.store
      local.get from  i32.const 4  i32.add  local.set from
      local.get to  i32.const 16  i32.add  local.set to
      local.get count  i32.const 1  i32.sub  local.tee count  br_if 0
    end`,
};

/**
 * Pixel i at `to` + i toNext = sum over k < taps of weight (i, k) times the pixel at `from` + start i + k step; and so
 * for three more, each `apart` bytes behind the one before and its sum `toApart`: four sums at a time, because each waits
 * for its own last addition. Starts are in bytes; weights lie one behind the other, and those of i + 1 `next` bytes
 * behind those of i.
 */
const weightedSums: Source = {
  params: "from apart step starts weights next taps to toApart toNext count",
  locals: "at weight left place Weight A B C D",
  body: `
    loop
      local.get from  local.get starts  i32.load  i32.add  local.set at
      local.get weights  local.set weight
      local.get taps  local.set left
      i32.const 0  f32.convert_i32_s  f32x4.splat  local.tee A  local.tee B  local.tee C  local.set D
      loop
        local.get weight  v128.load32_splat  local.set Weight
        local.get A  local.get at  v128.load  local.get Weight  f32x4.mul  f32x4.add  local.set A
        local.get B  local.get at  local.get apart  i32.add  local.tee place
        v128.load  local.get Weight  f32x4.mul  f32x4.add  local.set B
        local.get C  local.get place  local.get apart  i32.add  local.tee place
        v128.load  local.get Weight  f32x4.mul  f32x4.add  local.set C
        local.get D  local.get place  local.get apart  i32.add
        v128.load  local.get Weight  f32x4.mul  f32x4.add  local.set D
        local.get at  local.get step  i32.add  local.set at
        local.get weight  i32.const 4  i32.add  local.set weight
        local.get left  i32.const 1  i32.sub  local.tee left  br_if 0
      end
      local.get to  local.get A  v128.store
      local.get to  local.get toApart  i32.add  local.tee place  local.get B  v128.store
      local.get place  local.get toApart  i32.add  local.tee place  local.get C  v128.store
      local.get place  local.get toApart  i32.add  local.get D  v128.store
      local.get starts  i32.const 4  i32.add  local.set starts
      local.get weights  local.get next  i32.add  local.set weights
      local.get to  local.get toNext  i32.add  local.set to
      local.get count  i32.const 1  i32.sub  local.tee count  br_if 0
    end`,
};

/** Four floats a pixel at `from` -> three bytes a pixel at `to`, to the nearest, halves to even. One byte too many is written. */
const toBytes: Source = {
  params: "from to count",
  locals: "Zero",
  body: `
    loop
      local.get to
      local.get from  v128.load  f32x4.nearest  i32x4.trunc_sat_f32x4_s
      local.get Zero  i16x8.narrow_i32x4_s  local.get Zero  i8x16.narrow_i16x8_u  i32x4.extract_lane_0
      i32.store
      local.get from  i32.const 16  i32.add  local.set from
      local.get to  i32.const 3  i32.add  local.set to
      local.get count  i32.const 1  i32.sub  local.tee count  br_if 0
    end`,
};

interface Functions {
  onWhite(from: number, to: number, count: number, shares: number): void;
  weightedSums(
    from: number,
    apart: number,
    step: number,
    starts: number,
    weights: number,
    next: number,
    taps: number,
    to: number,
    toApart: number,
    toNext: number,
    count: number,
  ): void;
  toBytes(from: number, to: number, count: number): void;
}

const wasm = new Wasm<Functions>({ onWhite, weightedSums, toBytes });

export const simd = wasm.functions;

/** The memory that the functions work on, of at least so many bytes. What is in it belongs to whoever is at work. */
export const scratch = (bytes: number): ArrayBuffer => wasm.memory(bytes);
