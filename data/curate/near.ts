// Near duplicates: stickers whose perceptual hashes differ in few of 256 bits, found without comparing every pair and without
// missing one. Of bits + 1 bands, disjoint sets of bit positions, one is equal in two hashes that differ in at most `bits` bits
// (pigeonhole), so only stickers that share a band are compared. Pictures with blank margins share whole runs of bits: bands
// take bits from all over the hash, the most balanced first, and what still meets in too large a group is banded anew by the
// bits that vary within it. Used by the filter and by the split.

/** 32-bit words of a hash, and its bits. */
const [WORDS, BITS] = [8, 256];
/** Widest band: with a position of up to 29 bits, its key is still a whole number in a double. */
const WIDEST = 24;
const POSITIONS = 2 ** 29;
/** Up to this many, comparing all pairs is quicker than banding. */
const SMALL = 1024;
/** Hashes of a group looked at before it is banded. */
const SAMPLE = 512;
/** Banding is for groups of which it leaves at most this share of the pairs. */
const WORTH = 0.5;

/** Hashes packed into 32 bytes each: as strings and rows, a million of them take half a gigabyte. */
export class HashList {
  #words = new Uint32Array(WORDS * SMALL);
  #length = 0;

  constructor(hashes: Iterable<string> = []) {
    for (const hash of hashes) this.push(hash);
  }

  get length(): number {
    return this.#length;
  }

  /** 8 words a hash; longer than what has been pushed. */
  get words(): Uint32Array {
    return this.#words;
  }

