// A checkpoint of another program, opened: each network's configuration as ours and its tensors under our names, checked
// against the network that they are for. From a pipeline's folder, the folder of one network, or a single file. Used to
// import (import.ts) and to start training from one (init.ts).

import { basename, join } from "node:path";
import { torchShape } from "../../engine/checkpoint.ts";
import { openTensors, type Parameter, type TensorStore } from "../../engine/index.ts";
import { element } from "../../engine/safetensors/elements.ts";
import { ArrangedFile, type Layout } from "../../models/checkpoints/layout.ts";
import { CHECKPOINTS, type CheckpointKind, type Part, type PartName } from "../../models/checkpoints/parts.ts";
import { readSchedulerConfig, type SchedulerDescription } from "../../models/checkpoints/scheduler.ts";
import { configAmong, filesIn, isFolder, readJson, unreadableIn, weightsAmong } from "./find.ts";

export interface OpenOptions {
  /** "fp16": those of a folder's weights that are called so. */
  readonly variant?: string;
  /** A folder with the config.json of each part, for files of weights that come without. */
  readonly config?: string;
}

/** One network of an open checkpoint. */
export interface OpenPart {
  readonly name: PartName;
  /** Our configuration, plain data. */
  readonly config: object;
  /** The tensors as they are in the file, and as they are here. */
  readonly store: TensorStore;
  readonly file: ArrangedFile;
  readonly layout: Layout;
  /** Its place in a folder: the subfolder ("" for none) and the weights file or index there; null: from a single file. */
  readonly place: { readonly folder: string; readonly weights: string } | null;
}

export interface OpenCheckpoint {
  readonly kind: CheckpointKind;
  /** The folder or file that was opened. */
  readonly path: string;
  readonly parts: readonly OpenPart[];
  /** What is said of the noise schedule; null where nothing is. */
  readonly scheduler: SchedulerDescription | null;
  close(): Promise<void>;
}

/**
 * Opens what `path` has of a kind of checkpoint; a part that is not there is left out.
 * @throws Error of one line naming the file: nothing of this kind is there, a file is damaged or dangerous, or tensors are
 * missing, left over or of another shape than the configuration says
 */
export async function openForeign(path: string, kind: CheckpointKind, o: OpenOptions = {}): Promise<OpenCheckpoint> {
  const known = Object.entries(CHECKPOINTS[kind]) as [PartName, Part][];
  const parts: OpenPart[] = [];
  const stores = new Set<TensorStore>();
  const close = async (): Promise<void> => {
    for (const store of stores) await store.close();
  };
  try {
    if (await isFolder(path)) {
      for (const [name, part] of known) {
        const found = await openFolderPart(path, name, part, known.length, o, stores);
        if (found) parts.push(found);
      }
      if (parts.length === 0) throw new Error(`${path}: holds no ${kind}: ${await lookedFor(known, o)}`);
    } else parts.push(...(await openFileParts(path, kind, known, o, stores)));
    const scheduler = await schedulerOf(o.config ?? path);
    return { kind, path, parts, scheduler, close };
  } catch (error) {
    await close();
    throw oneLine(error as Error);
  }
}

function oneLine(error: Error): Error {
  if (!error.message.includes("\n")) return error;
  return new Error(error.message.replaceAll(/\s*\n\s*/g, " "), { cause: error });
}

async function lookedFor(known: readonly [PartName, Part][], { variant }: OpenOptions): Promise<string> {
  const [name, part] = known[0];
  const file = `${part.weights}.${variant ? `${variant}.` : ""}safetensors`;
  return `looked for folders like ${name}/ with config.json and ${file} (or its index, or .bin)`;
}

async function schedulerOf(path: string): Promise<SchedulerDescription | null> {
  const folder = join(path, "scheduler");
  const label = join(folder, "scheduler_config.json");
  if ((await unreadableIn(folder)).includes("scheduler_config.json")) throw new Error(`${label}: ${UNREADABLE}`);
  return (await filesIn(folder)).includes("scheduler_config.json")
    ? readSchedulerConfig(await readJson(label), label)
    : null;
}

/** The part in its folder, or in `path` itself where the folder's configuration is that of this part. */
async function openFolderPart(
  path: string,
  name: PartName,
  part: Part,
  count: number,
  o: OpenOptions,
  stores: Set<TensorStore>,
): Promise<OpenPart | null> {
  for (const folder of [name, ""]) {
    const files = await filesIn(join(path, folder));
    const weights = weightsAmong(files, o.variant);
    const configFolder = o.config ? join(o.config, folder) : join(path, folder);
    const config = configAmong(o.config ? await filesIn(configFolder) : files);
    if (folder === name) await checkComplete(path, name, part, { weights, config, variant: o.variant });
    if (weights === null || (config === null && folder === "" && count > 1)) continue;
    const label = join(configFolder, config ?? weights);
    const json = config === null ? null : await readJson(label);
    if (folder === "" && count > 1 && !belongs(json, name)) continue;
    const store = await openTensors(join(path, folder, weights));
    stores.add(store);
    return arranged({ name, part, json, label, store, place: { folder, weights } }, join(path, folder, weights));
  }
  return null;
}

/** Throws one line where a part is said to be there (by its configuration or the pipeline's index) and cannot be read. */
async function checkComplete(
  path: string,
  name: PartName,
  part: Part,
  { weights, config, variant }: { weights: string | null; config: string | null; variant: string | undefined },
): Promise<void> {
  const folder = join(path, name);
  const unreadable = await unreadableIn(folder);
  const hidden = configAmong(unreadable);
  if (config === null && hidden !== null) throw new Error(`${join(folder, hidden)}: ${UNREADABLE}`);
  if (weights !== null) return;
  if ((await unreadableIn(path)).includes(name)) throw new Error(`${folder}: ${UNREADABLE}`);
  const said = config ?? ((await listedIn(path, name)) ? INDEX : null);
  if (said === null) return;
  const file = `${part.weights}.${variant ? `${variant}.` : ""}safetensors`;
  const because = unreadable.length > 0 ? `; ${UNREADABLE}: ${unreadable.join(", ")}` : "";
  throw new Error(
    `${folder}: no weights, of which ${said} speaks: looked for ${file} (or its index, or .bin)${because}`,
  );
}

