// From a decoded sticker to what models see: 8 frames, white under alpha, size x size, channels last, and [-1, 1] when
// they become floats (spec 2.2 and 2.3 of the authors' loader). Used by store.ts for training and by samplers on the
// way back to pixels.

import { CUBIC, type Taps, taps } from "./resample.ts";

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
 * Places straight-alpha RGBA [height, width, 4] on white and resizes it to [size, size, 3] by a separable cubic kernel; the
 * aspect ratio is not kept. Compositing first equals resizing premultiplied colour and compositing after, without a second
 * rounding: to bytes it is rounded once, at the end. Row by row, so that a large frame is never held in floats.
 */
export function prepareFrame(rgba: Uint8ClampedArray, width: number, height: number, size: number): Uint8Array {
  const row = new Float32Array(3 * width);
  const across = new Float32Array(3 * size * height);
  const columns = cubicTaps(width, size);
  for (let y = 0; y < height; y++) {
    rowOnWhite(rgba, 4 * y * width, row);
    for (let x = 0; x < size; x++) {
      weightedSum(row, 3 * columns.starts[x], 3, columns.weights[x], across, 3 * (y * size + x));
    }
  }
  const down = new Float32Array(3 * size * size);
  const rows = cubicTaps(height, size);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const from = 3 * (rows.starts[y] * size + x);
      weightedSum(across, from, 3 * size, rows.weights[y], down, 3 * (y * size + x));
    }
  }
  return new Uint8Array(new Uint8ClampedArray(down).buffer);
}

let recent: { readonly from: number; readonly to: number; readonly taps: Taps }[] = [];

/** Taps of the latest few sizes are kept: the frames of a sticker, and most stickers of a set, share theirs. */
function cubicTaps(from: number, to: number): Taps {
  const known = recent.find((entry) => entry.from === from && entry.to === to);
  if (known) return known.taps;
  const made = taps(from, to, CUBIC);
  recent = [{ from, to, taps: made }, ...recent].slice(0, 4);
  return made;
}

function rowOnWhite(rgba: Uint8ClampedArray, from: number, row: Float32Array): void {
  for (let i = from, o = 0; o < row.length; i += 4, o += 3) {
    const alpha = rgba[i + 3];
    if (alpha === 255) {
      row[o] = rgba[i];
      row[o + 1] = rgba[i + 1];
      row[o + 2] = rgba[i + 2];
    } else {
      const share = alpha / 255;
      row[o] = 255 + (rgba[i] - 255) * share;
      row[o + 1] = 255 + (rgba[i + 1] - 255) * share;
      row[o + 2] = 255 + (rgba[i + 2] - 255) * share;
    }
  }
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

/** The float of each byte: a table, because training converts every batch on the thread that feeds the device. */
const UNIT = Float32Array.from({ length: 256 }, (_, byte) => byte / 127.5 - 1);

/** Bytes 0..255 -> floats -1..1. */
export function toUnitRange(bytes: Uint8Array, out: Float32Array, at = 0): void {
  for (let i = 0; i < bytes.length; i++) out[at + i] = UNIT[bytes[i]];
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
