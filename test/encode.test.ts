// Writers: what goes in comes out of our decoders and of independent ones (omggif, upng-js, sharp), byte for byte the
// same on every call, and within GIF's rules (delays, palette, transparency).

import { createRequire } from "node:module";
import fc from "fast-check";
import type { Gifenc, Rgb } from "gifenc";
import { GifReader } from "omggif";
import sharp from "sharp";
import UPNG from "upng-js";
import { describe, expect, it } from "vitest";
import { decodeSticker } from "../data/decode/index.ts";
import { encodeApng } from "../data/encode/apng.ts";
import type { EncodeFrame } from "../data/encode/frames.ts";
import { encodeGif } from "../data/encode/gif.ts";

/** A small pseudo-random stream, so that a failing case is its shapes and one seed. */
function stream(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Frames whose opaque pixels use `colours` colours; a pixel is transparent, as (0, 0, 0, 0), one time in `holes`. */
function paletteFrames(seed: number, [width, height, count]: number[], colours: number, holes: number): EncodeFrame[] {
  const next = stream(seed);
  const table = Array.from({ length: colours }, () => [next(256), next(256), next(256), 255]);
  return Array.from({ length: count }, () => ({
    data: Uint8Array.from(
      Array.from({ length: width * height }, () =>
        holes > 0 && next(holes) === 0 ? [0, 0, 0, 0] : table[next(colours)],
      ).flat(),
    ),
    delayMs: 20 + 10 * next(50),
  }));
}

/** A ball whose hue turns around it, shaded, soft-edged, on a flat or empty ground: thousands of colours. */
function ball(size: number, count: number, ground: number): EncodeFrame[] {
  return Array.from({ length: count }, (_, t) => {
    const data = new Uint8Array(size * size * 4);
    for (let i = 0; i < size * size; i++) {
      const [x, y] = [(i % size) / size - 0.5, Math.floor(i / size) / size - 0.5];
      const d = Math.hypot(x, y);
      const light = 1 - 2 * d * d;
      const hue = (k: number) => 255 * light * (0.5 + 0.5 * Math.sin(Math.atan2(y, x) + 0.3 * t + 2.1 * k));
      if (d < 0.4) data.set([hue(0), hue(1), hue(2), 255 * Math.min(1, (0.4 - d) * size)], 4 * i);
      else data.set([255, 255, 255, ground], 4 * i);
    }
    return { data, delayMs: 80 };
  });
}

function psnr(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] - b[i]) ** 2;
  return 10 * Math.log10((255 ** 2 * a.length) / sum);
}

const sizes = fc.tuple(
  fc.integer({ min: 1, max: 20 }),
  fc.integer({ min: 1, max: 20 }),
  fc.integer({ min: 1, max: 4 }),
);
const sameBytes = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Buffer.from(Array.from(a)).equals(Buffer.from(Array.from(b)));

