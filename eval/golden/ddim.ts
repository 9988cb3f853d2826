// Golden kind "ddim": noise schedules, noising and sampling trajectories of diffusers' DDIM scheduler. variants.json holds the
// scheduler's arguments of each trajectory; io.safetensors the answers of a network that does not look at its input, and
// what came of them.

import { BETAS, PREDICTIONS, SPACINGS } from "../../models/checkpoints/scheduler.ts";
import { NoiseSchedule } from "../../models/diffusion.ts";
import { SAMPLERS } from "../../models/samplers.ts";
import { need, peekJson, readJson, readTensors, type Stored, upload } from "./files.ts";
import { boundOf, broken, type Check, compare, type Kind, SLACK } from "./kind.ts";
import { follow } from "./trajectory.ts";

/** Arguments of diffusers' scheduler that are known here; another one fails its variant. */
interface Variant {
  readonly steps: number;
  readonly eta?: number;
  readonly num_train_timesteps?: number;
  readonly beta_start?: number;
  readonly beta_end?: number;
  readonly beta_schedule?: string;
  readonly trained_betas?: readonly number[] | null;
  readonly clip_sample?: boolean;
  readonly clip_sample_range?: number;
  readonly set_alpha_to_one?: boolean;
  readonly steps_offset?: number;
  readonly prediction_type?: string;
  readonly timestep_spacing?: string;
  readonly rescale_betas_zero_snr?: boolean;
  readonly thresholding?: boolean;
  readonly dynamic_thresholding_ratio?: number;
  readonly sample_max_value?: number;
  readonly use_clipped_model_output?: boolean;
}
const KNOWN = new Set([
  ...["steps", "eta", "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"],
  ...["clip_sample", "clip_sample_range", "set_alpha_to_one", "steps_offset", "prediction_type", "timestep_spacing"],
  ...["rescale_betas_zero_snr", "thresholding", "dynamic_thresholding_ratio", "sample_max_value"],
  ...["use_clipped_model_output", "skip_prk_steps"],
]);
type Tolerances = Readonly<Record<string, { readonly rel_to_max: number }>>;
type Io = ReadonlyMap<string, Stored>;

export const ddim: Kind = {
  name: "ddim",
  recognises: async (folder) => {
    const config = (await peekJson(folder, "config.json")) as { readonly beta_schedule?: string } | null;
    return config?.beta_schedule !== undefined && (await peekJson(folder, "variants.json")) !== null;
  },
  run,
};

const TABLE = "out.alphas_cumprod (float32 table vs exact)";

async function* run(folder: string): AsyncGenerator<Check> {
  const config = await readJson<Variant>(folder, "config.json");
  const variants = await readJson<Readonly<Record<string, Variant>>>(folder, "variants.json");
  const tolerances = await readJson<Tolerances>(folder, "tolerance.json");
  const io = await readTensors(folder, "io.safetensors");
  const bound = (name: string): number => boundOf((tolerances[name] ?? tolerances[TABLE])?.rel_to_max ?? 0);
  yield* tables(config, io, bound);
  yield* noising(config, io, bound);
  for (const [name, variant] of Object.entries(variants)) {
    try {
      yield* trajectory(name, variant, libraryTable(variant, config, io), io, bound);
    } catch (error) {
      yield broken(name, (error as Error).message);
    }
  }
}

/** `table[value]`, where the scheduler's own default is the first. */
function choice<T>(table: Readonly<Record<string, T>>, what: string, value: string): T {
  if (!(value in table)) throw new Error(`${what} "${value}" is not known here`);
  return table[value];
}

function scheduleOf(v: Variant): NoiseSchedule {
  return new NoiseSchedule({
    steps: v.num_train_timesteps,
    betas: v.trained_betas ?? choice(BETAS, "beta_schedule", v.beta_schedule ?? "linear"),
    range: [v.beta_start ?? 1e-4, v.beta_end ?? 0.02],
    zeroTerminalSnr: v.rescale_betas_zero_snr ?? false,
  });
}

/**
 * The schedule as the trajectories have it: the library keeps alphaBar in float32, which a division by 1 - alphaBar
 * magnifies. So its own table is taken where the folder has that of these arguments.
 */
