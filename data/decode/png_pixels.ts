// The pixel side of PNG: zlib stream -> RGBA. All colour types, bit depths, filters and Adam7 interlace of the PNG
// specification, 3rd edition; gamma and colour profiles are not applied. Chunks and animation are apng.ts's business.

import { inflateSync } from "node:zlib";
import { predictor } from "../png_filter.ts";

/** IHDR plus the two chunks that change what samples mean. */
export interface PixelFormat {
  readonly bitDepth: number;
  readonly colourType: number;
  readonly interlaced: boolean;
  /** PLTE: r, g, b per entry. */
  readonly palette?: Uint8Array;
  /** tRNS: alpha per palette entry, or the 16-bit samples of the one transparent colour. */
  readonly transparency?: Uint8Array;
}

const GREY = 0;
const RGB = 2;
const INDEXED = 3;
/** Samples per pixel and allowed bit depths by colour type. */
const COLOUR_TYPES: Readonly<Record<number, { samples: number; depths: readonly number[] }>> = {
  [GREY]: { samples: 1, depths: [1, 2, 4, 8, 16] },
  [RGB]: { samples: 3, depths: [8, 16] },
  [INDEXED]: { samples: 1, depths: [1, 2, 4, 8] },
  4: { samples: 2, depths: [8, 16] },
  6: { samples: 4, depths: [8, 16] },
};
/** Adam7: first column, first row, column step, row step of each pass. */
const ADAM7 = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
];

/** Throws Error unless the combination is one that PNG allows and its palette is there. */
export function checkFormat({ bitDepth, colourType, palette }: PixelFormat): void {
  if (!COLOUR_TYPES[colourType]?.depths.includes(bitDepth)) {
    throw new Error(`colour type ${colourType} with ${bitDepth} bits is not a PNG format`);
  }
  if (colourType === INDEXED && !palette) throw new Error("the image is indexed but has no palette");
}

/** Decodes one zlib stream of width x height pixels into straight-alpha RGBA; of 16-bit samples the high byte, as browsers show. */
export function decodePixels(stream: Uint8Array, width: number, height: number, format: PixelFormat): Uint8Array {
  const samples = COLOUR_TYPES[format.colourType].samples;
  const bitsPerPixel = samples * format.bitDepth;
  const passes = (format.interlaced ? ADAM7 : [[0, 0, 1, 1]])
    .map(([x, y, dx, dy]) => ({
      x,
      y,
      dx,
      dy,
      columns: Math.ceil((width - x) / dx),
      rows: Math.ceil((height - y) / dy),
    }))
    .filter(({ columns, rows }) => columns > 0 && rows > 0);
  const rowBytes = (columns: number) => Math.ceil((columns * bitsPerPixel) / 8);
  const expected = passes.reduce((sum, { columns, rows }) => sum + rows * (1 + rowBytes(columns)), 0);
  const raw = inflate(stream, expected);
  if (raw.length < expected) throw new Error(`the pixel data ends after ${raw.length} of ${expected} bytes`);

  const out = new Uint8Array(width * height * 4);
  let at = 0;
  for (const { x, y, dx, dy, columns, rows } of passes) {
    let above: Uint8Array = new Uint8Array(rowBytes(columns));
    for (let row = 0; row < rows; row++) {
      const line = raw.subarray(at + 1, at + 1 + above.length);
      unfilter(line, above, Math.max(1, bitsPerPixel >> 3), raw[at]);
      writeRow(line, columns, samples, format, out, 4 * ((y + row * dy) * width + x), 4 * dx);
      at += 1 + line.length;
      above = line;
    }
  }
  return out;
}

/** Undoes filter `type` in place; `step` is the distance in bytes to the pixel on the left. */
function unfilter(line: Uint8Array, above: Uint8Array, step: number, type: number): void {
  if (type > 4) throw new Error(`row filter ${type} does not exist`);
  for (let i = 0; i < line.length; i++) {
    const left = i < step ? 0 : line[i - step];
    const corner = i < step ? 0 : above[i - step];
    line[i] += predictor(type, left, above[i], corner);
  }
}

/** Sample `i` of a row, most significant bit first. */
function sampleAt(line: Uint8Array, i: number, bitDepth: number): number {
  if (bitDepth === 8) return line[i];
  if (bitDepth === 16) return (line[2 * i] << 8) | line[2 * i + 1];
  const bit = i * bitDepth;
  return (line[bit >> 3] >> (8 - bitDepth - (bit & 7))) & ((1 << bitDepth) - 1);
}

/** Converts one row of samples and writes its pixels `step` bytes apart from `at` on. */
function writeRow(
  line: Uint8Array,
  columns: number,
  samples: number,
  { bitDepth, colourType, palette, transparency }: PixelFormat,
  out: Uint8Array,
  at: number,
  step: number,
): void {
  const toByte = (value: number): number => (bitDepth === 16 ? value >> 8 : (value * 255) / (2 ** bitDepth - 1)); // whole
  const keyed = transparency && samples !== 2 && samples !== 4 ? transparency : undefined;
  const pixel = [0, 0, 0, 0];
  for (let i = 0, o = at; i < columns; i++, o += step) {
    for (let s = 0; s < samples; s++) pixel[s] = sampleAt(line, i * samples + s, bitDepth);
    if (colourType === INDEXED) {
      const index = pixel[0];
      if (3 * index >= palette!.length)
        throw new Error(`a pixel uses colour ${index} of a palette of ${palette!.length / 3}`);
      for (let c = 0; c < 3; c++) out[o + c] = palette![3 * index + c];
      out[o + 3] = transparency?.[index] ?? 255;
      continue;
    }
    const colours = samples >= 3 ? 3 : 1;
    for (let c = 0; c < 3; c++) out[o + c] = toByte(pixel[colours === 3 ? c : 0]);
    if (samples > colours) out[o + 3] = toByte(pixel[colours]);
    else out[o + 3] = keyed && isKey(pixel, samples, keyed) ? 0 : 255;
  }
}

/** Whether the samples equal the transparent colour of tRNS. */
function isKey(pixel: readonly number[], samples: number, key: Uint8Array): boolean {
  for (let s = 0; s < samples; s++) if (pixel[s] !== ((key[2 * s] << 8) | key[2 * s + 1])) return false;
  return true;
}

/** Inflates at most `expected` bytes: the bound makes a decompression bomb an error instead of an allocation. */
function inflate(stream: Uint8Array, expected: number): Uint8Array {
  try {
    return inflateSync(stream, { maxOutputLength: expected });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ERR_BUFFER_TOO_LARGE")
      throw new Error(`the pixel data are larger than the ${expected} bytes of the frame`);
    throw new Error(`the pixel data are corrupt: ${message}`);
  }
}