  /** @param hash 64 hex digits */
  push(hash: string): void {
    if (WORDS * (this.#length + 2) > this.#words.length) {
      const longer = new Uint32Array(2 * this.#words.length);
      longer.set(this.#words);
      this.#words = longer;
    }
    this.write(this.#length++, hash);
  }

  /** Puts `hash` at `at`, which may be one behind the last. */
  write(at: number, hash: string): void {
    for (let w = 0; w < WORDS; w++) {
      this.#words[WORDS * at + w] = Number.parseInt(hash.slice(8 * w, 8 * w + 8), 16);
    }
  }
}

/**
 * For each hash the index of the first one it is a near duplicate of, or of itself: chains are followed, so that a whole group
 * points to its first member.
 * @param bits how many of the 256 may differ; none is joined below 0
 * @param small size of a group up to which its pairs are compared without banding; no result depends on it
 */
export function nearDuplicates(hashes: HashList, bits: number, small = SMALL): Int32Array {
  const { words, length } = hashes;
  const parent = Int32Array.from({ length }, (_, i) => i);
  const root = (i: number): number => {
    let at = i;
    while (parent[at] !== at) {
      parent[at] = parent[parent[at]];
      at = parent[at];
    }
    return at;
  };
  const join = (a: number, b: number): void => {
    const [x, y] = [root(a), root(b)];
    parent[Math.max(x, y)] = Math.min(x, y); // the first in order stands for the group
  };

  /** Compares members[start..end) with each other; what one reaches is not compared again with the rest of its own. */
  const compare = (members: Int32Array, start: number, end: number): void => {
    let reached = start;
    for (let at = start; at < end; at++) {
      if (at === reached) reached++;
      const a = members[at];
      for (let i = reached; i < end; i++) {
        const b = members[i];
        if (!within(words, a, b, bits)) continue;
        join(a, b);
        members[i] = members[reached];
        members[reached++] = b;
      }
    }
  };

  const meet = (members: Int32Array, start: number, end: number): void => {
    if (end - start <= small) compare(members, start, end);
    else band(members, start, end);
  };

  const band = (members: Int32Array, start: number, end: number): void => {
    const of = members.subarray(start, end);
    const some = sample(of);
    const bands = bandsOf(words, some, bits + 1);
    if (shareThatMeets(words, some, bands) > WORTH) compare(members, start, end);
    else for (const each of bands) eachGroup(words, of, each, meet); // each smaller than this one, or all would meet
  };

  if (bits < 0) return parent;
  const distinct = joinEqual(hashes, join);
  meet(distinct, 0, distinct.length);
  return parent.map((_, i) => root(i));
}

/** Whether a hash differs in at most `bits` bits from one of `targets`. */
export function likeAny(targets: HashList, bits: number): (hash: string) => boolean {
  if (bits < 0 || targets.length === 0) return () => false;
  const all = Int32Array.from({ length: targets.length }, (_, i) => i);
  const asked = targets.length; // where the hash in question is put
  const indices = bandsOf(targets.words, all, bits + 1).map((band) => {
    const byKey = new Map<number, number[]>();
    for (const i of all) {
      const key = keyOf(targets.words, i, band);
      const known = byKey.get(key);
      if (known) known.push(i);
      else byKey.set(key, [i]);
    }
    return { band, byKey };
  });
  return (hash) => {
    targets.write(asked, hash);
    const { words } = targets;
    return indices.some(({ band, byKey }) =>
      byKey.get(keyOf(words, asked, band))?.some((i) => within(words, i, asked, bits)),
    );
  };
}

/** Joins equal hashes and returns the first of each: a blank picture may be there ten thousand times. */
function joinEqual({ words, length }: HashList, join: (a: number, b: number) => void): Int32Array {
  const size = 2 ** Math.ceil(Math.log2(2 * length + 1));
  const slots = new Int32Array(size).fill(-1); // open addressing
  const first = new Int32Array(length);
  let found = 0;
  for (let i = 0; i < length; i++) {
    let mixed = 0;
    for (let w = 0; w < WORDS; w++) {
      mixed = Math.imul(mixed ^ words[WORDS * i + w], 0x9e3779b1);
      mixed ^= mixed >>> 15;
    }
    let slot = (mixed >>> 0) % size;
    while (slots[slot] >= 0 && !within(words, slots[slot], i, 0)) slot = (slot + 1) % size;
    if (slots[slot] >= 0) join(slots[slot], i);
    else {
      slots[slot] = i;
      first[found++] = i;
    }
  }
  return first.subarray(0, found);
}

/** At most SAMPLE of them, evenly spaced. */
function sample(of: Int32Array): Int32Array {
  const count = Math.min(SAMPLE, of.length);
  return Int32Array.from({ length: count }, (_, i) => of[Math.floor((i * of.length) / count)]);
}

/**
 * Bit positions dealt to `count` bands, those that split `some` most evenly first; bits that are the same in all of them are
 * left out. Whatever is left out, one band is equal in hashes with fewer than `count` different bits.
 */
function bandsOf(words: Uint32Array, some: Int32Array, count: number): Uint8Array[] {
  const set = Array.from({ length: BITS }, (_, bit) => {
    let ones = 0;
    for (const i of some) ones += bitOf(words, i, bit);
    return { bit, rarer: Math.min(ones, some.length - ones) };
  });
  const varying = set.filter(({ rarer }) => rarer > 0).sort((a, b) => b.rarer - a.rarer || a.bit - b.bit);
  const bands = Array.from({ length: count }, () => [] as number[]);
  for (const [rank, { bit }] of varying.slice(0, WIDEST * count).entries()) bands[rank % count].push(bit);
  return bands.map((band) => Uint8Array.from(band));
}

/** Pairs of `some` that share a band, counted once for each band, over all pairs. */
function shareThatMeets(words: Uint32Array, some: Int32Array, bands: readonly Uint8Array[]): number {
  let pairs = 0;
  for (const band of bands) {
    eachGroup(words, some, band, (_members, start, end) => {
      pairs += (end - start) * (end - start - 1);
    });
  }
  return pairs / (some.length * (some.length - 1));
}

/** Calls `visit` for every group of at least two members of `of` that are equal in `band`. */
function eachGroup(
  words: Uint32Array,
  of: Int32Array,
  band: Uint8Array,
  visit: (members: Int32Array, start: number, end: number) => void,
): void {
  const sorted = Float64Array.from(of, (i, at) => keyOf(words, i, band) * POSITIONS + at).sort();
  const members = Int32Array.from(sorted, (x) => of[x % POSITIONS]);
  for (let start = 0, end = 1; start < sorted.length; start = end++) {
    const key = Math.floor(sorted[start] / POSITIONS);
    while (end < sorted.length && Math.floor(sorted[end] / POSITIONS) === key) end++;
    if (end - start > 1) visit(members, start, end);
  }
}

/** The bits of hash `i` at the positions of `band`. */
function keyOf(words: Uint32Array, i: number, band: Uint8Array): number {
  let key = 0;
  for (let b = 0; b < band.length; b++) key = (key << 1) | bitOf(words, i, band[b]);
  return key;
}

function bitOf(words: Uint32Array, i: number, bit: number): number {
  return (words[WORDS * i + (bit >>> 5)] >>> (bit & 31)) & 1;
}

function within(words: Uint32Array, a: number, b: number, bits: number): boolean {
  let differing = 0;
  for (let w = 0; w < WORDS; w++) {
    differing += popcount(words[WORDS * a + w] ^ words[WORDS * b + w]);
    if (differing > bits) return false;
  }
  return true;
}

/** Bits set in a 32-bit word, added up in ever wider fields. */
function popcount(word: number): number {
  let v = word - ((word >>> 1) & 0x55555555);
  v = (v & 0x33333333) + ((v >>> 2) & 0x33333333);
  return Math.imul((v + (v >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
