// Sticker file -> whole RGBA frames and delays: the one entry to decoding. The format is read from the bytes, never
// from the name. Everything that can be wrong with a file ends in one DecodeError naming the file and the reason.

import { decodeApng, isAnimatedPng } from "./apng.ts";
import type { Animation, FrameSelection } from "./compose.ts";
import { decodeGif } from "./gif.ts";
import { checkFileSize, DecodeError } from "./limits.ts";

export { DecodeError, LIMITS } from "./limits.ts";

export type StickerFormat = "gif" | "apng" | "png" | "jpeg" | "webp";

export interface Sticker extends Animation {
  readonly format: StickerFormat;
}

const allFrames: FrameSelection = (count) => Array.from({ length: count }, (_, i) => i);

/**
 * Decodes a GIF, APNG, PNG, JPEG or (animated) WebP. `where` names the file in errors. `select` chooses the frames to
 * return from their count (default: all); memory use follows it.
 * @throws DecodeError for an unknown format, a damaged or truncated file, or one over LIMITS
 */
export async function decodeSticker(bytes: Uint8Array, where: string, select = allFrames): Promise<Sticker> {
  try {
    checkFileSize(bytes.length);
    const format = stickerFormat(bytes);
    return { format, ...(await decodeAs(format, bytes, select)) };
  } catch (error) {
    throw new DecodeError(where, error instanceof Error ? error.message : String(error), { cause: error });
  }
}

async function decodeAs(format: StickerFormat, bytes: Uint8Array, select: FrameSelection): Promise<Animation> {
  if (format === "gif") return decodeGif(bytes, select);
  if (format === "apng") return decodeApng(bytes, select);
  const { decodeImage } = await import("./image.ts");
  return decodeImage(bytes, select);
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
