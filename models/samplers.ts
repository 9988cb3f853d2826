// Samplers of diffusion models: from noise to a clean sample in a few calls of the network. All of them are one update with
// different numbers,
//
//   x' = signal' x0 + noise' eps + sigma z + history (x0 - x0 of the step before)
//
// where x0 and eps are what the network's answer at x implies (diffusion.ts) and z is fresh noise. So a sampler is a plan: the
// steps it visits with their numbers, in float64 on the host. One compiled program serves all steps of a plan.

import { compile, type Feed, type Named, type Step, type Tensor } from "../engine/index.ts";
import { denoise, type NoiseSchedule, type Predict, type Prediction, type SampleLimit } from "./diffusion.ts";

/** The numbers of one update. All vary from step to step, so they are fed. */
export interface SamplerNumbers {
  /** sqrt(alphaBar_t), sqrt(1 - alphaBar_t) */
  readonly signal: number;
  readonly noise: number;
  /** sqrt(alphaBar_t'), sqrt(1 - alphaBar_t' - sigma^2) and sigma of the step that is gone to. */
  readonly nextSignal: number;
  readonly nextNoise: number;
  readonly sigma: number;
  /** Weight of what x0 has changed by since the step before. */
  readonly history: number;
}

export interface PlannedStep {
  readonly step: number;
  readonly numbers: SamplerNumbers;
}

export interface PlanOptions {
  /** Steps to take, at most those of the schedule. */
  readonly steps: number;
  /** 0: deterministic; 1: as noisy as ancestral sampling. */
  readonly eta?: number;
  /**
   * leading: `offset`, `offset` + stride, ... (Stable Diffusion); trailing: down from the last step, which zero terminal
   * SNR needs; linspace: from the last step to the first, evenly.
   */
  readonly spacing?: "leading" | "trailing" | "linspace";
  /** leading: the smallest step visited; 1, or 0 where every step is taken. */
  readonly offset?: number;
  /** leading: from one step to the next; floor(schedule.steps / steps). */
  readonly stride?: number;
  /** Where the last update goes: to alphaBar_0 (spec 2.12) or to alphaBar = 1. Each sampler has its own rule. */
  readonly end?: "first" | "clean";
  /**
   * Where the others go: to the step that is visited next, or down by the stride as diffusers' DDIM, which is the same
   * unless the spacing is uneven.
   */
  readonly next?: "visited" | "stride";
}

export type SamplerName = "ddim" | "ddpm" | "dpm++" | "euler";

/** What each sampler makes of a schedule. All throw RangeError as `visits` and `numbers` do. */
export const SAMPLERS: Readonly<Record<SamplerName, (schedule: NoiseSchedule, o: PlanOptions) => PlannedStep[]>> = {
  /** Song et al. 2021, eq. 12. */
  ddim: (schedule, o) => plan(schedule, { end: "first", ...o }),
  /** Ancestral sampling (Ho et al. 2020, algorithm 2) with strides: DDIM with eta = 1 (Song et al. 2021, section 4.1). */
  ddpm: (schedule, o) => plan(schedule, { end: "clean", ...o, eta: 1 }),
  /** DPM-Solver++(2M), Lu et al. 2022, algorithm 2. */
  "dpm++": (schedule, o) => withHistory(plan(schedule, { end: "clean", ...o, eta: 0 })),
  /**
   * Euler's method for the probability-flow ODE in y = x / signal over s = noise / signal, dy/ds = eps (Karras et al. 2022,
   * eq. 4): y' = x0 + s' eps. That is DDIM's update (Song et al. 2021, eq. 13); what differs is that it ends at s = 0.
   */
  euler: (schedule, o) => plan(schedule, { end: "clean", ...o }),
};

function plan(schedule: NoiseSchedule, o: PlanOptions): PlannedStep[] {
  const { steps: n, eta = 0, end, next } = o;
  if (!Number.isInteger(n) || n < 1 || n > schedule.steps)
    throw new RangeError(`sampler: steps must be a whole number from 1 to ${schedule.steps}, got ${n}`);
  if (!(eta >= 0 && eta <= 1)) throw new RangeError(`sampler: eta must be from 0 to 1, got ${eta}`);
  const stride = o.stride ?? Math.floor(schedule.steps / n);
  const visited = visits(schedule.steps, stride, o);
  const after = end === "clean" ? 1 : schedule.alphaBar[0];
  const alphaBar = (step: number | undefined): number =>
    step === undefined || step < 0 ? after : schedule.alphaBar[step];
  return visited.map((step, i) => {
    const to = next === "stride" ? step - stride : visited[i + 1];
    return { step, numbers: numbers(alphaBar(step), alphaBar(to), eta) };
  });
}

/** The steps visited, from the noisiest. Throws RangeError where `offset` leads out of the schedule. */
function visits(total: number, stride: number, { steps: n, spacing = "leading", offset }: PlanOptions): number[] {
  const first = offset ?? Math.min(1, total - 1 - (n - 1) * stride);
  if (!Number.isInteger(first) || first < 0 || (n - 1) * stride + first >= total)
    throw new RangeError(`sampler: offset ${first} leads out of a schedule of ${total} steps, of which ${n} are taken`);
  const step = {
    leading: (i: number) => (n - 1 - i) * stride + first,
    trailing: (i: number) => roundHalfEven(total - (i * total) / n) - 1,
    linspace: (i: number) => (n === 1 ? 0 : roundHalfEven(((n - 1 - i) * (total - 1)) / (n - 1))),
  }[spacing];
  return Array.from({ length: n }, (_, i) => step(i));
}

