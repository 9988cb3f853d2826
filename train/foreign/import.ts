// A checkpoint of another program into a folder of ours (record.ts): tensor by tensor, in pieces of a few MB, so that no
// tensor need fit into memory. Element types stay; what is no weight, headers and small files are kept for export.ts.

import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { TensorStore } from "../../engine/index.ts";
import { SafetensorsFile, type StoredSource, writeSafetensors } from "../../engine/safetensors.ts";
import { ShardedFile } from "../../engine/tensor_shards.ts";
import { cutPieces } from "../../models/checkpoints/layout.ts";
import type { CheckpointKind } from "../../models/checkpoints/parts.ts";
import { filesIn, readText } from "./find.ts";
import { checkFree, newFolder } from "./folder.ts";
import { type OpenCheckpoint, type OpenOptions, type OpenPart, openForeign } from "./open.ts";
import { headerFile, type ImportRecord, type PartRecord, RECORD, restFile, SOURCE, weightsFile } from "./record.ts";

export interface ImportOptions extends OpenOptions {
  /** Told of every network before its tensors are copied. */
  readonly onPart?: (name: string, tensors: number) => void;
}

/**
 * Imports `path` into the folder `out`, which appears when all of it is there.
 * @throws Error as `openForeign`, and when `out` is there already and not empty
 */
export async function importCheckpoint(
  path: string,
  kind: CheckpointKind,
  out: string,
  o: ImportOptions = {},
): Promise<ImportRecord> {
  await checkFree(out);
  const checkpoint = await openForeign(path, kind, o);
  try {
    return await newFolder(out, (folder) => writeAll(checkpoint, folder, o));
  } finally {
    await checkpoint.close();
  }
}

async function writeAll(checkpoint: OpenCheckpoint, dir: string, { onPart }: ImportOptions): Promise<ImportRecord> {
  await mkdir(join(dir, SOURCE), { recursive: true });
  const parts: Record<string, PartRecord> = {};
  for (const part of checkpoint.parts) {
    onPart?.(part.name, part.file.tensors.size);
    parts[part.name] = await writePart(part, checkpoint.path, dir);
  }
  if (checkpoint.parts.some(({ place }) => place !== null)) await copySmall(checkpoint, dir);
  const record: ImportRecord = { format: 1, as: checkpoint.kind, parts, scheduler: checkpoint.scheduler };
  await writeFile(join(dir, RECORD), `${JSON.stringify(record, null, 2)}\n`);
  return record;
}

async function writePart(
  { name, config, store, file, layout, place }: OpenPart,
  path: string,
  dir: string,
): Promise<PartRecord> {
  const ours = [...file.tensors].map(([tensor, { dtype, shape }]): [string, StoredSource] => {
    const source = file.source(tensor);
    return [tensor, { dtype, shape, pieces: () => cutPieces(store, source) }];
  });
  await writeSafetensors(weightsFile(dir, name), new Map(ours), { format: "pt" });
  if (!place) return { config, place: null };
  const rest = [...store.tensors].filter(([tensor]) => layout(tensor).names.length === 0);
  if (rest.length > 0) {
    const kept = rest.map(([tensor, info]): [string, StoredSource] => [
      tensor,
      { ...info, pieces: () => store.pieces(tensor) },
    ]);
    await writeSafetensors(restFile(dir, name), new Map(kept));
  }
  const files = await keepHeaders(store, place, path, dir);
  return { config, place: { folder: place.folder, files } };
}

/** The headers of safetensors files, by which they can be written again; their names. */
async function keepHeaders(
  store: TensorStore,
  { folder, weights }: { readonly folder: string; readonly weights: string },
  path: string,
  dir: string,
): Promise<string[]> {
  const files = store instanceof ShardedFile ? store.files : new Map([[weights, store]]);
  if (![...files.values()].every((file) => file instanceof SafetensorsFile)) return [];
  const names: string[] = [];
  for (const [name, file] of files) {
    const relative = join(folder, name);
    await mkdir(dirname(headerFile(dir, relative)), { recursive: true });
    await writeFile(headerFile(dir, relative), await (file as SafetensorsFile).header());
    names.push(relative);
  }
  if (store instanceof ShardedFile) await copy(path, join(folder, weights), dir);
  return names;
}

/** Folders of a pipeline that hold no weights, and what is copied from them and from those that do. */
const SMALL_FOLDERS = ["", "scheduler", "tokenizer", "feature_extractor", "image_processor"];
const SMALL = /^(?!.*\.index\.).*\.(json|txt|gz)$/;

/** Copies configurations, tokenizers and the index of the pipeline. */
async function copySmall({ parts, path }: OpenCheckpoint, dir: string): Promise<void> {
  const folders = new Set([...SMALL_FOLDERS, ...parts.map(({ place }) => place?.folder ?? "")]);
  for (const folder of folders)
    for (const name of await filesIn(join(path, folder)))
      if (SMALL.test(name)) await copy(path, join(folder, name), dir);
}

async function copy(from: string, file: string, dir: string): Promise<void> {
  const to = join(dir, SOURCE, file);
  await mkdir(dirname(to), { recursive: true });
  await writeFile(to, await readText(join(from, file)));
}
