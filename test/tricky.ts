// GIFs and APNGs with the features that decoders get wrong, whole and lawful or as they are met in the wild. chromium.test.ts
// shows each to a browser and to our decoder. What is refused by us, where a browser shows something, is listed with the reason.

import { deflateSync } from "node:zlib";
import { COMPOSED, frameBytes, gif, growingLzw, plain, type TestFrame } from "./gif_bytes.ts";
import { be32, chunk, PNG, partialApng, stream } from "./png_bytes.ts";

export interface Tricky {
  readonly name: string;
  readonly bytes: Uint8Array;
}

const FOUR = [10, 20, 30, 200, 0, 0, 0, 200, 0, 0, 0, 200];
const greys = (count: number): number[] =>
  Array.from({ length: 3 * count }, (_, i) => (Math.floor(i / 3) * (255 / (count - 1))) | 0);
const next = stream(7);
const noise = (count: number, below: number): number[] => Array.from({ length: count }, () => next(below));
const small = noise(64, 4);
const withFrames = (frames: TestFrame[], width = 3, height = 3): Uint8Array => gif(width, height, frames);
/** Replaces everything behind the palette of an empty GIF. */
const blocks = (width: number, height: number, ...parts: readonly (readonly number[])[]): Uint8Array =>
  Uint8Array.from([...gif(width, height, []).slice(0, -1), ...parts.flat(), 0x3b]);
const LOOP = [0x21, 0xff, 11, ...Buffer.from("NETSCAPE2.0"), 3, 1, 0, 0, 0];
const COMMENT = [0x21, 0xfe, 5, ...Buffer.from("hello"), 0];
const bare = frameBytes({ rows: ["BB"] }).slice(8);