/** As numpy rounds: halves go to the even neighbour. */
function roundHalfEven(x: number): number {
  const down = Math.floor(x);
  return x - down === 0.5 ? down + (down % 2) : Math.round(x);
}

/** sigma = eta sqrt((1 - next) / (1 - now)) sqrt(1 - now / next): Song et al. 2021, eq. 16. */
function numbers(now: number, next: number, eta: number): SamplerNumbers {
  const sigma = eta * Math.sqrt(Math.max(0, ((1 - next) / (1 - now)) * (1 - now / next)));
  const nextNoise = Math.sqrt(Math.max(0, 1 - next - sigma ** 2));
  return {
    signal: Math.sqrt(now),
    noise: Math.sqrt(1 - now),
    nextSignal: Math.sqrt(next),
    nextNoise,
    sigma,
    history: 0,
  };
}

/**
 * With lambda = ln(signal / noise), h = lambda' - lambda and r = (h of the step before) / h, the second-order solver puts
 * x0 + (x0 - x0 of the step before) / 2r in the place of x0 in x' = (noise' / noise) x + signal' (1 - exp(-h)) x0, whose first
 * order is DDIM. The first step has no history, and the one that ends without noise (h infinite) uses none.
 */
function withHistory(steps: readonly PlannedStep[]): PlannedStep[] {
  const h = steps.map(({ numbers: k }) => Math.log((k.nextSignal * k.noise) / (k.nextNoise * k.signal)));
  return steps.map(({ step, numbers: k }, i) => {
    const history = i === 0 || k.nextNoise === 0 ? 0 : (k.nextSignal * -Math.expm1(-h[i]) * h[i]) / (2 * h[i - 1]);
    return { step, numbers: { ...k, history } };
  });
}

/** Names that an update uses itself, which a context may therefore not have. */
const OWN = ["x", "step", "i", "z", "previous", "signal", "noise", "nextSignal", "nextNoise", "sigma", "history"];

export type SamplerStep = Step<Named, { readonly x: Tensor; readonly x0: Tensor }>;

/**
 * One compiled update around a network, for `sample`; compile once, sample many times. What varies between samples (text,
 * guidance scale) reaches `predict` through `context`.
 */
export function samplerStep(predict: Predict, prediction: Prediction, limit?: SampleLimit): SamplerStep {
  const update = ({ x, step, i, z, previous, ...rest }: Named) => {
    const { signal, noise, nextSignal, nextNoise, sigma, history, ...context } = rest;
    const out = predict(x, step.cast("i32").expand([x.shape[0]]), context);
    const { x0, eps } = denoise(prediction, x, out, { signal, noise }, limit);
    let next = x0.mul(nextSignal).add(eps.mul(nextNoise));
    if (previous) next = next.add(x0.sub(previous).mul(history));
    if (z) next = next.add(rowOf(z, i, x).mul(sigma));
    return { x: next, x0 };
  };
  return compile(update, { name: "sampler", maxTraces: 12 }); // three forms of the update for each of four batch sizes
}

/** Row `i` of noise [steps, ...x.shape]. */
function rowOf(z: Tensor, i: Tensor, x: Tensor): Tensor {
  return z
    .reshape([z.shape[0], -1])
    .gatherRows(i.cast("i32").reshape([1]))
    .reshape(x.shape);
}

export interface SamplingOptions {
  /** Tensors and numbers that `predict` receives at every step. */
  readonly context?: Feed<Named>;
  /** Standard normal [steps, ...x.shape], what plans with sigma > 0 add; row i belongs to the i-th update. */
  readonly noise?: Tensor;
}

/** One update of the loop: the step it left, x at the next one and the clean sample it predicted. */
export interface SamplingProgress {
  readonly i: number;
  readonly step: number;
  readonly x: Tensor;
  readonly x0: Tensor;
}

/**
 * Follows a plan from x ~ N(0, 1) [b, ...]. Tensors yielded are valid until two updates later; nothing is read back. Throws
 * TypeError when the plan adds noise and there is none, or when the context uses a name of the update's own.
 */
export async function* sample(
  update: SamplerStep,
  x: Tensor,
  plan: readonly PlannedStep[],
  { context = {}, noise: z }: SamplingOptions = {},
): AsyncGenerator<SamplingProgress> {
  const taken = Object.keys(context).find((name) => OWN.includes(name));
  if (taken) throw new TypeError(`sample: "${taken}" in the context is a name that the update itself uses: rename it`);
  const noisy = plan.some(({ numbers }) => numbers.sigma > 0);
  const solver = plan.some(({ numbers }) => numbers.history !== 0);
  if (noisy && !z) throw new TypeError("sample: this plan adds noise at every step (eta > 0): give `noise`");
  let [now, previous] = [x, x]; // the first update's history has weight 0
  for (const [i, { step, numbers }] of plan.entries()) {
    const { sigma, history, ...always } = numbers;
    const extra = { ...(noisy && z ? { z, i, sigma } : {}), ...(solver ? { previous, history } : {}) };
    const next = update({ ...context, ...always, ...extra, x: now, step });
    [now, previous] = [next.x, next.x0];
    yield { i, step, ...next };
  }
}
