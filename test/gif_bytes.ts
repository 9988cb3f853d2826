// GIFs written byte by byte from rows of letters, so that no encoder of the project can hide a mistake of its decoder; and
// animations whose composed frames were worked out by hand. Used by decode.test.ts and, with Chromium as the judge, by
// chromium.test.ts.

export const u16 = (n: number) => [n & 255, n >> 8];
export const COLOURS = { K: [0, 0, 0], R: [255, 0, 0], G: [0, 255, 0], B: [0, 0, 255] } as const;
const INDEX = { K: 0, R: 1, G: 2, B: 3 } as const;
export type Colour = keyof typeof COLOURS;

export interface TestFrame {
  x?: number;
  y?: number;
  /** Rows of K, R, G, B; "." is drawn as the transparent index. */
  rows: string[];
  disposal?: number;
  delay?: number;
  /** Local palette as four colours instead of the global KRGB. */
  local?: Colour[];
  interlaced?: boolean;
}

/** Two-bit literals with a clear code before the code width could grow: 3 bits a code throughout. */
export function literalLzw(indices: number[]): number[] {
  const codes = indices.flatMap((index, i) => (i % 2 === 0 ? [4, index] : [index]));
  const bits = [...codes, 5].map((code) => code.toString(2).padStart(3, "0").split("").reverse().join("")).join("");
  const bytes = (bits.match(/.{1,8}/g) ?? []).map((b) => Number.parseInt(b.split("").reverse().join(""), 2));
  return [2, ...subBlocks(bytes), 0];
}

/** LZW of these codes: the table, and with it the width of codes, grows with every one, until it is full or cleared. */
export function growingLzw(
  listed: readonly number[],
  bits: number,
  { clear = true, end = true, behind = [] as readonly number[] } = {},
): number[] {
  const codes = [...(clear ? [1 << bits] : []), ...listed, ...(end ? [(1 << bits) + 1] : [])];
  const bytes: number[] = [];
  let [held, heldBits, width, next] = [0, 0, bits + 1, (1 << bits) + 2];
  let first = true; // the first code behind a clear makes no entry
  for (const code of codes) {
    held |= code << heldBits;
    for (heldBits += width; heldBits >= 8; heldBits -= 8, held >>>= 8) bytes.push(held & 255);
    if (code === 1 << bits) [width, next, first] = [bits + 1, (1 << bits) + 2, true];
    else {
      if (!first && next < 4096) next++;
      first = false;
      if (next === 1 << width && width < 12) width++;
    }
  }
  if (heldBits > 0) bytes.push(held & 255);
  return [bits, ...subBlocks([...bytes, ...behind]), 0];
}

/** A GIF whose one frame, of `width` pixels a row, is what `lzw` says, in the given colours. */
export function plain(
  width: number,
  height: number,
  lzw: readonly number[],
  palette: readonly number[],
  background = 0,
): Uint8Array {
  const size = Math.log2(palette.length / 3) - 1;
  const image = [0x2c, 0, 0, 0, 0, ...u16(width), ...u16(height), 0];
  return Uint8Array.from([...head(width, height, size, palette, background), ...image, ...lzw, 0x3b]);
}

function head(width: number, height: number, size: number, palette: readonly number[], background = 0): number[] {
  return [...Buffer.from("GIF89a"), ...u16(width), ...u16(height), 0x80 | size, background, 0, ...palette];
}

/** Bytes in blocks of at most 255, each behind its length. */
export function subBlocks(bytes: readonly number[]): number[] {
  const blocks: number[] = [];
  for (let at = 0; at < bytes.length; at += 255)
    blocks.push(Math.min(255, bytes.length - at), ...bytes.slice(at, at + 255));
  return blocks;
}