function libraryTable(v: Variant, config: Variant, io: Io): NoiseSchedule {
  const keys = ["num_train_timesteps", "beta_start", "beta_end", "beta_schedule"] as const;
  const table = io.get(v.rescale_betas_zero_snr ? "out.zero_snr.alphas_cumprod" : "out.alphas_cumprod");
  if (!table || v.trained_betas || keys.some((key) => v[key] !== config[key])) return scheduleOf(v);
  return new NoiseSchedule({ betas: table.data.map((a, t, all) => 1 - (t > 0 ? a / all[t - 1] : a)) });
}

/** The library's tables. Those of float32 are held to what float32 cost them, the one of float64 to a few roundings. */
function* tables(config: Variant, io: Io, bound: (name: string) => number): Generator<Check> {
  const betas = ({ alphaBar }: NoiseSchedule): Float64Array =>
    alphaBar.map((a, t) => 1 - (t > 0 ? a / alphaBar[t - 1] : a));
  const steps = config.num_train_timesteps;
  const own = scheduleOf(config);
  const linear = new NoiseSchedule({ steps, betas: "linear", range: [1e-4, 0.02] });
  const cosine = new NoiseSchedule({ steps, betas: "cosine" });
  const zero = scheduleOf({ ...config, rescale_betas_zero_snr: true });
  const known: Readonly<Record<string, () => Float64Array>> = {
    "out.betas": () => betas(own),
    "out.alphas_cumprod": () => own.alphaBar,
    "out.alphas_cumprod_f64": () => own.alphaBar,
    "out.betas.linear": () => betas(linear),
    "out.alphas_cumprod.linear": () => linear.alphaBar,
    "out.betas.cosine": () => betas(cosine),
    "out.alphas_cumprod.cosine": () => cosine.alphaBar,
    "out.zero_snr.alphas_cumprod": () => zero.alphaBar,
    "out.snr": () => own.alphaBar.map((a) => a / (1 - a)),
  };
  for (const [name, values] of Object.entries(known)) {
    const want = io.get(name);
    if (!want) continue;
    yield compare(name, values(), want.data, name.endsWith("_f64") ? FLOAT64_BOUND : bound(name));
  }
}

/** A product of a thousand factors in another order. */
const FLOAT64_BOUND = SLACK * 1000 * Number.EPSILON;

async function* noising(config: Variant, io: Io, bound: (name: string) => number): AsyncGenerator<Check> {
  if (!io.has("in.q.t")) return;
  const schedule = scheduleOf(config);
  const [x0, noise, step] = ["in.q.x0", "in.q.noise", "in.q.t"].map((name) => upload(need(io, name)));
  const got = {
    "out.q.x_t": schedule.addNoise(x0, noise, step),
    "out.q.velocity": schedule.velocity(x0, noise, step),
  };
  for (const [name, value] of Object.entries(got))
    yield compare(name, await value.data(), need(io, name).data, bound(name));
}

async function* trajectory(
  name: string,
  v: Variant,
  schedule: NoiseSchedule,
  io: Io,
  bound: (name: string) => number,
): AsyncGenerator<Check> {
  const unknown = Object.keys(v).find((key) => !KNOWN.has(key));
  if (unknown) throw new Error(`the scheduler's argument ${unknown} is not known here`);
  const spacing = choice(SPACINGS, "timestep_spacing", v.timestep_spacing ?? "leading");
  const plan = SAMPLERS.ddim(schedule, {
    steps: v.steps,
    eta: v.eta,
    spacing,
    offset: v.steps_offset ?? 0,
    end: (v.set_alpha_to_one ?? true) ? "clean" : "first",
    next: "stride",
  });
  const visited = plan.map(({ step }) => step);
  yield compare(`out.${name}.timesteps`, visited, need(io, `out.${name}.timesteps`).data, 0);
  const threshold = { quantile: v.dynamic_thresholding_ratio ?? 0.995, max: v.sample_max_value ?? 1 };
  const clip = (v.clip_sample ?? true) ? (v.clip_sample_range ?? 1) : undefined;
  const { x, x0 } = await follow({
    plan,
    prediction: choice(PREDICTIONS, "prediction_type", v.prediction_type ?? "epsilon"),
    limit: { ...(v.thresholding ? { threshold } : { clip }), fresh: v.use_clipped_model_output },
    start: need(io, "in.x_T"),
    answers: { out: need(io, "in.model_output") },
    answer: ({ out }) => out,
    noise: io.get("in.variance_noise"),
  });
  for (const [key, got] of Object.entries({ x, pred_x0: x0 }))
    yield compare(`out.${name}.${key}`, got, need(io, `out.${name}.${key}`).data, bound(`out.${name}.${key}`));
}
