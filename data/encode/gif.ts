// Frames -> animated GIF, deterministic to the byte. gifenc supplies the LZW coder and the quantiser; the palette
// layer is here: one global table from opaque pixels only, because quantising alpha together with colour costs 13 dB
// on stickers and a table per frame makes still areas flicker. No resizing and no dithering.

import { createRequire } from "node:module";
import type { Encoder, Gifenc, Rgb } from "gifenc";
import { checkFrames, type EncodeFrame } from "./frames.ts";

// What `import gifenc from "gifenc"` gives depends on who resolves it (Node: the module, bundlers: its `default`).
const gifenc: Gifenc = createRequire(import.meta.url)("gifenc");

export interface GifOptions {
  /** 0 (default) plays forever, n > 0 plays n further times, -1 plays once. */
  readonly loop?: number;
  /** Stored in a comment extension as UTF-8. */
  readonly comment?: string;
}

const MAX_COLOURS = 255;
const TRANSPARENT = 255;
/** GIF alpha is one bit: a pixel is drawn when its alpha is at least this. */
const OPAQUE_FROM = 128;
/** Players replace shorter delays by 100 ms. */
const MIN_DELAY_MS = 20;
const MAX_DELAY_MS = 655_350;

/**
 * Encodes RGBA frames of width x height as a looping GIF. Up to 255 distinct opaque colours are kept exactly; more are
 * reduced to one rgb565 palette shared by all frames. Alpha becomes a mask (index 255, disposal 2). Delays are
 * rounded to 10 ms and clamped to 20 ms .. 655 s. Equal input gives equal bytes.
 * @throws RangeError when there are no frames, or sizes, delays or `loop` are not representable.
 */
export function encodeGif(
  frames: readonly EncodeFrame[],
  width: number,
  height: number,
  { loop = 0, comment }: GifOptions = {},
): Uint8Array {
  checkFrames("encodeGif", frames, width, height, 65_535);
  if (!Number.isInteger(loop) || loop < -1 || loop > 65_535) {
    throw new RangeError(`encodeGif: loop must be a whole number from -1 to 65535, got ${loop}`);
  }
  const palette = globalPalette(frames);
  const transparent = frames.some(({ data }) => hasTransparency(data));
  const table = paddedTable(palette, transparent);
  const indexOf = paletteLookup(palette);
  const encoder = gifenc.GIFEncoder();
  frames.forEach(({ data, delayMs }, i) => {
    encoder.writeFrame(toIndices(data, indexOf), width, height, {
      palette: i === 0 ? table : undefined,
      colorDepth: Math.log2(table.length),
      transparent,
      transparentIndex: TRANSPARENT,
      dispose: transparent ? 2 : 0,
      delay: Math.min(Math.max(delayMs, MIN_DELAY_MS), MAX_DELAY_MS),
      repeat: loop,
    });
  });
  if (comment) writeComment(encoder, comment);
  encoder.finish();
  return encoder.bytes();
}

const rgb24 = (data: ArrayLike<number>, i: number): number => (data[i] << 16) | (data[i + 1] << 8) | data[i + 2];

function hasTransparency(data: ArrayLike<number>): boolean {
  for (let i = 3; i < data.length; i += 4) if (data[i] < OPAQUE_FROM) return true;
  return false;
}

function globalPalette(frames: readonly EncodeFrame[]): Rgb[] {
  const exact = exactColours(frames) ?? gifenc.quantize(opaquePixels(frames), MAX_COLOURS, { format: "rgb565" });
  return exact.length > 0 ? exact : [[0, 0, 0]];
}

/** The opaque colours in order of appearance, or null as soon as there are too many for a palette. */
function exactColours(frames: readonly EncodeFrame[]): Rgb[] | null {
  const seen = new Set<number>();
  let last = -1; // neighbours are often equal, and comparing is cheaper than a look-up
  for (const { data } of frames) {
    for (let i = 0; i < data.length; i += 4) {
      const rgb = rgb24(data, i);
      if (data[i + 3] < OPAQUE_FROM || rgb === last) continue;
      last = rgb;
      if (seen.add(rgb).size > MAX_COLOURS) return null;
    }
  }
  return [...seen].map((c): Rgb => [c >> 16, (c >> 8) & 255, c & 255]);
}

function opaquePixels(frames: readonly EncodeFrame[]): Uint8Array {
  const out = new Uint8Array(frames.reduce((n, { data }) => n + data.length, 0));
  let end = 0;
  for (const { data } of frames) {
    for (let i = 0; i < data.length; i += 4) {
      if (data[i + 3] < OPAQUE_FROM) continue;
      out.set(data.subarray(i, i + 4), end);
      end += 4;
    }
  }
  return out.slice(0, end);
}

/** Pads to a power of two >= 4, the sizes a colour table and its LZW stream can have; to 256 when masked. */
function paddedTable(palette: readonly Rgb[], transparent: boolean): Rgb[] {
  const size = transparent ? TRANSPARENT + 1 : Math.max(4, 2 ** Math.ceil(Math.log2(palette.length)));
  return Array.from({ length: size }, (_, i): Rgb => palette[i] ?? [0, 0, 0]);
}

/**
 * Colour -> palette index. An exact colour is looked up; any other takes the nearest entry, found once for each rgb565
 * cell (the quantiser's own resolution) and shared by all frames so that a still area cannot change its index.
 */
function paletteLookup(palette: readonly Rgb[]): (rgb: number) => number {
  const exact = new Map(palette.map(([r, g, b], i) => [(r << 16) | (g << 8) | b, i]));
  const cells = new Int16Array(1 << 16).fill(-1);
  return (rgb) => {
    const known = exact.get(rgb);
    if (known !== undefined) return known;
    const cell = ((rgb >> 8) & 0xf800) | ((rgb >> 5) & 0x07e0) | ((rgb >> 3) & 0x001f);
    if (cells[cell] < 0) cells[cell] = nearest(palette, rgb >> 16, (rgb >> 8) & 255, rgb & 255);
    return cells[cell];
  };
}

function nearest(palette: readonly Rgb[], r: number, g: number, b: number): number {
  let best = 0;
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < palette.length; i++) {
    const [pr, pg, pb] = palette[i];
    const distance = (pr - r) ** 2 + (pg - g) ** 2 + (pb - b) ** 2;
    if (distance < least) {
      least = distance;
      best = i;
    }
  }
  return best;
}

function toIndices(data: Uint8Array | Uint8ClampedArray, indexOf: (rgb: number) => number): Uint8Array {
  const out = new Uint8Array(data.length / 4).fill(TRANSPARENT);
  let last = -1;
  let index = 0;
  for (let i = 0; i < out.length; i++) {
    if (data[4 * i + 3] < OPAQUE_FROM) continue;
    const rgb = rgb24(data, 4 * i);
    if (rgb !== last) index = indexOf(rgb);
    last = rgb;
    out[i] = index;
  }
  return out;
}

function writeComment({ stream }: Encoder, comment: string): void {
  const bytes = new TextEncoder().encode(comment);
  stream.writeBytes([0x21, 0xfe]);
  for (let at = 0; at < bytes.length; at += 255) {
    const block = bytes.subarray(at, at + 255);
    stream.writeByte(block.length);
    stream.writeBytes(block);
  }
  stream.writeByte(0);
}
