// Case i of a fuzz run: a file made from (seed, i) alone, so that a failure is repeated by its number. Most are a whole file
// (seeds.ts) damaged in one to three ways; blind damage mostly meets checksums, so some ways know the format and mend them.

import { crc32, deflateSync } from "node:zlib";
import { bitsFrom } from "../../engine/state.ts";
import { type Seed, STRANGERS } from "./seeds.ts";

export interface Case {
  /** With an extension that need not be true. */
  readonly name: string;
  /** What was done, for the report. */
  readonly how: string;
  readonly bytes: Buffer;
}

/** A number from 0 to below its argument. */
export type Draw = (below: number) => number;

type Mutation = (bytes: Buffer, draw: Draw, all: readonly Seed[]) => Buffer;

const EXTENSIONS = ["gif", "webp", "png", "apng", "jpg", "jpeg"];

/** Numbers that sizes and counts are compared with, or overflow at. */
const EDGES = [0, 1, 2, 255, 256, 4095, 4096, 4097, 32767, 65535, 0x7fffffff, 0xffffffff];

/** A case of the run with this seed. */
export function fuzzCase(all: readonly Seed[], seed: number, i: number): Case {
  const bits = bitsFrom(seed, `case ${i}`);
  let at = 0;
  const draw: Draw = (below) => bits(at++) % below;
  const name = `case-${i}.${EXTENSIONS[draw(EXTENSIONS.length)]}`;
  if (draw(40) === 0) return { name, how: "stranger", bytes: STRANGERS[draw(STRANGERS.length)] };
  const { format, bytes } = all[draw(all.length)];
  const [done, ways] = [[] as string[], 1 + draw(3)];
  let out = bytes;
  for (let way = 0; way < ways; way++) {
    const [label, mutate] = pick(draw, out);
    done.push(label);
    out = mutate(out, draw, all);
  }
  return { name, how: `${format}: ${done.join(", ")}`, bytes: out };
}

function pick(draw: Draw, bytes: Buffer): readonly [string, Mutation] {
  const known = bytes.subarray(0, 3).equals(GIF)
    ? OF_GIF
    : bytes.subarray(1, 4).toString("latin1") === "PNG"
      ? OF_PNG
      : bytes.subarray(0, 4).toString("latin1") === "RIFF"
        ? OF_WEBP
        : [];
  const from = known.length > 0 && draw(2) === 0 ? known : BLIND;
  return from[draw(from.length)];
}

// ---- damage that knows nothing

const span = (bytes: Buffer, draw: Draw): [number, number] => {
  const from = draw(bytes.length + 1);
  return [from, Math.min(bytes.length, from + 1 + draw(64))];
};

const BLIND: readonly (readonly [string, Mutation])[] = [
  ["cut", (bytes, draw) => bytes.subarray(0, draw(bytes.length + 1))],
  [
    "bits",
    (bytes, draw) => {
      const out = Buffer.from(bytes);
      for (let n = 1 + draw(16); n > 0 && out.length > 0; n--) out[draw(out.length)] ^= 1 << draw(8);
      return out;
    },
  ],
  [
    "header",
    (bytes, draw) => {
      const out = Buffer.from(bytes);
      for (let n = 1 + draw(4); n > 0 && out.length > 0; n--) out[draw(Math.min(64, out.length))] = draw(256);
      return out;
    },
  ],
  [
    "edge",
    (bytes, draw) => {
      const out = Buffer.from(bytes);
      if (out.length < 4) return out;
      const [at, value] = [draw(out.length - 3), EDGES[draw(EDGES.length)]];
      if (draw(2) === 0) out.writeUInt32BE(value, at);
      else out.writeUInt16LE(value & 0xffff, at);
      return out;
    },
  ],
  [
    "remove",
    (bytes, draw) => {
      const [from, to] = span(bytes, draw);
      return Buffer.concat([bytes.subarray(0, from), bytes.subarray(to)]);
    },
  ],
  [
    "repeat",
    (bytes, draw) => {
      const [from, to] = span(bytes, draw);
      const times = 1 + draw(200);
      return Buffer.concat([bytes.subarray(0, to), ...Array(times).fill(bytes.subarray(from, to)), bytes.subarray(to)]);
    },
  ],
  [
    "noise",
    (bytes, draw) => {
      const [from, to] = span(bytes, draw);
      const noise = Buffer.from(Array.from({ length: to - from }, () => draw(256)));
      return Buffer.concat([bytes.subarray(0, from), noise, bytes.subarray(to)]);
    },
  ],
  [
    "splice",
    (bytes, draw, all) => {
      const other = all[draw(all.length)].bytes;
      return Buffer.concat([bytes.subarray(0, draw(bytes.length + 1)), other.subarray(draw(other.length + 1))]);
    },
  ],
];

