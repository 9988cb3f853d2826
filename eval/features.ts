// Features of many clips: in batches through one compiled step, with progress, kept on disk under the hash of all that
// determines them. What the features are is the extractor's business (fvd_score.ts, clip_similarity.ts, vqa_score.ts). At most
// one batch of clips is in memory, beside the features themselves.

import { createHash } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { sha256Json } from "../data/hash.ts";
import { replaceFile } from "../engine/atomic.ts";
import { CLIPS_VERSION, type Clips } from "./clips.ts";
import type { Features } from "./fvd.ts";
import type { Protocol } from "./score.ts";

/** A network that turns clips into rows of numbers, each clip alone. */
export interface Extractor {
  /** For protocols: the network's name, sha256 of its weights, and what is done to frames before it, with a version. */
  readonly name: string;
  readonly hash: string;
  readonly preprocessing: string;
  readonly extension: string;
  /** The seed, where the extractor draws; it is no part of the protocol. */
  readonly drawn?: number;
  /** Numbers of a clip's row. */
  readonly width: number;
  /** Rows of `clips`, bytes [frames, size, size, 3] each, that stand at `places` of their set. */
  extract(clips: readonly Uint8Array[], places: readonly number[], size: number): Promise<Float32Array>;
}

export interface ExtractOptions {
  /** Clips at a time (default 4). */
  readonly batch?: number;
  /** Folder of the kept features; absent: nothing is kept. */
  readonly cacheDir?: string;
  readonly onProgress?: (done: number, total: number) => void;
}

/** How clips were measured with a network: what every score says of itself. `n`: where it is not all of them. */
export function protocolOf(
  clips: Clips,
  { extension, preprocessing, name, hash }: Extractor,
  { n = clips.length, real = null, captions = null }: Partial<Pick<Protocol, "n" | "real" | "captions">> = {},
): Protocol {
  const { size, frames } = clips;
  return {
    ...{ n, size, frames, extension, clips: CLIPS_VERSION, preprocessing },
    ...{ extractor: name, extractorHash: hash, real, captions },
  };
}

/** A row of features per clip. The last batch is filled up with its last clip, so that there is one shape and one program. */
export async function extractFeatures(clips: Clips, extractor: Extractor, o: ExtractOptions = {}): Promise<Features> {
  const { batch = 4, cacheDir, onProgress } = o;
  const { name, hash, preprocessing, extension, width, drawn = null } = extractor;
  const count = clips.length;
  const identity = [CLIPS_VERSION, clips.sha256, clips.names, clips.size, clips.frames];
  const key = sha256Json([1, name, hash, preprocessing, extension, drawn, width, ...identity]);
  const path = cacheDir && join(cacheDir, `features-${key.slice(0, 16)}.f32`);
  const kept = path ? await readKept(path, count * width) : null;
  if (kept) return { count, width, data: kept };
  const data = new Float32Array(count * width);
  for (let first = 0; first < count; first += batch) {
    const places = Array.from({ length: batch }, (_, i) => Math.min(first + i, count - 1));
    const some: Uint8Array[] = [];
    for (const place of places)
      some.push(place === places[some.length - 1] ? some[some.length - 1] : await clips.read(place));
    const rows = await extractor.extract(some, places, clips.size);
    data.set(rows.subarray(0, Math.min(batch, count - first) * width), first * width);
    onProgress?.(Math.min(first + batch, count), count);
  }
  if (path) await keep(path, data);
  return { count, width, data };
}

/** Values with their sha256 behind them: a file that was damaged is made again. */
async function keep(path: string, data: Float32Array): Promise<void> {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  await mkdir(join(path, ".."), { recursive: true });
  await replaceFile(path, async (file) => {
    await file.writeFile(bytes);
    await file.writeFile(createHash("sha256").update(bytes).digest());
  });
}

async function readKept(path: string, values: number): Promise<Float32Array | null> {
  const bytes = await readFile(path).catch(() => null);
  if (bytes?.length !== 4 * values + 32) return null;
  const body = bytes.subarray(0, 4 * values);
  if (
    !createHash("sha256")
      .update(body)
      .digest()
      .equals(bytes.subarray(4 * values))
  )
    return null;
  return new Float32Array(Uint8Array.from(body).buffer);
}
