// The layers against plain loops, and their gradients against central differences, in float64 on the reference; the same
// values from the GPU; and what Module promises: names, seeds, counting, freezing.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { compile, grad, type Parameter, Rng, type Tensor, tensor, useDevice } from "../engine/index.ts";
import * as nn from "../engine/nn/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { numel, type Shape } from "../engine/shape.ts";
import { drawer, uniforms, values } from "../engine/testing/draw.ts";
import { gradientProblem, Inputs } from "../engine/testing/gradients.ts";
import type { Draw } from "../kernels/wgsl.ts";
import { difference, expectClose } from "./close.ts";
import { onEach, onGpu } from "./device.ts";

/** One element of a row-major array. */
type At = (...index: number[]) => number;
const reader = (data: ArrayLike<number>, shape: Shape): At => {
  return (...index) => data[index.reduce((flat, i, axis) => flat * shape[axis] + i, 0)];
};
const sum = (n: number, f: (i: number) => number): number =>
  Array.from({ length: n }, (_, i) => f(i)).reduce((a, b) => a + b, 0);
/** All elements of a row-major array, from a function of the index. */
function filled(shape: Shape, f: At): number[] {
  return Array.from({ length: numel(shape) }, (_, flat) => {
    const index: number[] = [];
    for (let rest = flat, axis = shape.length - 1; axis >= 0; axis--) {
      index.unshift(rest % shape[axis]);
      rest = Math.floor(rest / shape[axis]);
    }
    return f(...index);
  });
}

/** A layer at drawn sizes: its inputs, and its definition as loops over plain arrays. */
interface Case {
  readonly layer: nn.Module & { forward(x: Tensor, context?: Tensor): Tensor };
  readonly inputs: readonly { readonly shape: Shape; readonly dtype?: "i32"; readonly below?: number }[];
  loops(x: readonly At[], p: Readonly<Record<string, At>>): { shape: Shape; at: At };
}

function linear(d: Draw): Case {
  const [b, n, i, o] = [d.int(1, 2), d.int(1, 3), d.int(1, 5), d.int(1, 4)];
  return {
    layer: new nn.Linear(i, o),
    inputs: [{ shape: [b, n, i] }],
    loops: ([x], { weight, bias }) => ({
      shape: [b, n, o],
      at: (r, s, f) => bias(f) + sum(i, (k) => x(r, s, k) * weight(f, k)),
    }),
  };
}

function conv(d: Draw): Case {
  const [b, h, w, i, o] = [d.int(1, 2), d.int(3, 5), d.int(3, 6), d.int(1, 3), d.int(1, 3)];
  const [kh, kw, stride, padding] = [d.int(1, 3), d.int(1, 3), d.int(1, 2), d.int(0, 1)];
  const sizeOf = (n: number, k: number): number => Math.floor((n + 2 * padding - k) / stride) + 1;
  const inside = (y: number, x: number): boolean => y >= 0 && y < h && x >= 0 && x < w;
  return {
    layer: new nn.Conv(i, o, [kh, kw], { stride, padding }),
    inputs: [{ shape: [b, h, w, i] }],
    loops: ([x], { weight, bias }) => ({
      shape: [b, sizeOf(h, kh), sizeOf(w, kw), o],
      at: (r, y, c, f) => {
        const tap = (u: number, v: number): number => {
          const [row, col] = [y * stride + u - padding, c * stride + v - padding];
          return inside(row, col) ? sum(i, (k) => x(r, row, col, k) * weight(u, v, k, f)) : 0;
        };
        return bias(f) + sum(kh, (u) => sum(kw, (v) => tap(u, v)));
      },
    }),
  };
}

/** Mean and 1 / sqrt(variance + eps) of a list. */
function moments(list: readonly number[], eps: number): [number, number] {
  const mean = sum(list.length, (i) => list[i]) / list.length;
  return [mean, 1 / Math.sqrt(sum(list.length, (i) => (list[i] - mean) ** 2) / list.length + eps)];
}

