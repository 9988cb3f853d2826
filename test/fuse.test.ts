// Fusion: random programs evaluated group by group equal the op-by-op reference, exactly on the host (engine/testing) and
// within float32 on the GPU, fused or not; then one case for each bug that was found this way.

import { afterAll, describe, expect, test } from "vitest";
import { grad } from "../engine/autograd.ts";
import { useDevice } from "../engine/device.ts";
import { type Node, print } from "../engine/graph.ts";
import { allOps, type OpDef } from "../engine/ops/op.ts";
import { KERNEL_LOADS } from "../engine/plan/fuse/sizes.ts";
import { makePlan, type PlanOptions } from "../engine/plan/plan.ts";
import { type GpuDevice, openGpu } from "../engine/runtime/gpu.ts";
import { apply, full, type Tensor, tensor, zeros } from "../engine/tensor.ts";
import type { Check } from "../engine/testing/check.ts";
import { hostProblem, lawChecks, memoryProblem, programOf, wgslProblem } from "../engine/testing/laws.ts";
import type { MakeLeaf } from "../engine/testing/programs.ts";
import { type Draw, MINIMUM_CAPS } from "../kernels/wgsl.ts";
import { gpu, onGpu } from "./device.ts";

const reported = async (problem: Promise<string | object | null>, outs: readonly Tensor[]): Promise<void> => {
  const found = await problem;
  if (typeof found === "string") throw new Error(`${found}\n${print(outs.map((t) => t.node))}`);
};
const onHost = (outs: readonly Tensor[], options: { maxBindings: number; fuse: boolean }): Promise<void> =>
  reported(hostProblem(outs, options), outs);
const onDevice = (device: GpuDevice, outs: readonly Tensor[]): Promise<void> =>
  reported(wgslProblem(outs, 1, device), outs);

/** Checks of random programs that run with a budget of so many cases. */
const LAWS: Readonly<Record<string, number>> = {
  "fused equals unfused": 300,
  "fused for eight bindings equals unfused": 300,
  "one op per kernel equals the definition": 60,
  "live values never share memory": 100,
  "WGSL equals the definition": 16,
  "compiled equals eager": 6,
  "other kernels equal the definition": 4,
};

describe("random programs", () => {
  for (const check of lawChecks()) {
    const body = async (): Promise<void> => {
      const { failure, cases, skipped } = await check.run({ seed: 4, cases: LAWS[check.law] });
      expect(failure?.message ?? "").toBe("");
      expect(Object.values(skipped).reduce((a, b) => a + b, 0)).toBeLessThan(cases / 4);
    };
    if (check.needs === "gpu") onGpu(check.law, body);
    else test(check.law, body);
  }
  const plans: [string, PlanOptions][] = [
    ["not fused", { fuse: false }],
    ["chained", { chain: "all" }],
  ];
  for (const [how, plan] of plans)
    onGpu(`${how}, on the device`, async () => {
      const other = await openGpu({ plan });
      const check = lawChecks().find((c) => c.law === "WGSL equals the definition") as Check;
      useDevice(other);
      const { failure } = await check.run({ seed: 4, cases: 4 });
      other.close();
      useDevice(await gpu());
      expect(failure).toBeNull();
    });
});

const bindingsOf = (out: Tensor): number[] =>
  makePlan(programOf([out]), MINIMUM_CAPS).dispatches.map((d) => d.places.length);
const leaves = (count: number, shape = [5, 1]): Tensor[] =>
  Array.from({ length: count }, (_, i) =>
    tensor(
      [1, 2, 3, 4, 5].map((x) => Math.sin(x * (i + 1))),
      shape,
    ),
  );
const sumOf = (xs: readonly Tensor[]): Tensor => xs.reduce((a, b) => a.add(b));

