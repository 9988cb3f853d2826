// What an imported checkpoint is on the disk: a folder with import.json (this record), one safetensors file per network with
// our names of weights, torch's order of axes and the element types they came in, and below source/ what it takes to write
// the files it came from again, byte by byte. Written by import.ts; read by export.ts and imported.ts.

import { join } from "node:path";
import { isThere } from "../../data/regular_file.ts";
import { CHECKPOINTS, type CheckpointKind, type PartName } from "../../models/checkpoints/parts.ts";
import { ConfigReader } from "../../models/checkpoints/reader.ts";
import type { SchedulerDescription } from "../../models/checkpoints/scheduler.ts";
import { readJson } from "./find.ts";

export const RECORD = "import.json";
/** Folder of what other programs wrote, below which names are theirs. */
export const SOURCE = "source";

/** One network. */
export interface PartRecord {
  /** Our configuration, as the part's own reader made it. */
  readonly config: object;
  /**
   * Where it came from, relative to the imported folder: its subfolder, and every file of its weights whose header is kept
   * (torch's files have none). Null: from a single file, which is not written again.
   */
  readonly place: { readonly folder: string; readonly files: readonly string[] } | null;
}

export interface ImportRecord {
  readonly format: 1;
  readonly as: CheckpointKind;
  readonly parts: Readonly<Partial<Record<PartName, PartRecord>>>;
  readonly scheduler: SchedulerDescription | null;
}

export const weightsFile = (dir: string, part: string): string => join(dir, `${part}.safetensors`);
/** Header of one of the files of weights. */
export const headerFile = (dir: string, file: string): string => join(dir, SOURCE, `${file}.header`);
/** Tensors of a network's files that are no weights (position numbers), under their own names. */
export const restFile = (dir: string, part: string): string => join(dir, SOURCE, `${part}.rest.safetensors`);

/** Throws the system's error where `dir` may not be looked into. */
export function holdsImport(dir: string): boolean {
  return isThere(join(dir, RECORD));
}

/** Throws one line when the folder holds no import, or one that this version does not know. */
export async function readRecord(dir: string): Promise<ImportRecord> {
  if (!holdsImport(dir))
    throw new Error(`${dir} holds no imported checkpoint (no ${RECORD}): make one by gifgrad import`);
  const path = join(dir, RECORD);
  const json = await readJson(path);
  const r = new ConfigReader(json, path);
  r.only("format", 1);
  r.only("as", ...Object.keys(CHECKPOINTS));
  const record = json as ImportRecord;
  for (const [name, { place }] of Object.entries(record.parts))
    for (const file of place ? [place.folder, ...place.files] : [])
      if (!/^(|[\w-][\w.-]*(\/[\w-][\w.-]*)*)$/.test(file))
        throw new Error(`${path}: ${name} is said to be from ${JSON.stringify(file)}, which is no relative path`);
  return record;
}
