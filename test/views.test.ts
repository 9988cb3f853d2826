// The index algebra behind movement ops, against brute force: every point of small random spaces. No graph, no device.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { flatten, Index, reshapeIndex, type Space, SplitRequest, unflatten } from "../engine/ops/view.ts";
import { numel, type Shape, stridesOf } from "../engine/shape.ts";

const shapes = fc.array(fc.integer({ min: 1, max: 6 }), { maxLength: 4 });

function* points(space: Space): Generator<number[]> {
  const strides = stridesOf(space);
  for (let i = 0; i < numel(space); i++) yield space.map((n, axis) => Math.floor(i / strides[axis]) % n);
}

const variables = (space: Space): Index[] =>
  space.map(
    (_, i) =>
      new Index(
        space,
        0,
        space.map((_, j) => Number(i === j)),
      ),
  );
const position = (at: readonly number[], shape: Shape): number =>
  stridesOf(shape).reduce((sum, s, i) => sum + s * at[i], 0);

/** `f` on variables of a space that is split further as often as it asks, and the sizes it ended with. */
function refined<T>(space: Space, f: (vars: readonly Index[]) => T): { value: T; sizes: Space } {
  let splits = space.map((n) => [n]);
  for (;;) {
    const sizes = splits.flat();
    let first = 0;
    const vars = splits.map((size) => {
      const strides = stridesOf(size);
      const coef = sizes.map((_, j) => (j >= first && j < first + size.length ? strides[j - first] : 0));
      first += size.length;
      return new Index(sizes, 0, coef);
    });
    try {
      return { value: f(vars), sizes };
    } catch (e) {
      if (!(e instanceof SplitRequest)) throw e;
      let dim = e.dim;
      splits = splits.map((s) => {
        const at = dim;
        dim -= s.length;
        return at >= 0 && at < s.length ? [...s.slice(0, at), s[at] / e.inner, e.inner, ...s.slice(at + 1)] : s;
      });
    }
  }
}

/** Another shape with as many elements. */
function reshaped(n: number, cuts: readonly number[]): number[] {
  const out: number[] = [];
  let rest = n;
  for (const cut of cuts) {
    const divisors = Array.from({ length: rest }, (_, i) => i + 1).filter((k) => rest % k === 0);
    out.push(divisors[cut % divisors.length]);
    rest /= out[out.length - 1];
  }
  return [...out, rest];
}

const cuts = fc.array(fc.nat({ max: 11 }), { maxLength: 3 });
const settings = { seed: 1, numRuns: 200 };

describe("positions", () => {
  test("flatten is the row-major position, and unflatten undoes it", () => {
    fc.assert(
      fc.property(shapes, (shape) => {
        const linear = flatten(shape, variables(shape), shape);
        const back = unflatten(linear, shape);
        for (const p of points(shape)) {
          expect(linear.at(p)).toBe(position(p, shape));
          expect(back.map((i) => i.at(p))).toEqual(p);
        }
      }),
      settings,
    );
  });

  test("reshape of a permuted, flipped and shifted view", () => {
    fc.assert(
      fc.property(shapes, cuts, fc.nat(), fc.boolean(), (shape, cut, turn, flip) => {
        const from = reshaped(numel(shape), cut);
        const order = shape.map((_, i) => (i + turn) % shape.length);
        const space = order.map((o) => shape[o]);
        // Position of a point of `space` in `shape`: turned back, and mirrored along the first axis.
        const place = (at: readonly number[]): number[] =>
          shape.map((n, i) => (flip && i === 0 ? n - 1 - at[order.indexOf(i)] : at[order.indexOf(i)]));
        const { value, sizes } = refined(space, (vars) => {
          const at = shape.map((n, i) =>
            flip && i === 0 ? vars[order.indexOf(i)].times(-1).plus(n - 1) : vars[order.indexOf(i)],
          );
          return reshapeIndex(vars[0]?.space ?? [], at, shape, from);
        });
        const coarse = [...points(space)];
        [...points(sizes)].forEach((p, i) => {
          const got = value.map((x) => x.at(p));
          expect(got.every((x, axis) => x >= 0 && x < from[axis])).toBe(true);
          expect(position(got, from)).toBe(position(place(coarse[i]), shape));
        });
      }),
      settings,
    );
  });

  test("over is floor division, and range holds every value", () => {
    fc.assert(
      fc.property(
        shapes,
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: -3, max: 4 }),
        fc.nat({ max: 9 }),
        (shape, n, factor, offset) => {
          const x = flatten(shape, variables(shape), shape).plus(offset);
          const y = x.over(n).times(factor).plus(1);
          const [lo, hi] = y.range();
          for (const p of points(shape)) {
            const want = Math.floor(x.at(p) / n) * factor + 1;
            expect(y.at(p)).toBe(want);
            expect(want >= lo && want <= hi).toBe(true);
          }
        },
      ),
      settings,
    );
  });
});

test("the brute-force check sees a transposed reshape", () => {
  const shape = [2, 3];
  const wrong = unflatten(flatten(shape, variables(shape), shape), [3, 2]);
  const right = [...points(shape)].every(
    (p) =>
      position(
        wrong.map((i) => i.at(p)),
        [2, 3],
      ) === position(p, shape),
  );
  expect(right).toBe(false);
});
