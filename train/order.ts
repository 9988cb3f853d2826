// Which records step k trains on: every epoch is a fresh permutation, and both follow from (seed, k) alone. Nothing is stored
// for a resumed run to lose.

import { bitsFrom } from "../engine/index.ts";

/** Indices of the records of `step`: `batch` consecutive places of an endless row of shuffled epochs. */
export function batchIndices(records: number, batch: number, step: number, seed: number): number[] {
  const epochs = new Map<number, Int32Array>();
  return Array.from({ length: batch }, (_, i) => {
    const place = step * batch + i;
    const epoch = Math.floor(place / records);
    const order = epochs.get(epoch) ?? shuffled(records, seed, epoch);
    epochs.set(epoch, order);
    return order[place % records];
  });
}

/** Fisher-Yates with the generator's words of (seed, epoch). */
function shuffled(n: number, seed: number, epoch: number): Int32Array {
  const order = Int32Array.from({ length: n }, (_, i) => i);
  const random = bitsFrom(seed, `epoch ${epoch}`);
  for (let i = n - 1; i > 0; i--) {
    const j = random(i) % (i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
