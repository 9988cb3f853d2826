// Weights of separable resizing, antialiased: kernel values over the window of source positions that each output position
// sees, stretched when shrinking. Used by resize.ts (in floats, rounded once) and clip_preprocess.ts (Pillow's integers).

/** For each output position, where its source window starts and the normalised weights over it. */
export interface Taps {
  readonly starts: Int32Array;
  readonly weights: readonly Float64Array[];
}

export interface Kernel {
  /** Where it ends, on either side of 0. */
  readonly support: number;
  at(x: number): number;
}

/** Keys' cubic convolution with a = -1/2 (1981). */
export const CUBIC: Kernel = {
  support: 2,
  at: (x) => {
    const d = Math.abs(x);
    if (d < 1) return (1.5 * d - 2.5) * d * d + 1;
    return d < 2 ? (((d - 5) * d + 8) * d - 4) * -0.5 : 0;
  },
};

/** The triangle. */
export const LINEAR: Kernel = { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) };

/** From `from` positions to `to`. When shrinking, the kernel is stretched by the scale so that every pixel counts (no aliasing). */
export function taps(from: number, to: number, kernel: Kernel): Taps {
  const scale = from / to;
  const stretch = Math.max(1, scale);
  const starts = new Int32Array(to);
  const weights = Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const start = Math.max(0, Math.floor(centre - kernel.support * stretch + 0.5));
    const end = Math.min(from, Math.floor(centre + kernel.support * stretch + 0.5));
    const row = Float64Array.from({ length: end - start }, (_, k) => kernel.at((start + k - centre + 0.5) / stretch));
    const sum = row.reduce((a, b) => a + b, 0);
    starts[i] = start;
    return row.map((w) => w / sum);
  });
  return { starts, weights };
}
