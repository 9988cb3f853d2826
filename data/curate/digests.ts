// Which of millions of texts have been seen. A Set of strings takes 150 bytes for each and no more than 2^24 of them; this one
// keeps 128 bits of SHA-256, 64 bytes at most, by which two of a million million texts are the same with a chance of 10^-15.
// Used by stage.ts and journal.ts.

import { sha256 } from "../hash.ts";

/** 32-bit words of a digest. */
const WORDS = 4;
const FEWEST = 1024;

export class DigestSet {
  /** Open addressing; a slot of zeros is free. */
  #slots = new Uint32Array(WORDS * FEWEST);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  has(text: string): boolean {
    return this.#taken(this.#slotOf(digest(text)));
  }

  /** Returns whether it is new. */
  add(text: string): boolean {
    const words = digest(text);
    const slot = this.#slotOf(words);
    if (this.#taken(slot)) return false;
    this.#slots.set(words, slot);
    if (2 * WORDS * ++this.#size > this.#slots.length) this.#grow();
    return true;
  }

  #taken(slot: number): boolean {
    const slots = this.#slots;
    return (slots[slot] | slots[slot + 1] | slots[slot + 2] | slots[slot + 3]) !== 0;
  }

  /** Where the digest is, or where it would go. */
  #slotOf(words: readonly number[] | Uint32Array): number {
    const slots = this.#slots;
    let slot = WORDS * (words[0] % (slots.length / WORDS));
    while (this.#taken(slot) && !words.every((word, w) => slots[slot + w] === word))
      slot = (slot + WORDS) % slots.length;
    return slot;
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new Uint32Array(2 * old.length);
    for (let at = 0; at < old.length; at += WORDS) {
      const words = old.subarray(at, at + WORDS);
      if (words.some((word) => word !== 0)) this.#slots.set(words, this.#slotOf(words));
    }
  }
}

function digest(text: string): readonly number[] {
  const hex = sha256(text);
  return [0, 8, 16, 24].map((at) => Number.parseInt(hex.slice(at, at + 8), 16));
}
