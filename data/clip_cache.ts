// Every file of a data set decoded once, as raw clips [t, size, size, 3] uint8 in one file: training then reads fixed
// records by position instead of decoding GIFs. Keyed by names, sizes and modification times of the files; a cache is
// there when its manifest is, which is written last. Filled by clip_build.ts. Used by store.ts, labelled.ts and
// evaluation.

import { createHash } from "node:crypto";
import { closeSync, openSync } from "node:fs";
import { mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import { basename, isAbsolute, join, relative, resolve, sep } from "node:path";
import { replaceFile } from "../engine/atomic.ts";
import { type ClipShape, clipBytes } from "./clip.ts";
import { type BuildOptions, buildClips, journalPath, type Source } from "./clip_build.ts";
import { readAt, readAtOnce } from "./file_at.ts";

/** Raise when decoding, frame choice or resizing changes what ends up in the cache. */
const CACHE_VERSION = 3;
const ABANDONED_MS = 60 * 60 * 1000;

/** A file that was left out, and why. */
export interface Rejected {
  readonly file_name: string;
  readonly reason: string;
}

/** The part of the cache that is stored as JSON beside the pixels. */
interface Manifest {
  /** Files that have a clip, in the order in which they were named. */
  readonly files: readonly string[];
  /** The place of each one's clip in the pixel file, which has a place for every file that was named. */
  readonly places: readonly number[];
  readonly rejected: readonly Rejected[];
  /** sha256 of the clips' sha256, in hex, in the order of the files. */
  readonly sha256: string;
}

export interface ClipCache extends Omit<Manifest, "places"> {
  /** The clip of file `i` as [t, size, size, 3] bytes, read from disk. */
  read(i: number): Uint8Array;
  /** The same, read while the caller goes on. */
  load(i: number): Promise<Uint8Array>;
  close(): void;
}

export interface ClipCacheOptions extends BuildOptions {
  /** Folder of the cache; made where it is missing. */
  readonly cacheDir: string;
}

/** Opens the cache of `names` (relative to `dir`), building it if the files or the shape changed. */
export async function openClipCache(
  dir: string,
  names: readonly string[],
  shape: ClipShape,
  o: ClipCacheOptions,
): Promise<ClipCache> {
  const sources = await Promise.all(names.map((name) => locate(dir, name)));
  const prefix = `clips-${shape.frames}x${shape.size}-`;
  const base = join(o.cacheDir, prefix + fingerprint(sources, shape));
  const manifest = (await readManifest(base, shape)) ?? (await build(sources, shape, base, prefix, o));
  const { places, ...told } = manifest;
  const bytes = clipBytes(shape);
  const file = openSync(`${base}.u8`, "r");
  const whole = (clip: Uint8Array, read: boolean) => {
    if (read) return clip;
    throw new Error(`the frame cache ${base}.u8 was cut short while in use; start again to rebuild it`);
  };
  const read = (i: number) => {
    const clip = new Uint8Array(bytes);
    return whole(clip, readAtOnce(file, clip, places[i] * bytes));
  };
  const load = async (i: number) => {
    const clip = new Uint8Array(bytes);
    return whole(clip, await readAt(file, clip, places[i] * bytes));
  };
  return { ...told, read, load, close: () => closeSync(file) };
}

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
    const places = manifest.files.length + manifest.rejected.length;
    return size === places * clipBytes(shape) ? manifest : undefined;
  } catch {
    return undefined; // absent or damaged: both are cured by building it
  }
}

/** Makes the cache. Several processes may be at it at once: they write the same bytes into the same places. */
async function build(
  sources: readonly Source[],
  shape: ClipShape,
  base: string,
  prefix: string,
  o: ClipCacheOptions,
): Promise<Manifest> {
  await makeFolder(o.cacheDir);
  await rm(`${base}.json`, { force: true }); // of pixels that are not all there any more
  const results = await buildClips(sources, shape, base, o);
  const hash = createHash("sha256");
  const [files, places, rejected] = [[] as string[], [] as number[], [] as Rejected[]];
  results.forEach((result, place) => {
    const { name } = sources[place];
    if ("reason" in result) rejected.push({ file_name: name, reason: result.reason });
    else {
      files.push(name);
      places.push(place);
      hash.update(result.sha256);
    }
  });
  const manifest: Manifest = { files, places, rejected, sha256: hash.digest("hex") };
  await replaceFile(`${base}.json`, (file) => file.writeFile(JSON.stringify(manifest)));
  await rm(journalPath(base), { force: true });
  await removeOld(o.cacheDir, prefix, basename(base));
  return manifest;
}

async function makeFolder(cacheDir: string): Promise<void> {
  try {
    await mkdir(cacheDir, { recursive: true });
  } catch (error) {
    throw new Error(`cannot write the frame cache in ${cacheDir}; choose another cacheDir (${String(error)})`, {
      cause: error,
    });
  }
}

/**
 * Removes what a changed data set left behind, and builds that were given up: another process may be building now, so
 * files with a journal, and those on their way to a name, go only when nothing has been written for a while.
 */
async function removeOld(cacheDir: string, prefix: string, current: string): Promise<void> {
  const written = async (name: string): Promise<number> =>
    (await stat(join(cacheDir, name)).catch(() => undefined))?.mtimeMs ?? 0;
  const names = (await readdir(cacheDir)).filter((name) => name.startsWith(prefix));
  for (const name of names) {
    const [stem] = name.split(".");
    if (stem === current) continue;
    const latest = Math.max(await written(journalPath(stem)), name.endsWith(".tmp") ? await written(name) : 0);
    if (Date.now() - latest > ABANDONED_MS) await rm(join(cacheDir, name), { force: true });
  }
}