describe("limits", () => {
  const many: [string, () => Tensor][] = [
    ["a concat of twelve", () => leaves(1)[0].concat(leaves(11), 0)],
    ["a sum of forty", () => sumOf(leaves(40))],
    ["a reduction of five with another operand behind it", () => sumOf(leaves(5)).sum(0).add(tensor(3))],
    [
      "a reduction that reads the same five before and behind",
      () =>
        sumOf(leaves(5))
          .sum(1, { keepdims: true })
          .add(leaves(5).reduce((a, b) => a.mul(b))),
    ],
    [
      "a product with seven operands behind it",
      () => leaves(7).reduce((a, b) => a.mul(b), tensor([1, 2, 3, 4, 5], [5, 1]).matmul(tensor([2], [1, 1]))),
    ],
  ];
  test.each(many)("%s stays within eight bindings", async (_, make) => {
    const out = make();
    expect(Math.max(...bindingsOf(out))).toBeLessThanOrEqual(8);
    await onHost([out], { maxBindings: 8, fuse: true });
  });

  test("a chain of 5,000 ops becomes many kernels", () => {
    let x = tensor([1, 2]);
    for (let i = 0; i < 5000; i++) x = x.add((i % 3) + 1);
    const { dispatches } = makePlan(programOf([x]), MINIMUM_CAPS);
    expect(dispatches.length).toBeGreaterThan(10);
    expect(dispatches.length).toBeLessThan(200);
  });
  test("values shared sixty times over take no exponential time", () => {
    let x = tensor([1, 2, 3, 4], [2, 2]);
    for (let i = 0; i < 60; i++) x = x.mul(0.5).add(x.flip([0]).tanh());
    expect(
      bindingsOf(
        tensor([1, 2, 3, 4], [2, 2])
          .matmul(tensor([1, 2, 3, 4], [2, 2]))
          .add(x),
      ).length,
    ).toBeLessThan(100);
  });
});

