// What a matrix product is, to all its kernels: where the operands lie and how they may be loaded. The kernels are in
// matmul.ts (tiles) and matvec.ts (few rows).

import type { LoadA, LoadB } from "./gemm.ts";
import type { Epilogue } from "./wgsl.ts";

/**
 * Where an operand's elements lie, in elements: A[b0, b1, i, kk] at offset + b0 * batch[0] + b1 * batch[1] + i * row +
 * kk * col, and B[b0, b1, kk, j] with row as the stride of kk and col as that of j. A stride of 0 broadcasts.
 */
export interface StridedOperand {
  readonly offset: number;
  readonly batch: readonly [number, number];
  readonly row: number;
  readonly col: number;
}

/**
 * One half of a matrix [rows, columns], all others being zero: "lower" has the columns j <= i + diagonal of row i, "upper" those
 * j >= i + diagonal. Of A ("left"), whatever lies in the other half, or of C ("result"). Causal attention is made of them.
 */
export interface Triangle {
  readonly of: "left" | "result";
  readonly half: "lower" | "upper";
  readonly diagonal: number;
}

/** Does element [i, j] belong to the half? */
export function counts({ half, diagonal }: Triangle, i: number, j: number): boolean {
  return half === "lower" ? j <= i + diagonal : j >= i + diagonal;
}

/** C is contiguous [batch[0], batch[1], m, n]; the row of an epilogue counts over [batch[0], batch[1], m]. */
export interface MatmulSpec {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly batch: readonly [number, number];
  readonly a: StridedOperand;
  readonly b: StridedOperand;
  readonly epilogue?: Epilogue;
  /** f16 holds every element of A and B exactly: matrix units for f16 lose nothing. */
  readonly halves?: boolean;
  readonly triangle?: Triangle;
}

/** Every load of 4 along the dimension with stride 1 is aligned; strides over dimensions of size 1 do not count. */
function aligned(o: StridedOperand, batch: readonly [number, number], outer: number, length: number): boolean {
  const steps = [o.offset, batch[0] > 1 ? o.batch[0] : 0, batch[1] > 1 ? o.batch[1] : 0, outer, length];
  return steps.every((s) => s % 4 === 0);
}

/** How the tiles load A. */
export function loadOfA({ a, batch, m, k }: MatmulSpec): LoadA {
  if (a.col === 1 && aligned(a, batch, m > 1 ? a.row : 0, k)) return "k4";
  if (a.row === 1 && aligned(a, batch, k > 1 ? a.col : 0, m)) return "m4";
  return "any";
}

/** How the tiles load B. */
export function loadOfB({ b, batch, n, k }: MatmulSpec): LoadB {
  if (b.col === 1 && aligned(b, batch, k > 1 ? b.row : 0, n)) return "n4";
  if (b.row === 1 && aligned(b, batch, n > 1 ? b.col : 0, k)) return "k4";
  return "any";
}
