// The starter set's random numbers: a hash of (seed, index, name of the choice), so that a sticker depends on nothing
// drawn before it. Not for training, which uses the engine's Rng. Called by plan.ts and real.ts.

/** murmur3's 32-bit finaliser: every input bit flips every output bit with probability close to one half. */
function avalanche(h: number): number {
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

function hash(words: readonly number[]): number {
  let h = 0x9e3779b9;
  for (const word of words) h = avalanche(Math.imul(h, 31) ^ avalanche(word));
  return h;
}

/** Independent uniform choices of one sticker, each addressed by a name. */
export class Draws {
  private readonly key: readonly number[];

  constructor(seed: number, index: number) {
    this.key = [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0, index];
  }

  /** 32 uniform bits. */
  bits(name: string): number {
    return hash([...this.key, ...Array.from(name, (char) => char.codePointAt(0)!)]);
  }

  /** Uniform in [0, 1). */
  unit(name: string): number {
    return this.bits(name) / 2 ** 32;
  }

  between(name: string, low: number, high: number): number {
    return low + (high - low) * this.unit(name);
  }

  chance(name: string, probability: number): boolean {
    return this.unit(name) < probability;
  }

  pick<T>(name: string, from: readonly T[]): T {
    return from[Math.floor(this.unit(name) * from.length)];
  }
}

/** A seeded order of 0 .. n-1: sort by hash, ties (about n^2 / 2^33 of them) by index. */
export function permutation(n: number, seed: number, epoch: number): number[] {
  const draws = new Draws(seed, epoch);
  const keys = Array.from({ length: n }, (_, i) => draws.bits(`order ${i}`));
  return keys.map((_, i) => i).sort((a, b) => keys[a] - keys[b] || a - b);
}
