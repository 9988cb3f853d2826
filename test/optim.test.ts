// Optimisers: whole training runs against golden data, their laws on both devices, and that an update is one kernel.

import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { compile, grad, Parameter, type Tensor, tensor, useDevice } from "../engine/index.ts";
import { Adam, AdamW, clipGradNorm, clipGradValue, Ema, Sgd, type SgdOptions } from "../engine/optim/index.ts";
import { makePlan } from "../engine/plan/plan.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import type { Check } from "../eval/golden/kind.ts";
import { optim } from "../eval/golden/optim.ts";
import { MINIMUM_CAPS } from "../kernels/wgsl.ts";
import { expectClose } from "./close.ts";
import { onEach } from "./device.ts";
import { describeFolder } from "./golden.ts";

const list = async (t: Tensor): Promise<number[]> => [...(await t.data())];
const vector = (...v: number[]): Parameter => new Parameter([v.length], Float32Array.from(v));

type Params = ReadonlyMap<string, Parameter>;

describeFolder("optim-a", (folder) => {
  const checks = async (from: string): Promise<Check[]> => {
    const found: Check[] = [];
    for await (const check of optim.run(from)) found.push(check);
    return found;
  };

  onEach("every run ends where the other implementation's does", async () => {
    const found = await checks(folder);
    expect(found.filter((c) => !c.ok)).toEqual([]);
    expect(found.length).toBeGreaterThan(100);
  });
  test("a second moment that decays a little faster is noticed, and only where there is one", async () => {
    useDevice(new ReferenceDevice());
    const planted = mkdtempSync(join(tmpdir(), "optim-"));
    cpSync(folder, planted, { recursive: true });
    const config = readFileSync(join(folder, "config.json"), "utf8");
    rmSync(join(planted, "config.json"));
    writeFileSync(join(planted, "config.json"), config.replace("0.999", "0.998"));
    const wrong = (await checks(planted)).filter((c) => !c.ok).map((c) => c.name.split(".")[0]);
    rmSync(planted, { recursive: true });
    const runs = ["adamw", "adamw_clip", "adamw_cosine", "adamw_clip_warmup_cosine", "adam_l2", "adamw_amsgrad"];
    expect([...new Set(wrong)].sort()).toEqual([...runs, "adamw_groups"].sort());
  });
});

onEach("AdamW leaves frozen parameters alone and keeps no moments of them", async () => {
  const [moving, frozen] = [vector(1, 2), vector(3, 4)];
  frozen.trainable = false;
  const optimizer = new AdamW(
    new Map([
      ["moving", moving],
      ["frozen", frozen],
    ]),
  );
  expect(optimizer.targets).toEqual([moving]);
  expect([...optimizer.state().keys()]).toEqual(["m.moving", "v.moving", "c1", "c2"]);
  const step = compile(() => {
    optimizer.step(grad(moving.mul(frozen).sum(), optimizer.targets), { lr: 0.1 });
    return {};
  });
  for (let i = 0; i < 3; i++) step({});
  expect(await list(frozen)).toEqual([3, 4]);
  // A constant gradient moves by lr a step (Kingma & Ba 2015, section 2.1); weight decay is lr * 0.01 of the value.
  let want = [1, 2];
  for (let i = 0; i < 3; i++) want = want.map((w) => w * (1 - 0.001) - 0.1);
  expectClose(await list(moving), want, "three steps", { rtol: 1e-6 });
});

onEach("AdamW takes its rate from a number or from the feed, without a new trace", async () => {
  const results: number[][] = [];
  for (const fed of [false, true]) {
    const p = vector(1, -2);
    const optimizer = new AdamW(new Map([["p", p]]));
    const step = compile(
      ({ lr }: { lr: Tensor }) => {
        optimizer.step(grad(p.square().sum(), [p]), { lr: fed ? lr : 0.05 });
        return {};
      },
      { maxTraces: 1 },
    );
    for (let i = 0; i < 4; i++) step({ lr: fed ? 0.05 : i });
    results.push(await list(p));
  }
  expectClose(results[1], results[0], "fed rate", { rtol: 1e-6 });
});

