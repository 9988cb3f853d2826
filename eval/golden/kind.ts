// What the golden runner and its kinds agree on. A kind of golden folder is one file with one record; index.ts lists them.
// Golden folders hold arrays that other implementations computed, with the error that float32 cost them.

/** One tensor (or one statement) held against golden data. */
export interface Check {
  /** As the folder names it: "act/gelu.grad.x". */
  readonly name: string;
  /** Largest absolute error divided by the largest magnitude expected; infinite where values could not be had or are NaN. */
  readonly error: number;
  /** What `error` may be. */
  readonly bound: number;
  readonly ok: boolean;
  /** `SLACK` times the stated cost, where `bound` is wider than that because a single number's cost says little. */
  readonly stated?: number;
  /** Why there is no meaningful error: one line. */
  readonly message?: string;
}

export interface Kind {
  readonly name: string;
  /** By what the folder holds, never by its name alone. */
  recognises(folder: string): Promise<boolean>;
  /** Checks in the order of the folder's own lists, on the open device. Throws one clear line when a file is missing. */
  run(folder: string): AsyncIterable<Check>;
}

/** Times the error that float32 cost the implementation which made the data: other orders of summation are as good. */
export const SLACK = 10;

/**
 * Least bound of a single number, and bound where float32 cost that implementation nothing: two units in the last place of
 * the largest value. Copies are exact anyway; a gradient that is divided by a count may be multiplied by its reciprocal, and
 * a sum whose error happened to be a tenth of a unit cannot be held to that.
 */
export const TWO_ULPS = 2 ** -22;

/** Bound for a float tensor of `size` elements by the `rel_to_max` of its tolerance. Whole numbers must be equal: 0. */
export function boundOf(relToMax: number, size = Number.POSITIVE_INFINITY): number {
  return relToMax === 0 || size === 1 ? Math.max(SLACK * relToMax, TWO_ULPS) : SLACK * relToMax;
}

/** Holds `got` against `want`; relative to the largest magnitude of `want`, or absolute when that is zero. */
export function compare(name: string, got: ArrayLike<number>, want: ArrayLike<number>, bound: number): Check {
  if (got.length !== want.length) return broken(name, `expected ${want.length} values, got ${got.length}`, bound);
  let [largest, worst] = [0, 0];
  for (let i = 0; i < want.length; i++) {
    largest = Math.max(largest, Math.abs(want[i]));
    const error = Math.abs(got[i] - want[i]);
    worst = Math.max(worst, Number.isNaN(error) ? Number.POSITIVE_INFINITY : error);
  }
  const error = largest > 0 ? worst / largest : worst;
  return { name, error, bound, ok: error <= bound };
}

/** A failing check without an error to speak of. */
export function broken(name: string, message: string, bound = 0): Check {
  return { name, error: Number.POSITIVE_INFINITY, bound, ok: false, message: message.replaceAll(/\s*\n\s*/g, " ") };
}