export const GIFS: readonly Tricky[] = [
  ...COMPOSED.map(({ name, frames, background }) => ({ name, bytes: gif(3, 3, frames, background) })),
  {
    name: "interlaced, 11 rows",
    bytes: gif(2, 11, [
      { rows: Array.from({ length: 11 }, (_, y) => "KRGB"[y % 4] + "RGBK"[(y >> 1) % 4]), interlaced: true },
    ]),
  },
  {
    name: "interlaced, 1 to 4 rows",
    bytes: gif(
      1,
      4,
      [1, 2, 3, 4].map((n) => ({ rows: [..."RGBK"].slice(0, n), interlaced: true })),
    ),
  },
  {
    name: "delays of 0, 10, 20 and 70 ms",
    bytes: gif(
      1,
      1,
      [0, 1, 2, 7].map((delay) => ({ rows: ["R"], delay })),
    ),
  },
  {
    name: "a control block is of the next frame only",
    bytes: blocks(2, 1, frameBytes({ rows: ["G."], disposal: 2, delay: 50 }), bare, bare),
  },
  {
    name: "of two control blocks the later counts",
    bytes: blocks(
      2,
      1,
      frameBytes({ rows: ["RR"], disposal: 1 }),
      frameBytes({ rows: ["GG"], disposal: 2, delay: 50 }).slice(0, 8),
      frameBytes({ rows: ["B."], disposal: 1, delay: 30 }),
      bare,
    ),
  },
  {
    name: "a comment and a loop block between control and image",
    bytes: blocks(
      2,
      1,
      LOOP,
      frameBytes({ rows: ["RG"] }).slice(0, 8),
      COMMENT,
      LOOP,
      frameBytes({ rows: ["R."] }).slice(8),
      bare,
    ),
  },
  {
    name: "disposal 3 behind disposal 2",
    bytes: withFrames([{ rows: ["RRR", "GGG"], disposal: 2 }, { x: 1, rows: ["BB"], disposal: 3 }, { rows: ["K"] }]),
  },
  {
    name: "disposal 3 three times",
    bytes: withFrames([
      { rows: ["RRR"] },
      ...["G", "B", "K"].map((c, x) => ({ x, rows: [c], disposal: 3 })),
      { rows: ["."] },
    ]),
  },
  {
    name: "disposal 2 of a transparent frame over another",
    bytes: withFrames([
      { rows: ["RRR", "RRR", "RRR"], disposal: 1 },
      { rows: ["..", ".."], disposal: 2 },
      { x: 2, y: 2, rows: ["G"] },
    ]),
  },
  ...[5, 6, 7].map((disposal) => ({
    name: `disposal ${disposal}, which is none`,
    bytes: withFrames([
      { rows: ["RRR", "GGG"], disposal },
      { x: 1, rows: ["B"] },
    ]),
  })),
  { name: "the last frame is disposed of as well", bytes: withFrames([{ rows: ["RGB"], disposal: 2 }]) },
  {
    name: "a first frame larger than the canvas",
    bytes: gif(2, 2, [{ rows: ["RGB", "GBK", "KKR"], disposal: 1 }, { rows: ["B"] }]),
  },
  {
    name: "a later frame larger than the canvas",
    bytes: gif(2, 2, [{ rows: ["RG", "GB"], disposal: 1 }, { rows: ["BBB", "BKB", "RRR"] }, { x: 1, rows: ["G"] }]),
  },
  {
    name: "a later frame wholly outside of the canvas",
    bytes: gif(2, 2, [{ rows: ["RG", "GB"], disposal: 1 }, { x: 5, y: 5, rows: ["K"], disposal: 2 }, { rows: ["B"] }]),
  },
  {
    name: "a later frame that sticks out and is put back",
    bytes: gif(3, 3, [
      { rows: ["RGB", "GBK", "KKR"], disposal: 1 },
      { x: 2, y: 2, rows: ["GG", "GG"], disposal: 3 },
      { rows: ["B"] },
    ]),
  },
  { name: "GIF87a", bytes: Uint8Array.from([...Buffer.from("GIF87a"), ...withFrames([{ rows: ["RGB"] }]).slice(6)]) },
  {
    name: "codes of 1 bit and a palette of 2",
    bytes: plain(8, 8, growingLzw(noise(64, 2), 1), [9, 9, 9, 250, 240, 230]),
  },
  { name: "codes of 8 bits", bytes: plain(16, 16, growingLzw(noise(256, 256), 8), greys(256)) },
  { name: "codes wider than the palette needs", bytes: plain(8, 8, growingLzw(small, 7), FOUR) },
  { name: "a palette of one colour twice", bytes: plain(4, 4, growingLzw(noise(16, 2), 1), [70, 80, 90, 70, 80, 90]) },
  { name: "codes that grow to 12 bits", bytes: plain(40, 60, growingLzw(noise(2400, 4), 2), FOUR) },
  { name: "a full table that is not cleared", bytes: plain(100, 60, growingLzw(noise(6000, 4), 2), FOUR) },
  { name: "no clear code at the beginning", bytes: plain(8, 8, growingLzw(small, 2, { clear: false }), FOUR) },
  { name: "no end code", bytes: plain(8, 8, growingLzw(small, 2, { end: false }), FOUR) },
  {
    name: "bytes behind the end code",
    bytes: plain(8, 8, growingLzw(small, 2, { behind: [1, 2, 3, 255, 255] }), FOUR),
  },
  { name: "more pixels than the image has", bytes: plain(8, 7, growingLzw(small, 2), FOUR) },
  {
    name: "no global palette",
    bytes: Uint8Array.from([
      ...Buffer.from("GIF89a"),
      3,
      0,
      1,
      0,
      0,
      0,
      0,
      ...frameBytes({ rows: ["RGB"], local: ["R", "G", "K", "B"] }),
      0x3b,
    ]),
  },
  { name: "an index beyond the palette", bytes: plain(8, 8, growingLzw(small, 2), FOUR.slice(0, 6)) },
  { name: "a transparent index beyond the palette", bytes: blocks(2, 1, [0x21, 0xf9, 4, 1, 10, 0, 200, 0], bare) },
  { name: "no trailer", bytes: withFrames([{ rows: ["RGB"] }, { rows: ["G"] }]).slice(0, -1) },
  {
    name: "garbage behind the trailer",
    bytes: Uint8Array.from([...withFrames([{ rows: ["RGB"] }, { rows: ["G"] }]), 1, 2, 3, 0x2c]),
  },
];

