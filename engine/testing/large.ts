// Programs whose sizes lie around the ends of tiles, teams of lanes and passes: one product or reduction each, with work
// before and behind it, which the small programs of programs.ts never make long.

import type { Draw } from "../../kernels/wgsl.ts";
import type { Tensor } from "../tensor.ts";
import type { MakeLeaf } from "./programs.ts";

const EDGES = [1, 3, 4, 7, 8, 9, 16, 31, 32, 33, 63, 64, 65, 68, 127, 128, 129, 255, 256, 260];
const LONG = [...EDGES, 1000, 1023, 1024, 1028, 4100];
/** Largest tensor: the reference takes a second for a product of three such sides. */
const MOST = 2 ** 17;

function before(d: Draw, x: Tensor): Tensor {
  return d.pick([() => x, () => x.mul(0.5), () => x.tanh(), () => x.flip([-1]), () => x.square().add(-0.5)])();
}

function behind(d: Draw, x: Tensor, make: MakeLeaf): Tensor {
  const row = x.shape.slice(-1);
  return d.pick([
    () => x,
    () => x.add(make(row)),
    () => x.add(make(row)).silu().add(make(x.shape)),
    () => x.mul(make([...x.shape.slice(0, -1), 1])),
    () => (x.rank > 1 ? x.transpose().mul(2) : x),
  ])();
}

function reduction(d: Draw, make: MakeLeaf): Tensor {
  const rows = d.pick(EDGES);
  const x = before(d, make([rows, d.pick(LONG.filter((n) => n * rows <= MOST))]));
  const y = d.pick([() => x, () => x.transpose()])();
  const axis = d.pick([0, 1]);
  const n = y.shape[axis];
  const kept = { keepdims: true };
  return d.pick([
    () => y.sum(axis, kept).mul(1 / n),
    () => y.max(axis, kept),
    () => y.mean().reshape([1, 1]),
    () => y.softmax().mul(y.shape[1]),
    () => y.sub(y.mean(axis, kept)),
  ])();
}

function product(d: Draw, make: MakeLeaf): Tensor {
  const side = (): number => d.pick(EDGES.filter((n) => n <= 130));
  const [m, k, n] = [side(), d.pick(EDGES), side()];
  const batch = d.pick<number[]>([[], [], [2], [2, 3]]);
  const a = d.pick([() => make([...batch, m, k]), () => make([...batch, k, m]).transpose()])();
  const b = d.pick([() => make([...batch, k, n]), () => make([...batch, n, k]).transpose()])();
  return before(d, a)
    .matmul(b)
    .mul(1 / k);
}

/** A program of one large product or reduction. */
export function drawLarge(d: Draw, make: MakeLeaf): Tensor[] {
  const core = d.pick([product, reduction])(d, make);
  return [behind(d, core, make)];
}
