// Every file of a data set decoded once, as raw clips [t, size, size, 3] uint8 in one file: training then reads fixed
// records by position instead of decoding GIFs. Keyed by names, sizes and modification times of the files, written
// aside and renamed, so a crash or a second process never leaves half a cache. Used by store.ts, labelled.ts and evaluation.

import { createHash } from "node:crypto";
import { closeSync, openSync, readSync, writeFileSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { isAbsolute, join, relative, resolve, sep } from "node:path";
import { type ClipShape, decodeClip } from "./clip.ts";
import { DecodeError } from "./decode/index.ts";
import { checkFileSize } from "./decode/limits.ts";

/** Raise when decoding, frame choice or resizing changes what ends up in the cache. */
const CACHE_VERSION = 1;
/** Files being read or decoded at a time; sharp works on its own threads, our GIF decoder on this one. */
const PARALLEL = 4;
const ABANDONED_MS = 60 * 60 * 1000;

/** A file that was left out, and why. */
export interface Rejected {
  readonly file_name: string;
  readonly reason: string;
}

/** The part of the cache that is stored as JSON beside the pixels. */
interface Manifest {
  /** Files in the order of their clips. */
  readonly files: readonly string[];
  readonly rejected: readonly Rejected[];
  /** sha256 of the pixel file. */
  readonly sha256: string;
}

export interface ClipCache extends Manifest {
  /** Clip `slot` as [t, size, size, 3] bytes, read from disk. */
  read(slot: number): Uint8Array;
  close(): void;
}

interface Source {
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
  readonly modified: number;
  /** Why the file cannot even be opened. */
  readonly reason?: string;
}

/** Opens the cache of `names` (relative to `dir`) in `cacheDir`, building it if the files or the shape changed. */
export async function openClipCache(
  dir: string,
  names: readonly string[],
  shape: ClipShape,
  cacheDir: string,
  onProgress: (done: number, total: number) => void = () => {},
): Promise<ClipCache> {
  const sources = await Promise.all(names.map((name) => locate(dir, name)));
  const prefix = `clips-${shape.frames}x${shape.size}-`;
  const base = join(cacheDir, prefix + fingerprint(sources, shape));
  const manifest = (await readManifest(base, shape)) ?? (await build(sources, shape, base, prefix, onProgress));
  const clipBytes = bytesOf(shape);
  const file = openSync(`${base}.u8`, "r");
  const read = (slot: number) => {
    const clip = new Uint8Array(clipBytes);
    if (readSync(file, clip, 0, clipBytes, slot * clipBytes) === clipBytes) return clip;
    throw new Error(`the frame cache ${base}.u8 was cut short while in use; start again to rebuild it`);
  };
  return { ...manifest, read, close: () => closeSync(file) };
}

const bytesOf = ({ size, frames }: ClipShape): number => frames * size * size * 3;

/** Links inside the folder may point anywhere; a name that itself leads out of the folder is refused. */
async function locate(dir: string, name: string): Promise<Source> {
  const path = resolve(dir, name);
  const inside = relative(dir, path);
  const missing = (reason: string): Source => ({ name, path, bytes: 0, modified: 0, reason });
  if (isAbsolute(name) || inside === ".." || inside.startsWith(`..${sep}`))
    return missing("the path leaves the data folder");
  try {
    const found = await stat(path);
    if (!found.isFile()) return missing("not a regular file");
    return { name, path, bytes: found.size, modified: found.mtimeMs };
  } catch (error) {
    return missing((error as NodeJS.ErrnoException).code === "ENOENT" ? "the file does not exist" : String(error));
  }
}

function fingerprint(sources: readonly Source[], shape: ClipShape): string {
  const facts = sources.map(({ name, bytes, modified, reason }) => [name, bytes, modified, reason]);
  return createHash("sha256")
    .update(JSON.stringify([CACHE_VERSION, shape, facts]))
    .digest("hex")
    .slice(0, 16);
}

/** The manifest of a complete cache at `base`, or undefined if there is none to use. */
async function readManifest(base: string, shape: ClipShape): Promise<Manifest | undefined> {
  try {
    const manifest = JSON.parse(await readFile(`${base}.json`, "utf8")) as Manifest;
    const { size } = await stat(`${base}.u8`);
    return size === manifest.files.length * bytesOf(shape) ? manifest : undefined;
  } catch {
    return undefined; // absent or damaged: both are cured by building it
  }
}

async function build(
  sources: readonly Source[],
  shape: ClipShape,
  base: string,
  prefix: string,
  onProgress: (done: number, total: number) => void,
): Promise<Manifest> {
  const cacheDir = resolve(base, "..");
  const aside = `${base}.${process.pid}.tmp`;
  const out = await openForWriting(cacheDir, aside);
  const hash = createHash("sha256");
  const files: string[] = [];
  const rejected: Rejected[] = [];
  try {
    let done = 0;
    for await (const { name, result } of inOrder(sources, PARALLEL, (source) => clipOf(source, shape))) {
      if (result instanceof Uint8Array) {
        writeFileSync(out, result); // at the descriptor's position, and all of it
        hash.update(result);
        files.push(name);
      } else rejected.push({ file_name: name, reason: result.reason });
      onProgress(++done, sources.length);
    }
  } finally {
    closeSync(out);
  }
  const manifest: Manifest = { files, rejected, sha256: hash.digest("hex") };
  await removeOld(cacheDir, prefix, base);
  await rename(aside, `${base}.u8`);
  await writeFile(aside, JSON.stringify(manifest));
  await rename(aside, `${base}.json`);
  return manifest;
}

async function openForWriting(cacheDir: string, path: string): Promise<number> {
  try {
    await mkdir(cacheDir, { recursive: true });
    return openSync(path, "w");
  } catch (error) {
    throw new Error(`cannot write the frame cache in ${cacheDir}; choose another cacheDir (${String(error)})`, {
      cause: error,
    });
  }
}

/**
 * Removes what a changed data set left behind, and builds that a crash cut off: another process may be building now,
 * so an unfinished file goes only when nothing has been written to it for a while.
 */
async function removeOld(cacheDir: string, prefix: string, base: string): Promise<void> {
  for (const name of await readdir(cacheDir)) {
    const path = join(cacheDir, name);
    if (!name.startsWith(prefix) || path === `${base}.u8` || path === `${base}.json`) continue;
    const written = name.endsWith(".tmp") ? ((await stat(path).catch(() => undefined))?.mtimeMs ?? Date.now()) : 0;
    if (Date.now() - written > ABANDONED_MS) await rm(path, { force: true });
  }
}

/** Runs `work` on at most `limit` items at a time and yields the results in the order of the items. */
async function* inOrder<T, R>(items: readonly T[], limit: number, work: (item: T) => Promise<R>): AsyncGenerator<R> {
  const running: Promise<R>[] = [];
  for (const item of items) {
    running.push(work(item));
    if (running.length >= limit) yield await running.shift()!;
  }
  yield* running;
}

/** The clip of one file, or why there is none; never rejects, since one bad file must not stop a run. */
async function clipOf(
  source: Source,
  shape: ClipShape,
): Promise<{ name: string; result: Uint8Array | { reason: string } }> {
  const { name, path, bytes } = source;
  try {
    if (source.reason) throw new DecodeError(name, source.reason);
    checkFileSize(bytes);
    return { name, result: await decodeClip(await readFile(path), name, shape) };
  } catch (error) {
    const reason = error instanceof DecodeError ? error.reason : (error as Error).message;
    return { name, result: { reason } };
  }
}