/** What we refuse: Chromium shows some of it, as pictures that nobody has drawn. */
export const REFUSED: readonly (Tricky & {
  readonly chromium: "shows" | "refuses";
  readonly ours: RegExp;
})[] = [
  {
    name: "an early end code",
    bytes: plain(8, 8, growingLzw(small.slice(0, 20), 2), FOUR),
    chromium: "refuses",
    ours: /ends after 20 of 64 pixels/,
  },
  {
    name: "no palette at all",
    bytes: Uint8Array.from([...Buffer.from("GIF89a"), 2, 0, 1, 0, 0, 0, 0, ...bare, 0x3b]),
    chromium: "shows",
    ours: /no colour table/,
  },
  {
    name: "an image without pixels",
    bytes: blocks(2, 1, [0x2c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 5, 0], bare),
    chromium: "shows",
    ours: /is empty/,
  },
];

/** An APNG from its chunks. */
const apng = (...chunks: Buffer[]): Uint8Array => new Uint8Array(Buffer.concat([PNG, ...chunks, chunk("IEND")]));
const ihdr = (w: number, h: number, depth: number, type: number, interlace = 0) =>
  chunk("IHDR", be32(w), be32(h), [depth, type, 0, 0, interlace]);
const control = (n: number, [w, h, x, y]: readonly number[], disposal = 0, blend = 0, delay = [0, 10, 0, 100]) =>
  chunk("fcTL", be32(n), [w, h, x, y].flatMap(be32), delay, [disposal, blend]);
const packed = (rows: readonly (readonly number[])[]) =>
  deflateSync(Uint8Array.from(rows.flatMap((row) => [0, ...row])));
const acTL = (frames: number) => chunk("acTL", be32(frames), be32(0));
const pixels = (width: number, height: number, rgba: readonly number[]) =>
  packed(Array.from({ length: height }, () => Array.from({ length: width }, () => rgba).flat()));
const fdAT = (n: number, data: Uint8Array) => chunk("fdAT", be32(n), data);

/** One frame of 4 x 4 pixels in a format of samples, with the chunks between header and data. */
function format(depth: number, type: number, bytesPerRow: number, ...chunks: Buffer[]): Uint8Array {
  const rows = Array.from({ length: 4 }, () => noise(bytesPerRow, 256));
  return apng(ihdr(4, 4, depth, type), acTL(1), ...chunks, control(0, [4, 4, 0, 0]), chunk("IDAT", packed(rows)));
}

const PALETTE = chunk(
  "PLTE",
  Array.from({ length: 3 * 16 }, (_, i) => (i * 37) % 256),
);
const [RED, GREEN, BLUE, NONE] = [
  [250, 10, 20, 255],
  [10, 240, 30, 255],
  [5, 15, 230, 255],
  [0, 0, 0, 0],
];