// ---- damage that knows the format

const GIF = Buffer.from("GIF");

/** Zeros as one LZW run of `pixels` of 2-bit literals: what a bomb is made of. Codes are all "clear" and "0": 1 pixel each. */
function flatFrame(width: number, height: number): Buffer {
  const body = lzwZeros(width * height);
  const blocks: Buffer[] = [];
  for (let at = 0; at < body.length; at += 255) {
    const part = body.subarray(at, at + 255);
    blocks.push(Buffer.from([part.length]), part);
  }
  const head = Buffer.from([
    0x2c,
    0,
    0,
    0,
    0,
    width & 255,
    width >> 8,
    height & 255,
    height >> 8,
    0x80,
    1,
    1,
    1,
    9,
    9,
    9,
    2,
  ]);
  return Buffer.concat([head, ...blocks, Buffer.from([0])]);
}

/** LZW of `pixels` zeros, 2-bit literals: each code names a run longer by one than the last until the table is full. */
function lzwZeros(pixels: number): Buffer {
  const out: number[] = [];
  let [held, heldBits, next, bits, left, run] = [4, 3, 6, 3, pixels, 0];
  const put = (code: number): void => {
    held |= code << heldBits;
    heldBits += bits;
    while (heldBits >= 8) {
      out.push(held & 255);
      held >>>= 8;
      heldBits -= 8;
    }
  };
  while (left > 0) {
    if (run === 0) put(0);
    else if (next < 4096) {
      put(next);
      next++;
      if (next === 1 << bits && bits < 12) bits++;
    } else put(4095);
    run = Math.min(run + 1, 4095 - 6 + 2);
    left -= run;
  }
  put(5);
  out.push(held & 255, held >> 8);
  return Buffer.from(out);
}

const OF_GIF: readonly (readonly [string, Mutation])[] = [
  [
    "gif size",
    (bytes, draw) => {
      const out = Buffer.from(bytes);
      if (out.length < 10) return out;
      for (const at of [6, 8]) if (draw(3) > 0) out.writeUInt16LE(EDGES[draw(EDGES.length)] & 0xffff, at);
      return out;
    },
  ],
  [
    "gif frames",
    (bytes, draw) => {
      const frame = flatFrame(1 + draw(3), 1 + draw(3));
      const end = Math.max(13, bytes.length - 1);
      return Buffer.concat([
        bytes.subarray(0, end),
        ...Array([3, 500, 513, 20_000][draw(4)]).fill(frame),
        bytes.subarray(end),
      ]);
    },
  ],
  [
    "gif bomb",
    (bytes, draw) => {
      const side = [8192, 4096, 2048][draw(24)] ?? 64; // most are small, or a run would do little else
      const size = Buffer.from([side & 255, side >> 8, side & 255, side >> 8, 0, 0, 0]);
      const disposal = Buffer.from([0x21, 0xf9, 4, draw(4) << 2, 5, 0, 0, 0]);
      const frames = Array(1 + draw(side > 2048 ? 17 : 40))
        .fill([disposal, flatFrame(side, side)])
        .flat();
      return Buffer.concat([bytes.subarray(0, 6), size, ...frames, Buffer.from([0x3b])]);
    },
  ],
];

const deflated = new Map<number, Buffer>();

/** Many zero bytes, deflated: the same few again and again. */
function zeros(count: number): Buffer {
  const found = deflated.get(count) ?? deflateSync(Buffer.alloc(count), { level: 1 });
  deflated.set(count, found);
  return found;
}

interface PngChunk {
  readonly type: string;
  readonly body: Buffer;
}

/** Chunks as far as they can be read. */
function pngChunks(bytes: Buffer): PngChunk[] {
  const chunks: PngChunk[] = [];
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    if (at + 12 + length > bytes.length) break;
    chunks.push({
      type: bytes.toString("latin1", at + 4, at + 8),
      body: Buffer.from(bytes.subarray(at + 8, at + 8 + length)),
    });
    at += 12 + length;
  }
  return chunks;
}

