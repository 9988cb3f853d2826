// Learns a byte-level BPE vocabulary from captions (Sennrich, Haddow and Birch 2016) and lays it out as CLIP does: 256
// byte tokens, the same 256 ending a word, one token per merge, then start and end. Deterministic: the most frequent
// pair is merged, and among equally frequent ones that with the smaller left id, then the smaller right id.

import { Tokenizer } from "./tokenizer.ts";
import {
  BYTE_TOKENS,
  clipFile,
  compileNormalizer,
  compilePreTokenizer,
  END,
  END_OF_WORD,
  START,
} from "./tokenizer_format.ts";

export interface TrainTokenizerOptions {
  /** Largest vocabulary, with bytes and marks (default 8192); fewer where the captions do not support it. */
  readonly vocabSize?: number;
  /** A pair must occur this often in the captions to be merged (default 2). */
  readonly minFrequency?: number;
}

/** A distinct word as token ids, and how often it occurs. */
interface Word {
  ids: number[];
  readonly count: number;
}

/** A pair of token ids with its count when it was queued; the count can only have fallen since. */
interface Candidate {
  readonly left: number;
  readonly right: number;
  readonly count: number;
}

const MARKS = 2;
/** Ids stay far below this, so left * ID_SPAN + right is an exact, unique key. */
const ID_SPAN = 2 ** 24;

/** @throws RangeError when vocabSize has no room for the bytes and marks */
export function trainTokenizer(captions: Iterable<string>, options: TrainTokenizerOptions = {}): Tokenizer {
  const { vocabSize = 8192, minFrequency = 2 } = options;
  const smallest = BYTE_TOKENS.length + MARKS;
  if (!Number.isInteger(vocabSize) || vocabSize < smallest || vocabSize >= ID_SPAN) {
    throw new RangeError(`trainTokenizer: vocabSize must be a whole number from ${smallest} on, got ${vocabSize}`);
  }
  const { tokens, merges } = learnMerges(countWords(captions), vocabSize - MARKS, minFrequency);
  const vocab = Object.fromEntries([...tokens, START, END].map((token, id) => [token, id]));
  return new Tokenizer(clipFile(vocab, merges));
}