function groupNorm(d: Draw): Case {
  const [b, f, h, groups, each] = [d.int(1, 2), d.int(1, 2), d.int(1, 3), d.int(1, 3), d.int(1, 3)];
  const shape = [b, f, h, groups * each];
  return {
    layer: new nn.GroupNorm(groups, groups * each, 1e-2),
    inputs: [{ shape }],
    loops: ([x], { weight, bias }) => ({
      shape,
      at: (r, t, y, c) => {
        const first = Math.floor(c / each) * each;
        const [mean, scale] = moments(
          filled([f, h, each], (u, v, k) => x(r, u, v, first + k)),
          1e-2,
        );
        return (x(r, t, y, c) - mean) * scale * weight(c) + bias(c);
      },
    }),
  };
}

function layerNorm(d: Draw): Case {
  const shape = [d.int(1, 2), d.int(1, 3), d.int(2, 6)];
  return {
    layer: new nn.LayerNorm(shape[2], 1e-2),
    inputs: [{ shape }],
    loops: ([x], { weight, bias }) => ({
      shape,
      at: (r, s, c) => {
        const [mean, scale] = moments(
          filled([shape[2]], (k) => x(r, s, k)),
          1e-2,
        );
        return (x(r, s, c) - mean) * scale * weight(c) + bias(c);
      },
    }),
  };
}

function embedding(d: Draw): Case {
  const [rows, features, b, n] = [d.int(1, 5), d.int(1, 4), d.int(1, 2), d.int(1, 4)];
  return {
    layer: new nn.Embedding(rows, features),
    inputs: [{ shape: [b, n], dtype: "i32", below: rows }],
    loops: ([index], { weight }) => ({ shape: [b, n, features], at: (r, s, f) => weight(index(r, s), f) }),
  };
}

function attention(d: Draw): Case {
  const [b, n, m, features, context] = [d.int(1, 2), d.int(1, 3), d.int(1, 4), d.int(1, 4), d.int(1, 4)];
  const [heads, dim] = [d.int(1, 2), d.int(1, 3)];
  return {
    layer: new nn.Attention(features, { heads, dim, context }),
    inputs: [{ shape: [b, n, features] }, { shape: [b, m, context] }],
    loops: ([x, c], p) => {
      const q = (r: number, i: number, e: number): number => sum(features, (k) => x(r, i, k) * p["to_q.weight"](e, k));
      const key = (r: number, j: number, e: number): number => sum(context, (k) => c(r, j, k) * p["to_k.weight"](e, k));
      const value = (r: number, j: number, e: number): number =>
        sum(context, (k) => c(r, j, k) * p["to_v.weight"](e, k));
      /** Output feature e of head floor(e / dim) at position i. */
      const attended = (r: number, i: number, e: number): number => {
        const first = Math.floor(e / dim) * dim;
        const logit = (j: number): number =>
          sum(dim, (k) => q(r, i, first + k) * key(r, j, first + k)) / Math.sqrt(dim);
        const total = sum(m, (j) => Math.exp(logit(j)));
        return sum(m, (j) => (Math.exp(logit(j)) / total) * value(r, j, e));
      };
      return {
        shape: [b, n, features],
        at: (r, i, f) =>
          p["to_out.0.bias"](f) + sum(heads * dim, (e) => attended(r, i, e) * p["to_out.0.weight"](f, e)),
      };
    },
  };
}

const layers: Readonly<Record<string, (d: Draw) => Case>> = {
  linear,
  conv,
  groupNorm,
  layerNorm,
  embedding,
  attention,
};

/** Inputs and parameters at random values, as the layer and as the loops take them. */
function prepare({ layer, inputs: wanted }: Case, seed: number) {
  const inputs = new Inputs(seed);
  const next = uniforms(seed + 1);
  const xs = wanted.map((w) => inputs.make(w, [-1, 1]));
  const state = layer.state();
  for (const p of state.values()) {
    const data = values({ shape: p.shape }, next, [-1, 1]);
    p.write(data);
    inputs.values.set(p.node, { shape: p.shape, data: Float64Array.from(data) });
  }
  const arrays = [...xs, ...state.values()].map((t) =>
    reader((inputs.values.get(t.node) as { data: Float64Array }).data, t.shape),
  );
  const named = Object.fromEntries([...state.keys()].map((name, i) => [name, arrays[xs.length + i]]));
  return { inputs, xs, state, loops: arrays.slice(0, xs.length), named };
}

