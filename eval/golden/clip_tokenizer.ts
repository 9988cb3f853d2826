// Golden kind "clip-tokenizer": texts and their ids in CLIP's vocabulary. The vocabulary may lie in the folder, or be named by
// the environment variable GIFGRAD_CLIP_TOKENIZER: ids must then be equal. Without one, what can be said is checked:
// whether any vocabulary at all has these ids for the words and bytes that the texts are cut into here.

import { Tokenizer } from "../../data/tokenizer.ts";
import { hasTokenizer, openTokenizer } from "../../data/tokenizer_folder.ts";
import { BYTE_TOKENS, clipFile, END, START } from "../../data/tokenizer_format.ts";
import { peekJson, readJson } from "./files.ts";
import { broken, type Check, type Kind } from "./kind.ts";

interface Row {
  readonly text: string;
  /** Of OpenAI's own tokenizer, which mends the text first (ftfy), and of tokenizer.json as transformers reads it. */
  readonly openai?: readonly number[];
  readonly transformers?: readonly number[];
}

export const clipTokenizer: Kind = {
  name: "clip-tokenizer",
  recognises: async (folder) => {
    const rows = (await peekJson(folder, "tokens.json")) as Partial<Row>[] | null;
    return Array.isArray(rows) && rows.length > 0 && rows.every((row) => typeof row?.text === "string");
  },
  run,
};

const VARIABLE = "GIFGRAD_CLIP_TOKENIZER";

async function* run(folder: string): AsyncGenerator<Check> {
  const rows = (await readJson<Row[]>(folder, "tokens.json")).map(({ text, transformers, openai }) => {
    const ids = transformers ?? openai;
    if (!ids) throw new Error(`tokens.json has no ids of ${JSON.stringify(text)}`);
    return { text, ids };
  });
  const elsewhere = process.env[VARIABLE];
  if ((await hasTokenizer(folder)) || elsewhere !== undefined) {
    const tokenizer = await openTokenizer((await hasTokenizer(folder)) ? folder : (elsewhere as string));
    for (const { text, ids } of rows) {
      const got = [tokenizer.startId, ...tokenizer.encode(text), tokenizer.endId];
      yield verdict(JSON.stringify(text), String(got) === String(ids) ? null : `got ${got}, expected ${ids}`);
    }
  } else yield* withoutVocabulary(rows);
}

function verdict(name: string, problem: string | null): Check {
  return problem === null ? { name, error: 0, bound: 0, ok: true } : broken(name, problem);
}

type Ids = readonly number[];

/**
 * Every text must be its bytes in groups that stay inside words: tokens below 512 are single bytes, others are two or more,
 * and equal ids are equal bytes in all texts.
 */
export function* withoutVocabulary(rows: readonly { readonly text: string; readonly ids: Ids }[]): Generator<Check> {
  const [start, end] = [rows[0].ids[0], rows[0].ids.at(-1) as number];
  const tokens = Object.fromEntries([...BYTE_TOKENS.entries()].map(([id, token]) => [token, id]));
  const bytes = new Tokenizer(clipFile({ ...tokens, [START]: start, [END]: end }, []));
  const aligner = new Aligner([start, end]);
  const texts = rows.map(({ text, ids }) => ({ ids: ids.slice(1, -1), units: bytes.encode(text) }));
  while (texts.some(({ ids, units }) => aligner.learn(ids, units)));
  for (const [i, { text, ids }] of rows.entries()) {
    const marked = ids[0] === start && ids.at(-1) === end;
    const fits = marked && aligner.spans(texts[i].ids, texts[i].units) !== null;
    const why = "no vocabulary has these ids for the words and bytes of the text";
    yield verdict(`${JSON.stringify(text)} (no vocabulary: words and bytes only)`, fits ? null : why);
  }
}

type Span = readonly [from: number, to: number];

/** Which bytes each id can stand for, over many texts. Units are ids of single bytes, those from 256 on ending a word. */
class Aligner {
  readonly #bytesOf = new Map<number, string>();
  readonly #idOf = new Map<string, number>();
  readonly #marks: Ids;

  constructor(marks: Ids) {
    this.#marks = marks;
  }

  /** Notes the ids whose bytes are certain in this text. Whether any were new. */
  learn(ids: Ids, units: Ids): boolean {
    const before = this.#bytesOf.size;
    for (const [k, spans] of (this.spans(ids, units) ?? []).entries()) {
      const found = new Set(spans.map(([from, to]) => String(units.slice(from, to))));
      const [only] = found;
      if (found.size !== 1 || this.#bytesOf.has(ids[k]) || this.#idOf.has(only)) continue;
      this.#bytesOf.set(ids[k], only);
      this.#idOf.set(only, ids[k]);
    }
    return this.#bytesOf.size > before;
  }

  /** The spans of units that each id can have when all ids together cover all units; null when they cannot. */
  spans(ids: Ids, units: Ids): Span[][] | null {
    const forward: Span[][] = [];
    let reached = new Set([0]);
    for (const id of ids) {
      const spans = [...reached].flatMap((from) => this.#from(id, units, from));
      forward.push(spans);
      reached = new Set(spans.map(([, to]) => to));
    }
    if (!reached.has(units.length)) return null;
    let wanted = new Set([units.length]);
    const kept = forward.reverse().map((spans) => {
      const leading = spans.filter(([, to]) => wanted.has(to));
      wanted = new Set(leading.map(([from]) => from));
      return leading;
    });
    return kept.reverse();
  }

  #from(id: number, units: Ids, from: number): Span[] {
    if (from >= units.length) return [];
    if (id < BYTE_TOKENS.length || this.#marks.includes(id)) return units[from] === id ? [[from, from + 1]] : [];
    const wordEnd = units.findIndex((unit, i) => i >= from && unit >= BYTE_TOKENS.length / 2) + 1;
    const ends = Array.from({ length: Math.max(0, wordEnd - from - 1) }, (_, i) => from + 2 + i);
    return ends.filter((to) => this.#may(id, String(units.slice(from, to)))).map((to) => [from, to]);
  }

  #may(id: number, bytes: string): boolean {
    return this.#bytesOf.has(id) ? this.#bytesOf.get(id) === bytes : !this.#idOf.has(bytes);
  }
}