/** With lengths and checksums that are right. */
function pngOf(bytes: Buffer, chunks: readonly PngChunk[]): Buffer {
  const parts = chunks.map(({ type, body }) => {
    const typed = Buffer.concat([Buffer.from(type, "latin1"), body]);
    const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(body.length);
    sum.writeUInt32BE(crc32(typed));
    return Buffer.concat([length, typed, sum]);
  });
  return Buffer.concat([bytes.subarray(0, 8), ...parts]);
}

/** Changes one chunk that `which` allows. */
function inChunk(which: RegExp, change: (body: Buffer, draw: Draw) => Buffer): Mutation {
  return (bytes, draw) => {
    const chunks = pngChunks(bytes);
    const places = chunks.flatMap(({ type }, i) => (which.test(type) ? [i] : []));
    if (places.length === 0) return bytes;
    const place = places[draw(places.length)];
    return pngOf(
      bytes,
      chunks.map((chunk, i) => (i === place ? { ...chunk, body: change(chunk.body, draw) } : chunk)),
    );
  };
}

const OF_PNG: readonly (readonly [string, Mutation])[] = [
  [
    "png size",
    inChunk(/IHDR|fcTL/, (body, draw) => {
      const out = Buffer.from(body);
      for (const at of [0, 4, 8, 12, 16])
        if (at + 4 <= out.length && draw(3) === 0) out.writeUInt32BE(EDGES[draw(EDGES.length)], at);
      return out;
    }),
  ],
  [
    "png byte",
    inChunk(/./, (body, draw) => {
      const out = Buffer.from(body);
      for (let n = 1 + draw(4); n > 0 && out.length > 0; n--) out[draw(out.length)] = draw(256);
      return out;
    }),
  ],
  ["png cut chunk", inChunk(/./, (body, draw) => body.subarray(0, draw(body.length + 1)))],
  [
    "png bomb",
    inChunk(/IDAT|fdAT/, (body, draw) => {
      const bomb = zeros([3e7, 7e7][draw(8)] ?? 1e5);
      return Buffer.concat([body.length > 4 && draw(2) === 0 ? body.subarray(0, 4) : Buffer.alloc(0), bomb]);
    }),
  ],
  [
    "png order",
    (bytes, draw) => {
      const chunks = pngChunks(bytes);
      if (chunks.length === 0) return bytes;
      const [from, to] = [draw(chunks.length), draw(chunks.length)];
      const moved = draw(2) === 0 ? chunks.filter((_, i) => i !== from) : [...chunks];
      moved.splice(to, 0, chunks[from]);
      return pngOf(bytes, moved);
    },
  ],
  [
    "png wide",
    (bytes, draw) => {
      const side = [4097, 4096][draw(12)] ?? 256;
      const header = Buffer.alloc(13);
      header.writeUInt32BE(side, 0);
      header.writeUInt32BE(side, 4);
      header.set([[8, 16][draw(2)], [0, 2, 4, 6][draw(4)], 0, 0, draw(2)], 8);
      const chunks = [
        { type: "IHDR", body: header },
        { type: "IDAT", body: zeros(side * (8 * side + 1)) },
        { type: "IEND", body: Buffer.alloc(0) },
      ];
      return pngOf(bytes, chunks);
    },
  ],
];

/** RIFF with the length that it has now. */
function riff(bytes: Buffer): Buffer {
  const out = Buffer.from(bytes);
  if (out.length >= 8) out.writeUInt32LE(out.length - 8, 4);
  return out;
}

const OF_WEBP: readonly (readonly [string, Mutation])[] = [
  [
    "webp size",
    (bytes, draw) => {
      const out = Buffer.from(bytes);
      const at = out.indexOf("VP8X");
      if (at < 0 || at + 18 > out.length) return out;
      for (const place of [at + 12, at + 15]) out.writeUIntLE(EDGES[draw(EDGES.length)] & 0xffffff, place, 3);
      return out;
    },
  ],
  [
    "webp frames",
    (bytes, draw) => {
      const at = bytes.indexOf("ANMF");
      if (at < 0) return bytes;
      const next = bytes.indexOf("ANMF", at + 4);
      const frame = bytes.subarray(at, next < 0 ? bytes.length : next);
      return riff(Buffer.concat([bytes, ...Array([1, 100, 511, 3000][draw(4)]).fill(frame)]));
    },
  ],
  [
    "webp chunk",
    (bytes, draw) => {
      const out = Buffer.from(bytes);
      if (out.length > 20) out[12 + draw(Math.min(80, out.length - 12))] = draw(256);
      return riff(out);
    },
  ],
];