describe.each(Object.entries(layers))("%s", (_, make) => {
  test("computes what its loops do, and its gradients are right", () => {
    useDevice(new ReferenceDevice());
    fc.assert(
      fc.property(fc.gen(), fc.nat(), (g, seed) => {
        const drawn = make(drawer(g));
        const { inputs, xs, state, loops, named } = prepare(drawn, seed);
        const out = drawn.layer.forward(xs[0], xs[1]);
        const want = drawn.loops(loops, named);
        expect(out.shape).toEqual(want.shape);
        // Both are float64: what is left is the order of summation.
        expectClose(inputs.evaluate([out])[0], filled(want.shape, want.at), "forward", { rtol: 1e-12, scale: 1 });
        const wrt = [...xs.filter((x) => x.dtype === "f32"), ...state.values()];
        expect(gradientProblem(out, wrt, inputs, seed)).toBe(null);
      }),
      { numRuns: 12, seed: 7 },
    );
  });
});

test("the comparison notices heads taken apart in the wrong order", () => {
  useDevice(new ReferenceDevice());
  const drawn = attention({ int: (_, hi) => hi, pick: ([first]) => first });
  const { inputs, xs, loops, named } = prepare(drawn, 3);
  const swap =
    (name: string): At =>
    (e, k) =>
      named[name]((e % 2) * 3 + Math.floor(e / 2), k); // "(d h)" for "(h d)"
  const wrong = drawn.loops(loops, {
    ...named,
    "to_q.weight": swap("to_q.weight"),
    "to_k.weight": swap("to_k.weight"),
  });
  const got = inputs.evaluate([drawn.layer.forward(xs[0], xs[1])])[0];
  expect(difference(got, filled(wrong.shape, wrong.at), { rtol: 1e-3, scale: 1 })).not.toBe(null);
});

onGpu("all layers compute the same on the GPU", async () => {
  const cases = Object.entries(layers).map(([name, make]) => {
    const drawn = make({ int: (lo, hi) => Math.max(lo, hi - 1), pick: ([first]) => first });
    return { name, drawn, ...prepare(drawn, 11) };
  });
  const feeds = cases.flatMap(({ name, xs, inputs }) =>
    xs.map((x, i): [string, Tensor] => {
      const { data } = inputs.values.get(x.node) as { data: Float64Array };
      return [
        `${name}${i}`,
        x.dtype === "i32" ? tensor(Int32Array.from(data), x.shape) : tensor(Float32Array.from(data), x.shape),
      ];
    }),
  );
  const step = compile((x: Readonly<Record<string, Tensor>>) =>
    Object.fromEntries(cases.map(({ name, drawn }) => [name, drawn.layer.forward(x[`${name}0`], x[`${name}1`])])),
  );
  const out = step(Object.fromEntries(feeds));
  for (const { name, drawn, loops, named } of cases) {
    const want = drawn.loops(loops, named);
    expectClose(await out[name].data(), filled(want.shape, want.at), name, { rtol: 1e-5 }); // float32, sums of at most 50
  }
});

onEach("dropout keeps the mean, scales what it leaves, and uses one mask both ways", async () => {
  const [p, n] = [0.25, 16_384];
  const rng = new Rng(3);
  const step = compile(({ x }: { x: Tensor }) => {
    const y = nn.dropout(x, p, rng);
    return { y, g: grad(y.sum(), [x])[0] };
  });
  const run = async (): Promise<[number[], number[]]> => {
    const { y, g } = step({ x: tensor(new Float32Array(n).fill(3), [n]) });
    return [[...(await y.data())], [...(await g.data())]];
  };
  const [y, g] = await run();
  expect(new Set(y.map((v) => v.toFixed(5)))).toEqual(new Set(["0.00000", "4.00000"]));
  // The mean of n scaled Bernoulli draws has deviation 3 sqrt(p / (1 - p) / n) = 0.0135; four of them.
  expect(Math.abs(sum(n, (i) => y[i]) / n - 3)).toBeLessThan(0.054);
  expect(g.map((v) => Math.round(3 * v))).toEqual(y.map((v) => Math.round(v)));
  const [again] = await run();
  expect(again).not.toEqual(y);
});

