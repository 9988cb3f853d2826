// From a decoded sticker to what models see: 8 frames, white under alpha, size x size, channels last, and [-1, 1] when
// they become floats (spec 2.2 and 2.3 of the authors' loader). Used by store.ts for training and by samplers on the
// way back to pixels.

import { resizeOnWhite } from "./resize.ts";

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
 * rounding: sums are float32, across and then down, and rounded to bytes once, at the end.
 */
export const prepareFrame = resizeOnWhite;

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
