// What a source of stickers yields, whatever it reads: entries with a name that stays the same from run to run, and a way to
// the bytes. One file per kind of source; index.ts lists them.

import { stat } from "node:fs/promises";
import type { Fetcher } from "../fetch.ts";

/** One sticker as a source offers it, before anything of it has been looked at. */
export interface SourceEntry {
  /** Stable within the source: a path, a member's path, an address, a hash of the bytes. */
  readonly at: string;
  /** Words that led here. */
  readonly words: readonly string[];
  readonly caption?: string;
  readonly captionZh?: string;
  readonly domain?: string;
  /** The words on the picture, where the source knows them. */
  readonly text?: string;
  /** Who does what, where the source says so: pairs of these can be held out of training. */
  readonly subject?: string;
  readonly action?: string;
  readonly license?: string;
  readonly attribution?: string;
  /** Changes when the bytes may have changed, e.g. the file's size and time. */
  readonly stamp?: string;
  /** An address to fetch, or the way to the bytes: called once, when its turn comes. Throws what is wrong with the entry. */
  readonly bytes: { readonly url: string } | (() => Promise<Uint8Array>);
}

/** What a source is read with. */
export interface Reading {
  /** Null: nothing is asked of the network, and a source says in `unasked` what it would have asked. */
  readonly fetcher: Fetcher | null;
  /** Takes a line about what the entries do not show, e.g. files that were passed over. */
  readonly note: (line: string) => void;
  readonly unasked: (line: string) => void;
}

/** Trigger words of a path: the folders it is in. */
export function folderWords(path: string): string[] {
  return path
    .split(/[/\\]/)
    .slice(0, -1)
    .flatMap((part) => part.replaceAll(/[_-]+/g, " ").trim())
    .filter((word) => word !== "" && word !== ".");
}

/** A list of words from a field: an array, a JSON array in a text, or a text with commas. */
export function wordList(value: unknown): string[] {
  if (Array.isArray(value)) return value.map(String).filter((word) => word.trim() !== "");
  if (typeof value !== "string") return [];
  if (value.trim().startsWith("[")) {
    try {
      return wordList(JSON.parse(value));
    } catch {
      // a text that begins with a bracket
    }
  }
  return value
    .split(/[,;|，、；]/)
    .map((word) => word.trim())
    .filter((word) => word !== "");
}

/** `stamp` of a file. */
export async function fileStamp(path: string): Promise<string> {
  const found = await stat(path).catch(() => null);
  return found ? `${found.size} ${found.mtimeMs}` : "absent";
}

/** An entry for something that cannot be read: its row says why. */
export function fault(at: string, error: Error): SourceEntry {
  return { at, words: [], stamp: error.message, bytes: () => Promise.reject(error) };
}