onEach("clipGradNorm scales the joint norm, and small gradients not at all", async () => {
  const clip = async (max: number, ...values: number[][]): Promise<{ norm: number; grads: number[][] }> => {
    const { grads, norm } = clipGradNorm(
      values.map((v) => tensor(v)),
      max,
    );
    return { norm: await norm.item(), grads: await Promise.all(grads.map(list)) };
  };
  const long = await clip(1, [2, 4], [5, 6]); // 4 + 16 + 25 + 36 = 81
  expect(long.norm).toBe(9);
  // 1e-6 is added to the norm, as PyTorch does: a tenth of it shows at this tolerance, a wrong norm does much more.
  expectClose(
    long.grads.flat(),
    [2, 4, 5, 6].map((g) => g / 9),
    "clipped",
    { rtol: 3e-7 },
  );
  expect(await clip(10, [2, 4], [5, 6])).toEqual({
    norm: 9,
    grads: [
      [2, 4],
      [5, 6],
    ],
  });
  expect(await clip(1, [0], [0, 0])).toEqual({ norm: 0, grads: [[0], [0, 0]] });
});

onEach("clipGradValue limits every value, on both sides", async () => {
  const [a, b] = clipGradValue([tensor([-3, -0.5, 0.25]), tensor([7])], 0.5);
  expect([await list(a), await list(b)]).toEqual([[-0.5, -0.5, 0.25], [0.5]]);
});

/** SGD in plain numbers, from the definition: what the class is checked against. Between steps its state is float32. */
function sgdByHand(gs: readonly number[], lr: number, o: SgdOptions): number {
  const { momentum = 0, dampening = 0, nesterov = false, weightDecay = 0 } = o;
  let [p, b] = [1, 0];
  gs.forEach((raw, t) => {
    const g = raw + weightDecay * p;
    b = t === 0 ? g : momentum * b + (1 - dampening) * g;
    p -= lr * (momentum === 0 ? g : nesterov ? g + momentum * b : b);
    [p, b] = [Math.fround(p), Math.fround(b)];
  });
  return p;
}

test("SGD is its definition, whatever the momentum, dampening, decay and Nesterov", async () => {
  useDevice(new ReferenceDevice());
  const share = (): fc.Arbitrary<number> => fc.integer({ min: 0, max: 9 }).map((n) => n / 10);
  const options = fc.record({ momentum: share(), dampening: share(), nesterov: fc.boolean(), weightDecay: share() });
  const legal = options.map((o) => (o.momentum > 0 && o.nesterov ? { ...o, dampening: 0 } : { ...o, nesterov: false }));
  const gradients = fc.array(fc.integer({ min: -4, max: 4 }), { minLength: 1, maxLength: 5 });
  await fc.assert(
    fc.asyncProperty(legal, gradients, async (o, gs) => {
      const p = vector(1);
      const sgd = new Sgd(new Map([["p", p]]), o);
      const step = compile(({ g }: { g: Tensor }) => {
        sgd.step([g.reshape([1])], { lr: 0.1 });
        return {};
      });
      for (const g of gs) step({ g });
      expectClose(await list(p), [sgdByHand(gs, 0.1, o)], "parameter", { rtol: 1e-7 });
    }),
    { numRuns: 60, seed: 1 },
  );
  expect(() => new Sgd(new Map([["p", vector(1)]]), { nesterov: true })).toThrow("momentum");
});

test("steps refuse gradients of another number or shape, and impossible settings", () => {
  useDevice(new ReferenceDevice());
  const adam = new Adam(new Map([["p", vector(1, 2)]]));
  expect(() => adam.step([], { lr: 1 })).toThrow("0 gradients for 1 parameters");
  expect(() => adam.step([tensor([1, 2, 3])], { lr: 1 })).toThrow("expected for p a gradient of [2], got [3]");
  expect(() => new Adam(new Map([["p", vector(1)]]), { beta2: 1 })).toThrow("beta2");
  const step = adam.step.bind(adam) as (grads: Tensor[], o?: object) => void;
  for (const o of [undefined, {}]) expect(() => step([tensor([1, 2])], o)).toThrow("step needs { lr }");
  expect(() => new Sgd(new Map())).toThrow("expected a trainable parameter, got none at all");
  const frozen = vector(1);
  frozen.trainable = false;
  expect(() => new Sgd(new Map([["p", frozen]]))).toThrow("got 1, all frozen");
});

