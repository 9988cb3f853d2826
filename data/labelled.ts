// Stickers whose domain is known, for training the classifier of domains: an imagefolder export whose metadata.jsonl names
// domains, or two folders called cartoon and real. Some are held out, by the hash of their pixels, so always the same ones.

import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { openClipCache, type Rejected } from "./clip_cache.ts";
import { sha256Json, unitHash } from "./hash.ts";
import { DOMAINS, type Domain } from "./record.ts";
import { readMetadata } from "./store.ts";

export interface LabelledOptions {
  /** Pixels a side, and frames of each sticker. */
  readonly size: number;
  readonly frames: number;
  /** Share held out of training. */
  readonly heldOut: number;
  readonly onProgress?: (done: number, total: number) => void;
}

export interface Labelled {
  readonly domains: readonly Domain[];
  /** Indices into `domains`. Stickers of equal pixels are on the same side. */
  readonly train: readonly number[];
  readonly test: readonly number[];
  readonly rejected: readonly Rejected[];
  /** Of pixels and labels. */
  readonly fingerprint: string;
  /** [frames, size, size, 3] bytes. */
  clip(i: number): Promise<Uint8Array>;
  close(): void;
}

const IMAGE = /\.(gif|webp|a?png|jpe?g)$/i;

/** @throws Error when `dir` has no labels, or no sticker that can be used of either domain on both sides */
export async function openLabelled(dir: string, o: LabelledOptions): Promise<Labelled> {
  if (!existsSync(dir)) throw new Error(`the folder ${dir} does not exist`);
  const labels = await readLabels(dir);
  const shape = { size: o.size, frames: o.frames };
  const cache = await openClipCache(dir, [...labels.keys()], shape, {
    cacheDir: join(dir, ".gifgrad"),
    onProgress: o.onProgress,
  });
  const domains = cache.files.map((name) => labels.get(name)!);
  const [train, test] = [[] as number[], [] as number[]];
  for (let i = 0; i < domains.length; i++) {
    const share = unitHash(await cache.load(i));
    (share < o.heldOut ? test : train).push(i);
  }
  for (const domain of DOMAINS) {
    if (train.some((i) => domains[i] === domain) && test.some((i) => domains[i] === domain)) continue;
    cache.close();
    throw new Error(`${dir} has too few ${domain} stickers to train on some and hold others out: label more of them`);
  }
  const fingerprint = sha256Json([cache.sha256, domains]);
  return { domains, train, test, rejected: cache.rejected, fingerprint, clip: cache.load, close: cache.close };
}

/** File -> domain. */
async function readLabels(dir: string): Promise<Map<string, Domain>> {
  if (existsSync(join(dir, "metadata.jsonl"))) {
    const { records } = await readMetadata(dir);
    const found = records.flatMap(({ file_name, domain }) => (domain ? [[file_name, domain] as const] : []));
    if (found.length > 0) return new Map(found);
    throw new Error(`${join(dir, "metadata.jsonl")} names no domain: give each line "domain": "Cartoon" or "Real"`);
  }
  const names = existsSync(dir) ? await readdir(dir) : [];
  const labels = new Map<string, Domain>();
  for (const domain of DOMAINS) {
    const folder = names.find((name) => name.toLowerCase() === domain.toLowerCase());
    if (!folder) continue;
    const files = (await readdir(join(dir, folder), { recursive: true })).filter((name) => IMAGE.test(name)).sort();
    for (const name of files) labels.set(join(folder, name), domain);
  }
  if (labels.size > 0) return labels;
  throw new Error(`${dir} has no labels: folders "cartoon" and "real", or a metadata.jsonl with "domain" in its lines`);
}
