// A folder of sticker files, with its subfolders. A metadata.jsonl in any of them (record.ts) describes what lies below it, as
// Hugging Face's imagefolder, `gifgrad starter` and exports have it; where two name a sticker the nearer one counts. Stickers that
// none names are taken without a description, other files passed over.

import { existsSync } from "node:fs";
import { opendir, realpath } from "node:fs/promises";
import { basename, join, posix, relative, sep } from "node:path";
import { parseRecord, type StickerRecord } from "../../record.ts";
import { fileLines, readSticker } from "../../regular_file.ts";
import type { SourceOf } from "../config.ts";
import { openName, PassedOver, STICKER_NAME, stickerFile } from "./sniff.ts";
import { fault, fileStamp, folderWords, type Reading, type SourceEntry } from "./source.ts";

const METADATA = "metadata.jsonl";

/** What a metadata.jsonl says of a file, and which it is. */
interface Described {
  readonly record: StickerRecord;
  readonly by: string;
}

export async function* folderEntries(
  { name, path, words }: SourceOf<"folder">,
  { note }: Reading,
): AsyncGenerator<SourceEntry> {
  if (!existsSync(path)) throw new Error(`the folder ${path} does not exist`);
  const root = await realpath(path);
  const described = new Map<string, Described>();
  const passed = new PassedOver();
  for await (const file of walk(root)) {
    const at = relative(root, file).split(sep).join("/");
    if (basename(at) === METADATA) {
      for (const [where, error] of await readRecords(file, at, described)) yield fault(where, error);
      continue;
    }
    const record = described.get(at)?.record;
    described.delete(at);
    if (!record && !(STICKER_NAME.test(at) || (openName(at) && (await stickerFile(file))))) {
      passed.add(at);
      continue;
    }
    const found = words === "folders" ? folderWords(at) : words;
    yield {
      at,
      words: record?.trigger_words ?? found,
      caption: record?.caption,
      captionZh: record?.caption_zh ?? undefined,
      domain: record?.domain ?? undefined,
      text: record?.text ?? undefined,
      subject: record?.subject ?? undefined,
      action: record?.action ?? undefined,
      license: record?.license ?? undefined,
      attribution: record?.attribution ?? undefined,
      stamp: await fileStamp(file),
      bytes: () => readInside(root, file),
    };
  }
  const lost = [...described].sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [at, { by }] of lost)
    yield fault(at, new Error(`${by} names it, and it is not among the files (hidden ones are not read)`));
  for (const line of passed.told(name)) note(line);
}

/** All files that are not hidden, in the order of their paths, but a folder's metadata.jsonl before what it describes. */
async function* walk(dir: string): AsyncGenerator<string> {
  const names: { name: string; folder: boolean }[] = [];
  for await (const entry of await opendir(dir)) {
    if (!entry.name.startsWith(".")) names.push({ name: entry.name, folder: entry.isDirectory() });
  }
  const rank = (name: string): string => (name === METADATA ? "" : name);
  names.sort((a, b) => (rank(a.name) < rank(b.name) ? -1 : 1));
  for (const { name, folder } of names) {
    if (folder) yield* walk(join(dir, name));
    else yield join(dir, name);
  }
}

/** A link may point anywhere; what it leads to outside of the folder is not part of the source. */
async function readInside(root: string, file: string): Promise<Uint8Array> {
  const real = await realpath(file);
  if (!real.startsWith(root + sep)) throw new Error("a link that leads out of the folder");
  return readSticker(real);
}

/** Puts what the metadata.jsonl `at` says of files into `described`; returns what is wrong with its other lines. */
async function readRecords(path: string, at: string, described: Map<string, Described>): Promise<Map<string, Error>> {
  const faults = new Map<string, Error>();
  let number = 0;
  for await (const line of fileLines(path)) {
    const where = `${at} line ${++number}`;
    if (line.trim() === "") continue;
    try {
      const record = parseRecord(line, where);
      const file = posix.join(posix.dirname(at), record.file_name.replaceAll("\\", "/"));
      described.set(file, { record, by: at });
    } catch (error) {
      faults.set(where, error as Error);
    }
  }
  return faults;
}
