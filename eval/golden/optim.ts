// Golden kind "optim": runs of an optimiser on a small MLP with SiLU. config.json lists run -> optimiser, clipping and
// schedule; io.safetensors holds the start, a batch per step, and what each run had after every step. Every stored tensor
// of a run is one check: parameters, averages, loss, gradient norm, rate, final moments.

import { grad } from "../../engine/autograd.ts";
import { compile } from "../../engine/compile.ts";
import {
  Adam,
  AdamW,
  clipGradNorm,
  constant,
  cosine,
  Ema,
  type LrSchedule,
  type Optimizer,
  type OptimizerOptions,
  Sgd,
  warmupCosine,
} from "../../engine/optim/index.ts";
import { Parameter } from "../../engine/state.ts";
import type { Tensor } from "../../engine/tensor.ts";
import { need, peekJson, readJson, readTensors, type Stored, upload } from "./files.ts";
import { boundOf, broken, type Check, compare, type Kind } from "./kind.ts";

interface Run {
  readonly kind: string;
  readonly clip: boolean;
  readonly schedule: string | null;
}
interface Config {
  readonly lr: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weight_decay: number;
  readonly steps: number;
  readonly ema_decay: number;
  readonly clip: number;
  readonly runs: Readonly<Record<string, Run>>;
}
type Tolerances = Readonly<Record<string, { readonly rel_to_max: number }>>;
type Params = ReadonlyMap<string, Parameter>;
type Io = ReadonlyMap<string, Stored>;
type AdamSettings = OptimizerOptions & { readonly beta1: number; readonly beta2: number; readonly eps: number };

/** The second group of "adamw_groups": biases do not decay, and their schedule starts at a tenth of the rate. */
const BIASES = { match: (_: string, p: Parameter): boolean => p.rank === 1, weightDecay: 0 };
const BIAS_RATE = 0.1;

const OPTIMIZERS: Readonly<Record<string, (params: Params, o: AdamSettings) => Optimizer>> = {
  adamw: (params, o) => new AdamW(params, o),
  adam: (params, o) => new Adam(params, o),
  sgd: (params, { weightDecay }) => new Sgd(params, { weightDecay, momentum: 0.9 }),
  adamw_amsgrad: (params, o) => new AdamW(params, { ...o, amsgrad: true }),
  adamw_groups: (params, o) => new AdamW(params, { ...o, groups: [BIASES] }),
};

/** The numbers that the folder's README gives its schedules and its configuration does not. */
const SCHEDULES: Readonly<Record<string, (lr: number, steps: number) => LrSchedule>> = {
  constant: (lr) => constant(lr),
  cosine: (lr, steps) => cosine({ lr, steps, floor: 1e-4 }),
  warmup_cosine: (lr, steps) => warmupCosine({ lr, steps, warmup: 5, fromZero: true }),
};

export const optim: Kind = {
  name: "optim",
  recognises: async (folder) => {
    const config = (await peekJson(folder, "config.json")) as Partial<Config> | null;
    return typeof config?.runs === "object" && Array.isArray(config.betas);
  },
  run,
};

async function* run(folder: string): AsyncGenerator<Check> {
  const config = await readJson<Config>(folder, "config.json");
  const tolerances = await readJson<Tolerances>(folder, "tolerance.json");
  const io = await readTensors(folder, "io.safetensors");
  for (const name of Object.keys(config.runs)) {
    try {
      yield* checkRun(name, io, tolerances, await repeat(config, config.runs[name], io));
    } catch (error) {
      yield broken(name, (error as Error).message);
    }
  }
}

/** Rates are float64 on both sides: the same formula, rounded a few times. */
const RATE_BOUND = 1e-14;

function* checkRun(name: string, io: Io, tolerances: Tolerances, got: ReadonlyMap<string, number[]>): Generator<Check> {
  for (const [key, want] of io) {
    if (!key.startsWith(`${name}.`)) continue;
    const values = got.get(key.slice(name.length + 1));
    const bound = key === `${name}.lr` ? RATE_BOUND : boundOf(tolerances[key]?.rel_to_max ?? 0);
    yield values ? compare(key, values, want.data, bound) : broken(key, "nothing here computes it", bound);
  }
}

