// Which records step k trains on: every epoch is a fresh permutation, and both follow from (seed, k) alone. Nothing is stored
// for a resumed run to lose.

import { bitsFrom } from "../engine/index.ts";

/** Indices of the records of `step`: `batch` consecutive places of an endless row of shuffled epochs. */
export function batchIndices(records: number, batch: number, step: number, seed: number): number[] {
  return Array.from({ length: batch }, (_, i) => {
    const place = step * batch + i;
    return orderOf(records, seed, Math.floor(place / records))[place % records];
  });
}

const recent = new Map<string, Int32Array>();

/** The order of an epoch. The last two are kept: steps come one after another, and one may lie across two epochs. */
function orderOf(records: number, seed: number, epoch: number): Int32Array {
  const key = `${records} ${seed} ${epoch}`;
  const order = recent.get(key) ?? shuffled(records, seed, epoch);
  recent.delete(key);
  recent.set(key, order);
  if (recent.size > 2) recent.delete(recent.keys().next().value as string);
  return order;
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
