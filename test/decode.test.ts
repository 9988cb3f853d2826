// Decoders against hand-computed pixels (GIF disposal, partial frames, palettes), against other decoders (omggif,
// upng-js, sharp) and against hostile files. The GIFs are written here byte by byte, so that no encoder of the project
// can hide a mistake of its decoder.

import { crc32, deflateSync } from "node:zlib";
import fc from "fast-check";
import { GifReader } from "omggif";
import sharp from "sharp";
import UPNG from "upng-js";
import { describe, expect, it } from "vitest";
import { DecodeError, decodeSticker, LIMITS } from "../data/decode/index.ts";
import { encodeApng } from "../data/encode/apng.ts";
import { encodeGif } from "../data/encode/gif.ts";

const u16 = (n: number) => [n & 255, n >> 8];
const COLOURS = { K: [0, 0, 0], R: [255, 0, 0], G: [0, 255, 0], B: [0, 0, 255] } as const;
const INDEX = { K: 0, R: 1, G: 2, B: 3 } as const;
type Colour = keyof typeof COLOURS;

interface TestFrame {
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
function literalLzw(indices: number[]): number[] {
  const codes = indices.flatMap((index, i) => (i % 2 === 0 ? [4, index] : [index]));
  const bits = [...codes, 5].map((code) => code.toString(2).padStart(3, "0").split("").reverse().join("")).join("");
  const bytes = (bits.match(/.{1,8}/g) ?? []).map((b) => Number.parseInt(b.split("").reverse().join(""), 2));
  const blocks: number[] = [];
  for (let at = 0; at < bytes.length; at += 255)
    blocks.push(Math.min(255, bytes.length - at), ...bytes.slice(at, at + 255));
  return [2, ...blocks, 0];
}

function frameBytes({ x = 0, y = 0, rows, disposal = 0, delay = 10, local, interlaced }: TestFrame): number[] {
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

function gif(width: number, height: number, frames: TestFrame[], background = 0): Uint8Array {
  const palette = Object.values(COLOURS).flat();
  const head = [...Buffer.from("GIF89a"), ...u16(width), ...u16(height), 0x81, background, 0, ...palette];
  return Uint8Array.from([...head, ...frames.flatMap(frameBytes), 0x3b]);
}

/** Frames back as rows of letters: "." is fully transparent, "?" anything unexpected. */
function letters(frames: Uint8ClampedArray[], width: number): string[][] {
  return frames.map((data) => {
    const text = Array.from({ length: data.length / 4 }, (_, p) => {
      const [r, g, b, a] = data.subarray(4 * p, 4 * p + 4);
      if (a === 0) return ".";
      const match = Object.entries(COLOURS).find(([, c]) => c[0] === r && c[1] === g && c[2] === b);
      return a === 255 && match ? match[0] : "?";
    }).join("");
    return text.match(new RegExp(`.{${width}}`, "g")) ?? [];
  });
}

const decode = (bytes: Uint8Array) => decodeSticker(bytes, "test");

async function shown(bytes: Uint8Array): Promise<string[][]> {
  const { frames, width } = await decode(bytes);
  return letters(frames, width);
}

const RED = ["RRR", "RRR", "RRR"];

/** Each expectation was worked out by hand from the GIF89a text, with browsers' reading of "background". */
const COMPOSED: { name: string; frames: TestFrame[]; background?: number; expected: string[][] }[] = [
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
    frames: [{ x: 2, y: 2, rows: ["GB", "KK"], disposal: 2 }, { rows: ["R"] }],
    expected: [
      ["...", "...", "..G"],
      ["R..", "...", "..."],
    ],
  },
];

describe("GIF", () => {
  it.each(COMPOSED)("$name", async ({ frames, background, expected }) => {
    expect(await shown(gif(3, 3, frames, background))).toEqual(expected);
  });

  it("is tested sharply enough to notice a decoder that ignores disposal or partial rectangles", async () => {
    const ignoring = (change: Partial<TestFrame>) =>
      Promise.all(
        COMPOSED.map(async ({ frames, background, expected }) => {
          const bytes = gif(
            3,
            3,
            frames.map((frame) => ({ ...frame, ...change })),
            background,
          );
          return JSON.stringify(await shown(bytes)) !== JSON.stringify(expected);
        }),
      );
    expect((await ignoring({ disposal: 0 })).filter(Boolean).length).toBeGreaterThanOrEqual(4);
    expect((await ignoring({ x: 0, y: 0 })).filter(Boolean).length).toBeGreaterThanOrEqual(6);
  });

  it("reads interlaced rows in the order of the four passes", async () => {
    const rows = Array.from({ length: 11 }, (_, y) => "KRGB"[y % 4] + "RGBK"[(y >> 1) % 4]);
    expect(await shown(gif(2, 11, [{ rows, interlaced: true }]))).toEqual([rows]);
  });

  it("applies a control block to the next frame only", async () => {
    const withControl = frameBytes({ rows: ["G."], disposal: 2, delay: 50 });
    const bare = frameBytes({ rows: ["BB"] }).slice(8); // the control block is the first 8 bytes
    const bytes = Uint8Array.from([...gif(2, 1, []).slice(0, -1), ...withControl, ...bare, ...bare, 0x3b]);
    const { frames, delaysMs } = await decode(bytes);
    expect(letters(frames, 2)).toEqual([["G."], ["BB"], ["BB"]]);
    expect(delaysMs).toEqual([500, 100, 100]);
  });

  it("plays delays of 10 ms or less for 100 ms", async () => {
    const frames = [0, 1, 2, 7].map((delay): TestFrame => ({ rows: ["R"], delay }));
    expect((await decode(gif(1, 1, frames))).delaysMs).toEqual([100, 100, 20, 70]);
  });

  it("returns only the selected frames, composed over the skipped ones", async () => {
    const bytes = gif(3, 3, COMPOSED[3].frames);
    const { frames, frameCount } = await decodeSticker(bytes, "test", (n) => [n - 1, 0, n - 1]);
    expect(frameCount).toBe(3);
    expect(letters(frames, 3)).toEqual([2, 0, 2].map((i) => COMPOSED[3].expected[i]));
    expect(frames[0]).toBe(frames[2]);
  });

  it("agrees with omggif on LZW streams whose table fills up", async () => {
    const noise = Uint8Array.from({ length: 150 * 90 * 3 }, (_, i) => Math.imul(i + 1, 2654435761) >>> 24);
    const bytes = new Uint8Array(
      await sharp(noise, { raw: { width: 150, height: 90, channels: 3 } })
        .gif()
        .toBuffer(),
    );
    const expected = new Uint8Array(150 * 90 * 4);
    new GifReader(Buffer.from(bytes)).decodeAndBlitFrameRGBA(0, expected);
    expect(visibleDifference((await decode(bytes)).frames[0], expected)).toBe(0);
  });
});

function chunk(type: string, ...parts: (Uint8Array | number[])[]): Buffer {
  const typed = Buffer.concat([Buffer.from(type, "latin1"), ...parts.map((part) => Uint8Array.from(part))]);
  return Buffer.concat([Uint8Array.from(be32(typed.length - 4)), typed, Uint8Array.from(be32(crc32(typed)))]);
}
const be32 = (n: number) => [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255];
const PNG = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
const header = (w: number, h: number) => chunk("IHDR", be32(w), be32(h), [8, 6, 0, 0, 0]);

/** A small pseudo-random stream, so that a failing case is one seed. */
function stream(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/**
 * An APNG of partial RGBA frames with every disposal and blend operation, alpha 0 or 255. After a frame that is cleared,
 * upng-js restores "previous" to the frame as displayed instead of as cleared, so the two are not drawn in that order.
 */
function partialApng(seed: number): Uint8Array<ArrayBuffer> {
  const next = stream(seed);
  const [width, height, count] = [2 + next(6), 2 + next(6), 2 + next(4)];
  const parts = [PNG, header(width, height), chunk("acTL", be32(count), be32(0))];
  let sequence = 0;
  let cleared = true; // "previous" means "background" on the first frame, where upng-js fails
  for (let i = 0; i < count; i++) {
    const [w, h] = i === 0 ? [width, height] : [1 + next(width), 1 + next(height)];
    const [x, y] = [next(width - w + 1), next(height - h + 1)];
    const rows = Array.from({ length: h }, () => [
      0,
      ...Array.from({ length: w }, () => [next(256), next(256), next(256), 255 * next(2)]).flat(),
    ]);
    const place = [w, h, x, y].flatMap(be32);
    const disposal = next(cleared ? 2 : 3);
    if (disposal < 2) cleared = disposal === 1;
    parts.push(chunk("fcTL", be32(sequence++), place, [0, 1 + next(30), 0, 100, disposal, next(2)]));
    const data = deflateSync(Uint8Array.from(rows.flat()));
    parts.push(i === 0 ? chunk("IDAT", data) : chunk("fdAT", be32(sequence++), data));
  }
  return new Uint8Array(Buffer.concat([...parts, chunk("IEND")]));
}

/** The largest difference of any visible sample; colour under alpha 0 is not visible. */
function visibleDifference(a: Uint8ClampedArray, b: Uint8Array): number {
  let worst = a.length === b.length ? 0 : 256;
  for (let i = 0; i < a.length; i++) {
    if (i % 4 === 3 || a[i | 3] > 0 || b[i | 3] > 0) worst = Math.max(worst, Math.abs(a[i] - b[i]));
  }
  return worst;
}

/** Makes a still PNG an APNG of one frame, so that our decoder and not sharp reads it. */
function animateStill(png: Buffer, width: number, height: number): Uint8Array {
  const control = chunk("fcTL", be32(0), be32(width), be32(height), be32(0), be32(0), [0, 1, 0, 10, 0, 0]);
  return new Uint8Array(
    Buffer.concat([png.subarray(0, 33), chunk("acTL", be32(1), be32(0)), control, png.subarray(33)]),
  );
}

describe("APNG", () => {
  it("composes partial frames with every disposal and blend as upng-js does", async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), async (seed) => {
        const bytes = partialApng(seed);
        const { frames, delaysMs } = await decode(bytes);
        const image = UPNG.decode(bytes.buffer);
        const expected = UPNG.toRGBA8(image).map((buffer) => new Uint8Array(buffer));
        expect(frames.map((frame, i) => visibleDifference(frame, expected[i]))).toEqual(frames.map(() => 0));
        expect(delaysMs).toEqual(image.frames.map((frame) => (frame.delay <= 10 ? 100 : frame.delay)));
      }),
      { seed: 1, numRuns: 150 },
    );
  });

  it("restores 'previous' to the cleared canvas after a frame that was cleared", async () => {
    const frame = (n: number, disposal: number, red: number) => {
      const data = deflateSync(Uint8Array.of(0, red, 0, 0, 255));
      const control = chunk("fcTL", be32(n), [1, 1, 0, 0].flatMap(be32), [0, 1, 0, 1, disposal, 0]);
      return n === 0 ? [control, chunk("IDAT", data)] : [control, chunk("fdAT", be32(n + 1), data)];
    };
    const empty = deflateSync(Uint8Array.of(0, 9, 9, 9, 0));
    const over = [
      chunk("fcTL", be32(3), [1, 1, 0, 0].flatMap(be32), [0, 1, 0, 1, 0, 1]),
      chunk("fdAT", be32(4), empty),
    ];
    const parts = [
      header(1, 1),
      chunk("acTL", be32(3), be32(0)),
      ...frame(0, 1, 50),
      ...frame(1, 2, 70),
      ...over,
      chunk("IEND"),
    ];
    const { frames } = await decode(new Uint8Array(Buffer.concat([PNG, ...parts])));
    expect(frames.map(([red, , , alpha]) => [red, alpha])).toEqual([
      [50, 255],
      [70, 255],
      [0, 0],
    ]);
  });

  it("blends half-transparent pixels with the 'over' operator", async () => {
    const pixel = (...rgba: number[]) => deflateSync(Uint8Array.from([0, ...rgba]));
    const control = (n: number, blend: number) =>
      chunk("fcTL", be32(n), [1, 1, 0, 0].flatMap(be32), [0, 1, 0, 1, 0, blend]);
    const parts = [
      header(1, 1),
      chunk("acTL", be32(2), be32(0)),
      control(0, 0),
      chunk("IDAT", pixel(200, 0, 100, 128)),
    ];
    const second = [control(1, 1), chunk("fdAT", be32(2), pixel(0, 100, 50, 64)), chunk("IEND")];
    const { frames } = await decode(new Uint8Array(Buffer.concat([PNG, ...parts, ...second])));
    // alpha = 64/255 + 128/255 * 191/255 = 0.626944; red = 200 * 0.375975 / 0.626944, and so on.
    expect([...frames[1]]).toEqual([120, 40, 80, 160]);
  });

  it.each([
    ["8-bit palette with alpha", { palette: true }, 3, 0],
    ["2-bit palette", { palette: true, colours: 4 }, 3, 0],
    ["1-bit palette", { palette: true, colours: 2 }, 3, 0],
    ["interlaced RGBA", { progressive: true }, 3, 0],
    ["interlaced 4-bit palette", { palette: true, colours: 16, progressive: true }, 3, 0],
    ["every row filter", { adaptiveFiltering: true }, 3, 0],
    ["grey", {}, 1, 0],
    // libvips drops the low byte of 16-bit samples where we round, as the specification advises (13.12).
    ["16-bit RGBA", {}, 16, 1],
  ] as const)("reads %s like sharp", async (_, options, kind, tolerance) => {
    const [width, height] = [37, 21];
    const channels = kind === 1 ? 1 : 4;
    const raw = Uint8Array.from({ length: width * height * channels }, (_, i) =>
      i % 4 === 3 && channels === 4 ? 255 * ((i >> 5) & 1) : (i * 7) >> 3,
    );
    let image = sharp(raw, { raw: { width, height, channels } });
    if (kind === 16) image = image.toColourspace("rgb16");
    if (kind === 1) image = image.toColourspace("b-w");
    const png = await image.png(options).toBuffer();
    const expected = await sharp(png).toColourspace("srgb").ensureAlpha().raw({ depth: "uchar" }).toBuffer();
    const { frames, format } = await decode(animateStill(png, width, height));
    expect(format).toBe("apng");
    expect(visibleDifference(frames[0], expected)).toBeLessThanOrEqual(tolerance);
  });
});