describe("encodeGif", () => {
  it("keeps up to 255 colours, the mask and the delays exactly", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat(),
        sizes,
        fc.integer({ min: 1, max: 255 }),
        fc.nat({ max: 3 }),
        async (seed, size, colours, holes) => {
          const [width, height] = size;
          const frames = paletteFrames(seed, size, colours, holes);
          const gif = await decodeSticker(encodeGif(frames, width, height), "round trip");
          expect([gif.width, gif.height, gif.frameCount]).toEqual(size);
          expect(gif.delaysMs).toEqual(frames.map(({ delayMs }) => delayMs));
          expect(gif.frames.map((data, i) => sameBytes(data, frames[i].data))).toEqual(frames.map(() => true));
        },
      ),
      { seed: 3, numRuns: 120 },
    );
  });

  it("keeps 255 colours on frames large enough to fill the LZW table, and omggif agrees", async () => {
    const frames = paletteFrames(5, [120, 100, 2], 255, 0);
    const bytes = encodeGif(frames, 120, 100);
    expect(sameBytes((await decodeSticker(bytes, "gif")).frames[1], frames[1].data)).toBe(true);
    const out = new Uint8Array(120 * 100 * 4);
    new GifReader(Buffer.from(bytes)).decodeAndBlitFrameRGBA(1, out);
    expect(sameBytes(out, frames[1].data)).toBe(true);
  });

  it("reduces 17 000 colours to one palette with less error than gifenc's rgba4444 tables per frame", async () => {
    const frames = ball(96, 4, 255).map(({ data }) => ({
      data: Uint8Array.from(data, (v, i) => (i % 4 === 3 ? 255 : v)),
      delayMs: 80,
    }));
    const gifenc: Gifenc & { applyPalette(rgba: Uint8Array, palette: Rgb[], format: string): Uint8Array } =
      createRequire(import.meta.url)("gifenc");
    const plain = gifenc.GIFEncoder();
    for (const { data } of frames) {
      const palette = gifenc.quantize(data, 256, { format: "rgba4444" });
      plain.writeFrame(gifenc.applyPalette(data, palette, "rgba4444"), 96, 96, { palette });
    }
    plain.finish();
    const worst = async (bytes: Uint8Array) =>
      Math.min(...(await decodeSticker(bytes, "ball")).frames.map((shown, i) => psnr(shown, frames[i].data)));
    // Measured: 39.3 dB against 36.7 dB.
    expect(await worst(encodeGif(frames, 96, 96))).toBeGreaterThan(1.5 + (await worst(plain.bytes())));
  });

  it("masks alpha at one half and clears each transparent frame before the next", async () => {
    const frames = ball(48, 3, 0);
    const bytes = encodeGif(frames, 48, 48);
    const reader = new GifReader(Buffer.from(bytes));
    expect(reader.frameInfo(1)).toMatchObject({ disposal: 2, transparent_index: 255, has_local_palette: false });
    const { frames: shown } = await decodeSticker(bytes, "mask");
    shown.forEach((data, t) => {
      for (let i = 3; i < data.length; i += 4) expect(data[i]).toBe(frames[t].data[i] >= 128 ? 255 : 0);
    });
  });

  it("gives the same bytes for the same frames, whatever the array type or offset", () => {
    const frames = ball(40, 3, 0);
    const shifted = frames.map(({ data, delayMs }) => {
      const wide = new Uint8ClampedArray(data.length + 12);
      wide.set(data, 8);
      return { data: wide.subarray(8, 8 + data.length), delayMs };
    });
    expect(Buffer.compare(encodeGif(frames, 40, 40), encodeGif(shifted, 40, 40))).toBe(0);
  });

  it("writes loop count and comment, rounds delays to 10 ms and never goes below 20", async () => {
    const data = Uint8Array.of(1, 2, 3, 255);
    const delays = [0, 14, 26, 1e9].map((delayMs) => ({ data, delayMs }));
    const bytes = encodeGif(delays, 1, 1, { loop: 3, comment: "seed 7 · 猫" });
    expect((await decodeSticker(bytes, "delays")).delaysMs).toEqual([20, 20, 30, 655_350]);
    expect(Buffer.from(bytes).includes("seed 7 · 猫")).toBe(true);
    expect(new GifReader(Buffer.from(bytes)).loopCount()).toBe(3);
    expect((await sharp(bytes, { animated: true }).metadata()).pages).toBe(4);
  });

  it("writes frames without an opaque pixel", async () => {
    const { frames } = await decodeSticker(encodeGif([{ data: new Uint8Array(16), delayMs: 50 }], 2, 2), "empty");
    expect([...frames[0]]).toEqual(new Array(16).fill(0));
  });
});

describe("encodeApng", () => {
  it("is lossless for our decoder, upng-js and sharp", async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), sizes, fc.nat({ max: 3 }), async (seed, size, holes) => {
        const [width, height] = size;
        const frames = paletteFrames(seed, size, 300, holes);
        const bytes = encodeApng(frames, width, height);
        const ours = await decodeSticker(bytes, "round trip");
        expect(ours.format).toBe(frames.length > 1 ? "apng" : "png");
        expect(ours.frames.map((data, i) => sameBytes(data, frames[i].data))).toEqual(frames.map(() => true));
        const theirs = UPNG.toRGBA8(UPNG.decode(new Uint8Array(bytes).buffer)).map((buffer) => new Uint8Array(buffer));
        expect(theirs.map((data, i) => sameBytes(data, frames[i].data))).toEqual(frames.map(() => true));
        expect(sameBytes(await sharp(bytes).ensureAlpha().raw().toBuffer(), frames[0].data)).toBe(true);
      }),
      { seed: 4, numRuns: 60 },
    );
  });

  it("keeps delays to the millisecond", async () => {
    const data = Uint8Array.of(9, 9, 9, 255);
    const bytes = encodeApng(
      [33, 70, 999].map((delayMs) => ({ data, delayMs })),
      1,
      1,
    );
    expect((await decodeSticker(bytes, "delays")).delaysMs).toEqual([33, 70, 999]);
  });
});

describe("bad frames", () => {
  const frame = { data: new Uint8Array(16), delayMs: 50 };

  it.each([encodeGif, encodeApng])("are named by %o", (encode) => {
    expect(() => encode([], 2, 2)).toThrow(/at least one frame/);
    expect(() => encode([frame, { ...frame, data: new Uint8Array(12) }], 2, 2)).toThrow(
      /frame 1 of 2 .* 16 bytes, got 12/,
    );
    expect(() => encode([{ ...frame, delayMs: Number.NaN }], 2, 2)).toThrow(/frame 0 of 1 has delayMs NaN/);
    expect(() => encode([frame], 0, 2)).toThrow(/got 0x2/);
    expect(() => encodeGif([frame], 2, 2, { loop: 1.5 })).toThrow(/loop/);
  });
});