describe("many places of one tensor", () => {
  const n = 530;
  const x = tensor(
    Float32Array.from({ length: n }, (_, i) => Math.sin(i)),
    [n],
  );
  const shifted = (count: number): Tensor[] =>
    Array.from({ length: count }, (_, k) => x.slice(0, k, k + n - count).mul(Math.cos(k)));
  const cases: [string, (count: number) => Tensor][] = [
    ["a sum of shifted views", (count) => sumOf(shifted(count))],
    ["its gradient", (count) => grad(sumOf(shifted(count)).square().sum(), [x])[0]],
    ["behind a reduction", (count) => sumOf(shifted(count)).add(x.sum())],
    ["a concat of pieces", (count) => shifted(count)[0].concat(shifted(count).slice(1), 0)],
  ];
  const texts = (out: Tensor): string[] =>
    makePlan(programOf([out]), MINIMUM_CAPS).dispatches.map((d) => d.source.wgsl);
  const loads = (text: string): number => text.match(/b\d+\[/g)?.length ?? 0;
  test.each(cases)("%s: no kernel loads more than a few dozen values, and the result is right", async (_, make) => {
    for (const count of [128, 512]) {
      const all = texts(make(count));
      expect(Math.max(...all.map(loads))).toBeLessThanOrEqual(66); // a concat of four, each as large as may be
      expect(all.length).toBeGreaterThan(count / 66);
    }
    await onHost([make(128)], { maxBindings: 8, fuse: true });
  });
  test("up to the bound they are one kernel", () => {
    expect(texts(sumOf(shifted(KERNEL_LOADS)))).toHaveLength(1);
  });
});

/** Three ways from a value to the result. */
const branching = (t: Tensor): Tensor => t.mul(t.tanh()).add(t.sigmoid());

test("a branching epilogue that reads too much is cut at its kernel", async () => {
  const others = leaves(9, [5, 1]);
  const sum = tensor([1, 2, 3, 4, 5], [5, 1]).expand([5, 3]).exp().sum(1, { keepdims: true });
  const out = sum.mul(sumOf(others.slice(0, 5))).add(sum.tanh().mul(sumOf(others.slice(5))));
  await onHost([out], { maxBindings: 8, fuse: true });
  expect(Math.max(...bindingsOf(out))).toBeLessThanOrEqual(8);
});

/** An elementwise kernel over many elements, two of its three operands broadcast along drawn axes. */
const drawBroadcast = (d: Draw, make: MakeLeaf): Tensor[] => {
  const shape = [d.pick([3, 4, 8]), d.pick([40, 64, 65]), d.pick([33, 64, 96])];
  const part = (): Tensor => make(shape.map((n) => (d.pick([true, false]) ? n : 1)));
  const x = make(shape);
  const y = x.mul(part()).add(part().tanh());
  return d.pick([true, false]) ? [y, y.sub(x).square()] : [y.permute([1, 0, 2]).mul(2)];
};

onGpu("operands that are shared by the elements of a thread", async () => {
  const check = lawChecks(drawBroadcast).find((c) => c.law === "WGSL equals the definition") as Check;
  const { failure } = await check.run({ seed: 5, cases: 14 });
  expect(failure?.message ?? "").toBe("");
  const wide = tensor(new Float32Array(64 * 512), [64, 512]);
  const cpu = { ...MINIMUM_CAPS, adapter: "cpu" } as const;
  const [{ source }] = makePlan(programOf([wide.sub(wide.slice(1, 0, 1))]), cpu).dispatches;
  expect(source.wgsl).toContain("for (var j");
  expect(source.workgroups).toEqual([16, 1, 1]); // 8 vec4s a thread
});

test("what only one kernel reads is not written", () => {
  const x = tensor(new Float32Array(4096), [64, 64]);
  const { arena, dispatches } = makePlan(programOf([grad(x.gelu().tanh().square().sum(), [x])[0]]), MINIMUM_CAPS);
  expect(dispatches.map((d) => d.places.length)).toEqual([2]);
  expect(arena.bytes).toBe(0);
});

onGpu("literals alone, which WGSL would refuse to compute", async () => {
  expect(await full([2], 4).sqrt().data()).toEqual(Float32Array.of(2, 2));
  for (const odd of [
    zeros([2]).log(),
    full([2], -1).sqrt(),
    full([2], 1e38).mul(full([2], 10)),
    zeros([2]).div(zeros([2])),
  ])
    expect((await odd.data()).length).toBe(2); // infinities and NaN, which WGSL does not promise
});

onGpu("tensors without elements", async () => {
  expect(
    (
      await zeros([2, 0, 3])
        .add(tensor([1]))
        .reshape([0, 6])
        .mul(2)
        .data()
    ).length,
  ).toBe(0);
  expect((await zeros([2, 0, 3]).cumsum(1).data()).length).toBe(0);
  const none = tensor(new Float32Array(0), [2, 0]).matmul(tensor(new Float32Array(0), [0, 3]));
  expect([...(await none.data())]).toEqual([0, 0, 0, 0, 0, 0]);
});

describe("what is fused", () => {
  const x = tensor(new Float32Array(64), [8, 8]);
  const kernels: [string, () => Tensor, number][] = [
    ["an elementwise chain over views", () => x.transpose().mul(2).flip([0]).exp().add(1), 1],
    ["elementwise ops before and behind a sum", () => x.exp().sum(1, { keepdims: true }).mul(3).sqrt(), 1],
    [
      "bias and activation behind a product",
      () =>
        x
          .matmul(x.add(1))
          .add(tensor(new Float32Array(8)))
          .relu(),
      2,
    ],
    ["a transposed operand of a product", () => x.transpose().matmul(tensor(new Float32Array(64), [8, 8])), 1],
    ["two products added: the second adds the first's result", () => x.matmul(x.add(1)).add(x.matmul(x.add(2))), 4],
    ["softmax stays one kernel", () => x.mul(2).softmax(), 2],
    ["an activation that uses its argument twice, behind a product", () => x.matmul(x.add(1)).add(2).gelu(), 2],
    ["ops that branch and join behind a sum", () => branching(x.exp().sum(1, { keepdims: true })), 1],
  ];
  test.each(kernels)("%s", (_, make, count) => {
    expect(makePlan(programOf([make()]), MINIMUM_CAPS).dispatches.length).toBe(count);
  });
});

describe("cases that were wrong once", () => {
  const x = tensor(
    Float32Array.from({ length: 24 }, (_, i) => Math.sin(i)),
    [4, 6],
  );
  const cases: [string, () => Tensor][] = [
    ["a reduction of another reduction's epilogue", () => x.sum(1, { keepdims: true }).mul(2).sum()],
    ["a shifted one-dimensional load", () => x.reshape([24]).slice(0, 1, 20).add(1)],
    ["one buffer as both operands of a product", () => x.matmul(x.transpose())],
    ["two products in one sum", () => x.matmul(x.transpose()).add(x.mul(2).matmul(x.transpose()))],
    [
      "a square",
      () =>
        x
          .slice(1, 0, 4)
          .add(1)
          .exp()
          .matmul(x.slice(1, 0, 4).add(1).exp()),
    ],
    ["a reduction that reads its tensor again behind itself", () => x.sum(1, { keepdims: true }).mul(x.slice(1, 2, 3))],
    ["a product read again behind itself", () => x.matmul(x.transpose()).add(x.slice(1, 0, 4))],
    [
      "a pad read through a reshape",
      () =>
        x
          .pad([
            [1, 2],
            [3, 0],
          ])
          .reshape([9, 7])
          .mul(2),
    ],
    ["a sum over nothing", () => x.slice(0, 0, 0).sum(0)],
  ];
  for (const [name, make] of cases) {
    test(name, () => onHost([make()], { maxBindings: 16, fuse: true }));
    onGpu(name, (device) => onDevice(device, [make()]));
  }
});

describe("vectors of four where positions do not line up", () => {
  const x = tensor(
    Float32Array.from({ length: 144 }, (_, i) => Math.sin(i)),
    [12, 12],
  );
  const cases: [string, () => Tensor][] = [
    ["a slice that starts at one", () => x.slice(1, 1, 9).mul(2)],
    [
      "padding of one before and three behind",
      () =>
        x
          .pad([
            [0, 0],
            [1, 3],
          ])
          .mul(2),
    ],
    [
      "two parts that meet off the grid",
      () =>
        x
          .slice(1, 0, 3)
          .concat([x.slice(1, 0, 5)], 1)
          .add(1),
    ],
    [
      "holes",
      () =>
        x
          .slice(1, 0, 4)
          .padWith({ low: [0, 0], high: [0, 1], holes: [0, 1] })
          .add(x.slice(1, 0, 8)),
    ],
    ["a flipped row", () => x.flip([1]).add(x)],
    ["sums of shifted columns", () => x.slice(1, 2, 10).sum(0)],
    ["sums of shifted rows", () => x.slice(1, 2, 10).sum(1)],
  ];
  for (const [name, make] of cases) onGpu(name, (device) => onDevice(device, [make()]));
});

describe("sizes past one tile, one team and one pass", () => {
  const wave = (...shape: number[]): Tensor =>
    tensor(
      Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i * 0.7)),
      shape,
    );
  const cases: [string, () => Tensor][] = [
    ["long rows", () => wave(3, 5000).mul(2).mean(1).add(1)],
    ["long columns", () => wave(1500, 8).tanh().sum(0).mul(0.01)],
    ["long rows of odd length", () => wave(4, 1001).max(1).add(wave(4))],
    ["many rows", () => wave(523, 128).sum(1).add(wave(523))],
    ["many rows of odd length", () => wave(521, 76).abs().max(1)],
    ["a vector in uneven parts", () => wave(3 * 8192 + 64).sum()],
    ["a whole tensor", () => wave(70, 90).square().mean().sqrt()],
    [
      "a product with bias, activation and residual",
      () => wave(70, 36).matmul(wave(36, 68)).add(wave(68)).tanh().add(wave(70, 68)),
    ],
    [
      "a product of odd sizes, per batch",
      () =>
        wave(2, 33, 17)
          .matmul(wave(2, 17, 35))
          .mul(0.5)
          .permute([0, 2, 1]),
    ],
  ];
  let discrete: Promise<GpuDevice> | undefined;
  const asGpu = (): Promise<GpuDevice> => {
    discrete ??= openGpu({ caps: { adapter: "gpu", subgroupSize: 0 } });
    return discrete;
  };
  afterAll(async () => (await discrete)?.close());
  for (const [name, make] of cases) {
    onGpu(name, (device) => onDevice(device, [make()]));
    onGpu(`${name}, with the kernels of a discrete GPU`, async () => onDevice(await asGpu(), [make()]));
  }
});

