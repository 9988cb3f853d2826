// Gaussian diffusion (Ho et al. 2020) and its samplers: noise schedules in float64 on the host, training targets, DDIM and
// guidance. Nothing here knows a network: it is given as a function of (x, step). `step` counts from 0 (least noise).

import { compile, type Feed, type Named, type Rng, type Step, type Tensor, tensor } from "../engine/index.ts";
import type { SystemConfig } from "./config.ts";

/** What the network predicts: the noise, or the velocity of Salimans & Ho 2022. */
export type Prediction = SystemConfig["prediction"];

export interface NoiseScheduleOptions {
  readonly steps?: number;
  /** scaled-linear: sqrt(beta) is linear (latent diffusion); cosine: Nichol & Dhariwal 2021, eq. 17, beta <= 0.999. */
  readonly betas?: "scaled-linear" | "linear" | "cosine";
  /** First and last beta of the linear schedules. */
  readonly range?: readonly [first: number, last: number];
  /** Rescales so that the last step is pure noise (Lin et al. 2024, algorithm 1); needs velocity prediction. */
  readonly zeroTerminalSnr?: boolean;
}

function makeBetas(
  kind: "scaled-linear" | "linear" | "cosine",
  steps: number,
  [first, last]: readonly [number, number],
): Float64Array {
  const line = (i: number, a: number, b: number): number => a + (i / (steps - 1)) * (b - a);
  const f = (i: number): number => Math.cos(((i / steps + 0.008) / 1.008) * (Math.PI / 2)) ** 2;
  const beta = {
    linear: (i: number) => line(i, first, last),
    "scaled-linear": (i: number) => line(i, Math.sqrt(first), Math.sqrt(last)) ** 2,
    cosine: (i: number) => Math.min(1 - f(i + 1) / f(i), 0.999),
  }[kind];
  return Float64Array.from({ length: steps }, (_, i) => beta(i));
}

/** alphaBar_t = prod_{s <= t} (1 - beta_s): Ho et al. 2020, eq. 4. */
function cumulative(betas: Float64Array): Float64Array {
  let product = 1;
  return betas.map((beta) => (product *= 1 - beta));
}

/** sqrt(alphaBar) shifted so that the last is 0 and stretched so that the first stays (Lin et al. 2024, algorithm 1). */
function zeroTerminal(alphaBar: Float64Array): Float64Array {
  const [first, last] = [Math.sqrt(alphaBar[0]), Math.sqrt(alphaBar[alphaBar.length - 1])];
  return alphaBar.map((a) => ((Math.sqrt(a) - last) * (first / (first - last))) ** 2);
}

/** How much signal and noise x_t = sqrt(alphaBar_t) x0 + sqrt(1 - alphaBar_t) eps holds, t = 0 ... steps - 1. */
export class NoiseSchedule {
  readonly steps: number;
  readonly alphaBar: Float64Array;
  // [steps, 2]: sqrt(alphaBar), sqrt(1 - alphaBar)
  readonly #table: Tensor;

  /** Stable Diffusion's schedule unless told otherwise. Throws RangeError for fewer than two steps. */
  constructor(o: NoiseScheduleOptions = {}) {
    this.steps = o.steps ?? 1000;
    if (!Number.isInteger(this.steps) || this.steps < 2) {
      throw new RangeError(`noise schedule: steps must be a whole number from 2, got ${this.steps}`);
    }
    const alphaBar = cumulative(makeBetas(o.betas ?? "scaled-linear", this.steps, o.range ?? [0.00085, 0.012]));
    this.alphaBar = o.zeroTerminalSnr ? zeroTerminal(alphaBar) : alphaBar;
    const rows = [...this.alphaBar].flatMap((a) => [Math.sqrt(a), Math.sqrt(1 - a)]);
    this.#table = tensor(Float32Array.from(rows), [this.steps, 2]);
  }

  /** sqrt(alphaBar) and sqrt(1 - alphaBar) at `step` i32 [b], shaped to scale tensors [b, ...] of `rank` axes. */
  at(step: Tensor, rank: number): { signal: Tensor; noise: Tensor } {
    const { b } = step.dims("b");
    const rows = this.#table.gatherRows(step);
    const column = (i: number): Tensor => rows.slice(1, i, i + 1).reshape([b, ...new Array<number>(rank - 1).fill(1)]);
    return { signal: column(0), noise: column(1) };
  }

