// Caption text <-> token ids by byte-level BPE (Sennrich et al. 2016 on bytes, as in GPT-2 and CLIP). Reads any
// tokenizer.json of that kind and writes its own; tokenizer_train.ts makes one from captions. With CLIP's conventions
// words carry an end mark instead of a space, so spaces around punctuation are not kept: decode(encode(text)) is the
// normalised words joined by single spaces.

import { readFile } from "node:fs/promises";
import { replaceFile } from "../engine/atomic.ts";
import { fromByteCharacters } from "./byte_alphabet.ts";
import {
  checkTokenizerFile,
  compileNormalizer,
  compilePreTokenizer,
  END,
  START,
  sequenceMarks,
  type TokenizerFile,
} from "./tokenizer_format.ts";

/** Tokens of a caption in CLIP's text encoder. */
const CONTEXT_LENGTH = 77;

export interface TokenizerOptions {
  /** Fills encodePadded after the end token. 0 as in Stable Diffusion 2.x; OpenAI's CLIP for ViT-L pads with `endId`. */
  readonly padId?: number;
}

interface Merge {
  readonly rank: number;
  readonly id: number;
}

const UNKNOWN = -1;

export class Tokenizer {
  /** The whole tokenizer.json, as read or trained. */
  readonly file: TokenizerFile;
  /** One more than the largest id: the rows of the embedding table. */
  readonly vocabSize: number;
  readonly startId: number;
  readonly endId: number;
  readonly padId: number;
  private readonly ids: ReadonlyMap<string, number>;
  private readonly tokens: ReadonlyMap<number, string>;
  private readonly merges: ReadonlyMap<number, Merge>;
  private readonly suffix: string;
  private readonly normalize: (text: string) => string;
  private readonly words: (text: string) => string[];
  private readonly added: ReadonlyMap<string, number>;
  private readonly rawAdded: RegExp | undefined;
  private readonly normalizedAdded: RegExp | undefined;
  private readonly cache = new Map<string, readonly number[]>();

  /** @throws Error when the file asks for something that byte-level BPE here does not have */
  constructor(file: TokenizerFile, { padId = 0 }: TokenizerOptions = {}) {
    this.file = file;
    const addedTokens = file.added_tokens ?? [];
    this.ids = new Map([
      ...Object.entries(file.model.vocab),
      ...addedTokens.map(({ content, id }): [string, number] => [content, id]),
    ]);
    this.tokens = new Map([...this.ids].map(([token, id]) => [id, token]));
    this.vocabSize = 1 + [...this.tokens.keys()].reduce((a, b) => Math.max(a, b), 0);
    this.merges = this.readMerges();
    this.suffix = file.model.end_of_word_suffix ?? "";
    this.normalize = compileNormalizer(file.normalizer);
    this.words = compilePreTokenizer(file.pre_tokenizer);
    const normalized = addedTokens.filter((t) => t.normalized ?? !t.special);
    const raw = addedTokens.filter((t) => !normalized.includes(t));
    this.added = new Map([
      ...normalized.map(({ content, id }): [string, number] => [this.normalize(content), id]),
      ...raw.map(({ content, id }): [string, number] => [content, id]),
    ]);
    this.rawAdded = anyOf(raw.map(({ content }) => content));
    this.normalizedAdded = anyOf(normalized.map(({ content }) => this.normalize(content)));
    const marks = sequenceMarks(file.post_processor);
    this.endId = this.required(marks.end ?? END);
    this.startId = this.ids.get(marks.start ?? START) ?? this.endId; // GPT-2 has one mark for both ends
    this.padId = padId;
  }

  /** Id of a token of the vocabulary, as the vocabulary spells it. */
  idOf(token: string): number | undefined {
    return this.ids.get(token);
  }

  /** Token ids of the text alone, without start and end. An added token spelled out in the text is that token. */
  encode(text: string): number[] {
    return splitOn(text, this.rawAdded).flatMap((part) => this.added.get(part) ?? this.encodeUnnormalized(part));
  }

  /** Start, the text's tokens, end, then `padId` up to `length`; a text that is too long is cut before the end. */
  encodePadded(text: string, length: number = CONTEXT_LENGTH): Int32Array {
    if (!Number.isInteger(length) || length < 2)
      throw new RangeError(`encodePadded: length must be at least 2, got ${length}`);
    const ids = this.encode(text).slice(0, length - 2);
    const padded = new Int32Array(length).fill(this.padId);
    padded.set([this.startId, ...ids, this.endId]);
    return padded;
  }

  /** Whether encodePadded keeps the whole text. */
  fits(text: string, length: number = CONTEXT_LENGTH): boolean {
    return this.encode(text).length <= length - 2;
  }