test("values that share memory while both live are found", () => {
  const x = tensor(new Float32Array(64), [8, 8]);
  const out = x.matmul(x.add(1)).matmul(x.add(2));
  const plan = makePlan(programOf([out]), MINIMUM_CAPS);
  expect(memoryProblem(plan)).toBeNull();
  const arena = { ...plan.arena, offsets: plan.arena.offsets.map(() => 0) };
  expect(memoryProblem({ ...plan, arena })).toMatch(/^intervals \d and \d overlap$/);
});

test("a wrong index map is found", async () => {
  const permute = allOps().find((op) => op.name === "permute") as OpDef;
  const read = (attrs: { order: readonly number[] }, _: Node, at: readonly never[]): unknown => [
    { src: 0, at: attrs.order.map((o) => at[o]), when: [] },
  ];
  const broken = { ...permute, name: "permuteBroken", lower: { kind: "view", read } } as unknown as OpDef;
  const x = tensor([1, 2, 3, 4, 5, 6, 7, 8], [2, 2, 2]);
  const out = apply(broken, [x], { order: [1, 2, 0] }).mul(2);
  await expect(onHost([out], { maxBindings: 16, fuse: true })).rejects.toThrow(/result 0: element \d+: expected/);
  const draw = (d: Draw, make: MakeLeaf): Tensor[] => [
    apply(broken, [make([d.int(1, 4), d.int(1, 4), d.int(1, 4)])], { order: [1, 2, 0] }).mul(2),
  ];
  const [fused] = lawChecks(draw);
  const { failure } = await fused.run({ seed: 1, cases: 50 });
  expect(failure?.message).toMatch(
    /^result 0: element \d+: .*\n%0 = data\(\) f32\[[12], [12], [12]\]\n%1 = permuteBroken\(%0\)/,
  );
});