onEach("a step that is told not to changes nothing, not even the optimiser", async () => {
  for (const make of [
    (params: Params) => new AdamW(params, { amsgrad: true }),
    (params: Params) => new Sgd(params, { momentum: 0.9, dampening: 0.5 }),
  ]) {
    const p = vector(1, -2);
    const optimizer = make(new Map([["p", p]]));
    const step = compile(({ go }: { go: Tensor }) => {
      optimizer.step(grad(p.square().sum(), [p]), { lr: 0.05, when: tensor(0.5).less(go) });
      return {};
    });
    const everything = async (): Promise<number[][]> => Promise.all([p, ...optimizer.state().values()].map(list));
    step({ go: 1 });
    const before = await everything();
    step({ go: 0 });
    expect(await everything()).toEqual(before);
    step({ go: 1 });
    expect(await everything()).not.toEqual(before);
  }
});

onEach("a tied weight has one moment, one shadow and one update, under its first name", async () => {
  const [p, q] = [vector(3), vector(5)];
  const tied = new Map([
    ["a", p],
    ["b", p],
    ["c", q],
  ]);
  const [sgd, adam, ema] = [new Sgd(tied), new AdamW(tied), new Ema(tied, 0.5)];
  expect([...adam.state().keys()]).toEqual(["m.a", "m.c", "v.a", "v.c", "c1", "c2"]);
  expect([...ema.state().keys()]).toEqual(["a", "c"]);
  const step = compile(() => {
    sgd.step(grad(p.add(q).sum(), sgd.targets), { lr: 1 });
    ema.update(0);
    return {};
  });
  step({});
  expect([await list(p), await list(q), await list(ema.state().get("a") as Parameter)]).toEqual([[2], [4], [1]]);
});

onEach("Ema starts at the parameters and then follows them", async () => {
  const p = vector(8, -4);
  const ema = new Ema(new Map([["p", p]]), 0.75);
  const step = compile(({ start, to }: { start: Tensor; to: Tensor }) => {
    p.assign(p.mul(0).add(to));
    ema.update(start);
    return {};
  });
  const shadow = ema.state().get("p") as Parameter;
  const values: number[][] = [];
  for (const [i, to] of [4, 8, 0].entries()) {
    step({ start: Number(i === 0), to });
    values.push(await list(shadow));
  }
  expect(values).toEqual([
    [4, 4],
    [5, 5],
    [3.75, 3.75],
  ]); // exact in binary
});

test.each([
  ["plain", false],
  ["in groups, and skipped where gradients overflow", true],
])("an update of a parameter, its moments and its average is one dispatch, in place: %s", (_, more) => {
  useDevice(new ReferenceDevice());
  const params = new Map([1, 2, 3, 4, 5].map((n) => [`p${n}`, new Parameter([5, n], new Float32Array(5 * n).fill(1))]));
  const groups = more ? [{ match: (name: string) => name === "p2", lr: 0.1, weightDecay: 0 }] : [];
  const [optimizer, ema] = [new AdamW(params, { groups }), new Ema(params, 0.9)];
  const step = compile(({ lr, start }: { lr: Tensor; start: Tensor }) => {
    const { grads, norm } = clipGradNorm([...params.values()], 1);
    optimizer.step(grads, { lr, when: more ? norm.less(1e6) : undefined });
    ema.update(start);
    return {};
  });
  step({ lr: 0.1, start: 1 });
  // It reads ten tensors, so this needs an adapter with more than the eight bindings that WebGPU promises; all have them.
  const plan = makePlan(step.program(), { ...MINIMUM_CAPS, maxBindings: 16 }, { chain: false });
  const labels = plan.dispatches.map(({ source }) => source.label);
  expect(labels.filter((label) => label.startsWith("sum"))).toHaveLength(params.size); // one norm each
  expect(labels.filter((label) => /sqrt rsqrt/.test(label))).toHaveLength(params.size);
  expect(labels.filter((label) => /sqrt rsqrt.* neg/.test(label))).toHaveLength(params.size); // the average with it
  expect(labels.length - 2 * params.size).toBeLessThanOrEqual(more ? 5 : 2); // bias corrections and other single numbers
  expect(plan.copies).toEqual([]);
});
