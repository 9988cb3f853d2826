// What evaluation draws at random, from a seed and a name alone: whole numbers, and orders. The same on every machine.

import { bitsFrom } from "../engine/index.ts";

/** A whole number from 0 to below its argument. */
export type Draw = (below: number) => number;

/** A row of draws of its own for each seed and name, from a place in it on; `drawn()` is the place that comes next. */
export function drawing(seed: number, name: string, from = 0): Draw & { drawn(): number } {
  const bits = bitsFrom(seed, name);
  let next = from;
  return Object.assign((below: number) => bits(next++) % below, { drawn: () => next });
}

/** 0 to n - 1 in a drawn order (Fisher-Yates). */
export function shuffled(n: number, draw: Draw): number[] {
  const order = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = draw(i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
