// `gifgrad plan`: what sampling stickers, or a training step, would take at a preset: dispatches, operations, memory. The steps
// are those that generate and train run, on a device that plans them and computes nothing: no GPU is needed, and no weight is
// allocated.

import { Tags } from "../data/tags.ts";
import { trainTokenizer } from "../data/tokenizer_train.ts";
import { compile, kernels, type Named, openDevice, type Parameter } from "../engine/index.ts";
import { type FamilyWork, heldBytes, sumFamilies } from "../engine/plan/summary.ts";
import { type PlannedStep, type PlannedWork, type PlanningDevice, planWork } from "../engine/planning.ts";
import { numel } from "../engine/shape.ts";
import { type SystemConfig, systemConfig } from "../models/config.ts";
import { LatentDiffusion } from "../models/latent_diffusion.ts";
import { VideoGpt, type VideoGptConfig, videoGptConfig } from "../models/videogpt.ts";
import { type SampleOptions, Sampler, type Sticker } from "../train/sample.ts";
import { VideoGptSampler } from "../train/sample_videogpt.ts";
import type { PlanOptions } from "./options.ts";
import { type SampleStep, STEPS, VIDEOGPT_STEPS } from "./steps.ts";

/** Tensors of one kind that outlive a step. */
interface Held {
  readonly what: string;
  readonly values: number;
  /** On the device; 0 for weights that no step has used. */
  readonly bytes: number;
}

/** What one process would do: sampling, or training one stage. */
interface Stage extends Pick<PlannedWork<State>, "steps" | "dispatches" | "flops" | "peak"> {
  readonly name: string;
  readonly held: readonly Held[];
}

type PlanReport = Pick<PlanOptions, "system" | "preset" | "batch" | "dtype" | "adapter"> & {
  readonly caps: kernels.Caps;
  /** To build, trace and plan everything. */
  readonly seconds: number;
  readonly stages: readonly Stage[];
};

/** Plans what the options ask for. Leaves no device open. */
export async function plan(o: PlanOptions): Promise<PlanReport> {
  const start = performance.now();
  const { system, preset, batch, dtype, adapter } = o;
  const caps = await capsOf(adapter);
  const stages: Stage[] = [];
  for (const [name, work] of workOf(o)) stages.push(await planStage(name, caps, work));
  return { system, preset, batch, dtype, adapter, caps, seconds: (performance.now() - start) / 1e3, stages };
}

type State = Readonly<Record<string, Iterable<Parameter>>>;

/** Does `work`, which says what state it keeps, on a device of its own that only plans. */
async function planStage(name: string, caps: kernels.Caps, work: Work): Promise<Stage> {
  const { result, device, ...numbers } = await planWork(caps, work);
  return { name, ...numbers, held: heldTensors(result, device, numbers.steps) };
}

type Work = () => State | Promise<State>;

/** What the options ask for, by name. Throws where a system has no such stage or dtype. */
function workOf(o: PlanOptions): [string, Work][] {
  const stages = stagesOf(o);
  if (!o.train) return [["sampling", stages.sampling]];
  const { [o.recipe ?? ""]: one } = stages.training;
  if (o.recipe && !one) {
    const known = Object.keys(stages.training).join(" and ");
    throw new Error(`plan: ${o.system} has no stage ${o.recipe}: give --recipe ${known.replace(" and ", " or ")}`);
  }
  const chosen = o.recipe ? { [o.recipe]: one } : stages.training;
  return Object.entries(chosen).map(([name, step]) => [`training: ${name}`, () => training(step())]);
}

interface Stages {
  readonly sampling: Work;
  readonly training: Readonly<Record<string, () => SampleStep>>;
}

function stagesOf(o: PlanOptions): Stages {
  if (o.system === "videogpt") {
    if (o.dtype === "f16") throw new Error("plan: videogpt computes in f32: leave out --dtype f16");
    const config = videoGptConfig(o.preset);
    const { vqvae, prior } = VIDEOGPT_STEPS;
    return {
      sampling: () => samplingCodes(config, o.batch),
      training: { vqvae: () => vqvae(config, o), prior: () => prior(config, o) },
    };
  }
  const config = systemConfig(o.system, o.preset);
  const { autoencoder, diffusion } = STEPS;
  return {
    sampling: () => sampling(config, { ...o, guidance: 2 }),
    training: { autoencoder: () => autoencoder(config, o), diffusion: () => diffusion(config, o) },
  };
}

async function capsOf(adapter: PlanOptions["adapter"]): Promise<kernels.Caps> {
  if (adapter === "discrete") return kernels.DISCRETE_CAPS;
  if (adapter === "minimum") return kernels.MINIMUM_CAPS;
  const device = await openDevice({ device: "gpu" });
  device.close();
  return device.caps;
}

/** Makes one sticker as `generate` does, with a model of these sizes and weights of its own, for a device that plans. */
export function planSampling(config: SystemConfig | VideoGptConfig, o: SamplingOptions): Promise<unknown> {
  return "vqvae" in config ? samplingCodes(config, 1) : sampling(config, { ...o, batch: 1, dtype: "f32" });
}

/** Samples as `generate` does, with a model of its own, and returns that model's state. */
async function sampling(
  config: SystemConfig,
  o: Pick<PlanOptions, "batch" | "dtype"> & SamplingOptions,
): Promise<State> {
  const model = new LatentDiffusion(config);
  if (o.dtype === "f16") model.convert("f16");
  const tokenizer = trainTokenizer([], { vocabSize: 514 });
  await new Sampler(model, tokenizer).sample(emptyStickers(o.batch), { seed: 1, ...o });
  return byPart(model.state());
}

type SamplingOptions = Pick<SampleOptions, "steps" | "guidance" | "sampler">;

