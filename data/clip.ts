// A sticker's file as the clip that models see: so many frames, resized, white under alpha; alone, or into its place of
// a file of clips. Called for training (clip_build.ts), in decoding processes (curate/worker.ts) and by the classifier
// of domains.

import { readFileSync } from "node:fs";
import { DecodeError, developSticker } from "./decode/index.ts";
import { writeAtOnce } from "./file_at.ts";
import { pickFrames, prepareFrame } from "./frames.ts";
import { sha256 } from "./hash.ts";

export interface ClipShape {
  readonly size: number;
  readonly frames: number;
}

export const clipBytes = ({ size, frames }: ClipShape): number => frames * size * size * 3;

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

/** A sticker's file, and the place of its clip in a file of clips. */
export interface ClipTask {
  readonly path: string;
  readonly shape: ClipShape;
  readonly target: string;
  readonly slot: number;
}

/** What became of it: the hash of the bytes that are in their place now, or why there are none. */
export type ClipResult = { readonly sha256: string } | { readonly reason: string };

/**
 * Decodes into the place. Rejects when the clip cannot be written; a file that cannot be used is a result. Reads and
 * writes at once: a process works on one file at a time, and waiting for each step of them takes a fifth of its time.
 */
export async function storeClip({ path, shape, target, slot }: ClipTask): Promise<ClipResult> {
  let clip: Uint8Array;
  try {
    clip = await decodeClip(readFileSync(path), path, shape);
  } catch (error) {
    return { reason: error instanceof DecodeError ? error.reason : (error as Error).message };
  }
  try {
    writeAtOnce(target, clip, slot * clip.length);
  } catch (error) {
    const why = `${target} cannot be written (${(error as Error).message}): make room there, or choose another cacheDir`;
    throw new Error(why, { cause: error });
  }
  return { sha256: sha256(clip) };
}
