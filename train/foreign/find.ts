// Which files of a folder hold what: configurations and weights as diffusers, transformers and open_clip lay them out. Looks
// and chooses; opening is open.ts. Nothing is followed out of the folder.

import { open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";

const BASES = [
  "diffusion_pytorch_model",
  "model",
  "pytorch_model",
  "open_clip_model",
  "open_clip_pytorch_model",
  "weights",
];
const CONFIGS = ["config.json", "open_clip_config.json"];

/** Of a configuration, an index or a vocabulary; the largest real ones have a few MB. */
const MAX_TEXT = 1 << 26;

export async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null))?.isDirectory() ?? false;
}

/** Names of the regular files of a folder, links to them included, sorted; none where there is no folder. */
export async function filesIn(folder: string): Promise<string[]> {
  const names = (await isFolder(folder)) ? (await readdir(folder)).sort() : [];
  const regular = await Promise.all(
    names.map(async (name) => (await stat(join(folder, name)).catch(() => null))?.isFile()),
  );
  return names.filter((_, i) => regular[i]);
}

/** Names in a folder that lead to nothing that can be read: links to nowhere, pipes, sockets. None where there is no folder. */
export async function unreadableIn(folder: string): Promise<string[]> {
  const names = (await isFolder(folder)) ? (await readdir(folder)).sort() : [];
  const found = await Promise.all(names.map((name) => stat(join(folder, name)).catch(() => null)));
  return names.filter((_, i) => !found[i]?.isFile() && !found[i]?.isDirectory());
}

/** The configuration file among `files`; null: there is none. */
export function configAmong(files: readonly string[]): string | null {
  return CONFIGS.find((name) => files.includes(name)) ?? null;
}

/**
 * The weights file among `files`, or the index of several: safetensors before torch's, one file before several, the plain
 * one before variants ("fp16") unless one is asked for. Null: there is none.
 */
export function weightsAmong(files: readonly string[], variant?: string): string | null {
  const candidates = files.flatMap((name): [number, string][] => {
    const found = parse(name);
    if (!found || (variant !== undefined && found.variant !== variant)) return [];
    const order = [found.variant === "" ? 0 : 1, found.torch ? 1 : 0, found.index ? 1 : 0, BASES.indexOf(found.base)];
    return [[order.reduce((sum, n) => 8 * sum + n, 0), name]];
  });
  return candidates.sort(([a, x], [b, y]) => a - b || (x < y ? -1 : 1))[0]?.[1] ?? null;
}

interface WeightsName {
  readonly base: string;
  readonly variant: string;
  readonly torch: boolean;
  readonly index: boolean;
}

/** "model.fp16.safetensors", "model.safetensors.index.fp16.json"; null for shards and all that are no weights. */
function parse(name: string): WeightsName | null {
  const match = /^(\w+?)(?:\.(\w+))?\.(safetensors|bin)(?:\.index(?:\.(\w+))?\.json)?$/.exec(name);
  if (!match || !BASES.includes(match[1])) return null;
  return {
    base: match[1],
    variant: match[2] ?? match[4] ?? "",
    torch: match[3] === "bin",
    index: name.endsWith(".json"),
  };
}

/** A text file as bytes. Throws one line when it cannot be one that belongs to a checkpoint. */
export async function readText(path: string): Promise<Buffer> {
  const info = await stat(path);
  if (!info.isFile()) throw new Error(`${path}: is no regular file`);
  if (info.size > MAX_TEXT) throw new Error(`${path}: has ${info.size} bytes; at most ${MAX_TEXT} are allowed`);
  const file = await open(path, "r");
  try {
    return await file.readFile();
  } finally {
    await file.close();
  }
}

/** Levels of nested JSON; real configurations have fewer than ten. What reads them further on calls itself for each. */
const MAX_DEPTH = 64;

/** The value of a JSON file. Throws one line when it is none, or is nested deeper than any configuration. */
export async function readJson(path: string): Promise<unknown> {
  const text = (await readText(path)).toString("utf8");
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new Error(`${path} is not JSON: ${(error as Error).message.replaceAll(/\s+/g, " ")}`, { cause: error });
  }
  let level = [json];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > MAX_DEPTH) throw new Error(`${path} is nested more than ${MAX_DEPTH} levels deep: no configuration is`);
    level = level.flatMap((x) => (typeof x === "object" && x !== null ? Object.values(x) : []));
  }
  return json;
}
