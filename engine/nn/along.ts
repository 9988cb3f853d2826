// A constant matrix applied along one axis: y[..., i, ...] = sum_j M[i, j] x[..., j, ...]. Averages over windows and
// interpolation are such maps, one per axis, with weights computed in float64 on the host. Called by pooling.ts and
// interpolate.ts.

import { Band, type Row } from "../ops/resample.ts";
import { numel } from "../shape.ts";
import { type Tensor, tensor } from "../tensor.ts";

export interface AxisMap {
  /** Tells the matrix from others of its size, so that equal ones are made once. */
  readonly key: string;
  readonly rows: number;
  readonly columns: number;
  row(i: number): Row;
}

interface Matrix {
  readonly band: Band;
  /** [rows, columns], where the band's table is too long for the kernel. */
  dense?: Tensor;
}

const KEPT = 64;
const matrices = new Map<string, Matrix>();

/** The matrix; the most recently used ones are kept. */
function matrixOf(map: AxisMap): Matrix {
  const key = `${map.key} ${map.rows} ${map.columns}`;
  const known = matrices.get(key);
  matrices.delete(key);
  const rows = (): Row[] => Array.from({ length: map.rows }, (_, i) => map.row(i));
  const matrix = known ?? { band: new Band(key, map.columns, rows()) };
  matrices.set(key, matrix);
  if (matrices.size > KEPT) matrices.delete(matrices.keys().next().value as string);
  return matrix;
}

function denseOf({ rows, columns, starts, weights }: Band): Tensor {
  const dense = new Float32Array(rows * columns);
  weights.forEach((row, i) => {
    dense.set(row, i * columns + starts[i]);
  });
  return tensor(dense, [rows, columns]);
}

/** Replaces axis `axis` of x, of map.columns elements, by one of map.rows. */
export function alongAxis(x: Tensor, axis: number, map: AxisMap): Tensor {
  const [lead, tail] = [x.shape.slice(0, axis), x.shape.slice(axis + 1)];
  const blocks = x.reshape([numel(lead), map.columns, numel(tail)]);
  const matrix = matrixOf(map);
  if (!matrix.band.fits) matrix.dense ??= denseOf(matrix.band);
  const y = matrix.dense ? matrix.dense.matmul(blocks) : blocks.resample(matrix.band);
  return y.reshape([...lead, map.rows, ...tail]);
}