export const APNGS: readonly Tricky[] = [
  ...Array.from({ length: 24 }, (_, seed) => ({
    name: `partial frames, disposals and blends, number ${seed}`,
    bytes: partialApng(seed),
  })),
  {
    name: "a default image that is not of the animation",
    bytes: apng(
      ihdr(2, 2, 8, 6),
      acTL(2),
      chunk("IDAT", pixels(2, 2, RED)),
      control(0, [2, 2, 0, 0]),
      fdAT(1, pixels(2, 2, GREEN)),
      control(2, [1, 1, 1, 1]),
      fdAT(3, pixels(1, 1, BLUE)),
    ),
  },
  {
    name: "a first frame to be put back",
    bytes: apng(
      ihdr(2, 2, 8, 6),
      acTL(2),
      control(0, [2, 2, 0, 0], 2),
      chunk("IDAT", pixels(2, 2, RED)),
      control(1, [1, 1, 1, 0]),
      fdAT(2, pixels(1, 1, BLUE)),
    ),
  },
  {
    name: "put back behind cleared",
    bytes: apng(
      ihdr(2, 1, 8, 6),
      acTL(3),
      control(0, [2, 1, 0, 0], 1),
      chunk("IDAT", pixels(2, 1, RED)),
      control(1, [1, 1, 0, 0], 2),
      fdAT(2, pixels(1, 1, GREEN)),
      control(3, [1, 1, 1, 0], 0, 1),
      fdAT(4, pixels(1, 1, BLUE)),
    ),
  },
  {
    name: "source replaces by transparent pixels, over leaves what is below",
    bytes: apng(
      ihdr(3, 1, 8, 6),
      acTL(3),
      control(0, [3, 1, 0, 0]),
      chunk("IDAT", pixels(3, 1, RED)),
      control(1, [1, 1, 1, 0], 0, 0),
      fdAT(2, pixels(1, 1, NONE)),
      control(3, [1, 1, 2, 0], 0, 1),
      fdAT(4, pixels(1, 1, NONE)),
    ),
  },
  {
    name: "half-transparent pixels over opaque ones",
    bytes: apng(
      ihdr(2, 1, 8, 6),
      acTL(2),
      control(0, [2, 1, 0, 0]),
      chunk("IDAT", pixels(2, 1, RED)),
      control(1, [1, 1, 1, 0], 0, 1),
      fdAT(2, pixels(1, 1, [0, 100, 200, 51])),
    ),
  },
  {
    name: "delays with a denominator of 0, of 0 ms and of seconds",
    bytes: apng(
      ihdr(1, 1, 8, 6),
      acTL(3),
      control(0, [1, 1, 0, 0], 0, 0, [0, 7, 0, 0]),
      chunk("IDAT", pixels(1, 1, RED)),
      control(1, [1, 1, 0, 0], 0, 0, [0, 0, 0, 100]),
      fdAT(2, pixels(1, 1, BLUE)),
      control(3, [1, 1, 0, 0], 0, 0, [0, 2, 0, 1]),
      fdAT(4, pixels(1, 1, GREEN)),
    ),
  },
  {
    name: "image data in several chunks",
    bytes: (() => {
      const data = pixels(2, 2, GREEN);
      return apng(
        ihdr(2, 2, 8, 6),
        acTL(2),
        control(0, [2, 2, 0, 0]),
        chunk("IDAT", data.subarray(0, 5)),
        chunk("IDAT", data.subarray(5)),
        control(1, [2, 2, 0, 0]),
        fdAT(2, data.subarray(0, 3)),
        fdAT(3, data.subarray(3)),
      );
    })(),
  },
  { name: "grey, 1 bit", bytes: format(1, 0, 1) },
  { name: "grey, 2 bits", bytes: format(2, 0, 1) },
  { name: "grey, 4 bits", bytes: format(4, 0, 2) },
  { name: "grey, 8 bits", bytes: format(8, 0, 4) },
  { name: "grey, 16 bits", bytes: format(16, 0, 8) },
  { name: "grey with a transparent value", bytes: format(2, 0, 1, chunk("tRNS", [0, 2])) },
  { name: "RGB, 8 bits", bytes: format(8, 2, 12) },
  { name: "RGB, 16 bits", bytes: format(16, 2, 24) },
  {
    name: "RGB with a transparent colour",
    bytes: apng(
      ihdr(2, 1, 8, 2),
      acTL(1),
      chunk("tRNS", [0, 5, 0, 6, 0, 7]),
      control(0, [2, 1, 0, 0]),
      chunk("IDAT", packed([[5, 6, 7, 5, 6, 8]])),
    ),
  },
  { name: "palette, 4 bits", bytes: format(4, 3, 2, PALETTE) },
  {
    name: "palette with transparent entries",
    bytes: format(
      4,
      3,
      2,
      PALETTE,
      chunk(
        "tRNS",
        Array.from({ length: 9 }, (_, i) => 255 * (i % 2)),
      ),
    ),
  },
  {
    name: "grey with alpha, opaque, 8 bits",
    bytes: apng(ihdr(2, 1, 8, 4), acTL(1), control(0, [2, 1, 0, 0]), chunk("IDAT", packed([[77, 255, 200, 0]]))),
  },
  {
    name: "RGBA, opaque, 16 bits",
    bytes: apng(
      ihdr(2, 1, 16, 6),
      acTL(1),
      control(0, [2, 1, 0, 0]),
      chunk("IDAT", packed([[12, 200, 99, 127, 1, 2, 255, 255, 200, 129, 3, 4, 5, 6, 255, 255]])),
    ),
  },
];
