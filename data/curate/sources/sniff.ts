// Which files of a folder or an archive may be stickers: by their names, and where these leave it open by their first bytes. What is
// none is counted, so that nobody wonders where it went. What the bytes really are is decided when they are decoded.

import { open, stat } from "node:fs/promises";
import { stickerFormat } from "../../decode/index.ts";

/** Names of files that may be stickers; what they really are is decided by their bytes. */
export const STICKER_NAME = /\.(gif|webp|a?png|jpe?g)$/i;
/** Names that say something else. Files of all other names, or without an extension, are looked into. */
const OTHER_NAME = /\.(jsonl?|txt|[ct]sv|parquet|md|html?|xml|svg|log|zip|tar|t?gz|tmp)$/i;

/** Bytes that tell a sticker's format. */
export const HEAD_BYTES = 64;

/** Whether a name leaves open what is in the file. */
export function openName(name: string): boolean {
  return !STICKER_NAME.test(name) && !OTHER_NAME.test(name);
}

/** Whether the first bytes are those of a sticker. */
export function stickerHead(head: Uint8Array): boolean {
  try {
    stickerFormat(head.subarray(0, HEAD_BYTES));
    return true;
  } catch {
    return false;
  }
}

/** The same of a file; false where it is none, or cannot be read. */
export async function stickerFile(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => null);
  if (!found?.isFile()) return false; // opening a pipe would wait
  const file = await open(path).catch(() => null);
  if (!file) return false;
  try {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
    return stickerHead(buffer.subarray(0, bytesRead));
  } finally {
    await file.close();
  }
}

/** Kinds that `PassedOver` names, the most frequent ones. */
const KINDS_TOLD = 5;

/** Counts what a source holds beside stickers, by the ends of the names. */
export class PassedOver {
  readonly #kinds = new Map<string, { count: number; readonly example: string }>();

  /** `kind`: what it is, where its name does not say so. */
  add(at: string, kind = /(?<=[^/])\.[^./\s]{1,12}$/.exec(at.toLowerCase())?.[0] ?? "without an extension"): void {
    const known = this.#kinds.get(kind) ?? { count: 0, example: at };
    known.count++;
    this.#kinds.set(kind, known);
  }

  /** One line, or none where nothing was passed over. */
  told(source: string): string[] {
    if (this.#kinds.size === 0) return [];
    const kinds = [...this.#kinds].sort(([a, { count: m }], [b, { count: n }]) => n - m || (a < b ? -1 : 1));
    const total = kinds.reduce((sum, [, { count }]) => sum + count, 0);
    const named = kinds.slice(0, KINDS_TOLD).map(([kind, { count, example }]) => `${count} ${kind} (${example})`);
    if (kinds.length > KINDS_TOLD) named.push("others");
    return [`source "${source}": ${total} files that are no stickers were passed over: ${named.join(", ")}`];
  }
}
