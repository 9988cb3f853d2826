// An imported checkpoint back into the files it came from: the same headers, element types and small files, so the same
// bytes. What came from torch's files, or from a single one, is written as diffusers and transformers would: safetensors.

import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { openTensors, type TensorStore } from "../../engine/index.ts";
import { type StoredSource, tensorsOf, writeBehindHeader, writeSafetensors } from "../../engine/safetensors.ts";
import { joinPieces, type Layout } from "../../models/checkpoints/layout.ts";
import { CHECKPOINTS, type Part } from "../../models/checkpoints/parts.ts";
import { writeSchedulerConfig } from "../../models/checkpoints/write.ts";
import { newFolder } from "./folder.ts";
import { headerFile, type ImportRecord, type PartRecord, readRecord, restFile, SOURCE, weightsFile } from "./record.ts";

/**
 * Writes the files of the imported checkpoint `dir` into the folder `out`, which appears when all of it is there.
 * @throws Error of one line when `dir` holds none, or `out` is there already and not empty
 */
export async function exportImported(dir: string, out: string): Promise<void> {
  const record = await readRecord(dir);
  await newFolder(out, (folder) => writeAll(record, dir, folder));
}

async function writeAll(record: ImportRecord, dir: string, out: string): Promise<void> {
  const parts: Readonly<Record<string, Part>> = CHECKPOINTS[record.as];
  for (const [name, described] of Object.entries(record.parts)) {
    const store = await openTensors(weightsFile(dir, name));
    try {
      if (described.place && described.place.files.length > 0)
        await writeAgain(dir, out, name, parts[name], { ...described, place: described.place }, store);
      else await writeNew(out, join(described.place?.folder ?? name), parts[name], described, store);
    } finally {
      await store.close();
    }
  }
  await copyBack(dir, out, record);
}

/** Every file of a network behind the header that it had. */
async function writeAgain(
  dir: string,
  out: string,
  name: string,
  part: Part,
  { config, place }: PartRecord & { readonly place: NonNullable<PartRecord["place"]> },
  store: TensorStore,
): Promise<void> {
  const headers = new Map<string, Uint8Array>();
  for (const file of place.files) headers.set(file, await readFile(headerFile(dir, file)));
  const layout = part.layout(
    [...headers].flatMap(([file, header]) => [...tensorsOf(header, file).keys()]),
    config,
  );
  const rest = existsSync(restFile(dir, name)) ? await openTensors(restFile(dir, name)) : null;
  try {
    for (const [file, header] of headers) {
      await mkdir(dirname(join(out, file)), { recursive: true });
      await writeBehindHeader(join(out, file), header, (tensor) => piecesOf(tensor, layout, store, rest));
    }
  } finally {
    await rest?.close();
  }
}

function piecesOf(
  tensor: string,
  layout: Layout,
  store: TensorStore,
  rest: TensorStore | null,
): AsyncIterable<Uint8Array> {
  const target = layout(tensor);
  if (target.names.length > 0) return joinPieces(store, target);
  if (rest) return rest.pieces(tensor);
  throw new Error(`the imported checkpoint has no tensor ${JSON.stringify(tensor)}`);
}

/** One file with our names, which are those of diffusers and transformers, and a configuration beside it. */
async function writeNew(
  out: string,
  folder: string,
  part: Part,
  { config }: PartRecord,
  store: TensorStore,
): Promise<void> {
  await mkdir(join(out, folder), { recursive: true });
  const tensors = [...store.tensors].map(([name, info]): [string, StoredSource] => [
    name,
    { ...info, pieces: () => store.pieces(name) },
  ]);
  await writeSafetensors(join(out, folder, `${part.weights}.safetensors`), new Map(tensors), { format: "pt" });
  await writeJson(join(out, folder, "config.json"), part.write(config));
}

/** Small files as they came; what only a folder would have had is made where the checkpoint was a single file. */
async function copyBack(dir: string, out: string, { scheduler }: ImportRecord): Promise<void> {
  const source = join(dir, SOURCE);
  for (const entry of await readdir(source, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || /\.(header|rest\.safetensors)$/.test(entry.name)) continue;
    const from = join(entry.parentPath, entry.name);
    const to = join(out, relative(source, from));
    await mkdir(dirname(to), { recursive: true });
    await writeFile(to, await readFile(from));
  }
  const config = join(out, "scheduler", "scheduler_config.json");
  if (scheduler && !existsSync(config)) {
    await mkdir(dirname(config), { recursive: true });
    await writeJson(config, writeSchedulerConfig(scheduler));
  }
}

async function writeJson(path: string, value: object): Promise<void> {
  await writeFile(path, `${JSON.stringify(value, null, 2)}\n`);
}
