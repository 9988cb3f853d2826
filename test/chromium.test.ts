// A browser as the judge of our GIFs: Chromium's own decoder must find the frames, delays and pixels that went in. Skipped,
// aloud, where Debian's chromium is not installed.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { decodeSticker } from "../data/decode/index.ts";
import { encodeGif } from "../data/encode/gif.ts";
import { planStarter, stickerFrames } from "../data/starter/index.ts";
import { type Browser, CHROMIUM, hasChromium, openPage } from "./browser/chromium.ts";

if (!hasChromium) console.warn(`${CHROMIUM} is not installed: GIFs are not checked in a browser`);

interface Decoded {
  readonly loops: boolean;
  readonly frames: readonly { readonly ms: number; readonly rgba: readonly number[] }[];
}

describe.skipIf(!hasChromium)("in Chromium", () => {
  let browser: Browser;

  beforeAll(async () => {
    browser = await openPage(new Map([["/", "<html></html>"]]), ["--disable-gpu"]);
  });
  afterAll(() => browser?.close());

  /** The page's code is text: the browser's types are not those of the tests. */
  function decode(gif: Uint8Array): Promise<Decoded> {
    return browser.page.evaluate(`(${DECODE})("${Buffer.from(gif).toString("base64")}")`);
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
});

/** Pixels with the colour of transparent ones, which no one sees, set to zero. */
function visible(rgba: ArrayLike<number>): number[] {
  return Array.from(rgba, (v, i) => (rgba[i - (i % 4) + 3] === 0 ? 0 : v));
}

const DECODE = `async (base64) => {
  const data = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const decoder = new ImageDecoder({ data, type: "image/gif" });
  await decoder.tracks.ready;
  await decoder.completed;
  const { frameCount, repetitionCount } = decoder.tracks.selectedTrack;
  const frames = [];
  for (let frameIndex = 0; frameIndex < frameCount; frameIndex++) {
    const { image } = await decoder.decode({ frameIndex });
    const canvas = new OffscreenCanvas(image.displayWidth, image.displayHeight);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    frames.push({ ms: image.duration / 1000, rgba: Array.from(data) });
  }
  return { loops: repetitionCount === Infinity, frames };
}`;
