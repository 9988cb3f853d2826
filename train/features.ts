// Outputs of frozen networks, kept on disk: what a data set becomes in an autoencoder or in a frozen text encoder is computed
// once, and read record by record ever after, by this run, its resumed self and others. A file is named by the hash of all
// that determines its values, and gets its name when it is whole; deleting it costs only time. Called by latents.ts and
// captions.ts.

import { createHash } from "node:crypto";
import { closeSync, openSync } from "node:fs";
import { mkdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { readAt } from "../data/file_at.ts";
import { replaceFile } from "../engine/atomic.ts";
import type { Module } from "../engine/nn/index.ts";
import type { Json } from "./checkpoints.ts";

/** Raise when what is stored changes for the same key. */
const VERSION = 1;

export interface FeatureOptions<S extends Json> {
  /** Folder of the file; made where it is missing. */
  readonly dir: string;
  /** First part of its name, e.g. "latents". */
  readonly name: string;
  /** All that determines the values: data, weights, sizes, adapter. */
  readonly key: Json;
  /** Records, and float32 values of each. */
  readonly count: number;
  readonly values: number;
  /** All values in order, in pieces of any size, and what should be kept beside them: asked for where there is no file yet. */
  produce(write: (piece: Float32Array) => Promise<void>): Promise<S>;
}

/** An open file of features. Holds none of them in memory. */
export interface Features<S extends Json> {
  readonly summary: S;
  /** Values of these records, one after another. Rejects when the file has been cut short meanwhile. */
  read(records: readonly number[]): Promise<Float32Array>;
  close(): void;
}

interface Manifest<S extends Json> {
  readonly bytes: number;
  readonly summary: S;
}

/** Opens the file of `key`, making it where it is missing or not whole. Throws when it cannot be written. */
export async function openFeatures<S extends Json>(o: FeatureOptions<S>): Promise<Features<S>> {
  const hash = createHash("sha256").update(JSON.stringify([VERSION, o.name, o.count, o.values, o.key]));
  const base = join(o.dir, `${o.name}-${hash.digest("hex").slice(0, 16)}`);
  const [path, bytes] = [`${base}.f32`, 4 * o.count * o.values];
  const found = await readManifest<S>(base, bytes);
  const summary = found ? found.summary : await build(base, bytes, o);
  const file = openSync(path, "r");
  const read = async (records: readonly number[]): Promise<Float32Array> => {
    const out = new Float32Array(records.length * o.values);
    const each = records.map(async (record, i) => {
      const part = new Uint8Array(out.buffer, 4 * i * o.values, 4 * o.values);
      if (!(await readAt(file, part, 4 * record * o.values)))
        throw new Error(`${path} was cut short while in use; resume to make it again`);
    });
    await Promise.all(each);
    return out;
  };
  return { summary, read, close: () => closeSync(file) };
}

/** The manifest of a whole file; null where there is none, or it is damaged: both are cured by making it. */
async function readManifest<S extends Json>(base: string, bytes: number): Promise<Manifest<S> | null> {
  try {
    const manifest = JSON.parse(await readFile(`${base}.json`, "utf8")) as Manifest<S>;
    return manifest.bytes === bytes && (await stat(`${base}.f32`)).size === bytes ? manifest : null;
  } catch {
    return null;
  }
}

async function build<S extends Json>(base: string, bytes: number, o: FeatureOptions<S>): Promise<S> {
  await mkdir(o.dir, { recursive: true });
  let written = 0;
  let summary: S | undefined;
  await replaceFile(`${base}.f32`, async (file) => {
    summary = await o.produce(async (piece) => {
      await file.writeFile(new Uint8Array(piece.buffer, piece.byteOffset, piece.byteLength)); // where the last one ended
      written += piece.byteLength;
    });
    if (written !== bytes) throw new Error(`${base}.f32: ${written} bytes were made where ${bytes} are expected`);
  });
  const manifest = { bytes, summary: summary as S };
  await replaceFile(`${base}.json`, (file) => file.writeFile(JSON.stringify(manifest)));
  return manifest.summary;
}

/** sha256 of the names and values of a frozen network, for a key. Reads one parameter at a time from the device. */
export async function weightsHash(network: Module): Promise<string> {
  const sum = createHash("sha256");
  for (const [name, p] of network.state()) {
    const data = await p.data();
    sum.update(`${name} ${p.shape.join()} `).update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  return sum.digest("hex");
}