  /** Text of the ids up to the first end token; start tokens are left out. Broken UTF-8 becomes U+FFFD. */
  decode(ids: ArrayLike<number>): string {
    const bytes: number[] = [];
    for (const id of Array.from(ids)) {
      if (id === this.startId && id !== this.endId) continue;
      if (id === this.endId) break;
      bytes.push(...this.bytesOf(id));
    }
    const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));
    return this.suffix ? text.trimEnd() : text;
  }

  private bytesOf(id: number): number[] {
    const token = this.tokens.get(id);
    if (token === undefined)
      throw new RangeError(`decode: token id ${id} is not in the vocabulary of ${this.vocabSize}`);
    if (!this.suffix || !token.endsWith(this.suffix)) return fromByteCharacters(token);
    return [...fromByteCharacters(token.slice(0, -this.suffix.length)), 0x20];
  }

  private required(token: string): number {
    const id = this.idOf(token);
    if (id === undefined) throw new Error(`the tokenizer has no ${token} token, which ends a caption`);
    return id;
  }

  private encodeUnnormalized(text: string): number[] {
    return splitOn(this.normalize(text), this.normalizedAdded).flatMap(
      (part) => this.added.get(part) ?? this.words(part).flatMap((word) => this.encodeWord(word)),
    );
  }

  private encodeWord(word: string): readonly number[] {
    let ids = this.cache.get(word);
    if (!ids) {
      ids = this.bpe(word);
      if (this.cache.size < 100_000) this.cache.set(word, ids);
    }
    return ids;
  }

  /** Merges the pair of lowest rank, the leftmost of equals, until no pair has a rank. */
  private bpe(word: string): number[] {
    const whole = this.file.model.ignore_merges ? this.ids.get(word) : undefined;
    if (whole !== undefined) return [whole];
    const characters = [...word];
    characters[characters.length - 1] += this.suffix;
    const ids = characters.map((c) => this.ids.get(c) ?? UNKNOWN);
    for (;;) {
      let best: Merge | undefined;
      let at = 0;
      for (let i = 0; i + 1 < ids.length; i++) {
        const merge = this.merges.get(this.pairKey(ids[i], ids[i + 1]));
        if (!merge || (best && merge.rank >= best.rank)) continue;
        best = merge;
        at = i;
      }
      if (!best) return this.resolveUnknown(ids);
      ids.splice(at, 2, best.id);
    }
  }

  /** Bytes outside the vocabulary become the unknown token, or nothing where the file names none. */
  private resolveUnknown(ids: readonly number[]): number[] {
    if (!ids.includes(UNKNOWN)) return [...ids];
    const unknown = this.ids.get(this.file.model.unk_token ?? "");
    return ids.map((id) => (id === UNKNOWN ? unknown : id)).filter((id) => id !== undefined);
  }

  /** Unique for ids below vocabSize; exact, since vocabSize squared is far below 2^53. UNKNOWN never has a key >= 0. */
  private pairKey(left: number, right: number): number {
    return left === UNKNOWN || right === UNKNOWN ? -1 : left * this.vocabSize + right;
  }

  private readMerges(): Map<number, Merge> {
    const merges = new Map<number, Merge>();
    this.file.model.merges.forEach((merge, rank) => {
      const [left, right] = typeof merge === "string" ? merge.split(" ", 2) : merge;
      const ids = [left, right, `${left}${right}`].map((token) => this.ids.get(token));
      if (ids.includes(undefined))
        throw new Error(`merge ${rank} (${left} + ${right}) uses a token that is not in the vocabulary`);
      const key = this.pairKey(ids[0]!, ids[1]!);
      if (!merges.has(key)) merges.set(key, { rank, id: ids[2]! });
    });
    return merges;
  }
}

/** Reads a tokenizer.json. Throws Error naming the file and what is not byte-level BPE in it. */
export async function loadTokenizer(path: string, options?: TokenizerOptions): Promise<Tokenizer> {
  const text = await readFile(path, "utf8");
  return parseTokenizer(text, path, options);
}

/** As loadTokenizer, from the file's text; `where` names it in errors. */
export function parseTokenizer(text: string, where: string, options?: TokenizerOptions): Tokenizer {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new Error(`${where} is not JSON: ${(error as Error).message}`, { cause: error });
  }
  const file = checkTokenizerFile(json, where);
  try {
    return new Tokenizer(file, options);
  } catch (error) {
    throw new Error(`${where}: ${(error as Error).message}`, { cause: error });
  }
}

/** Writes tokenizer.json, so that a crash leaves the old file or the new one. */
export async function saveTokenizer(tokenizer: Tokenizer, path: string): Promise<void> {
  await replaceFile(path, (file) =>
    file.writeFile(`${JSON.stringify(tokenizer.file, null, 1)}
`),
  );
}

/** A pattern that matches any of the strings, longest first, or undefined for none. */
function anyOf(strings: readonly string[]): RegExp | undefined {
  if (strings.length === 0) return undefined;
  const escaped = strings.map((s) => s.replace(/[$()*+.?[\\\]^{|}]/g, "\\$&"));
  return new RegExp(`(${escaped.sort((a, b) => b.length - a.length).join("|")})`, "u");
}

/** The text cut before and after every match, matches included. */
function splitOn(text: string, pattern: RegExp | undefined): string[] {
  return (pattern ? text.split(pattern) : [text]).filter((part) => part !== "");
}
