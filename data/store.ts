// A data set on disk -> batches. The folder holds sticker files and a Hugging Face style metadata.jsonl with one record
// (record.ts) per line; pixels come from clip_cache.ts. A bad line or file is left out, counted and named in
// rejected.jsonl; it never stops a run. Sampling order is the training recipe's business.

import { existsSync } from "node:fs";
import { readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { BuildOptions } from "./clip_build.ts";
import { type ClipCache, openClipCache, type Rejected } from "./clip_cache.ts";
import { CLIP_FRAMES, formatCaption, toUnitRange } from "./frames.ts";
import { sha256Json } from "./hash.ts";
import { DEFAULT_DOMAIN, parseRecord, type StickerRecord } from "./record.ts";
import { fileLines } from "./regular_file.ts";

export type { Rejected } from "./clip_cache.ts";

export interface DatasetOptions extends BuildOptions {
  /** Pixels a side of the training clips. */
  readonly size: number;
  /** Frames of a clip (default 8). */
  readonly frames?: number;
  /** Where the decoded clips and rejected.jsonl go; default: the data folder (clips under .gifgrad). */
  readonly cacheDir?: string;
}

export interface Dataset {
  /** Usable records; several may share one file. */
  readonly length: number;
  readonly records: readonly StickerRecord[];
  /** "[Domain] \t [Description]" of each record. */
  readonly captions: readonly string[];
  readonly rejected: readonly Rejected[];
  /** sha256 of all clips and captions: equal data, on any machine, gives an equal fingerprint. */
  readonly fingerprint: string;
  /** The clip of record i: [t, size, size, 3] bytes, white under alpha. */
  frame(i: number): Uint8Array;
  /** Clips of the records: [b, t, size, size, 3] in [-1, 1]. The disk is read while the caller goes on. */
  batch(indices: readonly number[]): Promise<Float32Array>;
  /** Closes the cache file; the data set cannot be read afterwards. */
  close(): void;
}

export const METADATA = "metadata.jsonl";

/**
 * Opens the data set in `dir`, decoding its files if that has not been done before for this clip shape.
 * @throws Error when metadata.jsonl is missing (with an example), no record is usable, or the cache cannot be written
 */
export async function openDataset(dir: string, options: DatasetOptions): Promise<Dataset> {
  const { size, frames = CLIP_FRAMES, cacheDir, processes, onProgress } = options;
  if (!Number.isInteger(size) || size < 1)
    throw new RangeError(`openDataset: size must be a positive whole number, got ${size}`);
  const lines = await readMetadata(dir);
  const names = [...new Set(lines.records.map((record) => record.file_name))];
  const where = { cacheDir: cacheDir ?? join(dir, ".gifgrad"), processes, onProgress };
  const cache = await openClipCache(dir, names, { size, frames }, where);
  const rejected = [...lines.rejected, ...cache.rejected];
  const report = join(cacheDir ?? dir, "rejected.jsonl");
  await writeRejected(report, rejected);
  if (cache.files.length === 0) {
    cache.close();
    throw nothingUsable(dir, rejected, report);
  }
  return view(lines.records, rejected, cache, frames * size * size * 3);
}

function view(
  all: readonly StickerRecord[],
  rejected: readonly Rejected[],
  cache: ClipCache,
  clipLength: number,
): Dataset {
  const slots = new Map(cache.files.map((name, slot) => [name, slot]));
  const records = all.filter((record) => slots.has(record.file_name));
  const captions = records.map(({ domain, caption }) => formatCaption(domain ?? DEFAULT_DOMAIN, caption));
  const slotOf = (i: number): number => {
    const record = records[i];
    if (!record) throw new RangeError(`dataset: record ${i} does not exist; there are ${records.length}`);
    return slots.get(record.file_name)!;
  };
  const frame = (i: number) => cache.read(slotOf(i));
  const batch = async (indices: readonly number[]) => {
    const out = new Float32Array(indices.length * clipLength);
    const clips = indices.map((i) => cache.load(slotOf(i)));
    await Promise.all(clips.map(async (clip, b) => toUnitRange(await clip, out, b * clipLength)));
    return out;
  };
  const fingerprint = sha256Json([cache.sha256, records.map(({ file_name }) => slots.get(file_name)), captions]);
  return { length: records.length, records, captions, rejected, fingerprint, frame, batch, close: cache.close };
}

/** Records of metadata.jsonl, and the lines that are none. Throws when there is no such file. */
export async function readMetadata(dir: string): Promise<{ records: StickerRecord[]; rejected: Rejected[] }> {
  const path = join(dir, METADATA);
  if (!existsSync(path)) throw await missingMetadata(dir);
  const records: StickerRecord[] = [];
  const rejected: Rejected[] = [];
  let number = 0;
  for await (const line of fileLines(path)) {
    const where = `${METADATA}:${++number}`;
    const text = line.trim();
    if (text === "") continue;
    try {
      records.push(parseRecord(text, where));
    } catch (error) {
      rejected.push({ file_name: claimedName(text) ?? where, reason: (error as Error).message });
    }
  }
  return { records, rejected };
}

/** The file name in a line, which need not be a valid record. */
export function claimedName(line: string): string | undefined {
  try {
    const { file_name } = (JSON.parse(line.replace(/^\uFEFF/, "")) ?? {}) as { file_name?: unknown };
    return typeof file_name === "string" && file_name !== "" ? file_name : undefined;
  } catch {
    return undefined;
  }
}

async function missingMetadata(dir: string): Promise<Error> {
  if (!existsSync(dir)) return new Error(`the data folder ${dir} does not exist`);
  const images = (await readdir(dir)).filter((name) => /\.(gif|webp|a?png|jpe?g)$/i.test(name)).sort();
  const found =
    images.length > 0 ? `has ${images.length} image files but no ${METADATA}` : `has no ${METADATA} and no images`;
  const examples = [images[0] ?? "wave.gif", images[1] ?? "heart.webp"].map((file_name, i) =>
    JSON.stringify({ file_name, caption: ["a cat waving its paw", "a red heart beating"][i], domain: DEFAULT_DOMAIN }),
  );
  return new Error(`the data folder ${dir} ${found}. Write one line per sticker there, like:\n${examples.join("\n")}`);
}

async function writeRejected(path: string, rejected: readonly Rejected[]): Promise<void> {
  if (rejected.length === 0) await rm(path, { force: true });
  else await writeFile(path, rejected.map((entry) => `${JSON.stringify(entry)}\n`).join(""));
}

function nothingUsable(dir: string, rejected: readonly Rejected[], report: string): Error {
  if (rejected.length === 0) return new Error(`${join(dir, METADATA)} has no records`);
  const reasons = rejected.slice(0, 3).map(({ file_name, reason }) => `\n  ${file_name}: ${reason}`);
  return new Error(
    `none of the ${rejected.length} stickers of ${dir} can be used (all in ${report}):${reasons.join("")}`,
  );
}
