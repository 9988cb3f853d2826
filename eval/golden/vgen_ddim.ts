// Golden kind "vgen-ddim": schedules, noising, posteriors and guided DDIM loops of VGen's DiffusionDDIM. variants.json holds the
// arguments of each trajectory; io.safetensors the answers of two networks, with and without the condition.

import { guide, NoiseSchedule, type NoiseScheduleOptions, type Prediction } from "../../models/diffusion.ts";
import { SAMPLERS } from "../../models/samplers.ts";
import { need, peekJson, readJson, readTensors, type Stored, upload } from "./files.ts";
import { boundOf, broken, type Check, compare, type Kind, SLACK, TWO_ULPS } from "./kind.ts";
import { follow } from "./trajectory.ts";

interface Variant {
  readonly schedule: string;
  readonly schedule_param: {
    readonly num_timesteps?: number;
    readonly init_beta?: number;
    readonly last_beta?: number;
    readonly cosine_s?: number;
    readonly zero_terminal_snr?: boolean;
  };
  readonly mean_type: string;
  readonly guide_scale?: number | null;
  readonly eta?: number;
  readonly clamp?: number | null;
  readonly percentile?: number | null;
  readonly ddim_timesteps: number;
}
type Tolerances = Readonly<Record<string, { readonly rel_to_max: number }>>;
type Io = ReadonlyMap<string, Stored>;

export const vgenDdim: Kind = {
  name: "vgen-ddim",
  recognises: async (folder) => {
    const variants = (await peekJson(folder, "variants.json")) as Readonly<Record<string, Variant>> | null;
    return Object.values(variants ?? {}).some((v) => v?.schedule_param !== undefined);
  },
  run,
};

async function* run(folder: string): AsyncGenerator<Check> {
  const variants = await readJson<Readonly<Record<string, Variant>>>(folder, "variants.json");
  const tolerances = await readJson<Tolerances>(folder, "tolerance.json");
  const io = await readTensors(folder, "io.safetensors");
  const bound = (name: string): number => (name in tolerances ? boundOf(tolerances[name].rel_to_max) : TWO_ULPS);
  const schedules = new Set<string>();
  for (const [name, variant] of Object.entries(variants)) {
    try {
      const schedule = scheduleOf(variant);
      // "cosine_ztsnr.v.clamp" follows the schedule whose own tensors begin with "cosine_ztsnr".
      const [own] = name.split(".");
      if (!schedules.has(own)) yield* scheduleChecks(own, schedule, io, bound);
      schedules.add(own);
      yield* trajectory(name, variant, schedule, io, bound);
    } catch (error) {
      yield broken(name, (error as Error).message);
    }
  }
}

const BETAS: Readonly<Record<string, NoiseScheduleOptions["betas"]>> = {
  linear: "linear",
  linear_sd: "scaled-linear",
  quadratic: "scaled-linear",
  cosine: "cosine",
};
const PREDICTIONS: Readonly<Record<string, Prediction>> = { eps: "epsilon", v: "v", x0: "sample" };

function scheduleOf({ schedule, schedule_param: p }: Variant): NoiseSchedule {
  if (!(schedule in BETAS)) throw new Error(`schedule "${schedule}" is not known here`);
  return new NoiseSchedule({
    steps: p.num_timesteps,
    betas: BETAS[schedule],
    range: [p.init_beta ?? 0.00085, p.last_beta ?? 0.012],
    cosineShift: p.cosine_s,
    zeroTerminalSnr: p.zero_terminal_snr ?? false,
  });
}

/** Two orders of float64 products over a thousand factors; betas are quotients of neighbours among them. */
const FLOAT64_BOUND = SLACK * 1000 * Number.EPSILON;

