// Contact sheets: many stickers in one picture, to judge a threshold or a data set by eye. A sticker is shown by a few of its
// frames side by side, on white, with a line of text below. PNG through sharp. Called by `dataset show` and the statistics.

import { readFile } from "node:fs/promises";
import { Resvg } from "@resvg/resvg-js";
import sharp from "sharp";
import { decodeSticker } from "../decode/index.ts";
import { pickFrames, prepareFrame } from "../frames.ts";
import { escapeHtml } from "../html.ts";
import { FONT_FAMILY, fontFile } from "../starter/assets.ts";
import type { Collection } from "./collection.ts";

export interface Shown {
  readonly id: string;
  readonly format: string;
  /** A line below the sticker. */
  readonly label: string;
}

export interface SheetOptions {
  /** Pixels of a frame, frames of a sticker, stickers across. */
  readonly size?: number;
  readonly frames?: number;
  readonly across?: number;
}

const LINE = 16;

/** A PNG. A sticker that cannot be decoded is an empty box: its label says why it is there. */
export async function contactSheet(
  collection: Collection,
  stickers: readonly Shown[],
  { size = 64, frames = 3, across = 6 }: SheetOptions = {},
): Promise<Buffer> {
  const [cellWidth, cellHeight] = [size * frames + 8, size + LINE + 8];
  const down = Math.max(1, Math.ceil(stickers.length / across));
  const cells = await Promise.all(
    stickers.map(async (sticker, i) => {
      const [left, top] = [(i % across) * cellWidth + 4, Math.floor(i / across) * cellHeight + 4];
      const strip = await film(collection, sticker, size, frames);
      return { left, top, strip, label: sticker.label };
    }),
  );
  const texts = cells.map(
    ({ left, top, label }) =>
      `<text x="${left}" y="${top + size + LINE - 4}" >${escapeHtml(label.slice(0, Math.floor((size * frames) / 6)))}</text>`,
  );
  const [width, height] = [across * cellWidth, down * cellHeight];
  const style = `font-size="11" font-family="${FONT_FAMILY}"`;
  const lines = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}"><g ${style}>${texts.join("")}</g></svg>`;
  // Never the machine's fonts: a container has none.
  const font = { loadSystemFonts: false, fontFiles: [fontFile()] };
  return sharp({ create: { width, height, channels: 3, background: "#e8e8e8" } })
    .composite([
      ...cells.map(({ left, top, strip }) => ({
        input: strip,
        raw: { width: size * frames, height: size, channels: 3 as const },
        left,
        top,
      })),
      { input: new Resvg(lines, { font }).render().asPng(), left: 0, top: 0 },
    ])
    .png()
    .toBuffer();
}

/** Frames side by side, [size, frames * size, 3]. */
async function film(collection: Collection, { id, format }: Shown, size: number, frames: number): Promise<Buffer> {
  const strip = Buffer.alloc(size * size * frames * 3, 255);
  try {
    const bytes = await readFile(collection.mediaPath(id, format));
    const sticker = await decodeSticker(bytes, id, (n) => pickFrames(n, n > 1 ? frames : 1));
    sticker.frames.forEach((rgba, f) => {
      const image = prepareFrame(rgba, sticker.width, sticker.height, size);
      for (let y = 0; y < size; y++) {
        strip.set(image.subarray(3 * size * y, 3 * size * (y + 1)), 3 * size * (y * frames + f));
      }
    });
  } catch {
    // an empty box
  }
  return strip;
}