  /** x_t = sqrt(alphaBar) x0 + sqrt(1 - alphaBar) noise, step i32 [b] (Ho et al. 2020, eq. 4). */
  addNoise(x0: Tensor, noise: Tensor, step: Tensor): Tensor {
    const k = this.at(step, x0.rank);
    return x0.mul(k.signal).add(noise.mul(k.noise));
  }

  /** v = sqrt(alphaBar) noise - sqrt(1 - alphaBar) x0 (Salimans & Ho 2022, appendix D). */
  velocity(x0: Tensor, noise: Tensor, step: Tensor): Tensor {
    const k = this.at(step, x0.rank);
    return noise.mul(k.signal).sub(x0.mul(k.noise));
  }

  /** What the network should answer for addNoise(x0, noise, step). Throws RangeError for epsilon with zero terminal SNR. */
  target(prediction: Prediction, x0: Tensor, noise: Tensor, step: Tensor): Tensor {
    if (prediction === "v") return this.velocity(x0, noise, step);
    if (this.alphaBar[this.steps - 1] > 0) return noise;
    throw new RangeError('a schedule with zero terminal SNR cannot be sampled from noise predictions: use "v"');
  }
}

/**
 * Clean sample and noise that the network's answer `out` at x_t implies: x_t = signal x0 + noise eps solved for x0, or for
 * both with v = signal eps - noise x0. `k` is signal = sqrt(alphaBar_t) and noise = sqrt(1 - alphaBar_t).
 */
export function denoise(
  prediction: Prediction,
  x: Tensor,
  out: Tensor,
  k: { signal: Tensor; noise: Tensor },
): { x0: Tensor; eps: Tensor } {
  if (prediction === "epsilon") return { x0: x.sub(out.mul(k.noise)).div(k.signal), eps: out };
  return { x0: x.mul(k.signal).sub(out.mul(k.noise)), eps: out.mul(k.signal).add(x.mul(k.noise)) };
}

/** A network: noisy x [b, ...], step i32 [b] and whatever it is conditioned on -> noise or velocity, [b, ...]. */
export type Predict<C extends Named = Named> = (x: Tensor, step: Tensor, context: C) => Tensor;

/**
 * Classifier-free guidance: eps_u + scale (eps_c - eps_u) (Ho & Salimans 2022, eq. 6 with scale = w + 1). Both halves go
 * through `predict` as one batch. `off` and `on` are the context without and with the condition, each [b, ...].
 */
export function guide<C extends Named>(
  predict: Predict<C>,
  x: Tensor,
  step: Tensor,
  { off, on, scale }: { off: C; on: C; scale: Tensor | number },
): Tensor {
  const context = Object.fromEntries(Object.keys(on).map((name) => [name, off[name].concat([on[name]], 0)])) as C;
  const both = predict(x.concat([x], 0), step.concat([step], 0), context);
  const plain = both.slice(0, 0, x.shape[0]);
  const conditioned = both.slice(0, x.shape[0]);
  return plain.add(conditioned.sub(plain).mul(scale));
}

/** The numbers of one DDIM update. All vary from step to step, so they are fed and one program serves the whole loop. */
export interface DdimNumbers {
  /** sqrt(alphaBar_t), sqrt(1 - alphaBar_t) */
  readonly signal: number;
  readonly noise: number;
  /** sqrt(alphaBar_t'), sqrt(1 - alphaBar_t' - sigma^2) and sigma of the step that is gone to. */
  readonly nextSignal: number;
  readonly nextNoise: number;
  readonly sigma: number;
}

/** Song et al. 2021, eq. 12: x_t' = sqrt(alphaBar_t') x0 + sqrt(1 - alphaBar_t' - sigma^2) eps + sigma z. */
export function ddimUpdate(
  prediction: Prediction,
  x: Tensor,
  out: Tensor,
  k: Readonly<Record<keyof DdimNumbers, Tensor>>,
  z?: Tensor,
): { x: Tensor; x0: Tensor } {
  const { x0, eps } = denoise(prediction, x, out, k);
  const next = x0.mul(k.nextSignal).add(eps.mul(k.nextNoise));
  return { x: z ? next.add(z.mul(k.sigma)) : next, x0 };
}