async function* scheduleChecks(
  own: string,
  schedule: NoiseSchedule,
  io: Io,
  bound: (name: string) => number,
): AsyncGenerator<Check> {
  const { alphaBar } = schedule;
  const betas = io.get(`out.${own}.betas`);
  const quotients = alphaBar.map((a, t) => 1 - (t > 0 ? a / alphaBar[t - 1] : a));
  if (betas) yield compare(`out.${own}.betas`, quotients, betas.data, FLOAT64_BOUND);
  if (!io.has(`out.${own}.q.x_t`)) return;
  const [x0, noise, t] = ["in.q.x0", "in.q.noise", "in.q.t"].map((name) => need(io, name));
  const noised = await schedule.addNoise(upload(x0), upload(noise), upload(t)).data();
  yield compare(`out.${own}.q.x_t`, noised, need(io, `out.${own}.q.x_t`).data, bound(`out.${own}.q.x_t`));
  const posterior = posteriors(schedule, x0, noise, t);
  for (const [name, got] of Object.entries({ posterior_mean: posterior.mean, posterior_var: posterior.variance })) {
    const want = io.get(`out.${own}.${name}`);
    if (want) yield compare(`out.${own}.${name}`, got, want.data, TWO_ULPS);
  }
}

/** q(x_(t-1) | x_t, x0) of each row, as one step of ancestral sampling takes it, in float64. */
function posteriors(
  schedule: NoiseSchedule,
  x0: Stored,
  xt: Stored,
  t: Stored,
): { mean: number[]; variance: number[] } {
  const plan = SAMPLERS.ddpm(schedule, { steps: schedule.steps });
  const n = x0.data.length / t.data.length;
  const rows = [...t.data].map((step) => {
    const found = plan.find((p) => p.step === step);
    if (!found) throw new Error(`ancestral sampling does not visit step ${step}`);
    return found.numbers;
  });
  const mean = [...x0.data].map((clean, i) => {
    const k = rows[Math.floor(i / n)];
    return k.nextSignal * clean + (k.nextNoise * (xt.data[i] - k.signal * clean)) / k.noise;
  });
  return { mean, variance: rows.map((k) => k.sigma ** 2) };
}

async function* trajectory(
  name: string,
  v: Variant,
  schedule: NoiseSchedule,
  io: Io,
  bound: (name: string) => number,
): AsyncGenerator<Check> {
  if (!(v.mean_type in PREDICTIONS)) throw new Error(`mean_type "${v.mean_type}" is not known here`);
  const { alphaBar } = schedule;
  const table = io.get(`out.${name}.alphas_cumprod`);
  if (table) yield compare(`out.${name}.alphas_cumprod`, alphaBar, table.data, FLOAT64_BOUND);
  // 1, 1 + stride, ... below the schedule's end: more of them than asked for where the stride was rounded down.
  const stride = Math.floor(schedule.steps / v.ddim_timesteps);
  const steps = Math.ceil((schedule.steps - 1) / stride);
  const plan = SAMPLERS.ddim(schedule, { steps, stride, eta: v.eta, offset: 1, end: "first", next: "stride" });
  const visited = plan.map(({ step }) => step);
  yield compare(`out.${name}.steps`, visited, need(io, `out.${name}.steps`).data, 0);
  const [cond, uncond] = [need(io, "in.out_cond"), need(io, "in.out_uncond")];
  const threshold = typeof v.percentile === "number" ? { quantile: v.percentile } : undefined;
  const scale = v.guide_scale;
  const { x, x0 } = await follow({
    plan,
    prediction: PREDICTIONS[v.mean_type],
    limit: { clip: v.clamp ?? undefined, threshold, fresh: true },
    start: need(io, "in.x_T"),
    answers: typeof scale === "number" ? { cond, uncond } : { cond },
    answer: ({ cond, uncond }) =>
      typeof scale === "number"
        ? guide((_, __, { answer }) => answer, cond, STEP, { on: { answer: cond }, off: { answer: uncond }, scale })
        : cond,
    noise: io.get("in.noise"),
  });
  for (const [key, got] of Object.entries({ x, x0 }))
    yield compare(`out.${name}.${key}`, got, need(io, `out.${name}.${key}`).data, bound(`out.${name}.${key}`));
}

/** What `guide` doubles along with x; the answers are looked up by another one. */
const STEP = upload({ shape: [1], data: new Float64Array(1), whole: true });
