// A checkpoint in several files: an index (JSON, "weight_map") beside them names the file of each tensor. Index and files
// must agree exactly, and the files must lie in the index's own folder. Opened by tensor_file.ts, which it is given, since
// each file may be of any format.

import type { Data } from "./dtype.ts";
import { fileSource, type TensorStore } from "./source.ts";

/** An index that is damaged, or does not fit the files beside it. One line that names it. */
export class ShardError extends Error {
  override name = "ShardError";
}

/** Of an index file; real ones have a few hundred KB and at most some hundred files. */
const MAX_INDEX = 1 << 26;
const MAX_FILES = 1024;

/** "model.safetensors.index.json", "model.safetensors.index.fp16.json", "pytorch_model.bin.index.json" */
export function isIndex(path: string): boolean {
  return /\.index(\.\w+)?\.json$/.test(path);
}

export class ShardedFile implements TensorStore {
  readonly tensors: TensorStore["tensors"];
  readonly metadata: TensorStore["metadata"];
  /** The files by their names in the index, in the order of its first mention. */
  readonly files: ReadonlyMap<string, TensorStore>;
  readonly #label: string;
  readonly #holders: ReadonlyMap<string, TensorStore>;

  /** Use `openShards`. */
  constructor(label: string, files: ReadonlyMap<string, TensorStore>) {
    const all = [...files.values()];
    this.#label = label;
    this.files = files;
    this.tensors = new Map(all.flatMap((file) => [...file.tensors]));
    this.metadata = Object.assign({}, ...all.map((file) => file.metadata));
    this.#holders = new Map(all.flatMap((file) => [...file.tensors.keys()].map((name) => [name, file] as const)));
  }

  read(name: string): Promise<Data> {
    return this.#holder(name).read(name);
  }

  readFloat64(name: string): Promise<Float64Array> {
    return this.#holder(name).readFloat64(name);
  }

  pieces(name: string, from?: number, to?: number): AsyncIterable<Uint8Array> {
    return this.#holder(name).pieces(name, from, to);
  }

  async close(): Promise<void> {
    await closeAll(this.files.values());
  }

  #holder(name: string): TensorStore {
    const file = this.#holders.get(name);
    if (!file) throw new ShardError(`${this.#label}: there is no tensor "${name}"`);
    return file;
  }
}

/**
 * Opens every file that an index names, with `openOne`.
 * @throws ShardError when the index is damaged, names a file elsewhere, or does not fit the files; the errors of `openOne`
 */
export async function openShards(path: string, openOne: (path: string) => Promise<TensorStore>): Promise<ShardedFile> {
  const refuse = (what: string): never => {
    throw new ShardError(`${path}: not a valid index of a checkpoint: ${what}`);
  };
  const map = readWeightMap(await readText(path, refuse), refuse);
  const folder = path.replace(/[^/\\]*$/, "");
  const names = [...new Set(map.values())];
  if (names.length > MAX_FILES) refuse(`it names ${names.length} files; at most ${MAX_FILES} are allowed`);
  const files = new Map<string, TensorStore>();
  try {
    for (const name of names) files.set(name, await openOne(folder + name));
    checkAgreement(map, files, refuse);
  } catch (error) {
    await closeAll(files.values());
    throw error;
  }
  return new ShardedFile(path, files);
}

async function closeAll(files: Iterable<TensorStore>): Promise<void> {
  for (const file of files) await file.close();
}

async function readText(path: string, refuse: (what: string) => never): Promise<string> {
  const source = await fileSource(path);
  try {
    if (source.size > MAX_INDEX) refuse(`it has ${source.size} bytes; at most ${MAX_INDEX} are allowed`);
    return new TextDecoder().decode(await source.bytes(0, source.size));
  } finally {
    await source.close();
  }
}

function readWeightMap(text: string, refuse: (what: string) => never): Map<string, string> {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    refuse((error as Error).message.replaceAll(/\s+/g, " "));
  }
  const map = isRecord(json) ? json.weight_map : undefined;
  if (!isRecord(map) || Object.keys(map).length === 0) return refuse("it has no weight_map from tensors to files");
  for (const [tensor, file] of Object.entries(map))
    if (typeof file !== "string" || !PLAIN_NAME.test(file) || isIndex(file))
      refuse(`${quoted(tensor)} is said to be in ${quoted(file)}, which is not the name of a weights file beside it`);
  return new Map(Object.entries(map as Record<string, string>));
}

/** A file name without folders, that is no hidden file and has no odd characters. */
const PLAIN_NAME = /^[\w-][\w.-]*\.(safetensors|bin|pt|pth|ckpt)$/;

function checkAgreement(
  map: ReadonlyMap<string, string>,
  files: ReadonlyMap<string, TensorStore>,
  refuse: (what: string) => never,
): void {
  for (const [tensor, file] of map)
    if (!files.get(file)?.tensors.has(tensor)) refuse(`${quoted(tensor)} is not in ${file}`);
  for (const [file, { tensors }] of files)
    for (const tensor of tensors.keys())
      if (map.get(tensor) !== file)
        refuse(`${file} holds ${quoted(tensor)}, which the index places elsewhere or leaves out`);
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** For a message: one line, of bounded length. */
function quoted(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 80)}..."` : text;
}