export function frameBytes({ x = 0, y = 0, rows, disposal = 0, delay = 10, local, interlaced }: TestFrame): number[] {
  const transparent = rows.join("").includes(".") ? 3 : -1;
  const indexOf = (c: string) => (c === "." ? transparent : (local?.indexOf(c as Colour) ?? INDEX[c as Colour]));
  const order = interlaced
    ? [
        [0, 8],
        [4, 8],
        [2, 4],
        [1, 2],
      ].flatMap(([a, s]) => rows.filter((_, i) => i % s === a))
    : rows;
  return [
    ...[0x21, 0xf9, 4, (disposal << 2) | (transparent >= 0 ? 1 : 0), ...u16(delay), Math.max(0, transparent), 0],
    ...[0x2c, ...u16(x), ...u16(y), ...u16(rows[0].length), ...u16(rows.length)],
    (local ? 0x81 : 0) | (interlaced ? 0x40 : 0),
    ...(local ?? []).flatMap((c) => COLOURS[c]),
    ...literalLzw([...order.join("")].map(indexOf)),
  ];
}

export function gif(width: number, height: number, frames: TestFrame[], background = 0): Uint8Array {
  const palette = Object.values(COLOURS).flat();
  const head = [...Buffer.from("GIF89a"), ...u16(width), ...u16(height), 0x81, background, 0, ...palette];
  return Uint8Array.from([...head, ...frames.flatMap(frameBytes), 0x3b]);
}

const RED = ["RRR", "RRR", "RRR"];

/** Each expectation was worked out by hand from the GIF89a text, with browsers' reading of "background". */
export const COMPOSED: { name: string; frames: TestFrame[]; background?: number; expected: string[][] }[] = [
  {
    name: "disposal 1 leaves the frame under a partial one",
    frames: [
      { rows: RED, disposal: 1 },
      { x: 1, y: 1, rows: ["GG"] },
    ],
    expected: [RED, ["RRR", "RGG", "RRR"]],
  },
  {
    name: "disposal 0 leaves it too",
    frames: [{ rows: RED }, { x: 2, y: 0, rows: ["B", "B"] }],
    expected: [RED, ["RRB", "RRB", "RRR"]],
  },
  {
    name: "disposal 2 clears only the frame's own rectangle, to transparent, whatever the background index",
    frames: [{ rows: RED, disposal: 1 }, { x: 1, y: 1, rows: ["GG", "GG"], disposal: 2 }, { rows: ["B"] }],
    background: 2,
    expected: [RED, ["RRR", "RGG", "RGG"], ["BRR", "R..", "R.."]],
  },
  {
    name: "disposal 3 puts back what was there before the frame",
    frames: [
      { rows: ["RGB", "RGB", "RGB"], disposal: 1 },
      { x: 0, y: 1, rows: ["KKK"], disposal: 3 },
      { x: 2, y: 2, rows: ["G"] },
    ],
    expected: [
      ["RGB", "RGB", "RGB"],
      ["RGB", "KKK", "RGB"],
      ["RGB", "RGB", "RGG"],
    ],
  },
  {
    name: "disposal 3 on the first frame restores an empty canvas; 4 is read as 3",
    frames: [
      { rows: RED, disposal: 3 },
      { rows: ["G"], disposal: 4 },
      { x: 1, rows: ["B"] },
    ],
    expected: [RED, ["G..", "...", "..."], [".B.", "...", "..."]],
  },
  {
    name: "a first frame smaller than the canvas leaves the rest transparent",
    frames: [{ x: 1, y: 1, rows: ["G"] }],
    background: 1,
    expected: [["...", ".G.", "..."]],
  },
  {
    name: "transparent pixels show the frame below, and are per frame",
    frames: [{ rows: ["RRR", "GGG", "KKK"], disposal: 1 }, { rows: ["G.G", "...", "R.R"] }, { x: 2, rows: ["B"] }],
    expected: [
      ["RRR", "GGG", "KKK"],
      ["GRG", "GGG", "RKR"],
      ["GRB", "GGG", "RKR"],
    ],
  },
  {
    name: "a local palette is used for its frame only",
    frames: [
      { rows: ["GR"], local: ["R", "G", "K", "B"] },
      { x: 1, rows: ["GR"] },
    ],
    expected: [
      ["GR.", "...", "..."],
      ["GGR", "...", "..."],
    ],
  },
  {
    name: "what lies outside the canvas is cut off",
    frames: [{ rows: ["BBB"], disposal: 1 }, { x: 2, y: 2, rows: ["GB", "KK"], disposal: 2 }, { rows: ["R"] }],
    expected: [
      ["BBB", "...", "..."],
      ["BBB", "...", "..G"],
      ["RBB", "...", "..."],
    ],
  },
];
