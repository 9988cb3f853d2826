// Optimisers: whole training runs against golden data, their laws on both devices, and that an update is one kernel.

import fc from "fast-check";
import { expect, test } from "vitest";
import { compile, grad, Parameter, type Tensor, tensor, useDevice } from "../engine/index.ts";
import {
  Adam,
  AdamW,
  clipGradNorm,
  clipGradValue,
  constant,
  cosine,
  Ema,
  type Optimizer,
  type OptimizerOptions,
  Sgd,
  type SgdOptions,
  warmupCosine,
} from "../engine/optim/index.ts";
import { makePlan } from "../engine/plan/plan.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { MINIMUM_CAPS } from "../kernels/wgsl.ts";
import { difference, expectClose } from "./close.ts";
import { onEach } from "./device.ts";
import { describeGolden, f32, type Golden, type Stored } from "./golden.ts";

const list = async (t: Tensor): Promise<number[]> => [...(await t.data())];
const vector = (...v: number[]): Parameter => new Parameter([v.length], Float32Array.from(v));

/** Row `t` of a stored array whose first axis is time. */
function at({ shape, data }: Stored, t: number): Stored {
  const n = data.length / shape[0];
  return { shape: shape.slice(1), data: data.slice(t * n, (t + 1) * n) };
}

interface Run {
  readonly kind: keyof typeof OPTIMIZERS;
  readonly clip: boolean;
  readonly schedule: keyof typeof SCHEDULES | null;
}

interface Settings {
  readonly lr: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weight_decay: number;
  readonly steps: number;
  readonly ema_decay: number;
  readonly clip: number;
  readonly runs: Readonly<Record<string, Run>>;
}

type Params = ReadonlyMap<string, Parameter>;
type Options = OptimizerOptions & { beta1: number; beta2: number; eps: number };

/** Biases do not decay; in the golden run they start with a tenth of the rate and end at the same floor. */
const biases = { match: (_: string, p: Parameter) => p.rank === 1, weightDecay: 0 };

const OPTIMIZERS = {
  adamw: (params: Params, o: Options) => new AdamW(params, o),
  adam: (params: Params, o: Options) => new Adam(params, o),
  sgd: (params: Params, { weightDecay }: Options) => new Sgd(params, { weightDecay, momentum: 0.9 }),
  adamw_amsgrad: (params: Params, o: Options) => new AdamW(params, { ...o, amsgrad: true }),
  adamw_groups: (params: Params, o: Options) => new AdamW(params, { ...o, groups: [biases] }),
} satisfies Record<string, (params: Params, o: Options) => Optimizer>;

type Rate = Pick<Settings, "lr" | "steps">;
const SCHEDULES = {
  cosine: ({ lr, steps }: Rate) => cosine({ lr, steps, floor: 1e-4 }),
  warmup_cosine: ({ lr, steps }: Rate) => warmupCosine({ lr, steps, warmup: 5, fromZero: true }),
};

const LAYERS = ["0", "2", "4"];

/** The golden data's net: three linear layers with SiLU between. */
function forward(params: ReadonlyMap<string, Parameter>, x: Tensor): Tensor {
  const layer = (y: Tensor, i: string): Tensor =>
    y.matmul((params.get(`${i}.weight`) as Parameter).transpose()).add(params.get(`${i}.bias`) as Parameter);
  return LAYERS.slice(1).reduce((y, i) => layer(y.silu(), i), layer(x, LAYERS[0]));
}

