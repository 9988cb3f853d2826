// From a decoded sticker to what models see: 8 frames, white under alpha, size x size, channels last, and [-1, 1] when
// they become floats (spec 2.2 and 2.3 of the authors' loader). Used by store.ts for training and by samplers on the
// way back to pixels.

import { CUBIC, taps } from "./resample.ts";

/** Frames of every clip a model sees. */
export const CLIP_FRAMES = 8;

/**
 * The frame indices that stand for a sticker of `n` frames. Fewer than `count`: play forwards and backwards without
 * doubling the turning frames, cut at `count`, which keeps the native speed. More: equally spaced,
 * round(linspace(0, n - 1, count)), first and last kept. For even `count` no position is a tie (i * (n - 1) / (count - 1)
 * has an odd denominator), so half-up here and numpy's half-even agree.
 */
export function pickFrames(n: number, count: number = CLIP_FRAMES): number[] {
  if (!Number.isInteger(n) || n < 1) throw new RangeError(`pickFrames: a sticker has at least one frame, got ${n}`);
  if (n > count)
    return Array.from({ length: count }, (_, i) => (count === 1 ? 0 : Math.round((i * (n - 1)) / (count - 1))));
  const period = Math.max(1, 2 * (n - 1));
  return Array.from({ length: count }, (_, i) => Math.min(i % period, period - (i % period)));
}

/**
 * Places straight-alpha RGBA [height, width, 4] on white and resizes it to [size, size, 3]; the aspect ratio is not
 * kept. Compositing first equals resizing premultiplied colour and compositing after, without a second rounding.
 */
export function prepareFrame(rgba: Uint8ClampedArray, width: number, height: number, size: number): Uint8Array {
  return resize(onWhite(rgba), width, height, size, size);
}

function onWhite(rgba: Uint8ClampedArray): Float32Array {
  const rgb = new Float32Array((rgba.length / 4) * 3);
  for (let i = 0, o = 0; i < rgba.length; i += 4, o += 3) {
    const alpha = rgba[i + 3] / 255;
    for (let c = 0; c < 3; c++) rgb[o + c] = 255 + (rgba[i + c] - 255) * alpha;
  }
  return rgb;
}

/** Separable cubic resize of [height, width, 3]: columns first, then rows; rounded to bytes once, at the end. */
function resize(rgb: Float32Array, width: number, height: number, newWidth: number, newHeight: number): Uint8Array {
  const across = new Float32Array(height * newWidth * 3);
  const columns = taps(width, newWidth, CUBIC);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < newWidth; x++) {
      const from = 3 * (y * width + columns.starts[x]);
      weightedSum(rgb, from, 3, columns.weights[x], across, 3 * (y * newWidth + x));
    }
  }
  const down = new Float32Array(newHeight * newWidth * 3);
  const rows = taps(height, newHeight, CUBIC);
  for (let y = 0; y < newHeight; y++) {
    for (let x = 0; x < newWidth; x++) {
      const from = 3 * (rows.starts[y] * newWidth + x);
      weightedSum(across, from, 3 * newWidth, rows.weights[y], down, 3 * (y * newWidth + x));
    }
  }
  return new Uint8Array(new Uint8ClampedArray(down).buffer);
}

/** out[to + c] = sum over k of weights[k] * source[from + k * stride + c], for the three channels c. */
function weightedSum(
  source: Float32Array,
  from: number,
  stride: number,
  weights: Float64Array,
  out: Float32Array,
  to: number,
): void {
  let r = 0;
  let g = 0;
  let b = 0;
  for (let k = 0, at = from; k < weights.length; k++, at += stride) {
    const w = weights[k];
    r += w * source[at];
    g += w * source[at + 1];
    b += w * source[at + 2];
  }
  out[to] = r;
  out[to + 1] = g;
  out[to + 2] = b;
}

/** Bytes 0..255 -> floats -1..1. */
export function toUnitRange(bytes: ArrayLike<number>, out: Float32Array, at = 0): void {
  for (let i = 0; i < bytes.length; i++) out[at + i] = bytes[i] / 127.5 - 1;
}

/** Floats [t, size, size, 3] in [-1, 1] (clamped) -> one opaque RGBA image per frame, ready for the writers. */
export function toRgba(clip: ArrayLike<number>, size: number): Uint8ClampedArray[] {
  const pixels = size * size;
  return Array.from({ length: clip.length / (3 * pixels) }, (_, t) => {
    const rgba = new Uint8ClampedArray(4 * pixels).fill(255);
    for (let p = 0; p < pixels; p++) {
      for (let c = 0; c < 3; c++) rgba[4 * p + c] = (clip[3 * (t * pixels + p) + c] + 1) * 127.5;
    }
    return rgba;
  });
}

/** The caption string all systems are conditioned on: "[Domain] \t [Description]" (spec 2.5). */
export function formatCaption(domain: string, description: string): string {
  return `${domain} \t ${description}`;
}
