// A sticker's frame as small as models see it, on white. The inner loops are in simd.ts, whose memory holds one row of
// the frame and what becomes of all rows; the weights are resample.ts's. Called by frames.ts alone.

import { CUBIC, taps } from "./resample.ts";
import { scratch, simd } from "./simd.ts";

/** Bytes of a pixel in floats: red, green, blue and one that means nothing. */
const PIXEL = 16;

/** alpha / 255 of each byte. */
const SHARES = Float32Array.from({ length: 256 }, (_, alpha) => alpha / 255);

/** Straight-alpha RGBA [height, width, 4] -> [size, size, 3] on white, as `prepareFrame` says. */
export function resizeOnWhite(rgba: Uint8ClampedArray, width: number, height: number, size: number): Uint8Array {
  const [columns, rows] = [table(width, size), table(height, size)];
  // Four rows at a time, and then four columns: what is computed of those behind the last means nothing.
  const fours = Math.ceil(size / 4);
  const line = 4 * PIXEL * fours;
  // The parts of the memory, one behind the other.
  let end = 0;
  const part = (bytes: number): number => {
    end += bytes;
    return end - bytes;
  };
  const [floats, across, down] = [part(4 * PIXEL * width), part(4 * line * Math.ceil(height / 4)), part(line)];
  const [four, out] = [part(4 * 4 * width), part(4 * Math.ceil((3 * size * size + 1) / 4))];
  const [shares, columnStarts, fourStarts] = [part(4 * 256), part(4 * size), part(4 * fours)];
  const [columnWeights, rowWeights] = [part(4 * columns.weights.length), part(4 * rows.weights.length)];
  const memory = scratch(end);
  new Float32Array(memory, shares, 256).set(SHARES);
  new Int32Array(memory, columnStarts, size).set(columns.starts.map((start) => PIXEL * start));
  new Int32Array(memory, fourStarts, fours).set(Array.from({ length: fours }, (_, i) => 4 * PIXEL * i));
  new Float32Array(memory, columnWeights, columns.weights.length).set(columns.weights);
  new Float32Array(memory, rowWeights, rows.weights.length).set(rows.weights);

  const bytes = new Uint8Array(memory);
  const [row, next] = [PIXEL * width, 4 * columns.taps];
  for (let y = 0; y < height; y += 4) {
    bytes.set(rgba.subarray(4 * width * y, 4 * width * (y + 4)), four);
    simd.onWhite(four, floats, 4 * width, shares);
    const to = across + line * y;
    simd.weightedSums(floats, row, PIXEL, columnStarts, columnWeights, next, columns.taps, to, line, PIXEL, size);
  }
  for (let y = 0; y < size; y++) {
    const [from, weights] = [across + line * rows.starts[y], rowWeights + 4 * rows.taps * y];
    simd.weightedSums(from, PIXEL, line, fourStarts, weights, 0, rows.taps, down, PIXEL, 4 * PIXEL, fours);
    simd.toBytes(down, out + 3 * size * y, size);
  }
  return bytes.slice(out, out + 3 * size * size);
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