test("dropout without a generator, or of nothing, is the identity", () => {
  useDevice(new ReferenceDevice());
  const x = tensor(Float32Array.of(1, 2), [2]);
  expect(nn.dropout(x, 0.5, undefined)).toBe(x);
  expect(nn.dropout(x, 0, new Rng(1))).toBe(x);
});

class Block extends nn.Module {
  readonly toQ = new nn.Linear(2, 3, { bias: false });
  readonly norm1 = new nn.LayerNorm(2);
}
class Net extends nn.Module {
  readonly downBlocks = [new Block(), new Block()];
  readonly midBlock = new Block();
  readonly table = new nn.Embedding(4, 2);
  readonly none: nn.Linear | null = null;
  readonly width = 3;
}
class Reordered extends nn.Module {
  readonly extra = new nn.Linear(2, 2);
  readonly table = new nn.Embedding(4, 2);
  readonly midBlock = new Block();
  readonly downBlocks = [new Block(), new Block()];
}

const valuesOf = async (state: ReadonlyMap<string, Parameter>): Promise<Map<string, number[]>> =>
  new Map(
    await Promise.all([...state].map(async ([name, p]): Promise<[string, number[]]> => [name, [...(await p.data())]])),
  );

describe("a module", () => {
  test("names its state by attribute path, in snake case", () => {
    const block = ["to_q.weight", "norm1.weight", "norm1.bias"];
    expect([...new Net().state().keys()]).toEqual([
      ...["down_blocks.0", "down_blocks.1", "mid_block"].flatMap((path) => block.map((name) => `${path}.${name}`)),
      "table.weight",
    ]);
  });

  test("seeds each parameter by its name, whatever else there is and in whatever order", async () => {
    useDevice(new ReferenceDevice());
    const [one, two] = [await valuesOf(new Net().seed(5).state()), await valuesOf(new Reordered().seed(5).state())];
    for (const [name, list] of one) expect(two.get(name), name).toEqual(list);
    const other = await valuesOf(new Net().seed(6).state());
    expect(other.get("table.weight")).not.toEqual(one.get("table.weight"));
    const drawn = [...one].filter(([name]) => !name.includes("norm")).map(([, list]) => list.join());
    expect(new Set(drawn).size).toBe(drawn.length); // equal shapes, different values
  });

  test("draws from the distributions its initialisers promise", async () => {
    useDevice(new ReferenceDevice());
    const state = await valuesOf(new Net().seed(1).state());
    expect(state.get("mid_block.norm1.weight")).toEqual([1, 1]);
    expect(state.get("mid_block.norm1.bias")).toEqual([0, 0]);
    const wide = [...(await new nn.Linear(16, 1000).seed(2).weight.data())];
    expect(Math.max(...wide)).toBeLessThanOrEqual(0.25); // 1 / sqrt(16)
    expect(Math.max(...wide)).toBeGreaterThan(0.249);
    expect(Math.abs(sum(wide.length, (i) => wide[i]) / wide.length)).toBeLessThan(4 * (0.25 / Math.sqrt(3 * 16_000)));
    const table = [...(await new nn.Embedding(1000, 16, 0.02).seed(2).weight.data())];
    const deviation = Math.sqrt(sum(table.length, (i) => table[i] ** 2) / table.length);
    expect(Math.abs(deviation / 0.02 - 1)).toBeLessThan(4 / Math.sqrt(2 * 16_000));
  });

  test("is counted without memory", () => {
    // 4 TB, were it allocated.
    expect(new nn.Linear(1_000_000, 1_000_000).count()).toBe(1e12 + 1e6);
  });

  test("has tied weights under both names, counts and trains them once, and seeds them by the first", async () => {
    useDevice(new ReferenceDevice());
    class Tied extends nn.Module {
      readonly embedding = new nn.Embedding(5, 3);
      readonly head = new nn.Linear(3, 5, { bias: false });
      constructor() {
        super();
        Object.assign(this.head, { weight: this.embedding.weight });
      }
    }
    const net = new Tied().seed(4);
    expect([...net.state().keys()]).toEqual(["embedding.weight", "head.weight"]);
    expect(net.state().get("head.weight")).toBe(net.embedding.weight);
    expect([net.count(), net.parameters().length]).toEqual([15, 1]);
    class Alone extends nn.Module {
      readonly embedding = new nn.Embedding(5, 3);
    }
    const alone = await valuesOf(new Alone().seed(4).state());
    expect((await valuesOf(net.state())).get("head.weight")).toEqual(alone.get("embedding.weight"));
  });

  test("finds what lies in plain objects and Maps, by key, and follows no link back", () => {
    const leaf = () => new nn.Linear(1, 1, { bias: false });
    class Boxes extends nn.Module {
      readonly parts = { toQ: leaf(), more: [leaf()] };
      readonly byName = new Map<string | number, nn.Module>([
        ["convIn", leaf()],
        [2, leaf()],
      ]);
      readonly parent: nn.Module = this;
      readonly hidden = new Set([leaf()]);
    }
    const names = ["parts.to_q", "parts.more.0", "by_name.convIn", "by_name.2"].map((name) => `${name}.weight`);
    expect([...new Boxes().state().keys()]).toEqual(names);
    class Clash extends nn.Module {
      readonly toQ = leaf();
      readonly to_q = leaf();
    }
    expect(() => new Clash().state()).toThrow("two parameters are called to_q.weight");
  });

  test("freezes and thaws what is inside", () => {
    const net = new Net();
    net.midBlock.freeze();
    const frozen = [...net.state()].filter(([, p]) => !p.trainable).map(([name]) => name);
    expect(frozen).toEqual(["mid_block.to_q.weight", "mid_block.norm1.weight", "mid_block.norm1.bias"]);
    expect(net.parameters()).toHaveLength(net.state().size - 3);
    expect(net.freeze().parameters()).toEqual([]);
    expect(net.freeze(false).parameters()).toHaveLength(net.state().size);
  });
});

