// A sticker's file as the clip that models see: so many frames, resized, white under alpha. Called for training (clip_cache.ts),
// in decoding processes (curate/worker.ts) and by the classifier of domains.

import { developSticker } from "./decode/index.ts";
import { pickFrames, prepareFrame } from "./frames.ts";

export interface ClipShape {
  readonly size: number;
  readonly frames: number;
}

/**
 * [frames, size, size, 3] bytes, by the rule of `pickFrames`.
 * @throws DecodeError naming the file as `where`
 */
export async function decodeClip(bytes: Uint8Array, where: string, { size, frames }: ClipShape): Promise<Uint8Array> {
  const { frames: made } = await developSticker(
    bytes,
    where,
    (n) => pickFrames(n, frames),
    (rgba, width, height) => prepareFrame(rgba, width, height, size),
  );
  return Buffer.concat(made);
}
