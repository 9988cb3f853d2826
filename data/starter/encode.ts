// A drawn sticker to file bytes, in the format its recipe asks for. Called by write.ts.

import sharp from "sharp";
import { encodeApng } from "../encode/apng.ts";
import { encodeGif } from "../encode/gif.ts";
import type { StickerFrames } from "./frames.ts";
import type { FileFormat } from "./plan.ts";

/** File name endings; an APNG is a PNG to whoever cannot play it. */
export const EXTENSION: Readonly<Record<FileFormat, string>> = { gif: "gif", webp: "webp", apng: "png" };

export async function encodeSticker(sticker: StickerFrames, format: FileFormat): Promise<Uint8Array> {
  const { width, height } = sticker;
  const frames = sticker.frames.map((data, k) => ({ data, delayMs: sticker.delaysMs[k] }));
  if (format === "gif") return encodeGif(frames, width, height);
  if (format === "apng") return encodeApng(frames, width, height);
  return encodeWebp(sticker);
}

/** sharp takes an animation as one tall picture and cuts it into pages. */
async function encodeWebp({ width, height, frames, delaysMs }: StickerFrames): Promise<Uint8Array> {
  const raw = { width, height: height * frames.length, channels: 4, pageHeight: height } as const;
  return sharp(Buffer.concat(frames), { raw })
    .webp({ quality: 90, effort: 2, loop: 0, delay: [...delaysMs] })
    .toBuffer();
}
