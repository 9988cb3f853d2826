// Contact sheets: many stickers in one picture, to judge a threshold or a data set by eye. A sticker is shown by a few of its
// frames side by side, on white, with a line of text below. PNG through sharp. Called by `dataset show` and the statistics.

import { Resvg } from "@resvg/resvg-js";
import sharp from "sharp";
import { DecodeError, decodeSticker } from "../decode/index.ts";
import { pickFrames, prepareFrame } from "../frames.ts";
import { escapeHtml } from "../html.ts";
import { readSticker } from "../regular_file.ts";
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
/** Of the text, 11 pixels high: pixels to the next line of a reason, and of a character, about. */
const LINE_OF_REASON = 13;
const CHARACTER = 6;

/** A PNG. In the place of a sticker that cannot be decoded stands why. */
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
      const shown = await film(collection, sticker, size, frames);
      return { left, top, shown, label: sticker.label };
    }),
  );
  const characters = Math.floor((size * frames) / CHARACTER);
  const texts = cells.flatMap(({ left, top, shown, label }) => [
    typeof shown === "string" ? placeholder(shown, left, top, size * frames, size) : "",
    `<text x="${left}" y="${top + size + LINE - 4}">${escapeHtml(label.slice(0, characters))}</text>`,
  ]);
  const [width, height] = [across * cellWidth, down * cellHeight];
  const style = `font-size="11" font-family="${FONT_FAMILY}"`;
  const lines = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}"><g ${style}>${texts.join("")}</g></svg>`;
  // Never the machine's fonts: a container has none.
  const font = { loadSystemFonts: false, fontFiles: [fontFile()] };
  const strips = cells.flatMap(({ left, top, shown }) => {
    const raw = { width: size * frames, height: size, channels: 3 as const };
    return typeof shown === "string" ? [] : [{ input: shown, raw, left, top }];
  });
  return sharp({ create: { width, height, channels: 3, background: "#e8e8e8" } })
    .composite([...strips, { input: new Resvg(lines, { font }).render().asPng(), left: 0, top: 0 }])
    .png()
    .toBuffer();
}

/** A dashed box with a reason in it, in as many lines as it has room for. */
function placeholder(reason: string, left: number, top: number, width: number, height: number): string {
  const characters = Math.floor((width - 8) / CHARACTER);
  const lines: string[] = [];
  for (const word of reason.split(/\s+/)) {
    const longer = lines.length === 0 ? word : `${lines.at(-1)} ${word}`;
    if (lines.length > 0 && longer.length <= characters) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  const room = Math.floor((height - 6) / LINE_OF_REASON);
  const rows = lines.slice(0, room).map((line, i) => {
    const cut =
      i === room - 1 && lines.length > room ? `${line.slice(0, characters - 2)} …` : line.slice(0, characters);
    return `<text x="${left + 4}" y="${top + LINE_OF_REASON * (i + 1)}" fill="#8a1c1c">${escapeHtml(cut)}</text>`;
  });
  const box = `x="${left + 0.5}" y="${top + 0.5}" width="${width - 1}" height="${height - 1}"`;
  return `<rect ${box} fill="#f6f0f0" stroke="#b08080" stroke-dasharray="4 3"/>${rows.join("")}`;
}

/** Frames side by side, [size, frames * size, 3], or why there are none. */
async function film(collection: Collection, { id, format }: Shown, size: number, frames: number) {
  const strip = Buffer.alloc(size * size * frames * 3, 255);
  try {
    const bytes = await readSticker(collection.mediaPath(id, format));
    const sticker = await decodeSticker(bytes, id, (n) => pickFrames(n, n > 1 ? frames : 1));
    sticker.frames.forEach((rgba, f) => {
      const image = prepareFrame(rgba, sticker.width, sticker.height, size);
      for (let y = 0; y < size; y++) {
        strip.set(image.subarray(3 * size * y, 3 * size * (y + 1)), 3 * size * (y * frames + f));
      }
    });
  } catch (error) {
    if (error instanceof DecodeError) return error.reason;
    const { code, message } = error as NodeJS.ErrnoException;
    return code === "ENOENT" ? "the file is gone: dataset verify says what is missing" : message;
  }
  return strip;
}