/** Samples as `generate` does for VideoGPT. */
async function samplingCodes(config: VideoGptConfig, count: number): Promise<State> {
  const model = new VideoGpt(config);
  const sampler = new VideoGptSampler(model, config.prior.tags ? Tags.of([], config.prior.tags.count) : null);
  await sampler.sample(emptyStickers(count), { seed: 1 });
  return byPart(model.state());
}

function emptyStickers(count: number): Sticker[] {
  return Array.from({ length: count }, (_, index) => ({ caption: "", index }));
}

/** Calls a training step. */
function training({ step, feed, state }: SampleStep): State {
  compile<Named, ReturnType<typeof step>>(step, { name: "step" })(feed);
  const weights = [...state.model.values()];
  return {
    "weights that are trained": weights.filter((p) => p.trainable),
    "frozen weights": weights.filter((p) => !p.trainable),
    moments: state.moments.values(),
    "averaged weights": state.averages.values(),
  };
}

/** Parameters by the first word of their names: autoencoder, text_encoder, unet. */
function byPart(state: ReadonlyMap<string, Parameter>): State {
  const parts: Record<string, Parameter[]> = {};
  for (const [name, p] of state) {
    const part = `weights: ${name.split(".")[0]}`;
    parts[part] = [...(parts[part] ?? []), p];
  }
  return parts;
}

/** The state by its kinds, and the rest of what the device holds besides the steps' own memory. */
function heldTensors(state: State, device: PlanningDevice, steps: readonly Omit<PlannedStep, "plan">[]): Held[] {
  const held = Object.entries(state).flatMap(([what, parameters]): Held[] => {
    const distinct = [...new Set(parameters)];
    const values = distinct.reduce((sum, p) => sum + numel(p.shape), 0);
    return values > 0 ? [{ what, values, bytes: distinct.reduce((sum, p) => sum + device.bytesOf(p.storage), 0) }] : [];
  });
  const own = steps.reduce((sum, s) => sum + heldBytes(s.memory), 0);
  const known = held.reduce((sum, h) => sum + h.bytes, 0);
  return [...held, { what: "other tensors", values: 0, bytes: device.memory().bytes - own - known }];
}

/** Prints the plan. */
export async function run(o: PlanOptions): Promise<void> {
  const report = await plan(o);
  console.log(o.json ? JSON.stringify(report) : describe(report));
}

// ---- in words -------------------------------------------------------------------------------------------------------

/** Live values that are listed for each step. */
const LISTED = 5;

export const bytes = (n: number): string =>
  n >= 1e9 ? `${(n / 1e9).toFixed(2)} GB` : n >= 1e6 ? `${(n / 1e6).toFixed(1)} MB` : `${(n / 1e3).toFixed(1)} kB`;
const count = (n: number): string => n.toLocaleString("en");
export const work = (flops: number): string =>
  flops >= 1e12 ? `${(flops / 1e12).toFixed(2)} T` : `${(flops / 1e9).toFixed(2)} G`;

/** Rows of cells as lines: the first column to the left, the others to the right. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((r) => r[i].length)));
  return rows.map((r) => `  ${r.map((c, i) => (i === 0 ? c.padEnd(widths[i]) : c.padStart(widths[i]))).join("  ")}`);
}

function describe(r: PlanReport): string {
  const { caps } = r;
  const halves = caps.f16 ? "16-bit floats" : "no 16-bit floats: f16 takes four bytes";
  const limits = `${caps.maxBindings} bindings of at most ${bytes(caps.maxBinding)}`;
  return [
    `${r.system} at preset ${r.preset}, batch ${r.batch}, in ${r.dtype}; adapter "${r.adapter}": ${halves}, ${limits}`,
    ...r.stages.flatMap(describeStage),
    `planned in ${r.seconds.toFixed(1)} s`,
  ].join("\n");
}

function describeStage({ name, steps, held, dispatches, flops, peak }: Stage): string[] {
  return [
    "",
    name,
    ...table([
      ["step", "calls", "dispatches", "kernels", "operations", "arena", "least", "rest"],
      ...steps.map((s) => [
        s.name,
        count(s.calls),
        count(s.dispatches),
        count(s.kernels),
        work(s.flops),
        bytes(s.memory.arena),
        bytes(s.memory.lowerBound),
        bytes(heldBytes(s.memory) - s.memory.arena),
      ]),
      ["all calls", "", count(dispatches), "", work(flops), "", "", ""],
    ]),
    "",
    ...table([["family", "dispatches", "operations", "bound or moved"], ...families(steps).map(familyRow)]),
    "",
    ...table([
      ["on the device", "values", "memory"],
      ...held.map((h) => [h.what, h.values > 0 ? count(h.values) : "", bytes(h.bytes)]),
      ...steps.map((s) => [`${s.name}: arena and rest`, "", bytes(heldBytes(s.memory))]),
      ["planned peak", "", bytes(peak)],
    ]),
    "",
    ...steps.flatMap((s) => [
      `  largest values that live at once in ${s.name}`,
      ...table(s.largest.slice(0, LISTED).map((v) => [v.what, bytes(v.bytes), `dispatches ${v.first} to ${v.last}`])),
    ]),
  ];
}

/** Work of all calls by kernel family. */
function families(steps: Stage["steps"]): FamilyWork[] {
  return sumFamilies(
    steps.flatMap(({ calls, families }) =>
      families.map((f) => ({
        family: f.family,
        dispatches: calls * f.dispatches,
        flops: calls * f.flops,
        bytes: calls * f.bytes,
      })),
    ),
  );
}

function familyRow(f: FamilyWork): string[] {
  return [f.family, count(f.dispatches), work(f.flops), bytes(f.bytes)];
}
