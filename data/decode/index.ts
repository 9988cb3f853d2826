// Sticker file -> whole RGBA frames and delays: the one entry to decoding. The format is read from the bytes, never
// from the name. Everything that can be wrong with a file ends in one DecodeError naming the file and the reason.

import { decodeApng, isAnimatedPng } from "./apng.ts";
import type { Animation, Develop, FrameSelection } from "./compose.ts";
import { decodeGif } from "./gif.ts";
import { checkFileSize, DecodeError } from "./limits.ts";

export { DecodeError, LIMITS } from "./limits.ts";

export type StickerFormat = "gif" | "apng" | "png" | "jpeg" | "webp";

export interface Sticker<T = Uint8ClampedArray> extends Animation<T> {
  readonly format: StickerFormat;
}

const allFrames: FrameSelection = (count) => Array.from({ length: count }, (_, i) => i);

/**
 * Decodes a GIF, APNG, PNG, JPEG or (animated) WebP. `where` names the file in errors. `select` chooses the frames to
 * return from their count (default: all); memory use follows it.
 * @throws DecodeError for an unknown format, a damaged or truncated file, or one over LIMITS
 */
export function decodeSticker(bytes: Uint8Array, where: string, select = allFrames): Promise<Sticker> {
  return developSticker(bytes, where, select, (rgba) => rgba.slice());
}

/** `decodeSticker` that keeps of each selected frame what `develop` makes of it, so that one frame's pixels are held at a time. */
export async function developSticker<T>(
  bytes: Uint8Array,
  where: string,
  select: FrameSelection,
  develop: Develop<T>,
): Promise<Sticker<T>> {
  try {
    checkFileSize(bytes.length);
    const format = stickerFormat(bytes);
    return { format, ...(await decodeAs(format, bytes, select, develop)) };
  } catch (error) {
    const said = (error instanceof Error ? error.message : String(error)).replace(/\s+/g, " ").trim(); // libvips: several lines
    const reason =
      said === "Unknown error" ? "the image data are damaged in a way that libvips has no words for" : said;
    throw new DecodeError(where, reason, { cause: error });
  }
}

async function decodeAs<T>(
  format: StickerFormat,
  bytes: Uint8Array,
  select: FrameSelection,
  develop: Develop<T>,
): Promise<Animation<T>> {
  if (format === "gif") return decodeGif(bytes, select, develop);
  if (format === "apng") return decodeApng(bytes, select, develop);
  const { decodeImage } = await import("./image.ts");
  return decodeImage(bytes, select, develop);
}

/** The format by the first bytes. Throws Error, saying what else it may be. */
export function stickerFormat(bytes: Uint8Array): StickerFormat {
  const head = Buffer.from(bytes.subarray(0, 64)).toString("latin1");
  if (/^GIF8[79]a/.test(head)) return "gif";
  if (head.startsWith("\x89PNG\r\n\x1a\n")) return isAnimatedPng(bytes) ? "apng" : "png";
  if (/^RIFF[\s\S]{4}WEBP/.test(head)) return "webp";
  if (head.startsWith("\xff\xd8\xff")) return "jpeg";
  if (/^\s*<(!doctype|html|head|body)/i.test(head)) throw new Error("this is an HTML page, not an image");
  if (/^\s*<(\?xml|svg)/i.test(head))
    throw new Error("this is SVG or XML; stickers must be GIF, WebP, APNG, PNG or JPEG");
  const first = [...bytes.subarray(0, 8)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
  throw new Error(`not a GIF, WebP, APNG, PNG or JPEG (first bytes: ${first})`);
}