function countWords(captions: Iterable<string>): Word[] {
  const { normalizer, pre_tokenizer } = clipFile({}, []);
  const normalize = compileNormalizer(normalizer);
  const split = compilePreTokenizer(pre_tokenizer);
  const counts = new Map<string, number>();
  for (const caption of captions) {
    for (const word of split(normalize(caption))) counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  const idOf = new Map(BYTE_TOKENS.map((token, id) => [token, id]));
  return [...counts].map(([word, count]) => {
    const characters = [...word];
    characters[characters.length - 1] += END_OF_WORD;
    return { ids: characters.map((c) => idOf.get(c)!), count };
  });
}

interface Learned {
  readonly tokens: string[];
  readonly merges: [string, string][];
}

/** Merges pairs until there are `limit` tokens or no pair is frequent enough. */
function learnMerges(words: readonly Word[], limit: number, minFrequency: number): Learned {
  const tokens = [...BYTE_TOKENS];
  const merges: [string, string][] = [];
  const idOf = new Map(tokens.map((token, id) => [token, id]));
  const pairs = new PairTable(words);
  while (tokens.length < limit) {
    const pair = pairs.mostFrequent(minFrequency);
    if (!pair) break;
    const [left, right] = [tokens[pair.left], tokens[pair.right]];
    // "a" + "bc" and "ab" + "c" are two merges but one token.
    const id = idOf.get(left + right) ?? tokens.push(left + right) - 1;
    idOf.set(left + right, id);
    merges.push([left, right]);
    pairs.merge(pair, id);
  }
  return { tokens, merges };
}

/** Counts of adjacent pairs over all words, kept up to date as pairs are merged. */
class PairTable {
  private readonly counts = new Map<number, number>();
  /** Words that hold a pair, or once did. */
  private readonly holders = new Map<number, Set<Word>>();
  private readonly queue = new CandidateQueue();

  constructor(words: readonly Word[]) {
    for (const word of words) this.add(word);
    for (const key of this.counts.keys()) this.enqueue(key);
  }

  /** Takes the pair to merge next off the queue; undefined when none occurs `atLeast` times. */
  mostFrequent(atLeast: number): Candidate | undefined {
    for (let best = this.queue.pop(); best; best = this.queue.pop()) {
      const key = keyOf(best.left, best.right);
      const count = this.counts.get(key)!;
      if (count === best.count) return count >= atLeast ? best : undefined;
      this.enqueue(key);
    }
    return undefined;
  }

  /** Replaces the pair by token `id` in all words. */
  merge({ left, right }: Candidate, id: number): void {
    const key = keyOf(left, right);
    const held = this.holders.get(key)!;
    this.holders.delete(key);
    const grown = new Set<number>();
    for (const word of held) {
      this.remove(word);
      word.ids = replacePair(word.ids, left, right, id);
      for (const pair of this.add(word)) if (pair[0] === id || pair[1] === id) grown.add(keyOf(...pair));
    }
    // Only pairs with the new token can have become more frequent; the others are queued with an upper bound.
    for (const pair of grown) this.enqueue(pair);
  }

  private enqueue(key: number): void {
    this.queue.push({ left: Math.floor(key / ID_SPAN), right: key % ID_SPAN, count: this.counts.get(key)! });
  }

  /** Counts the word's pairs and returns them. */
  private add(word: Word): [number, number][] {
    const pairs = pairsOf(word);
    for (const [left, right] of pairs) {
      const key = keyOf(left, right);
      this.counts.set(key, (this.counts.get(key) ?? 0) + word.count);
      const held = this.holders.get(key);
      if (held) held.add(word);
      else this.holders.set(key, new Set([word]));
    }
    return pairs;
  }

  private remove(word: Word): void {
    for (const [left, right] of pairsOf(word)) {
      const key = keyOf(left, right);
      this.counts.set(key, this.counts.get(key)! - word.count);
    }
  }
}

const keyOf = (left: number, right: number): number => left * ID_SPAN + right;

function pairsOf({ ids }: Word): [number, number][] {
  return ids.slice(1).map((right, i) => [ids[i], right]);
}

function replacePair(ids: readonly number[], left: number, right: number, merged: number): number[] {
  const out: number[] = [];
  for (let i = 0; i < ids.length; i++) {
    if (ids[i] === left && ids[i + 1] === right) {
      out.push(merged);
      i++;
    } else out.push(ids[i]);
  }
  return out;
}

/** Binary heap with the pair to merge next on top. */
class CandidateQueue {
  private readonly heap: Candidate[] = [];

  push(candidate: Candidate): void {
    const { heap } = this;
    let i = heap.push(candidate) - 1;
    for (let parent = (i - 1) >> 1; i > 0 && before(heap[i], heap[parent]); parent = (i - 1) >> 1) {
      [heap[i], heap[parent]] = [heap[parent], heap[i]];
      i = parent;
    }
  }

  pop(): Candidate | undefined {
    const { heap } = this;
    const top = heap[0];
    const last = heap.pop();
    if (!last || heap.length === 0) return top;
    heap[0] = last;
    for (let i = 0; ; ) {
      const [l, r] = [2 * i + 1, 2 * i + 2];
      let first = i;
      if (l < heap.length && before(heap[l], heap[first])) first = l;
      if (r < heap.length && before(heap[r], heap[first])) first = r;
      if (first === i) return top;
      [heap[i], heap[first]] = [heap[first], heap[i]];
      i = first;
    }
  }
}

function before(a: Candidate, b: Candidate): boolean {
  return (b.count - a.count || a.left - b.left || a.right - b.right) < 0;
}
