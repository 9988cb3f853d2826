// The trace in progress: what a compiled step has assigned and drawn so far. `compile` opens one; Parameter and Rng write
// to it. There is at most one, because tracing is synchronous.

import type { Node } from "./graph.ts";

export interface Trace {
  readonly name: string;
  /** New value of each state leaf that the step has assigned. */
  readonly assigns: Map<Node, Node>;
  /** Random draws made so far from each generator's state leaf. */
  readonly draws: Map<Node, number>;
}

let current: Trace | null = null;
let halves = false;

/** Are f32 parameters that are no buffers read as f16 at the moment? */
export function readsHalves(): boolean {
  return halves;
}

/** Runs `body` with every f32 parameter that is no buffer read as its f16 cast. */
export function withHalves<T>(body: () => T): T {
  const before = halves;
  halves = true;
  try {
    return body();
  } finally {
    halves = before;
  }
}

export function currentTrace(): Trace | null {
  return current;
}

/** Runs `body` with a fresh trace. Throws when one is already open: a step does not call another step. */
export function withTrace<T>(name: string, body: () => T): { trace: Trace; result: T } {
  if (current) throw new Error(`${name}: called inside ${current.name}; call the uncompiled function instead`);
  const trace: Trace = { name, assigns: new Map(), draws: new Map() };
  current = trace;
  try {
    return { trace, result: body() };
  } finally {
    current = null;
  }
}
