// Decoders against hand-computed pixels (GIF disposal, partial frames, palettes), against other decoders (omggif,
// upng-js, sharp) and against hostile files. The GIFs are written here byte by byte, so that no encoder of the project
// can hide a mistake of its decoder.

import { deflateSync } from "node:zlib";
import fc from "fast-check";
import { GifReader } from "omggif";
import sharp from "sharp";
import UPNG from "upng-js";
import { describe, expect, it } from "vitest";
import { DecodeError, decodeSticker, LIMITS } from "../data/decode/index.ts";
import { encodeApng } from "../data/encode/apng.ts";
import { encodeGif } from "../data/encode/gif.ts";
import { COLOURS, COMPOSED, frameBytes, gif, growingLzw, plain, type TestFrame } from "./gif_bytes.ts";
import { animateStill, be32, chunk, header, PNG, partialApng, stream } from "./png_bytes.ts";

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

  it("agrees with omggif on codes of every kind: of strings long and short, as they are made, and of a full table", async () => {
    const [width, height] = [100, 300];
    const greys = Array.from({ length: 3 * 256 }, (_, i) => Math.floor(i / 3));
    for (let bits = 2; bits <= 8; bits++) {
      const bytes = plain(width, height, growingLzw(anyCodes(stream(bits), bits, width * height), bits), greys);
      const expected = new Uint8Array(width * height * 4);
      new GifReader(Buffer.from(bytes)).decodeAndBlitFrameRGBA(0, expected);
      expect(visibleDifference((await decode(bytes)).frames[0], expected), `literals of ${bits} bits`).toBe(0);
    }
  });
});

/** Codes of `count` pixels: literals, latest and older strings, that which is being made, and now and then a clear. */
function anyCodes(next: (below: number) => number, bits: number, count: number): number[] {
  const first = (1 << bits) + 2;
  const codes: number[] = [];
  let [lengths, previous, left] = [[] as number[], 0, count];
  while (left > 0) {
    const known = first + lengths.length;
    if (previous > 0 && known < 4096) lengths.push(previous + 1);
    const latest = first + lengths.length - 1;
    let code = [next(1 << bits), latest, latest - next(20), first + next(lengths.length)][next(4)];
    if (!(lengths[code - first] <= left)) code = next(1 << bits);
    codes.push(code);
    previous = lengths[code - first] ?? 1;
    left -= previous;
    if (next(6000) > 0) continue;
    codes.push(1 << bits);
    [lengths, previous] = [[], 0];
  }
  return codes;
}

/** The largest difference of any visible sample; colour under alpha 0 is not visible. */
function visibleDifference(a: Uint8ClampedArray, b: Uint8Array): number {
  let worst = a.length === b.length ? 0 : 256;
  for (let i = 0; i < a.length; i++) {
    if (i % 4 === 3 || a[i | 3] > 0 || b[i | 3] > 0) worst = Math.max(worst, Math.abs(a[i] - b[i]));
  }
  return worst;
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
    ["8-bit palette with alpha", { palette: true }, 3],
    ["2-bit palette", { palette: true, colours: 4 }, 3],
    ["1-bit palette", { palette: true, colours: 2 }, 3],
    ["interlaced RGBA", { progressive: true }, 3],
    ["interlaced 4-bit palette", { palette: true, colours: 16, progressive: true }, 3],
    ["every row filter", { adaptiveFiltering: true }, 3],
    ["grey", {}, 1],
    ["16-bit RGBA", {}, 16],
  ] as const)("reads %s like sharp", async (_, options, kind) => {
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
    expect(visibleDifference(frames[0], expected)).toBe(0);
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
