// Comparison of arrays of numbers with a message that says where and how much they differ. Errors are relative to the
// largest magnitude expected, because cancellation makes single elements of a correct result arbitrarily bad.

import { expect } from "vitest";

export interface CloseOptions {
  readonly rtol: number;
  /** What errors are relative to; the largest magnitude expected when absent. */
  readonly scale?: number;
}

/** A sentence that names the worst element, or null when all are within `rtol * scale`. NaN is never close. */
export function difference(
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  { rtol, scale }: CloseOptions,
): string | null {
  if (got.length !== want.length) return `expected ${want.length} values, got ${got.length}`;
  let largest = 0;
  for (let i = 0; i < want.length; i++) largest = Math.max(largest, Math.abs(want[i]));
  const allowed = rtol * (scale ?? largest);
  let [bad, worst, at] = [0, -1, 0];
  for (let i = 0; i < want.length; i++) {
    const error = Number.isNaN(got[i]) ? Number.POSITIVE_INFINITY : Math.abs(got[i] - want[i]);
    if (!(error <= allowed)) bad++;
    if (error > worst || Number.isNaN(error)) [worst, at] = [error, i];
  }
  if (bad === 0) return null;
  const share = `${bad} of ${want.length} are off`;
  return `element ${at}: expected ${want[at]}, got ${got[at]}, error ${worst.toPrecision(3)} > ${allowed.toPrecision(3)}; ${share}`;
}

/** Asserts closeness; `what` is the beginning of the message. */
export function expectClose(got: ArrayLike<number>, want: ArrayLike<number>, what: string, o: CloseOptions): void {
  const problem = difference(got, want, o);
  expect(problem === null, `${what}: ${problem}`).toBe(true);
}
