// What filters and statistics need to know of a sticker's pixels: size, frames, entropy, motion, and a perceptual hash. Pure
// functions of a decoded file; worker.ts calls them in its process.

import { developSticker } from "../decode/index.ts";
import { pickFrames } from "../frames.ts";

export interface Measures {
  readonly width: number;
  readonly height: number;
  readonly frames: number;
  readonly duration_ms: number;
  readonly has_alpha: boolean;
  /** Longer side over shorter. */
  readonly aspect: number;
  /** Bits of the histogram of 256 greys on white, mean over the frames looked at (Shannon 1948). */
  readonly entropy: number;
  /** Mean change of grey from one frame looked at to the next, as a share of full range. */
  readonly motion: number;
  /** 256 bits in hex: difference hashes of four frames. */
  readonly phash: string;
}

/** Frames looked at, and fewer of large ones: bytes of their pixels. */
const LOOKED_AT = 8;
const PIXEL_BYTES = 128 * 1024 * 1024;
const HASHED = 4;

/** What is kept of a frame. */
interface Look {
  readonly transparent: boolean;
  readonly entropy: number;
  readonly thumb: Float64Array;
  readonly hash: string;
}

/** @throws DecodeError when the file cannot be used */
export async function measure(bytes: Uint8Array, where: string): Promise<Measures> {
  const select = (n: number, w: number, h: number): number[] =>
    pickFrames(n, Math.min(LOOKED_AT, n, Math.max(1, Math.floor(PIXEL_BYTES / (4 * w * h)))));
  const { width, height, frameCount, durationMs, frames } = await developSticker(bytes, where, select, look);
  return {
    width,
    height,
    frames: frameCount,
    duration_ms: frameCount > 1 ? durationMs : 0,
    has_alpha: frames.some(({ transparent }) => transparent),
    aspect: Math.max(width / height, height / width),
    entropy: mean(frames.map((frame) => frame.entropy)),
    motion: mean(frames.slice(1).map(({ thumb }, i) => difference(frames[i].thumb, thumb))),
    phash: pickFrames(frames.length, HASHED)
      .map((i) => frames[i].hash)
      .join(""),
  };
}

function look(rgba: Uint8ClampedArray, width: number, height: number): Look {
  const grey = greyOnWhite(rgba);
  return {
    transparent: transparent(rgba),
    entropy: entropy(grey),
    thumb: shrink(grey, width, height, 32, 32),
    hash: differenceHash(grey, width, height),
  };
}

const mean = (values: readonly number[]): number =>
  values.length === 0 ? 0 : values.reduce((a, b) => a + b, 0) / values.length;

function transparent(rgba: Uint8ClampedArray): boolean {
  for (let i = 3; i < rgba.length; i += 4) if (rgba[i] < 255) return true;
  return false;
}

/** Rec. 601 luma in whole greys. */
function greyOnWhite(rgba: Uint8ClampedArray): Uint8ClampedArray {
  const grey = new Uint8ClampedArray(rgba.length / 4);
  for (let i = 0, o = 0; o < grey.length; i += 4, o++) {
    const luma = 0.299 * rgba[i] + 0.587 * rgba[i + 1] + 0.114 * rgba[i + 2];
    grey[o] = 255 + ((luma - 255) * rgba[i + 3]) / 255;
  }
  return grey;
}

/** H = -sum p log2 p over the 256 greys. */
function entropy(grey: Uint8ClampedArray): number {
  const counts = new Float64Array(256);
  for (const value of grey) counts[value]++;
  let bits = 0;
  for (const count of counts) if (count > 0) bits -= (count / grey.length) * Math.log2(count / grey.length);
  return bits;
}

/** Means over a grid of boxes; where the image is smaller than the grid, boxes repeat its pixels. */
function shrink(grey: Uint8ClampedArray, width: number, height: number, across: number, down: number): Float64Array {
  const out = new Float64Array(across * down);
  for (let y = 0; y < down; y++) {
    const top = Math.floor((y * height) / down);
    const bottom = Math.max(top + 1, Math.floor(((y + 1) * height) / down));
    for (let x = 0; x < across; x++) {
      const left = Math.floor((x * width) / across);
      const right = Math.max(left + 1, Math.floor(((x + 1) * width) / across));
      let sum = 0;
      for (let v = top; v < bottom; v++) for (let u = left; u < right; u++) sum += grey[v * width + u];
      out[y * across + x] = sum / ((bottom - top) * (right - left));
    }
  }
  return out;
}

function difference(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += Math.abs(a[i] - b[i]);
  return sum / a.length / 255;
}

/** 64 bits in hex: whether each of 8 x 8 boxes is brighter than its right neighbour. Sizes and small edits leave it alone. */
function differenceHash(grey: Uint8ClampedArray, width: number, height: number): string {
  const boxes = shrink(grey, width, height, 9, 8);
  let hash = 0n;
  for (let y = 0; y < 8; y++) {
    for (let x = 0; x < 8; x++) hash = (hash << 1n) | (boxes[9 * y + x] > boxes[9 * y + x + 1] ? 1n : 0n);
  }
  return hash.toString(16).padStart(16, "0");
}
