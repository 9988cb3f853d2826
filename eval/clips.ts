// Folders of stickers as clips to score. Real and generated ones take one path: some frames, white under alpha, one size, then
// through our GIF encoder and decoder, because generated stickers are GIFs and a palette alone moves every score. Decoded
// pixels lie in data/clip_cache.ts's file; one clip is in memory at a time.

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { openClipCache, type Rejected } from "../data/clip_cache.ts";
import { decodeSticker } from "../data/decode/index.ts";
import { encodeGif } from "../data/encode/gif.ts";
import { CLIP_FRAMES } from "../data/frames.ts";
import { readSticker } from "../data/regular_file.ts";
import { METADATA, readMetadata } from "../data/store.ts";

/** Name of the path in protocols. Raise when encoding, decoding, choice of frames or resizing changes a clip. */
export const CLIPS_VERSION = "gif-2";

export interface Clips {
  readonly dir: string;
  readonly length: number;
  /** Files, in the order of the clips. */
  readonly names: readonly string[];
  /** The description of each, without its domain; null where the folder has no metadata.jsonl. */
  readonly captions: readonly string[] | null;
  readonly size: number;
  readonly frames: number;
  /** sha256 of the decoded frames of all clips. */
  readonly sha256: string;
  readonly rejected: readonly Rejected[];
  /** Clip i as bytes [frames, size, size, 3]. */
  read(i: number): Promise<Uint8Array>;
  close(): void;
}

export interface ClipsOptions {
  /** Pixels a side; absent: that of the files, which must all have the same then. */
  readonly size?: number;
  /** Frames taken of each (default 8). */
  readonly frames?: number;
  /** Where decoded clips are kept (default: .gifgrad in the folder). */
  readonly cacheDir?: string;
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * The stickers that metadata.jsonl names, each file once, or else all image files of the folder. Those that cannot be read are
 * left out, and named in `rejected`.
 * @throws Error of one line when the folder has none, or without `size` the files have different ones
 */
export async function openClips(dir: string, o: ClipsOptions = {}): Promise<Clips> {
  const captions = await captionsOf(dir);
  const listed = captions ? [...captions.keys()] : await imagesIn(dir);
  if (listed.length === 0) throw new Error(`${dir} has no stickers to score`);
  const size = o.size ?? (await commonSize(dir, listed));
  const frames = o.frames ?? CLIP_FRAMES;
  const { cacheDir = join(dir, ".gifgrad"), onProgress } = o;
  const cache = await openClipCache(dir, listed, { size, frames }, { cacheDir, onProgress });
  if (cache.files.length === 0) {
    cache.close();
    const { file_name, reason } = cache.rejected[0];
    throw new Error(`${dir}: none of its ${listed.length} stickers can be read; ${file_name}: ${reason}`);
  }
  return {
    dir,
    length: cache.files.length,
    names: cache.files,
    captions: captions && cache.files.map((name) => captions.get(name) as string),
    size,
    frames,
    sha256: cache.sha256,
    rejected: cache.rejected,
    read: (i) => throughGif(cache.read(i), size),
    close: cache.close,
  };
}

/** The same clips in part: those at `places`. Closing the whole closes both. */
export function clipsAt(clips: Clips, places: readonly number[]): Clips {
  const { names, captions } = clips;
  const identity = JSON.stringify([clips.sha256, places]);
  return {
    ...clips,
    length: places.length,
    sha256: createHash("sha256").update(identity).digest("hex"),
    names: places.map((i) => names[i]),
    captions: captions && places.map((i) => captions[i]),
    read: (i) => clips.read(places[i]),
  };
}

/** Caption of each file; of several records of one file the first. Null without a metadata.jsonl. */
async function captionsOf(dir: string): Promise<Map<string, string> | null> {
  if (!existsSync(join(dir, METADATA))) return null;
  const { records, rejected } = await readMetadata(dir);
  if (rejected.length > 0) throw new Error(rejected[0].reason); // a score of part of a set would pass for one of the whole
  const captions = new Map<string, string>();
  for (const { file_name, caption } of records) captions.set(file_name, captions.get(file_name) ?? caption);
  return captions;
}

async function imagesIn(dir: string): Promise<string[]> {
  if (!existsSync(dir)) throw new Error(`the folder ${dir} does not exist`);
  return (await readdir(dir)).filter((name) => /\.(gif|webp|a?png)$/i.test(name)).sort();
}

/** The side of all that can be read; 1 where nothing can, which the frame cache finds again and says why. */
async function commonSize(dir: string, names: readonly string[]): Promise<number> {
  let first: { readonly name: string; readonly width: number; readonly height: number } | undefined;
  for (const name of names) {
    const sticker = await readSticker(join(dir, name))
      .then((bytes) => decodeSticker(bytes, name, () => [0]))
      .catch(() => null);
    if (!sticker) continue;
    const { width, height } = sticker;
    first ??= { name, width, height };
    if (width !== height)
      throw new Error(`${join(dir, name)} has ${width} x ${height} pixels: give --size to make all stickers square`);
    if (width !== first.width)
      throw new Error(
        `${dir}: ${first.name} has ${first.width} x ${first.height} pixels, ${name} ${width} x ${height}: ` +
          "scores of mixed sizes mean nothing; give --size to resize all",
      );
  }
  return first?.width ?? 1;
}

/** A clip [t, size, size, 3] as a GIF, white where it was transparent. */
export function clipGif(clip: Uint8Array, size: number): Uint8Array {
  const pixels = size * size;
  const frames = Array.from({ length: clip.length / (3 * pixels) }, (_, t) => {
    const data = new Uint8ClampedArray(4 * pixels).fill(255);
    for (let p = 0; p < pixels; p++) for (let c = 0; c < 3; c++) data[4 * p + c] = clip[3 * (t * pixels + p) + c];
    return { data, delayMs: 100 };
  });
  return encodeGif(frames, size, size);
}

/** What our GIF encoder and decoder make of a clip [t, size, size, 3]. */
export async function throughGif(clip: Uint8Array, size: number): Promise<Uint8Array> {
  const pixels = size * size;
  const decoded = (await decodeSticker(clipGif(clip, size), "a clip")).frames;
  const out = new Uint8Array(clip.length);
  decoded.forEach((rgba, t) => {
    for (let p = 0; p < pixels; p++) for (let c = 0; c < 3; c++) out[3 * (t * pixels + p) + c] = rgba[4 * p + c];
  });
  return out;
}
