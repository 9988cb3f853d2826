// Reading and writing by index. All of it rests on gatherRows and its deterministic gradient: a position along an axis
// becomes a row of the tensor seen as a table, so results and gradients have the same bits on every run. Indices are i32;
// those outside an axis are clamped into it. Layouts are torch's: nothing here knows channels.

import { ShapeError, show } from "../error.ts";
import { axisOf, numel, type Shape, stridesOf } from "../shape.ts";
import { type Tensor, zeros } from "../tensor.ts";

/** out[i][j][k] = x[i][index[i][j][k]][k] for axis 1: torch.gather. Other axes of `index` may be shorter than those of x. */
export function gather(x: Tensor, axis: number, index: Tensor): Tensor {
  const at = linearIndex("gather", x.shape, axis, index);
  return table(x)
    .gatherRows(at.reshape([-1]))
    .reshape(index.shape);
}

/** Slices of x along an axis in the order of a 1-D index: torch.index_select. */
export function indexSelect(x: Tensor, axis: number, index: Tensor): Tensor {
  const { a, rows, shape, at } = slices("indexSelect", x, axis, index);
  return rows.gatherRows(at).reshape([...shape.slice(0, a), index.shape[0], ...shape.slice(a + 1)]);
}

/** x with src[i][j][k] added to element [i][index[i][j][k]][k] (axis 1): torch.scatter_add. Sums run in the order of `src`. */
export function scatterAdd(x: Tensor, axis: number, index: Tensor, src: Tensor): Tensor {
  const at = linearIndex("scatterAdd", x.shape, axis, index);
  return x.add(sums(x, at, corner("scatterAdd", src, index.shape)));
}

/**
 * x with element [i][index[i][j][k]][k] (axis 1) replaced by src[i][j][k]: torch.scatter. Where several go to one place, the
 * last in row-major order wins; only it and the elements of x that stay get a gradient.
 */
export function scatter(x: Tensor, axis: number, index: Tensor, src: Tensor | number): Tensor {
  const at = linearIndex("scatter", x.shape, axis, index).reshape([-1]);
  const n = at.shape[0];
  const values = typeof src === "number" ? zeros(index.shape).add(src) : corner("scatter", src, index.shape);
  // Sorted by place, stably: the last of a run of equal places is the one that wins.
  const order = at.argsort();
  const places = gather(at, 0, order);
  const next = x
    .arange(n)
    .add(1)
    .minimum(n - 1);
  const wins = gather(places, 0, next)
    .notEqual(places)
    .or(x.arange(n).equal(n - 1));
  const written = sums(x, places, wins.where(gather(values.reshape([-1]), 0, order), 0));
  const hit = sums(x, places, wins.cast("f32")).greater(0);
  return hit.where(written, x);
}

/** x with alpha times the slices of src added to the slices that a 1-D index names: torch.index_add. */
export function indexAdd(x: Tensor, axis: number, index: Tensor, src: Tensor, alpha = 1): Tensor {
  const { rows, at } = slices("indexAdd", x, axis, index);
  const added = src.reshape([at.shape[0], rows.shape[1]]).gatherRowsGrad(at, rows.shape[0]);
  return x.add(added.mul(alpha).reshape(x.shape));
}

/** Rows of a table by an index of any shape: i32 [...] -> [..., features]. The row `paddingIdx` gets no gradient. */
export function embedding(index: Tensor, weight: Tensor, o: { paddingIdx?: number } = {}): Tensor {
  if (weight.rank !== 2 || index.dtype !== "i32")
    throw new ShapeError(
      `embedding: expected an i32 index and a table "n features", in this order, got ${index.dtype}${show(index.shape)} and ${weight.dtype}${show(weight.shape)}`,
    );
  const rows = weight.gatherRows(index);
  if (o.paddingIdx === undefined) return rows;
  const padding = o.paddingIdx < 0 ? o.paddingIdx + weight.shape[0] : o.paddingIdx;
  return index
    .equal(padding)
    .reshape([...index.shape, 1])
    .where(rows.detach(), rows);
}

/** i32 [...] -> i32 [..., classes]: 1 at the index, 0 elsewhere. */
export function oneHot(index: Tensor, classes: number): Tensor {
  return index
    .reshape([...index.shape, 1])
    .equal(index.arange(classes))
    .cast("i32");
}

/** x where mask is false, `value` where it is true. */
export function maskedFill(x: Tensor, mask: Tensor, value: number): Tensor {
  return mask.cast("bool").where(value, x);
}

/** The lower triangle of the last two axes, up to diagonal `diagonal`; zeros elsewhere. */
export function tril(x: Tensor, diagonal = 0): Tensor {
  const { row, column } = grid("tril", x);
  return column.lessEqual(row.add(diagonal)).where(x, 0);
}

/** The upper triangle of the last two axes, from diagonal `diagonal` on; zeros elsewhere. */
export function triu(x: Tensor, diagonal = 0): Tensor {
  const { row, column } = grid("triu", x);
  return column.greaterEqual(row.add(diagonal)).where(x, 0);
}