/** Repeats a golden run; `beta2` replaces its own to plant a bug. Returns what disagrees. */
async function repeat(golden: Golden, run: string, { beta2 }: { beta2?: number } = {}): Promise<string[]> {
  const o = golden.json<Settings>("config.json");
  const { kind, clip, schedule } = o.runs[run];
  const start = (name: string): Parameter => {
    const { shape, data } = golden.get(`in.init.${name}`);
    return new Parameter(shape, Float32Array.from(data));
  };
  const params = new Map(LAYERS.flatMap((i) => [`${i}.weight`, `${i}.bias`]).map((name) => [name, start(name)]));
  const betas = { beta1: o.betas[0], beta2: beta2 ?? o.betas[1] };
  const optimizer = OPTIMIZERS[kind](params, { ...betas, eps: o.eps, weightDecay: o.weight_decay });
  const ema = new Ema(params, o.ema_decay);
  for (const [name, shadow] of ema.state()) shadow.write(golden.get(`in.init.${name}`).data); // theirs starts there
  const step = compile(({ x, y, lr, low }: Record<"x" | "y" | "lr" | "low", Tensor>) => {
    const loss = forward(params, x).sub(y).square().mean();
    const grads = grad(loss, optimizer.targets);
    const clipped = clipGradNorm(grads, o.clip);
    optimizer.step(clip ? clipped.grads : grads, { lr, groupLr: [low] });
    ema.update(0);
    return { loss, grad_norm: clipped.norm };
  });
  const [rate, lowRate] = [o.lr, o.lr / 10].map((lr) => (schedule ? SCHEDULES[schedule]({ ...o, lr }) : constant(lr)));
  const series = new Map<string, number[]>();
  for (let t = 0; t < o.steps; t++) {
    const [x, y] = ["in.x", "in.y"].map((name) => f32(at(golden.get(name), t)));
    const { loss, grad_norm } = step({ x, y, lr: rate(t), low: lowRate(t) });
    const now: [string, Tensor][] = [
      ["loss", loss],
      ["grad_norm", grad_norm],
    ];
    for (const [name, p] of params) now.push([`param.${name}`, p]);
    if (golden.io.has(`${run}.ema.0.bias`)) for (const [name, p] of ema.state()) now.push([`ema.${name}`, p]);
    for (const [name, value] of now) series.set(name, [...(series.get(name) ?? []), ...(await list(value))]);
  }
  for (const [name, p] of optimizer.state()) {
    const theirs = name.replace(/^m\./, "exp_avg.").replace(/^v\./, "exp_avg_sq.");
    if (golden.io.has(`${run}.${theirs}`)) series.set(theirs, await list(p));
  }
  const rates = golden.get(`${run}.lr`).data; // float64 on both sides: the same formula to rounding
  const off = difference(
    Array.from(rates, (_, t) => rate(t)),
    rates,
    { rtol: 1e-14 },
  );
  return [
    ...[...series].map(([name, got]) => golden.problem(`${run}.${name}`, got)),
    off && `${run}.lr: ${off}`,
  ].filter((p) => p !== null);
}

describeGolden("optim-a", (golden) => {
  for (const run of Object.keys(golden.json<Settings>("config.json").runs))
    onEach(`${run}: 20 steps end where the other implementation's do`, async () =>
      expect(await repeat(golden, run)).toEqual([]),
    );
  onEach("a second moment that decays a little faster is noticed", async () =>
    expect(await repeat(golden, "adamw", { beta2: 0.998 })).not.toEqual([]),
  );
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

/** SGD in plain numbers, from the definition: what the class is checked against. */
function sgdByHand(gs: readonly number[], lr: number, o: SgdOptions): number {
  const { momentum = 0, dampening = 0, nesterov = false, weightDecay = 0 } = o;
  let [p, b] = [1, 0];
  gs.forEach((raw, t) => {
    const g = raw + weightDecay * p;
    b = t === 0 ? g : momentum * b + (1 - dampening) * g;
    p -= lr * (momentum === 0 ? g : nesterov ? g + momentum * b : b);
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
      expectClose(await list(p), [sgdByHand(gs, 0.1, o)], "parameter", { rtol: 1e-6 });
    }),
    { numRuns: 60, seed: 1 },
  );
  expect(() => new Sgd(new Map(), { nesterov: true })).toThrow("momentum");
});

test("steps refuse gradients of another number or shape, and impossible settings", () => {
  useDevice(new ReferenceDevice());
  const adam = new Adam(new Map([["p", vector(1, 2)]]));
  expect(() => adam.step([], { lr: 1 })).toThrow("0 gradients for 1 parameters");
  expect(() => adam.step([tensor([1, 2, 3])], { lr: 1 })).toThrow("expected for p a gradient of [2], got [3]");
  expect(() => new Adam(new Map(), { beta2: 1 })).toThrow("beta2");
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
  const plan = makePlan(step.program(), { ...MINIMUM_CAPS, maxBindings: 16 });
  const labels = plan.dispatches.map(({ source }) => source.label);
  expect(labels.filter((label) => label.startsWith("sum"))).toHaveLength(params.size); // one norm each
  expect(labels.filter((label) => /sqrt rsqrt/.test(label))).toHaveLength(params.size);
  expect(labels.filter((label) => /sqrt rsqrt.* neg/.test(label))).toHaveLength(params.size); // the average with it
  expect(labels.length - 2 * params.size).toBeLessThanOrEqual(more ? 5 : 2); // bias corrections and other single numbers
  expect(plan.copies).toEqual([]);
});
