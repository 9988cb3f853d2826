// Index algebra for movement ops. A kernel iterates over a Space; an Index says which element of a tensor's dimension a
// point of that space reads, as an affine form of the space's variables. Movement ops transform indices and never move
// data: reshape splits the space's dimensions where it must, and falls back to a division only where it cannot.

import { numel, type Shape } from "../shape.ts";

/** Sizes of the iteration variables of one kernel, outermost first. */
export type Space = readonly number[];

/** mul * floor(of / div): what remains of a reshape that is not affine, and of a pad with holes. */
export interface Quotient {
  readonly of: Index;
  readonly div: number;
  readonly mul: number;
}

/** off + sum coef[i] * x_i + sum of quotients, for x in the space. */
export class Index {
  readonly space: Space;
  readonly off: number;
  readonly coef: readonly number[];
  readonly quotients: readonly Quotient[];

  constructor(space: Space, off: number, coef: readonly number[], quotients: readonly Quotient[] = []) {
    this.space = space;
    this.off = off;
    this.coef = coef;
    this.quotients = quotients;
  }

  static constant(space: Space, value: number): Index {
    return new Index(
      space,
      value,
      space.map(() => 0),
    );
  }

  plus(n: number): Index {
    return new Index(this.space, this.off + n, this.coef, this.quotients);
  }

  times(n: number): Index {
    return new Index(
      this.space,
      this.off * n,
      this.coef.map((c) => c * n),
      n === 0 ? [] : this.quotients.map((q) => ({ ...q, mul: q.mul * n })),
    );
  }

  add(other: Index): Index {
    const coef = this.coef.map((c, i) => c + other.coef[i]);
    return new Index(this.space, this.off + other.off, coef, [...this.quotients, ...other.quotients]);
  }

  /** floor(this / n), exact when the affine parts divide. */
  over(n: number): Index {
    if (n === 1) return this;
    if (this.divisible(n)) return this.times(1 / n);
    return new Index(
      this.space,
      0,
      this.space.map(() => 0),
      [{ of: this, div: n, mul: 1 }],
    );
  }

  private divisible(n: number): boolean {
    return this.off % n === 0 && this.coef.every((c) => c % n === 0) && this.quotients.every((q) => q.mul % n === 0);
  }

  /** Smallest and largest value over the space. */
  range(): readonly [number, number] {
    let lo = this.off;
    let hi = this.off;
    this.coef.forEach((c, i) => {
      if (c > 0) hi += c * (this.space[i] - 1);
      else lo += c * (this.space[i] - 1);
    });
    for (const q of this.quotients) {
      const ends = q.of.range().map((v) => Math.floor(v / q.div) * q.mul);
      lo += Math.min(...ends);
      hi += Math.max(...ends);
    }
    return [lo, hi];
  }

  /** Does the value change with variable `i`? */
  uses(i: number): boolean {
    return this.coef[i] !== 0 || this.quotients.some((q) => q.of.uses(i));
  }

  /** Value at a point: for tests, and the float64 evaluation of views. */
  at(point: readonly number[]): number {
    const affine = this.coef.reduce((sum, c, i) => sum + c * point[i], this.off);
    return this.quotients.reduce((sum, q) => sum + q.mul * Math.floor(q.of.at(point) / q.div), affine);
  }

  key(): string {
    return `${this.off}:${this.coef.join()}${this.quotients.map((q) => `;${q.mul}*(${q.of.key()})/${q.div}`).join("")}`;
  }
}

/** `index` must lie in [lo, hi), and be a multiple of `step`, for the piece to apply. */
export interface Condition {
  readonly index: Index;
  readonly lo: number;
  readonly hi: number;
  readonly step: number;
}

/** Where a view reads: operand number, position in it, and when. The first piece that applies wins; none means zero. */
export interface Piece {
  readonly src: number;
  readonly at: readonly Index[];
  readonly when: readonly Condition[];
}

/** Thrown by `unflatten` when splitting variable `dim` into (outer, inner) makes the reshape affine. */
export class SplitRequest extends Error {
  readonly dim: number;
  readonly inner: number;
  constructor(dim: number, inner: number) {
    super(`split variable ${dim} by ${inner}`);
    this.dim = dim;
    this.inner = inner;
  }
}

/** Row-major position of `at` in `shape`. */
export function flatten(space: Space, at: readonly Index[], shape: Shape): Index {
  let sum = Index.constant(space, 0);
  let stride = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] > 1) sum = sum.add(at[i].times(stride));
    stride *= shape[i];
  }
  return sum;
}

/** Inverse of `flatten`. May throw SplitRequest: the caller refines its space and starts again. */
export function unflatten(linear: Index, shape: Shape): Index[] {
  let inner = numel(shape);
  let rest = linear;
  return shape.map((size) => {
    inner /= size;
    if (size === 1) return Index.constant(linear.space, 0);
    const [quotient, remainder] = divide(rest, inner);
    rest = remainder;
    return quotient;
  });
}

/** (floor(x / n), x mod n) for an x that is never negative. */
function divide(x: Index, n: number): [Index, Index] {
  const zero = Index.constant(x.space, 0);
  if (n === 1) return [x, zero];
  if (x.range()[1] < n) return [zero, x];
  const whole: number[] = [];
  const part: number[] = [];
  x.coef.forEach((c) => {
    whole.push(c % n === 0 ? c / n : 0);
    part.push(c % n === 0 ? 0 : c);
  });
  const wholeQ = x.quotients.filter((q) => q.mul % n === 0).map((q) => ({ ...q, mul: q.mul / n }));
  const partQ = x.quotients.filter((q) => q.mul % n !== 0);
  const wholeOff = Math.floor(x.off / n);
  const remainder = new Index(x.space, x.off - wholeOff * n, part, partQ);
  const [lo, hi] = remainder.range();
  if (lo >= 0 && hi < n) return [new Index(x.space, wholeOff, whole, wholeQ), remainder];
  part.forEach((c, i) => {
    const size = x.space[i];
    if (c > 0 && n % c === 0 && n / c < size && size % (n / c) === 0) throw new SplitRequest(i, n / c);
  });
  const quotient = x.over(n);
  return [quotient, x.add(quotient.times(-n))];
}

/** Reshape: position `at` in `to` becomes a position in `from`. Matching runs of dimensions pass through untouched. */
export function reshapeIndex(space: Space, at: readonly Index[], to: Shape, from: Shape): Index[] {
  const out: Index[] = [];
  if (numel(to) === 0) return from.map(() => Index.constant(space, 0)); // nothing is ever read
  let i = 0;
  let j = 0;
  while (i < to.length || j < from.length) {
    const i0 = i;
    const j0 = j;
    let m = to[i++] ?? 1;
    let n = from[j++] ?? 1;
    while (m !== n) {
      if (m < n) m *= to[i++];
      else n *= from[j++];
    }
    const block = to.slice(i0, i);
    const target = from.slice(j0, Math.min(j, from.length));
    if (block.length === 1 && target.length === 1) out.push(at[i0]);
    else out.push(...unflatten(flatten(space, at.slice(i0, i), block), target));
  }
  return out;
}
