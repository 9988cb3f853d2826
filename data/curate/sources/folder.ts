// A folder of sticker files, with its subfolders. A metadata.jsonl in it (record.ts) describes them, as in folders that
// `gifgrad starter` or an export writes; stickers it does not name are taken without a description, other files passed over.

import { existsSync } from "node:fs";
import { opendir, realpath } from "node:fs/promises";
import { join, posix, relative, sep } from "node:path";
import { parseRecord, type StickerRecord } from "../../record.ts";
import { fileLines, readSticker } from "../../regular_file.ts";
import type { SourceOf } from "../config.ts";
import { openName, PassedOver, STICKER_NAME, stickerFile } from "./sniff.ts";
import { fault, fileStamp, folderWords, type Reading, type SourceEntry } from "./source.ts";

const METADATA = "metadata.jsonl";
const NOT_THERE = `${METADATA} names it, and it is not among the files (hidden ones are not read)`;

export async function* folderEntries(
  { name, path, words }: SourceOf<"folder">,
  { note }: Reading,
): AsyncGenerator<SourceEntry> {
  if (!existsSync(path)) throw new Error(`the folder ${path} does not exist`);
  const root = await realpath(path);
  const { records, faults } = await readRecords(root);
  for (const [at, error] of faults) yield fault(at, error);
  const passed = new PassedOver();
  for await (const file of walk(root)) {
    const at = relative(root, file).split(sep).join("/");
    const record = records.get(at);
    records.delete(at);
    if (!record && !(STICKER_NAME.test(at) || (openName(at) && (await stickerFile(file))))) {
      if (at !== METADATA) passed.add(at);
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
  for (const at of [...records.keys()].sort()) yield fault(at, new Error(NOT_THERE));
  for (const line of passed.told(name)) note(line);
}

/** All files that are not hidden, in the order of their paths. */
async function* walk(dir: string): AsyncGenerator<string> {
  const names: { name: string; folder: boolean }[] = [];
  for await (const entry of await opendir(dir)) {
    if (!entry.name.startsWith(".")) names.push({ name: entry.name, folder: entry.isDirectory() });
  }
  names.sort((a, b) => (a.name < b.name ? -1 : 1));
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

/** The records of metadata.jsonl by file, and what is wrong with its other lines. */
async function readRecords(root: string): Promise<{ records: Map<string, StickerRecord>; faults: Map<string, Error> }> {
  const path = join(root, METADATA);
  const [records, faults] = [new Map<string, StickerRecord>(), new Map<string, Error>()];
  if (!existsSync(path)) return { records, faults };
  let number = 0;
  for await (const line of fileLines(path)) {
    const where = `${METADATA} line ${++number}`;
    if (line.trim() === "") continue;
    try {
      const record = parseRecord(line, where);
      records.set(posix.normalize(record.file_name.replaceAll("\\", "/")), record);
    } catch (error) {
      faults.set(where, error as Error);
    }
  }
  return { records, faults };
}
