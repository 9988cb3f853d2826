// Stickers found by word at any HTTP service that answers JSON: the configuration gives the address of a query and where in an
// answer the image addresses are. The words that led to a sticker are its trigger words, so one sticker may come from many.

import { readFile } from "node:fs/promises";
import { parseJson } from "../../json_config.ts";
import { checkRegular } from "../../regular_file.ts";
import type { SourceOf } from "../config.ts";
import type { Fetcher } from "../fetch.ts";
import { NotNow } from "../stage.ts";
import type { Reading, SourceEntry } from "./source.ts";

/** Answers are lists of addresses; what is larger is something else. */
const ANSWER_BYTES = 32 << 20;

export async function* searchEntries(
  source: SourceOf<"search">,
  { fetcher, unasked }: Reading,
): AsyncGenerator<SourceEntry> {
  const all = await searchWords(source);
  if (!fetcher)
    return unasked(`not asked: source "${source.name}": ${all.length} words, ${queries(all.length, source)}`);
  for (const word of all) {
    for (let page = 0; page < source.pages; page++) {
      const url = source.url
        .replaceAll("{word}", encodeURIComponent(word))
        .replaceAll("{page}", String(source.firstPage + page));
      const answer = await ask(url, source, fetcher);
      // A word whose query fails is asked again by the next run; the other words go on.
      if (answer instanceof Error) {
        yield { at: `${word} page ${page}`, words: [word], bytes: () => Promise.reject(answer) };
        break;
      }
      const found = select(answer, source.items);
      if (found.length === 0) break;
      for (const address of found) yield { at: `${word} ${address}`, words: [word], bytes: { url: address } };
    }
  }
}

/** What a run would ask, in words. */
function queries(words: number, { pages, url }: SourceOf<"search">): string {
  const host = /^\w+:\/\/([^/?#]*)/.exec(url)?.[1] ?? url;
  return `${pages > 1 ? "up to " : ""}${words * pages} queries to ${host}, and then the files that these name`;
}

async function searchWords({ words }: SourceOf<"search">): Promise<string[]> {
  if (typeof words === "string") await checkRegular(words, `the file of words ${words}`);
  const list = typeof words === "string" ? (await readFile(words, "utf8")).split("\n") : words;
  return [...new Set(list.map((word) => word.trim()).filter((word) => word !== ""))];
}

async function ask(url: string, { headers }: SourceOf<"search">, fetcher: Fetcher): Promise<unknown> {
  try {
    const bytes = await fetcher.get(url, { headers, maxBytes: ANSWER_BYTES });
    return parseJson(new TextDecoder().decode(bytes), url);
  } catch (error) {
    return new NotNow((error as Error).message);
  }
}

/** Texts at a path like `data[].images.original.url`: names of fields, with [] behind lists. */
export function select(value: unknown, path: string): string[] {
  let found: unknown[] = [value];
  for (const step of path.split(".")) {
    const field = step.replace(/\[\]$/, "");
    found = found.map((v) => (field === "" ? v : (v as Record<string, unknown> | null)?.[field]));
    if (step.endsWith("[]")) found = found.flatMap((v) => (Array.isArray(v) ? v : []));
  }
  return found.filter((v): v is string => typeof v === "string" && /^https?:/.test(v));
}
