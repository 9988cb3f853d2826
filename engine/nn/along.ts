// A constant matrix applied along one axis: y[..., i, ...] = sum_j M[i, j] x[..., j, ...]. Averages over windows and
// interpolation are such maps, one per axis, with weights computed in float64 on the host; the product and its gradient,
// the transposed matrix, are matmul's. Called by pooling.ts and interpolate.ts.

import { numel } from "../shape.ts";
import { type Tensor, tensor } from "../tensor.ts";

/** One row of a matrix: what each element it reads counts. Weights of the same element add up. */
export type Row = readonly (readonly [column: number, weight: number])[];

export interface AxisMap {
  /** Tells the matrix from others, so that equal ones are uploaded once. */
  readonly key: string;
  readonly rows: number;
  readonly columns: number;
  row(i: number): Row;
}

const KEPT = 64;
const matrices = new Map<string, Tensor>();

/** The matrix [rows, columns]; the most recently used ones are kept. */
function matrixOf(map: AxisMap): Tensor {
  const key = `${map.key} ${map.rows} ${map.columns}`;
  const known = matrices.get(key);
  matrices.delete(key);
  const matrix = known ?? build(map);
  matrices.set(key, matrix);
  if (matrices.size > KEPT) matrices.delete(matrices.keys().next().value as string);
  return matrix;
}

function build({ rows, columns, row }: AxisMap): Tensor {
  const dense = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) for (const [j, weight] of row(i)) dense[i * columns + j] += weight;
  return tensor(Float32Array.from(dense), [rows, columns]);
}

/** Replaces axis `axis` of x, of map.columns elements, by one of map.rows. */
export function alongAxis(x: Tensor, axis: number, map: AxisMap): Tensor {
  const [lead, tail] = [x.shape.slice(0, axis), x.shape.slice(axis + 1)];
  const matrix = matrixOf(map);
  const y =
    numel(tail) === 1
      ? x.reshape([numel(lead), map.columns]).matmul(matrix.transpose())
      : matrix.matmul(x.reshape([numel(lead), map.columns, numel(tail)]));
  return y.reshape([...lead, map.rows, ...tail]);
}