/** Moves elements along axes by `shifts` places, those that leave at one end come in at the other: torch.roll. */
export function roll(x: Tensor, shifts: readonly number[], axes: readonly number[]): Tensor {
  if (shifts.length !== axes.length)
    throw new ShapeError(`roll: ${shifts.length} shifts for ${axes.length} axes of ${show(x.shape)}`);
  return axes.reduce((y, axis, i) => {
    const n = y.shape[axisOf("roll", axis, y.rank)];
    const cut = n === 0 ? 0 : ((-shifts[i] % n) + n) % n;
    return cut === 0 ? y : y.slice(axis, cut, n).concat([y.slice(axis, 0, cut)], axis);
  }, x);
}

/** Each element `repeats` times in a row along an axis: torch.repeat_interleave. */
export function repeatInterleave(x: Tensor, repeats: number, axis: number): Tensor {
  const a = axisOf("repeatInterleave", axis, x.rank);
  const [before, after] = [x.shape.slice(0, a + 1), x.shape.slice(a + 1)];
  const to = x.shape.map((n, i) => (i === a ? n * repeats : n));
  return x
    .reshape([...before, 1, ...after])
    .expand([...before, repeats, ...after])
    .reshape(to);
}

/** The whole tensor `repeats[i]` times along axis i; missing leading axes are added: torch's Tensor.repeat, np.tile. */
export function tile(x: Tensor, repeats: readonly number[]): Tensor {
  const rank = Math.max(x.rank, repeats.length);
  const shape = [...new Array<number>(rank - x.rank).fill(1), ...x.shape];
  const times = [...new Array<number>(rank - repeats.length).fill(1), ...repeats];
  const apart = shape.flatMap((n, i) => [times[i], n]);
  return x
    .reshape(shape.flatMap((n) => [1, n]))
    .expand(apart)
    .reshape(shape.map((n, i) => n * times[i]));
}

/** The tensors, which share a shape, along a new axis. */
export function stack(xs: readonly Tensor[], axis = 0): Tensor {
  const a = axisOf("stack", axis, xs[0].rank + 1);
  const lifted = xs.map((x) => x.reshape([...x.shape.slice(0, a), 1, ...x.shape.slice(a)]));
  return lifted[0].concat(lifted.slice(1), a);
}

// ---- places ----------------------------------------------------------------------------------------------------------

/** x as a table of single numbers. */
function table(x: Tensor): Tensor {
  return x.reshape([numel(x.shape), 1]);
}

/** Sum of `values` over the elements that go to each place of x, in their order. */
function sums(x: Tensor, at: Tensor, values: Tensor): Tensor {
  const n = numel(at.shape);
  return values
    .reshape([n, 1])
    .gatherRowsGrad(at.reshape([n]), numel(x.shape))
    .reshape(x.shape);
}

/** The part of src that an index of `shape` reads: torch lets src be larger. */
function corner(op: string, src: Tensor, shape: Shape): Tensor {
  if (src.rank !== shape.length || shape.some((n, i) => n > src.shape[i]))
    throw new ShapeError(`${op}: an index ${show(shape)} needs a src at least as large, got ${show(src.shape)}`);
  return shape.reduce<Tensor>((part, n, axis) => part.slice(axis, 0, n), src);
}

/** Row-major position in `shape` of [i, index[i, j, k], k] for every element of `index`, clamped along `axis`. */
function linearIndex(op: string, shape: Shape, axis: number, index: Tensor): Tensor {
  const a = axisOf(op, axis, shape.length);
  if (index.rank !== shape.length || index.shape.some((n, i) => i !== a && n > shape[i]))
    throw new ShapeError(
      `${op}: an index ${show(index.shape)} does not fit ${show(shape)} along axis ${axis} (same rank, other axes no longer)`,
    );
  const strides = stridesOf(shape);
  const inside = index
    .maximum(0)
    .minimum(shape[a] - 1)
    .mul(strides[a]);
  return index.shape.reduce((sum, n, i) => {
    if (i === a || n === 1) return sum;
    const position = index
      .arange(n)
      .mul(strides[i])
      .reshape(index.shape.map((_, j) => (j === i ? n : 1)));
    return sum.add(position);
  }, inside);
}

/** x as rows [outer * n * ..., inner] and the rows that a 1-D index along `axis` means. */
function slices(op: string, x: Tensor, axis: number, index: Tensor) {
  const a = axisOf(op, axis, x.rank);
  if (index.rank !== 1) throw new ShapeError(`${op}: expected an index "k", got ${show(index.shape)}`);
  const { shape } = x;
  const [outer, n, inner] = [numel(shape.slice(0, a)), shape[a], numel(shape.slice(a + 1))];
  const inside = index.maximum(0).minimum(n - 1);
  const at = index
    .arange(outer)
    .mul(n)
    .reshape([outer, 1])
    .add(inside)
    .reshape([outer * index.shape[0]]);
  return { a, shape, at, rows: x.reshape([outer * n, inner]) };
}

/** Row and column numbers of the last two axes. */
function grid(op: string, x: Tensor): { row: Tensor; column: Tensor } {
  if (x.rank < 2) throw new ShapeError(`${op}: expected at least two axes, got ${show(x.shape)}`);
  const [rows, columns] = x.shape.slice(-2);
  return { row: x.arange(rows).reshape([rows, 1]), column: x.arange(columns) };
}
