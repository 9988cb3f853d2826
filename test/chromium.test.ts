// A browser as the judge of our GIFs and decoders: Chromium's own decoder must find the frames, delays and pixels that went in,
// and show what we show of files with everything that decoders get wrong (tricky.ts). Skipped, aloud, where Debian's chromium is
// not installed.

import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { playedDelay } from "../data/decode/compose.ts";
import { decodeSticker } from "../data/decode/index.ts";
import { encodeGif } from "../data/encode/gif.ts";
import { planStarter, stickerFrames } from "../data/starter/index.ts";
import { type Browser, CHROMIUM, hasChromium, openPage } from "./browser/chromium.ts";
import { animateStill } from "./png_bytes.ts";
import { APNGS, GIFS, REFUSED, type Tricky } from "./tricky.ts";

if (!hasChromium) console.warn(`${CHROMIUM} is not installed: GIFs are not checked in a browser`);

interface Decoded {
  readonly loops: boolean;
  readonly width: number;
  readonly height: number;
  readonly frames: readonly { readonly ms: number; readonly rgba: readonly number[] }[];
}

describe.skipIf(!hasChromium)("in Chromium", () => {
  let browser: Browser;

  beforeAll(async () => {
    browser = await openPage(new Map([["/", "<html></html>"]]), ["--disable-gpu"]);
  });
  afterAll(() => browser?.close());

  /** The page's code is text: the browser's types are not those of the tests. */
  function decode(bytes: Uint8Array, type = "image/gif"): Promise<Decoded> {
    return browser.page.evaluate(`(${DECODE})("${Buffer.from(bytes).toString("base64")}", "${type}")`);
  }

  /** What it shows otherwise than we do, or null. */
  async function difference({ name, bytes }: Tricky, type: string): Promise<string | null> {
    const ours = await decodeSticker(bytes, name);
    const theirs = await decode(bytes, type).catch(() => null);
    if (theirs === null) return `${name}: Chromium refuses it`;
    const sizes = [ours.width, ours.height, ours.frames.length];
    if (`${sizes}` !== `${[theirs.width, theirs.height, theirs.frames.length]}`) return `${name}: size or frames`;
    const shown = ours.frames.map((rgba, i) => `${ours.delaysMs[i]} ms ${visible(rgba)}`);
    // Chromium's decoder gives delays as they are in the file; what plays them takes those of 10 ms or less for 100 ms.
    const frame = theirs.frames.findIndex(({ ms, rgba }, i) => `${playedDelay(ms)} ms ${visible(rgba)}` !== shown[i]);
    return frame < 0 ? null : `${name}: frame ${frame}`;
  }

  test("a starter sticker has its 8 frames, delays and pixels", async () => {
    const recipes = planStarter({ count: 12, seed: 3, size: 32, domains: ["Cartoon"] });
    for (const recipe of recipes.slice(0, 4)) {
      const { width, height, frames, delaysMs } = stickerFrames(recipe);
      const gif = encodeGif(
        frames.map((data, i) => ({ data, delayMs: delaysMs[i] })),
        width,
        height,
      );
      const ours = await decodeSticker(gif, "made here");
      const theirs = await decode(gif);
      expect(theirs.frames.length).toBe(8);
      expect(theirs.loops).toBe(true);
      expect(theirs.frames.map((f) => f.ms)).toEqual(ours.delaysMs);
      theirs.frames.forEach(({ rgba }, i) => {
        const mine = visible(ours.frames[i]);
        const wrong = visible(rgba).filter((v, j) => v !== mine[j]).length;
        expect(wrong, `frame ${i} of "${recipe.subject}"`).toBe(0);
      });
    }
  });

  test("tricky GIFs and APNGs are shown as we show them", async () => {
    const noise = Buffer.from(Uint8Array.from({ length: 13 * 9 * 4 }, (_, i) => (i % 4 === 3 ? 255 : (i * 7) & 255)));
    const still = await sharp(noise, { raw: { width: 13, height: 9, channels: 4 } })
      .png({ progressive: true })
      .toBuffer();
    const interlaced = { name: "interlaced APNG", bytes: animateStill(still, 13, 9) };
    const found = [
      ...(await Promise.all(GIFS.map((one) => difference(one, "image/gif")))),
      ...(await Promise.all([...APNGS, interlaced].map((one) => difference(one, "image/png")))),
    ];
    expect(found.filter((name) => name !== null)).toEqual([]);
  });

  test("what we refuse is refused there too, or shown as a picture that nobody has drawn", async () => {
    for (const { name, bytes, chromium, ours } of REFUSED) {
      const theirs = await decode(bytes).then(
        () => "shows",
        () => "refuses",
      );
      expect([name, theirs]).toEqual([name, chromium]);
      await expect(decodeSticker(bytes, name), name).rejects.toThrow(ours);
    }
  });
});

/** Pixels with the colour of transparent ones, which no one sees, set to zero. */
function visible(rgba: ArrayLike<number>): number[] {
  return Array.from(rgba, (v, i) => (rgba[i - (i % 4) + 3] === 0 ? 0 : v));
}

const DECODE = `async (base64, type) => {
  const data = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const decoder = new ImageDecoder({ data, type, premultiplyAlpha: "none", colorSpaceConversion: "none" });
  await decoder.tracks.ready;
  await decoder.completed;
  const { frameCount, repetitionCount } = decoder.tracks.selectedTrack;
  const frames = [];
  let width, height;
  for (let frameIndex = 0; frameIndex < frameCount; frameIndex++) {
    const { image } = await decoder.decode({ frameIndex });
    [width, height] = [image.displayWidth, image.displayHeight];
    const rgba = new Uint8Array(4 * width * height);
    await image.copyTo(rgba, { format: "RGBA" });
    frames.push({ ms: image.duration / 1000, rgba: Array.from(rgba) });
    image.close();
  }
  return { loops: repetitionCount === Infinity, width, height, frames };
}`;
