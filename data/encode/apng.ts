// Frames -> APNG (or a plain PNG for one frame): 8-bit RGB, or RGBA where any pixel is not opaque. Every frame is
// stored whole, so no disposal or blending is needed. Lossless; the writer to use when GIF's 255 colours are not enough.
// Chunk layout: PNG specification, 3rd edition, sections 5, 9 (filters) and 11.3.6 (animation).

import { crc32, deflateSync } from "node:zlib";
import { predictor } from "../png_filter.ts";
import { checkFrames, type EncodeFrame } from "./frames.ts";

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
const MAX_DELAY_MS = 65_535;

/**
 * Encodes RGBA frames of width x height as an endlessly looping APNG; delays keep milliseconds, up to 65 s.
 * Equal input gives equal bytes with the same zlib.
 * @throws RangeError when there are no frames, or sizes or delays are not representable.
 */
export function encodeApng(frames: readonly EncodeFrame[], width: number, height: number): Uint8Array {
  checkFrames("encodeApng", frames, width, height, 65_535);
  const channels = frames.every(({ data }) => isOpaque(data)) ? 3 : 4;
  const animated = frames.length > 1;
  const chunks = [SIGNATURE, chunk("IHDR", header(width, height, channels))];
  if (animated) chunks.push(chunk("acTL", uint32s(frames.length, 0)));
  let sequence = 0;
  frames.forEach(({ data, delayMs }, i) => {
    const pixels = deflateSync(filterRows(data, width, height, channels));
    if (animated) chunks.push(chunk("fcTL", frameControl(sequence++, width, height, delayMs)));
    chunks.push(i === 0 ? chunk("IDAT", pixels) : chunk("fdAT", Buffer.concat([uint32s(sequence++), pixels])));
  });
  chunks.push(chunk("IEND", new Uint8Array(0)));
  return new Uint8Array(Buffer.concat(chunks));
}

function isOpaque(data: ArrayLike<number>): boolean {
  for (let i = 3; i < data.length; i += 4) if (data[i] !== 255) return false;
  return true;
}

function uint32s(...values: number[]): Buffer {
  const out = Buffer.alloc(4 * values.length);
  values.forEach((value, i) => {
    out.writeUInt32BE(value, 4 * i);
  });
  return out;
}

function chunk(type: string, body: Uint8Array): Buffer {
  const typed = Buffer.concat([Buffer.from(type, "latin1"), body]);
  return Buffer.concat([uint32s(body.length), typed, uint32s(crc32(typed))]);
}

function header(width: number, height: number, channels: 3 | 4): Buffer {
  const colourType = channels === 4 ? 6 : 2;
  return Buffer.concat([uint32s(width, height), Uint8Array.of(8, colourType, 0, 0, 0)]);
}

/** fcTL: the whole canvas, delay in milliseconds, disposal "none", blend "source". */
function frameControl(sequence: number, width: number, height: number, delayMs: number): Buffer {
  const timing = Buffer.alloc(6);
  timing.writeUInt16BE(Math.min(Math.round(delayMs), MAX_DELAY_MS), 0);
  timing.writeUInt16BE(1000, 2);
  return Buffer.concat([uint32s(sequence, width, height, 0, 0), timing]);
}

/** Filters each row with the type of least summed magnitude, the heuristic the PNG specification recommends (12.7). */
function filterRows(rgba: Uint8Array | Uint8ClampedArray, width: number, height: number, channels: 3 | 4): Uint8Array {
  const stride = width * channels;
  const out = new Uint8Array(height * (stride + 1));
  const filtered = new Uint8Array(stride);
  let above = new Uint8Array(stride);
  for (let y = 0; y < height; y++) {
    const row = pickChannels(rgba, y * width, width, channels);
    let least = Number.POSITIVE_INFINITY;
    for (let type = 0; type <= 4; type++) {
      const cost = filterRow(row, above, channels, type, filtered);
      if (cost >= least) continue;
      least = cost;
      out[y * (stride + 1)] = type;
      out.set(filtered, y * (stride + 1) + 1);
    }
    above = row;
  }
  return out;
}

function pickChannels(rgba: ArrayLike<number>, first: number, width: number, channels: 3 | 4): Uint8Array<ArrayBuffer> {
  const row = new Uint8Array(width * channels);
  for (let x = 0; x < width; x++) {
    for (let c = 0; c < channels; c++) row[x * channels + c] = rgba[4 * (first + x) + c];
  }
  return row;
}

/** Writes the row less its prediction to `out`; returns the sum of the differences, read as signed bytes. */
function filterRow(row: Uint8Array, above: Uint8Array, step: number, type: number, out: Uint8Array): number {
  let cost = 0;
  for (let i = 0; i < row.length; i++) {
    const left = i < step ? 0 : row[i - step];
    const corner = i < step ? 0 : above[i - step];
    const difference = (row[i] - predictor(type, left, above[i], corner)) & 255;
    out[i] = difference;
    cost += Math.min(difference, 256 - difference);
  }
  return cost;
}
