// Tags: what VideoGPT is told instead of a caption. The words that led to a sticker (trigger words) and its domain are
// numbers of a fixed list, the most frequent ones of the data. Called by train/prior.ts, train/sample_videogpt.ts
// and the benchmark.

import { DOMAINS, type StickerRecord } from "./record.ts";

/** Lower case, one space between words. */
function normal(text: string): string {
  return text.trim().toLowerCase().replace(/\s+/g, " ");
}

const DOMAIN_TAGS = DOMAINS.map(normal);

/** Words of a record, domain aside: its trigger words; without any its subject and action; without these its caption's. */
function wordsOf({ trigger_words, subject, action, caption }: StickerRecord): string[] {
  const named = trigger_words?.length ? trigger_words : [subject, action].filter((word) => typeof word === "string");
  const words = named.length > 0 ? named : (caption.match(/[\p{L}\p{N}]+/gu) ?? []);
  return [...new Set(words.map(normal))].filter((word) => word !== "" && !DOMAIN_TAGS.includes(word));
}

/** A record as a text that `Tags.read` reads: "cartoon, cat, jumping". */
export function tagText(record: StickerRecord): string {
  return [normal(record.domain ?? DOMAINS[0]), ...wordsOf(record)].join(", ");
}

/** What a text says in tags. */
export interface ReadTags {
  readonly tags: readonly number[];
  /** Words that are no tags. */
  readonly unknown: readonly string[];
}

export class Tags {
  /** Domains first, then words, most frequent first. */
  readonly words: readonly string[];
  readonly #numbers: ReadonlyMap<string, number>;
  /** Words of the longest tag. */
  readonly #longest: number;

  /** Throws Error when the list does not begin with the domains, or has a word twice. */
  constructor(words: readonly string[]) {
    this.words = words;
    this.#numbers = new Map(words.map((word, i) => [word, i]));
    this.#longest = Math.max(...words.map((word) => word.split(" ").length));
    if (DOMAIN_TAGS.some((domain, i) => words[i] !== domain) || this.#numbers.size !== words.length)
      throw new Error(`a list of tags begins with ${DOMAIN_TAGS.join(", ")} and has no word twice`);
  }

  /** The domains and the words that most records have, at most `count` in all; equally frequent ones by their letters. */
  static of(records: readonly StickerRecord[], count: number): Tags {
    const frequency = new Map<string, number>();
    for (const word of records.flatMap(wordsOf)) frequency.set(word, (frequency.get(word) ?? 0) + 1);
    const order = [...frequency].sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1)).map(([word]) => word);
    return new Tags([...DOMAIN_TAGS, ...order].slice(0, count));
  }

  /** Tags of a record: its domain (the first one where it has none), then the words that are known. */
  ofRecord(record: StickerRecord): number[] {
    const known = wordsOf(record).flatMap((word) => this.#numbers.get(word) ?? []);
    return [DOMAINS.indexOf(record.domain ?? DOMAINS[0]), ...known];
  }

  /**
   * Tags in a text such as "cartoon, cat, jumping", domain first. What stands between commas, semicolons or tabs is a tag or
   * words that are searched for tags, the longest first. The last domain counts; without one it is the first of the list.
   */
  read(text: string): ReadTags {
    let domain = 0;
    const found = new Set<number>();
    const unknown: string[] = [];
    for (const piece of text.split(/[,;\t]/).map(normal)) {
      const words = piece.split(" ").filter((word) => word !== "");
      for (let i = 0; i < words.length; ) {
        const { tag, length } = this.#longestAt(words, i);
        i += length;
        if (tag === undefined) unknown.push(words[i - 1]);
        else if (tag < DOMAIN_TAGS.length) domain = tag;
        else found.add(tag);
      }
    }
    return { tags: [domain, ...found], unknown };
  }

  #longestAt(words: readonly string[], at: number): { tag: number | undefined; length: number } {
    for (let length = Math.min(this.#longest, words.length - at); length > 0; length--) {
      const tag = this.#numbers.get(words.slice(at, at + length).join(" "));
      if (tag !== undefined) return { tag, length };
    }
    return { tag: undefined, length: 1 };
  }
}

/**
 * A set of tags, domain first, in `slots` places: the same set always looks the same. The domain comes first and again in
 * places that are left over, then the words by their numbers; those that do not fit are the rarest.
 */
export function inSlots(tags: readonly number[], slots: number): Int32Array {
  const [domain, ...words] = tags;
  const kept = [...new Set(words)].sort((a, b) => a - b).slice(0, slots - 1);
  return Int32Array.from([...new Array<number>(slots - kept.length).fill(domain), ...kept]);
}

/** Some of a set's words, and its domain: between one and all that fit, by `random` numbers in [0, 1), which it asks for. */
export function someTags(tags: readonly number[], slots: number, random: () => number): number[] {
  const [domain, ...words] = tags;
  const most = Math.min(words.length, slots - 1);
  const count = most === 0 ? 0 : 1 + Math.floor(random() * most);
  for (let i = 0; i < count; i++) {
    const j = i + Math.floor(random() * (words.length - i));
    [words[i], words[j]] = [words[j], words[i]];
  }
  return [domain, ...words.slice(0, count)];
}
