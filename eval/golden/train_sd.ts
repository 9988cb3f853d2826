// Golden kind "train-sd": a few training steps of Stable Diffusion's UNet, whose folder lies beside: noise on latents, the
// network's squared error, clipped gradients, AdamW, an average of the weights. Checked are loss and gradient norm of every
// step, and all weights afterwards.

import { basename, dirname, join } from "node:path";
import { grad } from "../../engine/autograd.ts";
import { compile } from "../../engine/compile.ts";
import type { Data } from "../../engine/dtype.ts";
import { mse } from "../../engine/nn/index.ts";
import { AdamW, clipGradNorm, Ema } from "../../engine/optim/index.ts";
import type { Parameter } from "../../engine/state.ts";
import type { Tensor } from "../../engine/tensor.ts";
import { ConfigReader } from "../../models/checkpoints/reader.ts";
import { readUNetConfig } from "../../models/checkpoints/unet.ts";
import { NoiseSchedule } from "../../models/diffusion.ts";
import { VideoUNet } from "../../models/video_unet.ts";
import { asParameter } from "./axes.ts";
import { need, peekJson, readJson, type Stored, upload } from "./files.ts";
import { broken, type Check, type Kind, SLACK } from "./kind.ts";
import { type ModelFolder, openModelFolder } from "./model.ts";

export const trainSd: Kind = {
  name: "train-sd",
  recognises: async (folder) => {
    const config = (await peekJson(folder, "config.json")) as Readonly<Record<string, unknown>> | null;
    return typeof config?.unet === "string" && typeof config.optimizer === "object" && "ema_decay" in config;
  },
  run,
};

const SUMS = "params_l2_sum.json";
type Sums = Readonly<Record<string, readonly [l2: number, sum: number]>>;

interface Settings {
  readonly prediction: "epsilon" | "v";
  readonly steps: number;
  readonly lr: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weightDecay: number;
  readonly maxNorm: number;
  readonly emaDecay: number;
}

function readSettings(r: ConfigReader): Settings {
  const o = r.inside("optimizer");
  const [beta1, beta2] = o.numbers("betas");
  r.only("prediction_type", "epsilon", "v_prediction");
  return {
    prediction: r.text("prediction_type") === "epsilon" ? "epsilon" : "v",
    steps: r.count("steps"),
    lr: o.number("lr"),
    betas: [beta1, beta2],
    eps: o.number("eps"),
    weightDecay: o.number("weight_decay"),
    maxNorm: r.number("max_grad_norm"),
    emaDecay: r.number("ema_decay"),
  };
}

async function* run(path: string): AsyncGenerator<Check> {
  const folder = await openModelFolder(path);
  const config = new ConfigReader(await folder.json("config.json"), "config.json");
  const settings = readSettings(config);
  const beside = join(dirname(path), basename(config.text("unet")));
  const { config: sizes, temporal } = readUNetConfig(await readJson(beside, "config.json"), "config.json of the UNet");
  const unet = new VideoUNet(sizes, { temporal });
  const params = unet.state();
  await folder.load(params, undefined, join("..", basename(beside), "weights.safetensors"));

  const { series, leeways, averages } = await train(unet, settings, folder);
  for (const [name, values] of series) yield folder.check(name, values);
  for (const name of folder.io.keys()) {
    const [, kind, key] = /^out\.(param|ema)\.(.*)$/.exec(name) ?? [];
    const p = (kind === "ema" ? averages : params).get(key);
    // An average takes part of each step's error only.
    const share = kind === "ema" ? 1 - settings.emaDecay ** settings.steps : 1;
    if (p)
      yield checkWeight(
        folder,
        name,
        await p.data(),
        params.get(key)!,
        leeways.get(key)!.map((x) => x * share),
      );
  }
  yield* checkSums(folder, params, leeways);
}

/** Loss and gradient norm of every step under their stored names; the averages, and what `addLeeway` found. */
async function train(unet: VideoUNet, s: Settings, folder: ModelFolder) {
  const params = unet.state();
  const adam = new AdamW(params, { beta1: s.betas[0], beta2: s.betas[1], eps: s.eps, weightDecay: s.weightDecay });
  const ema = new Ema(params, s.emaDecay);
  for (const [name, shadow] of ema.state()) shadow.write(await (params.get(name) as Parameter).data());
  const schedule = new NoiseSchedule();
  type Feed = Record<"x0" | "noise" | "step" | "text" | "lr", Tensor>;
  const step = compile(({ x0, noise, step, text, lr }: Feed) => {
    const answer = unet.forward(schedule.addNoise(x0, noise, step), step, text);
    const loss = mse(answer, schedule.target(s.prediction, x0, noise, step));
    const { grads, norm } = clipGradNorm(grad(loss, adam.targets), s.maxNorm);
    adam.step(grads, { lr });
    ema.update(0);
    return { loss, norm };
  });
  const series = new Map<string, number[]>([
    ["out.loss", []],
    ["out.grad_norm", []],
  ]);
  const leeways = new Map<string, Float64Array>();
  const at = (name: string, i: number): Tensor => slot(need(folder.io, `in.${name}`), i);
  for (let i = 0; i < s.steps; i++) {
    const { loss, norm } = step({
      ...{ x0: clip(at("x0", i)), noise: clip(at("noise", i)), step: at("timesteps", i) },
      ...{ text: at("encoder_hidden_states", i), lr: s.lr },
    });
    series.get("out.loss")?.push(await loss.item());
    series.get("out.grad_norm")?.push(await norm.item());
    const moments = new Map<string, Data>();
    for (const [name, p] of adam.state()) if (name.startsWith("v.")) moments.set(name.slice(2), await p.data());
    addLeeway(leeways, moments, s.lr);
  }
  return { series, leeways, averages: ema.state() };
}