export interface DdimPlanOptions {
  /** Steps to take, at most those of the schedule. */
  readonly steps: number;
  /** 0: deterministic; 1: as noisy as ancestral sampling. */
  readonly eta?: number;
  /** leading: 1, 1 + stride, ... (Stable Diffusion); trailing: down from the last step, which zero terminal SNR needs. */
  readonly spacing?: "leading" | "trailing";
}

/**
 * Steps visited, in order, and the numbers of each update. The last update goes to alphaBar_0, not to 1 (spec 2.12). Throws
 * RangeError for step counts that the schedule does not have and for eta outside [0, 1].
 */
export function ddimPlan(schedule: NoiseSchedule, o: DdimPlanOptions): { step: number; numbers: DdimNumbers }[] {
  const { steps: n, eta = 0, spacing = "leading" } = o;
  if (!Number.isInteger(n) || n < 1 || n > schedule.steps) {
    throw new RangeError(`ddim: steps must be a whole number from 1 to ${schedule.steps}, got ${n}`);
  }
  if (!(eta >= 0 && eta <= 1)) throw new RangeError(`ddim: eta must be from 0 to 1, got ${eta}`);
  const stride = Math.floor(schedule.steps / n);
  const offset = Math.min(1, schedule.steps - 1 - (n - 1) * stride); // 1, unless every step is taken
  const leading = (i: number): number => (n - 1 - i) * stride + offset;
  const trailing = (i: number): number => Math.round(((n - i) * schedule.steps) / n) - 1;
  return Array.from({ length: n }, (_, i) => {
    const step = spacing === "leading" ? leading(i) : trailing(i);
    return { step, numbers: ddimNumbers(schedule.alphaBar[step], schedule.alphaBar[Math.max(step - stride, 0)], eta) };
  });
}

/** sigma = eta sqrt((1 - next) / (1 - now)) sqrt(1 - now / next): Song et al. 2021, eq. 16. */
function ddimNumbers(now: number, next: number, eta: number): DdimNumbers {
  const sigma = eta * Math.sqrt(((1 - next) / (1 - now)) * (1 - now / next));
  const nextNoise = Math.sqrt(1 - next - sigma ** 2);
  return { signal: Math.sqrt(now), noise: Math.sqrt(1 - now), nextSignal: Math.sqrt(next), nextNoise, sigma };
}

export type DdimStep = Step<Named, { readonly x: Tensor; readonly x0: Tensor }>;

/**
 * One compiled DDIM update around a network, for `ddim`; compile once, sample many times. What varies between samples
 * (text, guidance scale) reaches `predict` through `context`. `rng` draws the noise that eta > 0 needs.
 */
export function ddimStep(predict: Predict, prediction: Prediction, rng?: Rng): DdimStep {
  const update = ({ x, step, signal, noise, nextSignal, nextNoise, sigma, ...context }: Named) => {
    if (sigma && !rng) throw new Error("ddim: eta > 0 needs random numbers: give ddimStep a generator");
    const out = predict(x, step.cast("i32").expand([x.shape[0]]), context);
    const z = sigma && rng?.normal(x.shape);
    return ddimUpdate(prediction, x, out, { signal, noise, nextSignal, nextNoise, sigma }, z);
  };
  return compile(update, { name: "ddim" });
}

export interface DdimOptions extends DdimPlanOptions {
  /** Tensors and numbers that `predict` receives at every step. */
  readonly context?: Feed<Named>;
}

/** One update of the loop: the step it left, x at the next one and the clean sample it predicted. */
export interface DdimProgress {
  readonly i: number;
  readonly step: number;
  readonly x: Tensor;
  readonly x0: Tensor;
}

/** Song et al. 2021 from x ~ N(0, 1). Tensors yielded are valid until two updates later; nothing is read back. */
export async function* ddim(
  update: DdimStep,
  x: Tensor,
  schedule: NoiseSchedule,
  o: DdimOptions,
): AsyncGenerator<DdimProgress> {
  const plan = ddimPlan(schedule, o);
  const taken = Object.keys(o.context ?? {}).find((name) =>
    ["x", "step", ...Object.keys(plan[0].numbers)].includes(name),
  );
  if (taken) throw new TypeError(`ddim: "${taken}" in the context is a name that the update itself uses: rename it`);
  let now = x;
  for (const [i, { step, numbers }] of plan.entries()) {
    const { sigma, ...rest } = numbers;
    const next = update({ ...o.context, ...(o.eta ? numbers : rest), x: now, step });
    now = next.x;
    yield { i, step, ...next };
  }
}
