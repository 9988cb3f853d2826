// Still PNG, JPEG and (animated) WebP through sharp. GIF and APNG have decoders of their own: sharp fills cleared GIF
// areas with the background colour, accepts truncated GIFs and sees one frame of an APNG.

import sharp from "sharp";
import { type Animation, type Develop, type FrameSelection, playedDelay } from "./compose.ts";
import { checkFrameBudget, checkSize, LIMITS } from "./limits.ts";

// A data set is read once, file by file: libvips' cache would only hold memory, and the caller brings the parallelism.
sharp.cache(false);
sharp.concurrency(1);

const TIMEOUT_SECONDS = 10;

/** Decodes the selected frames. Throws Error with the reason when the file is damaged or over the limits. */
export async function decodeImage<T>(
  bytes: Uint8Array,
  select: FrameSelection,
  develop: Develop<T>,
): Promise<Animation<T>> {
  // The limit is ours to report, so it is off for reading the header and on, as a second lock, for the pixels.
  const header = await sharp(bytes, { animated: true, limitInputPixels: false, failOn: "truncated" }).metadata();
  const pages = header.pages ?? 1;
  const pageHeight = header.pageHeight ?? header.height;
  checkSize(header.width, pageHeight, "the image");
  checkFrameBudget(pages, pages * header.width * pageHeight);
  const wanted = select(pages, header.width, pageHeight);
  // One at a time: memory follows what is kept of the selection, not the file.
  const shots = new Map<number, T>();
  let [width, height] = [header.width, pageHeight];
  for (const page of new Set(wanted)) {
    const shot = await decodePage(bytes, page);
    ({ width, height } = shot);
    shots.set(page, develop(shot.pixels, width, height));
  }
  return {
    width,
    height,
    frameCount: pages,
    frames: wanted.map((i) => shots.get(i)!),
    delaysMs: wanted.map((i) => playedDelay(header.delay?.[i] ?? 0)),
    durationMs: Array.from({ length: pages }, (_, i) => playedDelay(header.delay?.[i] ?? 0)).reduce((a, b) => a + b, 0),
  };
}

interface Shot {
  readonly pixels: Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
}

async function decodePage(bytes: Uint8Array, page: number): Promise<Shot> {
  const { data, info } = await sharp(bytes, { page, limitInputPixels: LIMITS.totalPixels, failOn: "truncated" })
    .timeout({ seconds: TIMEOUT_SECONDS })
    .autoOrient()
    .toColourspace("srgb")
    .ensureAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true });
  const pixels = new Uint8ClampedArray(data.buffer, data.byteOffset, data.length);
  return { pixels, width: info.width, height: info.height };
}