onEach("batch normalisation assigns its statistics in training only", async () => {
  const layer = new nn.BatchNorm(2, { momentum: 0.5 });
  expect([...layer.state()].map(([name, p]) => `${name} ${p.trainable}`)).toEqual([
    "weight true",
    "bias true",
    "running_mean false",
    "running_var false",
  ]);
  const x = tensor(new Float32Array([1, 2, 3, 6]), [2, 2]); // means 2 and 4, variances 2 and 8 (unbiased)
  const step = compile(({ batch }: { batch: Tensor }) => ({ y: layer.forward(batch, { training: true }) }));
  const { y } = step({ batch: x });
  expectClose(await y.data(), [-1, -1, 1, 1], "normalised", { rtol: 1e-4 }); // eps beside a variance of 1
  const running = async (): Promise<number[]> => [
    ...(await layer.runningMean.data()),
    ...(await layer.runningVar.data()),
  ];
  expectClose(await running(), [1, 2, 1.5, 4.5], "running", { rtol: 1e-6 });
  const still = await layer.forward(x).data();
  expectClose(still, [0, 0, 2 / Math.sqrt(1.5), 4 / Math.sqrt(4.5)], "evaluated", { rtol: 1e-4 });
  expectClose(await running(), [1, 2, 1.5, 4.5], "after evaluation", { rtol: 1e-6 });
});

describe("a layer that is given something else says so:", () => {
  const x = (...shape: number[]): Tensor => tensor(new Float32Array(numel(shape)), shape);
  test.each([
    [
      "a linear layer",
      () => new nn.Linear(3, 2).forward(x(4, 5)),
      /matmul: inner dimensions differ: \[4, 5\] @ \[3, 2\]/,
    ],
    ["a norm", () => new nn.LayerNorm(3).forward(x(4, 5)), /expected weight and bias \[5\] for x \[4, 5\], got \[3\]/],
    ["groups", () => new nn.GroupNorm(3, 8), /8 channels do not divide into 3 groups/],
  ])("%s", (_, call, message) => {
    expect(call).toThrow(message);
  });
});