const UNREADABLE = "neither a file nor a folder, nor a link to one";

/** What a pipeline consists of: names of folders with the classes that read them, nulls where there is none. */
const INDEX = "model_index.json";

async function listedIn(path: string, name: PartName): Promise<boolean> {
  if (!(await filesIn(path)).includes(INDEX)) return false;
  const entry = (((await readJson(join(path, INDEX))) ?? {}) as Readonly<Record<string, unknown>>)[name];
  return Array.isArray(entry) && entry.some((x) => x !== null);
}

const CLASSES: Readonly<Partial<Record<PartName, RegExp>>> = {
  unet: /UNet/,
  vae: /^Autoencoder/,
  text_encoder: /CLIPText/,
  image_encoder: /CLIPVision/,
};

/** Whether the configuration of a folder that is one network is that of this part. */
function belongs(json: unknown, name: PartName): boolean {
  const { _class_name, architectures } = json as { readonly _class_name?: unknown; readonly architectures?: unknown };
  const names = [_class_name, architectures].flat().filter((x) => typeof x === "string");
  return names.some((x) => CLASSES[name]?.test(x));
}

/** Every part that a single file holds tensors of. */
async function openFileParts(
  path: string,
  kind: CheckpointKind,
  known: readonly [PartName, Part][],
  o: OpenOptions,
  stores: Set<TensorStore>,
): Promise<OpenPart[]> {
  const store = unwrapped(await openTensors(path));
  stores.add(store);
  const parts: OpenPart[] = [];
  for (const [name, part] of known) {
    const folders = o.config ? [join(o.config, name), o.config] : [];
    const found = await Promise.all(folders.map(async (f) => [f, configAmong(await filesIn(f))] as const));
    const [folder, file] = found.find(([, config]) => config !== null) ?? [];
    const label = folder && file ? join(folder, file) : path;
    const json = folder && file ? await readJson(label) : null;
    const config = part.read(json, label, store.tensors);
    const layout = part.layout([...store.tensors.keys()], config);
    const ours = part.build(config).state();
    if (known.length > 1 && ![...store.tensors.keys()].some((t) => layout(t).names.some((n) => ours.has(n)))) continue;
    parts.push(arranged({ name, part, json, label, store, place: null }, path));
  }
  if (parts.length > 0) return parts;
  throw new Error(`${path}: holds no ${kind}: none of its ${store.tensors.size} tensors has a name of one`);
}

/** Training programs put the weights below "state_dict.", beside optimisers and settings. */
function unwrapped(store: TensorStore): TensorStore {
  const prefix = "state_dict.";
  const inside = [...store.tensors].filter(([name]) => name.startsWith(prefix));
  if (inside.length === 0) return store;
  return {
    tensors: new Map(inside.map(([name, info]) => [name.slice(prefix.length), info])),
    metadata: store.metadata,
    read: (name) => store.read(prefix + name),
    readFloat64: (name) => store.readFloat64(prefix + name),
    pieces: (name, from, to) => store.pieces(prefix + name, from, to),
    close: () => store.close(),
  };
}

interface Found extends Pick<OpenPart, "name" | "store" | "place"> {
  readonly part: Part;
  readonly json: unknown;
  readonly label: string;
}

/** With its tensors under our names. Throws one line that lists what does not fit. */
function arranged({ name, part, json, label, store, place }: Found, path: string): OpenPart {
  const config = part.read(json, label, store.tensors);
  const state = part.build(config).state();
  const layout = part.layout([...store.tensors.keys()], config);
  const file = new ArrangedFile(store, layout, state, path);
  const problems = misfits(file.tensors, state);
  if (problems.length > 0)
    throw new Error(`${path}: does not fit the ${name} that ${basename(label)} describes: ${problems.join("; ")}`);
  return { name, config, store, file, layout, place };
}

/** Names in one list of a message; more are counted. */
const LISTED = 8;

function misfits(tensors: TensorStore["tensors"], state: ReadonlyMap<string, Parameter>): string[] {
  const missing = [...state.keys()].filter((name) => !tensors.has(name));
  const extra = [...tensors.keys()].filter((name) => !state.has(name));
  const misshapen = [...tensors].flatMap(([name, { dtype, shape }]) => {
    const p = state.get(name);
    if (!p) return [];
    const [there, here] = [shape.join(), torchShape(p).join()];
    const kind = p.dtype === "f32" ? "float" : "signed";
    const fits = there === here && element(dtype).kind === kind;
    return fits
      ? []
      : [
          `${JSON.stringify(name)} is ${dtype}[${there}], expected ${kind === "float" ? "floats" : "whole numbers"} [${here}]`,
        ];
  });
  const list = (what: string, names: readonly string[]): string[] => {
    if (names.length === 0) return [];
    const rest = names.length > LISTED ? `, and ${names.length - LISTED} more` : "";
    return [`${names.length} ${what}: ${names.slice(0, LISTED).join(", ")}${rest}`];
  };
  const quoted = (names: readonly string[]): string[] => names.map((name) => JSON.stringify(name.slice(0, 200)));
  return [...list("missing", quoted(missing)), ...list("extra", quoted(extra)), ...list("misshapen", misshapen)];
}
