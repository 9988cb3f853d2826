// Near duplicates: stickers whose perceptual hashes differ in few of 256 bits, found without comparing every pair. If two
// hashes differ in fewer bits than there are bands, some band is equal in both (pigeonhole), so only stickers that share a band
// are compared. Used by the filter.

/** 32-bit words of a hash. */
const WORDS = 8;

/**
 * For each hash the index of the first one it is a near duplicate of, or of itself: chains are followed, so that a whole group
 * points to its first member.
 * @param hashes 64 hex digits each
 * @param bits how many may differ; at most 31
 */
export function nearDuplicates(hashes: readonly string[], bits: number): Int32Array {
  const words = pack(hashes);
  const parent = Int32Array.from({ length: hashes.length }, (_, i) => i);
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
  if (bits < 0) return parent;
  const distinct = joinEqual(hashes, join);
  for (const keys of bandKeys(words, distinct, bits)) {
    for (const group of groupsOf(keys, distinct)) {
      for (let a = 0; a < group.length; a++) {
        for (let b = a + 1; b < group.length; b++) {
          if (root(group[a]) !== root(group[b]) && within(words, group[a], group[b], bits)) join(group[a], group[b]);
        }
      }
    }
  }
  return parent.map((_, i) => root(i));
}

/** For each of `hashes`, whether one of `targets` differs from it in at most `bits` bits. Compares all pairs. */
export function nearAny(hashes: readonly string[], targets: readonly string[], bits: number): boolean[] {
  if (bits < 0 || targets.length === 0) return hashes.map(() => false);
  const words = pack([...hashes, ...targets]);
  return hashes.map((_, i) => targets.some((_t, t) => within(words, i, hashes.length + t, bits)));
}

/** 256 bits as 8 words each. */
function pack(hashes: readonly string[]): Uint32Array {
  const words = new Uint32Array(WORDS * hashes.length);
  hashes.forEach((hash, i) => {
    for (let w = 0; w < WORDS; w++) words[WORDS * i + w] = Number.parseInt(hash.slice(8 * w, 8 * w + 8), 16);
  });
  return words;
}

/** Joins equal hashes and returns the first of each: a blank picture may be there ten thousand times. */
function joinEqual(hashes: readonly string[], join: (a: number, b: number) => void): number[] {
  const first = new Map<string, number>();
  hashes.forEach((hash, i) => {
    const known = first.get(hash);
    if (known === undefined) first.set(hash, i);
    else join(known, i);
  });
  return [...first.values()];
}

/**
 * Keys by which candidates meet. Up to 15 bits, the 16 half-words: one of them is equal. Above, the 32 bytes, each with its
 * number: many more candidates, so a larger distance costs time.
 */
function* bandKeys(words: Uint32Array, of: readonly number[], bits: number): Generator<Uint32Array> {
  const size = bits < 16 ? 16 : 8;
  const mask = 2 ** size - 1;
  for (let band = 0; band < 256 / size; band++) {
    const [word, shift] = [Math.floor((band * size) / 32), (band * size) % 32];
    yield Uint32Array.from(of, (i) => (words[WORDS * i + word] >>> shift) & mask);
  }
}

/** Members of `of` with equal keys, groups of at least two. */
function* groupsOf(keys: Uint32Array, of: readonly number[]): Generator<number[]> {
  const groups = new Map<number, number[]>();
  keys.forEach((key, at) => {
    const group = groups.get(key);
    if (group) group.push(of[at]);
    else groups.set(key, [of[at]]);
  });
  for (const group of groups.values()) if (group.length > 1) yield group;
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