describe("images through sharp", () => {
  const pixels = (n: number) =>
    Buffer.from(Uint8Array.from({ length: 12 * 10 * 4 }, (_, i) => (i % 4 === 3 ? 255 : i + 40 * n)));
  const raw = { width: 12, height: 10, channels: 4 } as const;

  it("reads every frame and delay of an animated WebP", async () => {
    const tall = Buffer.concat([pixels(0), pixels(1), pixels(2)]);
    const webp = await sharp(tall, { raw: { ...raw, height: 30, pageHeight: 10 } })
      .webp({ lossless: true, delay: [40, 0, 70] })
      .toBuffer();
    const sticker = await decode(new Uint8Array(webp));
    expect(sticker).toMatchObject({ format: "webp", width: 12, height: 10, frameCount: 3, delaysMs: [40, 100, 70] });
    expect(sticker.frames.map((frame, i) => visibleDifference(frame, pixels(i)))).toEqual([0, 0, 0]);
  });

  it("reads still PNG and JPEG as one frame", async () => {
    const png = await decode(new Uint8Array(await sharp(pixels(0), { raw }).png().toBuffer()));
    expect(png).toMatchObject({ format: "png", width: 12, height: 10, frameCount: 1 });
    expect(visibleDifference(png.frames[0], pixels(0))).toBe(0);
    const jpeg = await decode(new Uint8Array(await sharp(pixels(0), { raw }).jpeg().toBuffer()));
    expect(jpeg).toMatchObject({ format: "jpeg", width: 12, height: 10, frameCount: 1 });
  });
});