/** Item `i` of an array whose first axis is time. */
function slot({ shape, data, whole }: Stored, i: number): Tensor {
  const size = data.length / shape[0];
  return upload({ shape: shape.slice(1), data: data.slice(i * size, (i + 1) * size), whole });
}

/** Pictures [b, c, h, w] as clips of one frame. */
function clip(pictures: Tensor): Tensor {
  const { b, c, h, w } = pictures.dims("b c h w");
  return pictures.permute([0, 2, 3, 1]).reshape([b, 1, h, w, c]);
}

/** What rounding leaves of a gradient: at most this part of the largest one in its layer, ten times what float32 costs. */
const GRADIENT_NOISE = 2e-5;

/**
 * Adds to `into` how far each element of a weight may be off after one more step because of its own gradient. AdamW moves
 * a weight by the rate times its gradient over that gradient's size so far, so what counts is the gradient's relative
 * error, and that has no bound near zero: there, rounding decides the direction, and two implementations part by up to
 * twice the rate. `moments` are the averages of squared gradients, before the correction for their start at zero.
 */
function addLeeway(into: Map<string, Float64Array>, moments: ReadonlyMap<string, Data>, lr: number): void {
  const layerOf = (name: string): string => name.slice(0, name.lastIndexOf("."));
  const largest = new Map<string, number>();
  for (const [name, v] of moments)
    for (const x of v) largest.set(layerOf(name), Math.max(largest.get(layerOf(name)) ?? 0, x));
  for (const [name, v] of moments) {
    const noise = GRADIENT_NOISE * Math.sqrt(largest.get(layerOf(name)) ?? 0);
    const sum = into.get(name) ?? new Float64Array(v.length);
    v.forEach((x: number, i: number) => {
      sum[i] += lr * Math.min(2, noise / Math.sqrt(x));
    });
    into.set(name, sum);
  }
}

/** As `compare`, each element with its leeway on top of the bound; the error is the one that comes closest to its limit. */
function checkWeight(folder: ModelFolder, name: string, got: Data, like: Parameter, leeways: Float64Array): Check {
  const want = asParameter(need(folder.io, name), like).data;
  if (got.length !== want.length) return broken(name, `expected ${want.length} values, got ${got.length}`);
  const bound = folder.bound(name);
  const scale = want.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  const parts = want.map((x, i) => Math.abs(got[i] - x) / (bound * scale + leeways[i]));
  const error = bound * parts.reduce((most, x) => Math.max(most, Number.isNaN(x) ? Number.POSITIVE_INFINITY : x), 0);
  return { name, error, bound, ok: error <= bound };
}

/** L2 norm and sum of every weight: off by as much as the stored weight that fared worst, with all bounds' slack, and by the leeway. */
async function* checkSums(
  folder: ModelFolder,
  params: ReadonlyMap<string, Parameter>,
  leeways: ReadonlyMap<string, Float64Array>,
): AsyncGenerator<Check> {
  const tolerances = await folder.json<Readonly<Record<string, { readonly max_abs_err: number }>>>("tolerance.json");
  const stored = Object.entries(tolerances).filter(([name]) => name.startsWith("out.param."));
  const worst = SLACK * Math.max(...stored.map(([, { max_abs_err }]) => max_abs_err));
  for (const [name, [l2, sum]] of Object.entries(await folder.json<Sums>(SUMS))) {
    const label = `${SUMS}: ${name}`;
    const values = await params.get(name)?.data();
    const free = Math.sqrt((leeways.get(name) ?? new Float64Array()).reduce((sum, x) => sum + x * x, 0));
    const bound = (worst + free) / l2;
    if (!values) yield broken(label, "no such weight here", bound);
    else {
      let [squares, total] = [0, 0];
      for (const v of values) [squares, total] = [squares + v * v, total + v];
      const off = Math.max(Math.abs(Math.sqrt(squares) - l2), Math.abs(total - sum) / Math.sqrt(values.length));
      const error = Number.isNaN(off) ? Number.POSITIVE_INFINITY : off / l2;
      yield { name: label, error, bound, ok: error <= bound };
    }
  }
}
