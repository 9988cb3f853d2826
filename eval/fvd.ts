// The Frechet distance between two sets of features, in float64, and how short clips become videos that I3D can see. Pure
// functions; the network whose logits make it the Frechet video distance (Unterthiner et al. 2018) is models/i3d.ts.

import { Matrix, QrDecomposition, SingularValueDecomposition } from "ml-matrix";

/** Rows of features, one per video. */
export interface Features {
  readonly count: number;
  readonly width: number;
  /** count * width values, row by row. */
  readonly data: ArrayLike<number>;
}

/** Scatter of one set: its mean, and a matrix R with R^T R = (n - 1) times its covariance. */
interface Scatter {
  readonly mean: Float64Array;
  readonly root: Matrix;
  readonly freedom: number;
  /** Trace of the covariance. */
  readonly trace: number;
}

/**
 * |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) with unbiased covariances. With centred rows A and B,
 * tr (S_a S_b)^(1/2) is the sum of the singular values of A B^T over sqrt((n_a - 1)(n_b - 1)): no matrix root is taken, so
 * sets of fewer rows than features are as exact as others. Symmetric, and not below 0 but for rounding.
 * @throws RangeError for sets of fewer than two rows, of unlike widths, or with values that are not finite
 */
export function frechetDistance(a: Features, b: Features): number {
  if (a.width !== b.width)
    throw new RangeError(`Frechet distance: features of ${a.width} and of ${b.width} numbers cannot be compared`);
  const [x, y] = [scatter(a), scatter(b)];
  const apart = x.mean.reduce((sum, m, i) => sum + (m - y.mean[i]) ** 2, 0);
  const common = nuclearNorm(x.root.mmul(y.root.transpose())) / Math.sqrt(x.freedom * y.freedom);
  return apart + x.trace + y.trace - 2 * common;
}

function scatter({ count, width, data }: Features): Scatter {
  if (data.length !== count * width)
    throw new RangeError(`Frechet distance: ${data.length} values for ${count} rows of ${width}`);
  if (count < 2) throw new RangeError(`Frechet distance: a covariance needs at least 2 rows, got ${count}`);
  const mean = new Float64Array(width);
  for (let i = 0; i < data.length; i++) mean[i % width] += data[i] / count;
  if (!mean.every(Number.isFinite)) throw new RangeError("Frechet distance: the features are not all finite");
  const centred = new Matrix(count, width);
  let squares = 0;
  for (let i = 0; i < data.length; i++) {
    const d = data[i] - mean[i % width];
    squares += d * d;
    centred.set(Math.floor(i / width), i % width, d);
  }
  // The triangular factor of A has the same A^T A in fewer rows, so the singular values of products stay the same.
  const root = count > width ? new QrDecomposition(centred).upperTriangularMatrix : centred;
  return { mean, root, freedom: count - 1, trace: squares / (count - 1) };
}

/** Sum of the singular values. */
function nuclearNorm(m: Matrix): number {
  const svd = new SingularValueDecomposition(m, {
    computeLeftSingularVectors: false,
    computeRightSingularVectors: false,
    autoTranspose: true,
  });
  return svd.diagonal.reduce((sum, s) => sum + s, 0);
}

/** How a clip of fewer frames is played until there are enough of them. */
export type Extension = "loop" | "ping-pong" | "resample";

/** I3D divides time by 8 and averages over windows of 2. */
const LEAST_FRAMES = 9;

/**
 * Indices of the frames that stand for a clip of `n`: again from the start, as GIFs play ("loop"); forwards and backwards
 * without doubling the turning frames; or each frame as long as it lasts when the clip is stretched to `count` frames.
 * @throws RangeError when there would be fewer frames than I3D can see
 */
export function extendFrames(n: number, extension: Extension = "loop", count = 16): number[] {
  if (!Number.isInteger(n) || n < 1) throw new RangeError(`FVD: a clip has at least one frame, got ${n}`);
  if (!Number.isInteger(count) || count < LEAST_FRAMES)
    throw new RangeError(`FVD: I3D needs at least ${LEAST_FRAMES} frames, got ${count}: it divides time by 8`);
  const period = Math.max(1, 2 * (n - 1));
  const at: Readonly<Record<Extension, (i: number) => number>> = {
    loop: (i) => i % n,
    "ping-pong": (i) => Math.min(i % period, period - (i % period)),
    resample: (i) => Math.floor((i * n) / count),
  };
  return Array.from({ length: count }, (_, i) => at[extension](i));
}