async function reasonOf(bytes: Uint8Array): Promise<string> {
  const error = await decode(bytes).then(
    () => expect.fail("decoded a file that should be refused"),
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(DecodeError);
  expect((error as DecodeError).message).toBe(`test: ${(error as DecodeError).reason}`);
  return (error as DecodeError).reason;
}

/** One valid file of each format, large enough to be cut in many places. */
async function samples(): Promise<{ format: string; bytes: Uint8Array }[]> {
  const [width, height] = [40, 30];
  const frames = [0, 1, 2].map((t) => ({
    data: Uint8Array.from({ length: width * height * 4 }, (_, i) =>
      i % 4 === 3 ? 255 * ((i >> 8) & 1) : (i * (t + 3)) >> 4,
    ),
    delayMs: 80,
  }));
  const tall = sharp(Buffer.concat(frames.map(({ data }) => data)), {
    raw: { width, height: 3 * height, channels: 4, pageHeight: height },
  });
  const still = sharp(frames[0].data, { raw: { width, height, channels: 4 } });
  return [
    { format: "gif", bytes: encodeGif(frames, width, height) },
    { format: "apng", bytes: encodeApng(frames, width, height) },
    { format: "webp", bytes: new Uint8Array(await tall.webp().toBuffer()) },
    { format: "png", bytes: new Uint8Array(await still.png().toBuffer()) },
    { format: "jpeg", bytes: new Uint8Array(await still.jpeg().toBuffer()) },
  ];
}

describe("hostile files", () => {
  it("names what is wrong", async () => {
    expect(await reasonOf(new Uint8Array(0))).toBe("the file is empty");
    expect(await reasonOf(Buffer.from("\n<!DOCTYPE html><html>404</html>"))).toMatch(/HTML page/);
    expect(await reasonOf(Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"/>'))).toMatch(/SVG/);
    expect(await reasonOf(Buffer.from("plain words"))).toMatch(/first bytes: 70 6c 61 69 6e/);
    expect(await reasonOf(Buffer.from("GIF89a"))).toMatch(/truncated at byte 6/);
    expect(await reasonOf(gif(3, 3, []))).toMatch(/no frames/);
    expect(await reasonOf(new Uint8Array(LIMITS.fileBytes + 1))).toMatch(/more than the limit/);
  });

  it("refuses headers over the limits before allocating for them", async () => {
    const before = process.memoryUsage.rss();
    expect(await reasonOf(gif(65_535, 65_535, [{ rows: ["R"] }]))).toMatch(/65535x65535 pixels/);
    expect(await reasonOf(gif(0, 5, [{ rows: ["R"] }]))).toMatch(/is empty/);
    expect(
      await reasonOf(
        gif(
          4000,
          4000,
          Array.from({ length: 17 }, () => ({ rows: ["R"] })),
        ),
      ),
    ).toMatch(/256 megapixels/);
    const huge = Buffer.concat([PNG, header(0x7fffffff, 0x7fffffff), chunk("acTL", be32(1), be32(0)), chunk("IEND")]);
    expect(await reasonOf(huge)).toMatch(/2147483647/);
    const many = Buffer.concat([PNG, header(8, 8), chunk("acTL", be32(100_000), be32(0)), chunk("IEND")]);
    expect(await reasonOf(many)).toMatch(/more than 512 frames/);
    const wide = await sharp({ create: { width: 5000, height: 2, channels: 3, background: "red" } })
      .png()
      .toBuffer();
    expect(await reasonOf(wide)).toMatch(/5000x2 pixels/);
    // The 17 refused frames of 4000 x 4000 pixels alone would take over 1 GB.
    expect(process.memoryUsage.rss() - before).toBeLessThan(300e6);
  });

  it("stops at the frame limit of a GIF with 100 000 frames", async () => {
    const one = Buffer.from(frameBytes({ rows: ["R"] }));
    const head = gif(1, 1, []).slice(0, -1);
    const bytes = Buffer.concat([head, ...Array.from({ length: 100_000 }, () => one), Uint8Array.of(0x3b)]);
    const start = performance.now();
    expect(await reasonOf(bytes)).toMatch(/more than 512 frames/);
    expect(performance.now() - start).toBeLessThan(500);
  });

  it("does not inflate more than the image needs", async () => {
    const bomb = deflateSync(new Uint8Array(50_000_000));
    const control = chunk("fcTL", be32(0), [8, 8, 0, 0].flatMap(be32), [0, 1, 0, 1, 0, 0]);
    const parts = [header(8, 8), chunk("acTL", be32(1), be32(0)), control, chunk("IDAT", bomb), chunk("IEND")];
    expect(await reasonOf(Buffer.concat([PNG, ...parts]))).toMatch(/more|larger|buffer/i);
  });

  it("refuses a file cut at every 50th byte, whatever the format", async () => {
    for (const { format, bytes } of await samples()) {
      expect((await decode(bytes)).format).toBe(format);
      // A PNG whose 12-byte end chunk alone is cut still holds its whole picture.
      const end = bytes.length - (format === "png" ? 12 : 0);
      for (let length = 0; length < end; length += 50) {
        const result = await decode(bytes.subarray(0, length)).catch((error: unknown) => error);
        expect(result, `${format} cut to ${length} of ${bytes.length} bytes`).toBeInstanceOf(DecodeError);
      }
    }
  });

  it("refuses an APNG with one wrong bit in a chunk that would still decode", async () => {
    const frame = (level: number) => ({ data: new Uint8Array(16).fill(level), delayMs: 50 });
    const bytes = encodeApng([frame(1), frame(2)], 2, 2);
    const delay = Buffer.from(bytes).indexOf("fcTL") + 4 + 20;
    expect((await decode(bytes)).delaysMs).toEqual([50, 50]);
    bytes[delay + 1] ^= 1;
    expect(await reasonOf(bytes)).toMatch(/checksum of a fcTL chunk/);
  });

  it("answers damaged bytes with a picture of the right size or a DecodeError", async () => {
    const files = await samples();
    await fc.assert(
      fc.asyncProperty(fc.nat(), fc.nat({ max: files.length - 1 }), async (seed, which) => {
        const next = stream(seed);
        const bytes = files[which].bytes.slice();
        for (let i = 1 + next(8); i > 0; i--) bytes[next(bytes.length)] = next(256);
        const result = await decode(bytes).catch((error: unknown) => error);
        if (result instanceof DecodeError) return;
        const { frames, width, height } = result as Awaited<ReturnType<typeof decode>>;
        expect(frames.every(({ length }) => length === width * height * 4)).toBe(true);
      }),
      { seed: 2, numRuns: 300 },
    );
  });
});
