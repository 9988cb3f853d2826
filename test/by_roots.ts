// The Frechet distance by another route than eval/fvd.ts takes: from covariances, through symmetric matrix roots.

import { EigenvalueDecomposition, Matrix } from "ml-matrix";
import type { Features } from "../eval/fvd.ts";

/** The distance by way of the covariances and a symmetric matrix root. */
export function byRoots(a: Features, b: Features): number {
  const moments = ({ count, width, data }: Features) => {
    const x = new Matrix(Array.from({ length: count }, (_, i) => Array.from(data).slice(i * width, (i + 1) * width)));
    const mean = x.mean("column");
    const centred = x.clone().subRowVector(mean);
    return {
      mean,
      cov: centred
        .transpose()
        .mmul(centred)
        .div(count - 1),
    };
  };
  const root = (m: Matrix): Matrix => {
    const { realEigenvalues, eigenvectorMatrix: v } = new EigenvalueDecomposition(m, { assumeSymmetric: true });
    return v.mmul(Matrix.diag(realEigenvalues.map((x) => Math.sqrt(Math.max(0, x))))).mmul(v.transpose());
  };
  const [x, y] = [moments(a), moments(b)];
  const half = root(x.cov);
  const common = root(half.mmul(y.cov).mmul(half)).trace();
  return x.mean.reduce((s, m, i) => s + (m - y.mean[i]) ** 2, 0) + x.cov.trace() + y.cov.trace() - 2 * common;
}
