// Lines added to the metadata.jsonl of a folder, so that stickers made one after another end up in one list. Reading such a
// file is store.ts, what a line holds record.ts. Called by what generates stickers.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { replaceFile } from "../engine/atomic.ts";
import { DOMAINS, type StickerRecord } from "./record.ts";
import { claimedName, METADATA } from "./store.ts";

/** What `formatCaption` has put together, as fields of a record: no domain where the text names none. */
export function captionFields(text: string): Pick<StickerRecord, "caption" | "domain"> {
  const [first, ...rest] = text.split("\t");
  const domain = DOMAINS.find((name) => name === first.trim());
  const caption = rest.join("\t").trim();
  return domain && caption !== "" ? { caption, domain } : { caption: text.trim() };
}

/**
 * Adds records to the folder's metadata.jsonl, behind what it holds; a record whose file has a line already takes its place,
 * because the file was written over. All other lines stay as they are, whatever they say. The file is replaced as a whole.
 */
export async function addRecords(dir: string, records: readonly StickerRecord[]): Promise<void> {
  const path = join(dir, METADATA);
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw error;
  });
  const fresh = new Set(records.map(({ file_name }) => file_name));
  const kept = text.split(/\r?\n/).filter((line) => line.trim() !== "" && !fresh.has(claimedName(line) ?? ""));
  const lines = [...kept, ...records.map((record) => JSON.stringify(record))];
  await replaceFile(path, (file) => file.writeFile(lines.map((line) => `${line}\n`).join("")));
}