/** Everything a run has after its steps, by the names of the folder; what it has in each step, one after another. */
async function repeat(config: Config, { kind, clip, schedule }: Run, io: Io): Promise<Map<string, number[]>> {
  const params = start(io);
  const [optimizer, ema] = [makeOptimizer(kind, params, config), new Ema(params, config.ema_decay)];
  for (const [name, shadow] of ema.state()) shadow.write(need(io, `in.init.${name}`).data); // theirs starts there
  const step = compile(({ x, y, lr, low }: Record<"x" | "y" | "lr" | "low", Tensor>) => {
    const loss = forward(params, x).sub(y).square().mean();
    const grads = grad(loss, optimizer.targets);
    const { grads: clipped, norm } = clipGradNorm(grads, config.clip);
    optimizer.step(clip ? clipped : grads, { lr, groupLr: [low] });
    ema.update(0);
    return { loss, grad_norm: norm };
  });
  const rate = makeSchedule(schedule, config.lr, config.steps);
  const lowRate = makeSchedule(schedule, config.lr * BIAS_RATE, config.steps);
  const series = new Map<string, number[]>();
  const append = async (name: string, value: Tensor): Promise<unknown> =>
    series.set(name, [...(series.get(name) ?? []), ...(await value.data())]);
  for (let t = 0; t < config.steps; t++) {
    const feed = { x: row(need(io, "in.x"), t), y: row(need(io, "in.y"), t), lr: rate(t), low: lowRate(t) };
    for (const [name, value] of Object.entries(step(feed))) await append(name, value);
    for (const [name, p] of params) await append(`param.${name}`, p);
    for (const [name, p] of ema.state()) await append(`ema.${name}`, p);
  }
  for (const [name, p] of optimizer.state()) await append(theirs(name), p);
  return series.set(
    "lr",
    Array.from({ length: config.steps }, (_, t) => rate(t)),
  );
}

const theirs = (name: string): string => name.replace(/^m\./, "exp_avg.").replace(/^v\./, "exp_avg_sq.");

function makeOptimizer(kind: string, params: Params, o: Config): Optimizer {
  const make = OPTIMIZERS[kind];
  if (!make) throw new Error(`no optimiser "${kind}" is known here`);
  return make(params, { beta1: o.betas[0], beta2: o.betas[1], eps: o.eps, weightDecay: o.weight_decay });
}

function makeSchedule(name: string | null, lr: number, steps: number): LrSchedule {
  const make = SCHEDULES[name ?? "constant"];
  if (!make) throw new Error(`no schedule "${name}" is known here`);
  return make(lr, steps);
}

function start(io: Io): Map<string, Parameter> {
  const names = [...io.keys()].filter((name) => name.startsWith("in.init.")).map((name) => name.slice(8));
  return new Map(
    names.sort().map((name) => {
      const { shape, data } = need(io, `in.init.${name}`);
      return [name, new Parameter(shape, Float32Array.from(data))];
    }),
  );
}

/** Batch `t` of an array whose first axis is time. */
function row({ shape, data, whole }: Stored, t: number): Tensor {
  const n = data.length / shape[0];
  return upload({ shape: shape.slice(1), data: data.slice(t * n, (t + 1) * n), whole });
}

/** Linear layers "<number>.weight" [out, in] and "<number>.bias", in the order of their numbers, with SiLU between. */
function forward(params: Params, x: Tensor): Tensor {
  const weights = [...params.keys()].filter((name) => name.endsWith(".weight"));
  const layers = weights.map((name) => Number.parseInt(name, 10)).sort((a, b) => a - b);
  const linear = (y: Tensor, i: number): Tensor =>
    y.matmul((params.get(`${i}.weight`) as Parameter).transpose()).add(params.get(`${i}.bias`) as Parameter);
  return layers.slice(1).reduce((y, i) => linear(y.silu(), i), linear(x, layers[0]));
}
