// Collect: every entry of every source gets its file, under the hash of its bytes. Entries of equal bytes share one file, and
// with it all the words that led to any of them (records.ts). A row for every entry, also for those that failed.

import { stickerFormat } from "../../decode/index.ts";
import { checkFileSize } from "../../decode/limits.ts";
import { sha256Json } from "../../hash.ts";
import type { Collection } from "../collection.ts";
import { entries, journals } from "../journal.ts";
import { sourceEntries } from "../sources/index.ts";
import type { Reading, SourceEntry } from "../sources/source.ts";
import { type Item, NotNow, type Stage } from "../stage.ts";

export interface CollectItem extends Item {
  readonly source: string;
  readonly entry: SourceEntry;
}

/** What became of an entry. `id` is null where `error` says why. */
export interface Collected {
  readonly source: string;
  readonly entry: string;
  readonly id: string | null;
  readonly format: string | null;
  readonly bytes: number | null;
  readonly url: string | null;
  readonly words: readonly string[];
  readonly caption: string | null;
  readonly caption_zh: string | null;
  readonly domain: string | null;
  readonly text: string | null;
  readonly subject: string | null;
  readonly action: string | null;
  readonly license: string;
  readonly attribution: string;
  readonly error: string | null;
}

interface File {
  readonly id: string;
  readonly format: string;
  readonly bytes: number;
}

export const collect: Stage<CollectItem, Collected> = {
  name: "collect",
  about: "take the files of all sources",
  version: 3,
  columns: {
    source: "VARCHAR",
    entry: "VARCHAR",
    id: "VARCHAR",
    format: "VARCHAR",
    bytes: "BIGINT",
    url: "VARCHAR",
    words: "VARCHAR[]",
    caption: "VARCHAR",
    caption_zh: "VARCHAR",
    domain: "VARCHAR",
    text: "VARCHAR",
    subject: "VARCHAR",
    action: "VARCHAR",
    license: "VARCHAR",
    attribution: "VARCHAR",
    error: "VARCHAR",
  },
  settings: () => null, // what matters of a source is in its entries
  parallel: ({ fetch }) => fetch.concurrency,
  folders: (collection) => collection.mediaFolders(),
  items: async (collection, _, offline) => {
    const [notes, unasked]: [string[], string[]] = [[], []];
    const reading = {
      fetcher: offline ? null : collection.fetcher,
      note: (line: string) => void notes.push(line),
      unasked: (line: string) => void unasked.push(line),
    };
    return { each: allEntries(collection, reading), notes, unasked };
  },
  open: async (collection) => {
    let fetched: ReturnType<typeof fetchedBefore> | undefined; // of no use where no source has addresses
    const licences = new Map(collection.config.sources.map((source) => [source.name, source]));
    return {
      run: async ({ source, entry }) => {
        const { license = "", attribution = "" } = licences.get(source) ?? {};
        const row = {
          source,
          entry: entry.at,
          url: typeof entry.bytes === "function" ? null : entry.bytes.url,
          words: [...new Set(entry.words)],
          caption: entry.caption ?? null,
          caption_zh: entry.captionZh ?? null,
          domain: entry.domain ?? null,
          text: entry.text ?? null,
          subject: entry.subject ?? null,
          action: entry.action ?? null,
          license: entry.license ?? license,
          attribution: entry.attribution ?? attribution,
        };
        try {
          if (typeof entry.bytes === "function")
            return { ...row, ...(await store(collection, await entry.bytes())), error: null };
          fetched ??= fetchedBefore(collection);
          return { ...row, ...(await fetchOnce(collection, entry.bytes.url, await fetched)), error: null };
        } catch (error) {
          if (error instanceof NotNow) throw error;
          return { ...row, id: null, format: null, bytes: null, error: (error as Error).message };
        }
      },
      close: async () => {},
    };
  },
};

async function* allEntries(collection: Collection, reading: Reading): AsyncGenerator<CollectItem> {
  for (const source of collection.config.sources) {
    for await (const entry of sourceEntries(source, reading)) {
      // A table may say different things of one file in several rows: each is an entry, of which none hides another.
      const { stamp: _, ...said } = entry;
      yield { key: sha256Json([source.name, said]), source: source.name, entry };
    }
  }
}

/** Many words lead to one address: it is fetched once. */
function fetchOnce(collection: Collection, url: string, fetched: Map<string, Promise<File>>): Promise<File> {
  const known = fetched.get(url) ?? collection.fetcher.get(url).then((bytes) => store(collection, bytes));
  fetched.set(url, known);
  return known;
}

async function store(collection: Collection, bytes: Uint8Array): Promise<File> {
  checkFileSize(bytes.length);
  const format = stickerFormat(bytes);
  return { id: await collection.put(bytes, format), format, bytes: bytes.length };
}

async function fetchedBefore(collection: Collection): Promise<Map<string, Promise<File>>> {
  const known = new Map<string, Promise<File>>();
  for (const path of await journals(collection.journalDir(collect.name))) {
    for await (const { row } of entries<Collected>(path)) {
      const { url, id, format, bytes } = row;
      if (url && id && format && bytes !== null) known.set(url, Promise.resolve({ id, format, bytes }));
    }
  }
  return known;
}
