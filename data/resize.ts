// A sticker's frame as small as models see it, on white. The inner loops are in simd.ts, whose memory holds one row of
// the frame and what becomes of all rows; the weights are resample.ts's. Called by frames.ts alone.

import { CUBIC, taps } from "./resample.ts";
import { scratch, simd } from "./simd.ts";

/** Bytes of a pixel in floats: red, green, blue and one that means nothing. */
const PIXEL = 16;

/** Straight-alpha RGBA [height, width, 4] -> [size, size, 3] on white, as `prepareFrame` says. */
export function resizeOnWhite(rgba: Uint8ClampedArray, width: number, height: number, size: number): Uint8Array {
  const [columns, rows] = [table(width, size), table(height, size)];
  const line = PIXEL * size;
  // The parts of the memory, one behind the other.
  let end = 0;
  const part = (bytes: number): number => {
    end += bytes;
    return end - bytes;
  };
  const [floats, across, down] = [part(PIXEL * width), part(line * height), part(line)];
  const [row, inLine] = [part(4 * width), part(4 * size)];
  const [columnStarts, columnWeights] = [part(4 * size), part(4 * columns.weights.length)];
  const rowWeights = part(4 * rows.weights.length);
  const memory = scratch(end);
  new Int32Array(memory, inLine, size).set(Array.from({ length: size }, (_, x) => PIXEL * x));
  new Int32Array(memory, columnStarts, size).set(columns.starts.map((start) => PIXEL * start));
  new Float32Array(memory, columnWeights, columns.weights.length).set(columns.weights);
  new Float32Array(memory, rowWeights, rows.weights.length).set(rows.weights);

  const bytes = new Uint8Array(memory, row, 4 * width);
  const next = 4 * columns.taps;
  for (let y = 0; y < height; y++) {
    bytes.set(rgba.subarray(4 * width * y, 4 * width * (y + 1)));
    simd.onWhite(row, floats, width);
    simd.weightedSums(floats, PIXEL, columnStarts, columnWeights, next, columns.taps, across + line * y, size);
  }
  const out = new Uint8ClampedArray(3 * size * size);
  const sums = new Float32Array(memory, down, 4 * size);
  for (let y = 0; y < size; y++) {
    const [from, weights] = [across + line * rows.starts[y], rowWeights + 4 * rows.taps * y];
    simd.weightedSums(from, line, inLine, weights, 0, rows.taps, down, size);
    for (let x = 0, o = 3 * size * y; x < size; x++, o += 3) {
      out[o] = sums[4 * x];
      out[o + 1] = sums[4 * x + 1];
      out[o + 2] = sums[4 * x + 2];
    }
  }
  return new Uint8Array(out.buffer);
}

/** Where the window of each output position starts, and its weights: as many for each, some of them 0. */
interface Table {
  readonly from: number;
  readonly to: number;
  readonly taps: number;
  readonly starts: Int32Array;
  readonly weights: Float32Array;
}

let recent: readonly Table[] = [];

/** Tables of the latest few sizes are kept: the frames of a sticker, and most stickers of a set, share theirs. */
function table(from: number, to: number): Table {
  const known = recent.find((entry) => entry.from === from && entry.to === to);
  if (known) return known;
  const { starts, weights } = taps(from, to, CUBIC);
  const most = Math.max(...weights.map((row) => row.length));
  const made = { from, to, taps: most, starts: new Int32Array(to), weights: new Float32Array(to * most) };
  weights.forEach((row, i) => {
    made.starts[i] = Math.min(starts[i], from - most); // so that the window ends inside
    made.weights.set(row, i * most + starts[i] - made.starts[i]);
  });
  recent = [made, ...recent].slice(0, 4);
  return made;
}
