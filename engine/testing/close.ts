// Comparison of arrays of numbers with a sentence that says where and how much they differ. Errors are relative to the
// largest magnitude expected, because cancellation makes single elements of a correct result arbitrarily bad.

export interface CloseOptions {
  readonly rtol: number;
  /** What errors are relative to; the largest magnitude expected when absent. */
  readonly scale?: number;
}

/** Largest magnitude. */
export function magnitude(values: ArrayLike<number>): number {
  let most = 0;
  for (let i = 0; i < values.length; i++) most = Math.max(most, Math.abs(values[i]));
  return most;
}

/** A sentence that names the worst element, or null when all are within `rtol * scale`. NaN is never close. */
export function difference(
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  { rtol, scale }: CloseOptions,
): string | null {
  if (got.length !== want.length) return `expected ${want.length} values, got ${got.length}`;
  const allowed = rtol * (scale ?? magnitude(want));
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

/** A sentence about the first element whose bits differ, or null: the zeros and NaNs of floats count as they are stored. */
export function bitDifference(got: ArrayBufferView, want: ArrayBufferView): string | null {
  const words = (v: ArrayBufferView): Uint32Array => new Uint32Array(v.buffer, v.byteOffset, v.byteLength / 4);
  const [a, b] = [words(got), words(want)];
  const at = a.findIndex((w, i) => w !== b[i]);
  if (at < 0 && a.length === b.length) return null;
  const [x, y] = [got, want].map((v) => (v as unknown as ArrayLike<number>)[at]);
  return `element ${at}: ${y} the first time, ${x} the second`;
}
