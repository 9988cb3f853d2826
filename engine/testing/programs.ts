// Random programs for the tests of fusion and planning: graphs of 3 to 12 ops over the op table, biased to what compilers
// get wrong (views of views, broadcasts, reductions with work on both sides, values used twice, several results).

import type { Draw } from "../../kernels/wgsl.ts";
import { vjp } from "../autograd.ts";
import type { DType } from "../dtype.ts";
import { avgPool, interpolate } from "../nn/index.ts";
import { broadcast, numel, type Shape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";

export type MakeLeaf = (shape: Shape, dtype?: DType, below?: number) => Tensor;

/** Makes a program out of choices and leaves; gives back its results. */
export type DrawProgram = (d: Draw, make: MakeLeaf) => Tensor[];

/** Largest tensor drawn: index arithmetic does not get harder with size, and software adapters are slow. */
const MOST = 600;
const SIZES = [1, 2, 3, 4, 5, 8];

function shapeOf(d: Draw): number[] {
  const shape = Array.from({ length: d.int(0, 4) }, () => d.pick(SIZES));
  while (numel(shape) > MOST) shape.pop();
  return shape;
}

/** A factorisation of `n` into up to four sizes. */
function factors(d: Draw, n: number): number[] {
  const out: number[] = [];
  let rest = n;
  for (let i = d.int(0, 3); i > 0; i--) {
    const f = d.pick(Array.from({ length: rest }, (_, j) => j + 1).filter((k) => rest % k === 0));
    out.push(f);
    rest /= f;
  }
  return rest === 1 && out.length > 0 ? out : [...out, rest];
}

function unary(d: Draw, x: Tensor): Tensor {
  return d.pick<() => Tensor>([
    () => x.mul(0.5),
    () => x.tanh(),
    () => x.add(1),
    () => x.neg(),
    () => x.sigmoid(),
    () => x.sin(),
    () => x.abs(),
    () => x.relu(),
    () => x.square().mul(0.25),
    () => x.less(0.1).where(x, 0.5),
    () => x.less(0).cast("f32").add(x),
    () => x.mul(3).cast("i32").add(1).cast("f32").mul(0.1).add(x),
  ])();
}

function movement(d: Draw, x: Tensor, other: Tensor): Tensor {
  const { shape } = x;
  const axis = shape.length > 0 ? d.int(0, shape.length - 1) : 0;
  const order: number[] = [];
  for (const a of shape.keys()) order.splice(d.int(0, order.length), 0, a);
  const lead = Array.from({ length: d.int(0, 2) }, () => d.pick([1, 2, 3, 4]));
  const stretched = [...lead, ...shape.map((n) => (n === 1 ? d.pick([1, 4, 3]) : n))];
  const sides = shape.map((): [number, number] => [d.int(0, 2), d.int(0, 4)]);
  const spread = {
    low: sides.map((s) => s[0]),
    high: sides.map((s) => s[1]),
    holes: shape.map(() => d.pick([0, 0, 1, 2])),
  };
  return d.pick<() => Tensor>([
    () => x.reshape(factors(d, numel(shape))),
    () => x.permute(order),
    () => x.expand(stretched),
    () => (shape.length > 0 ? strided(d, x) : x),
    () => x.flip(shape.length > 0 ? [axis] : []),
    () => x.pad(sides),
    () => x.padWith(spread),
    () => (shape.length > 0 ? x.concat([d.pick([x, x.mul(2)]), x.slice(axis, 0, d.int(1, shape[axis]))], axis) : x),
    () => x.reshape([numel(shape)]).concat([other.reshape([numel(other.shape)])], 0),
  ])();
}

function strided(d: Draw, x: Tensor): Tensor {
  const size = x.shape.map((n) => d.int(1, n));
  const step = x.shape.map(
    (n, i) => d.int(1, size[i] === 1 ? 1 : Math.floor((n - 1) / (size[i] - 1))) * d.pick([1, 1, -1]),
  );
  const start = x.shape.map((n, i) => {
    const span = (size[i] - 1) * Math.abs(step[i]);
    return step[i] > 0 ? d.int(0, n - 1 - span) : n - 1 - d.int(0, n - 1 - span);
  });
  return x.sliceWith({ start, size, step });
}

function combine(d: Draw, x: Tensor, y: Tensor): Tensor {
  const other = compatible(x.shape, y.shape) ? y : y.mean();
  return d.pick<() => Tensor>([
    () => x.add(other),
    () => x.mul(other),
    () => x.sub(other),
    () => x.maximum(other),
    () => x.less(other).where(x, other),
  ])();
}

function compatible(a: Shape, b: Shape): boolean {
  try {
    return numel(broadcast("add", a, b)) <= MOST;
  } catch {
    return false;
  }
}

function reduce(d: Draw, x: Tensor): Tensor {
  const axes = x.shape.flatMap((_, i) => (d.pick([true, false]) ? [i] : []));
  const keepdims = d.pick([true, false]);
  return d.pick<() => Tensor>([
    () => x.mean(axes, { keepdims }),
    () => x.max(axes, { keepdims }),
    () =>
      x
        .sum(axes, { keepdims })
        .mul(0.1)
        .add(x.rank > 0 && keepdims ? x.mean(axes, { keepdims }) : 1),
    () => x.sub(x.mean(axes, { keepdims: true })),
  ])();
}

function product(d: Draw, x: Tensor, make: MakeLeaf): Tensor {
  if (x.rank < 2) return x.rank === 1 ? x.reshape([x.shape[0], 1]).matmul(make([1, d.pick([1, 3, 4])])) : x;
  const k = x.shape[x.rank - 1];
  const n = d.pick([1, 3, 4, 8]);
  const scale = 1 / k;
  return d.pick<() => Tensor>([
    () => x.matmul(make([k, n])).mul(scale),
    () => x.matmul(x.transpose()).mul(scale),
    () =>
      x
        .matmul(make([n, k]).transpose())
        .mul(scale)
        .add(make([n]))
        .tanh(),
    () =>
      x
        .matmul(make([k, n]))
        .add(x.tanh().matmul(make([k, n])))
        .mul(scale),
    () =>
      x
        .transpose()
        .matmul(x)
        .mul(1 / x.shape[x.rank - 2]),
    () =>
      x
        .matmul(make([k, 2 * n]))
        .slice(-1, d.int(0, n), 2 * n)
        .mul(scale),
  ])();
}

function lookup(d: Draw, x: Tensor, make: MakeLeaf): Tensor {
  if (x.rank !== 2) return x.rank > 0 ? x.softmax() : x;
  return x.gatherRows(make([d.pick([1, 3, 4])], "i32", x.shape[0]));
}

/** Kernels that want four axes: convolution, attention, pooling, on `x` cut into such a shape. */
function block(d: Draw, x: Tensor, make: MakeLeaf): Tensor {
  const sizes = [1, 1, 1, ...factors(d, numel(x.shape))].slice(-4);
  const x4 = x.reshape(sizes);
  const [, h, w, c] = x4.shape;
  return d.pick<() => Tensor>([
    () => x4.conv(make([3, 3, c, d.pick([1, 4])]), { padding: 1, stride: d.pick([1, 2]) }).mul(1 / c),
    () => x4.conv(make([d.int(1, Math.min(h, 3)), 1, c, 3])).mul(1 / c),
    () => x4.attention(x4.mul(0.5), x4.flip([1]), { causal: d.pick([true, false]) }),
    () => (h > 1 && w > 1 ? avgPool(x4, 2) : x4.softmax()),
    () => interpolate(x4, { size: [d.int(1, 5), d.int(1, 5)] }),
  ])();
}

/** One op, or a few, on `x`; `other` is a second value to combine it with. */
function step(d: Draw, x: Tensor, other: Tensor, make: MakeLeaf): Tensor {
  return d.pick<() => Tensor>([
    () => unary(d, x),
    () => combine(d, x, other),
    () => movement(d, x, other),
    () => movement(d, x, other),
    () => reduce(d, x),
    () => product(d, x, make),
    () => d.pick([() => lookup(d, x, make), () => (numel(x.shape) > 0 ? block(d, x, make) : x)])(),
  ])();
}

/** Results of a random program, the last op's first. */
export function drawProgram(d: Draw, make: MakeLeaf): Tensor[] {
  const pool = Array.from({ length: d.int(1, 3) }, () => make(shapeOf(d)));
  for (let i = d.int(2, 9); i > 0; i--) {
    // Late values are picked more often, so that programs are deep rather than wide.
    const x = d.pick([pool[pool.length - 1], d.pick(pool)]);
    const made = step(d, x, d.pick(pool), make);
    if (numel(made.shape) <= MOST) pool.push(made);
  }
  const last = pool[pool.length - 1];
  const results = d.pick([[last], [last, d.pick(pool)], [last, d.pick(pool), d.pick(pool)]]);
  // A backward pass reads what the forward pass has computed, in the opposite order and other layouts.
  return d.pick([() => results, () => [...results, ...vjp(last, [pool[0]], make(last.shape))]])();
}
