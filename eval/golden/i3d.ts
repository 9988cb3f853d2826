// Golden kind "i3d": the network of the Frechet video distance, narrow and of full width, and the distance itself. Weights of
// full width are not stored: a generator that config.json seeds makes them again. End points are held by six numbers.

import { torchShape } from "../../engine/checkpoint.ts";
import { compile } from "../../engine/compile.ts";
import { std } from "../../engine/nn/index.ts";
import type { Shape } from "../../engine/shape.ts";
import type { TensorFile } from "../../engine/source.ts";
import { hashName } from "../../engine/state.ts";
import { type Tensor, tensor } from "../../engine/tensor.ts";
import { loadForeign } from "../../models/checkpoints/layout.ts";
import { I3d, i3dLayout, i3dVideo } from "../../models/i3d.ts";
import { frechetDistance } from "../fvd.ts";
import { need, readJson, type Stored } from "./files.ts";
import { broken, type Check, compare, type Kind } from "./kind.ts";
import { type ModelFolder, openModelFolder, peekConfig } from "./model.ts";

interface Config {
  readonly width_divisor: number;
  readonly num_classes: number;
  readonly full_num_classes: number;
  readonly bn_eps: number;
  readonly lcg_instance_seed: number;
}

export const i3d: Kind = {
  name: "i3d",
  recognises: async (folder) => typeof (await peekConfig(folder))?.lcg_instance_seed === "number",
  async *run(path): AsyncGenerator<Check> {
    yield* distances(path);
    yield* oddSizes(path);
    yield* networks(path, ["tiny", "full"]);
  },
};

// ---- the distance

/** Relative to the traces of both covariances, which the distance is a difference of. */
const DISTANCE_BOUND = 1e-12;

/** Every case of fvd.json against its exact value; the folder's other two are what matrix roots make of it. */
export async function* distances(path: string): AsyncGenerator<Check> {
  const { io } = await openModelFolder(path);
  for (const [name, { exact }] of Object.entries(await readJson<Record<string, { exact: number }>>(path, "fvd.json"))) {
    const [a, b] = ["a", "b"].map((set) => need(io, `in.fvd.${name}.${set}`));
    const features = ({ shape: [count, width], data }: Stored) => ({ count, width, data });
    const error = Math.abs(frechetDistance(features(a), features(b)) - exact) / (spread(a) + spread(b));
    yield { name: `fvd.${name}`, error, bound: DISTANCE_BOUND, ok: error <= DISTANCE_BOUND };
  }
}

/** Mean square of the values times their number per row: at least the trace of the covariance, nearly. */
function spread({ shape, data }: Stored): number {
  return data.reduce((sum, x) => sum + x * x, 0) / shape[0];
}

// ---- the networks

type Width = "tiny" | "full";

/** Every stored output of networks of the given widths, and the frames that all of them see. */
async function* networks(path: string, widths: readonly Width[]): AsyncGenerator<Check> {
  const folder = await openModelFolder(path);
  const config = await folder.json<Config>("config.json");
  const { shape, data } = need(folder.io, "in.video");
  const frames = tensor(
    Float32Array.from(data, (x) => x / 255),
    [1, ...shape],
  );
  const prepare = compile(({ frames: x }: { frames: Tensor }) => {
    const video = i3dVideo(x);
    const corner = video.slice(1, 0, 2).slice(2, 0, 6).slice(3, 0, 6);
    return { video, preprocessed_corner: corner, preprocessed_mean_std: joined([video.mean(), std(video)]) };
  });
  const { video, ...seen } = prepare({ frames });
  yield* held(folder, seen, "");
  for (const width of widths) {
    if (width === "full") yield* probes(folder, config);
    const model = await network(folder, config, width);
    const step = compile((x: { video: Tensor }) => outputs(model, x.video));
    yield* held(folder, step({ video }), `${width}.`);
  }
  const known = ["preprocessed_", "tiny.", "full."];
  for (const name of folder.io.keys())
    if (name.startsWith("out.") && !known.some((part) => name.startsWith(`out.${part}`)))
      yield broken(name, "nothing here computes it");
}

/** Holds each of `got` against "out." + prefix + name, channels first there. */
async function* held(folder: ModelFolder, got: Record<string, Tensor>, prefix: string): AsyncGenerator<Check> {
  for (const [name, y] of Object.entries(got)) yield folder.check(`out.${prefix}${name}`, await y.data());
}

function outputs(model: I3d, video: Tensor): Record<string, Tensor> {
  const { pooled, logits } = model.forward(video);
  const points = [...model.layers(video)].map(([name, y]): [string, Tensor] => [`stat.${name}`, statistics(y)]);
  return { ...Object.fromEntries(points), avg_pool: pooled, logits };
}

/** Mean, unbiased deviation, largest magnitude, and the first, middle and last element, counted channels first. */
function statistics(y: Tensor): Tensor {
  const { b, t, h, w, c } = y.dims("b t h w c");
  const at = (flat: number): number => {
    const perChannel = t * h * w;
    const [clip, channel, place] = [
      Math.floor(flat / (c * perChannel)),
      Math.floor(flat / perChannel) % c,
      flat % perChannel,
    ];
    return (clip * perChannel + place) * c + channel;
  };
  const n = b * t * h * w * c;
  const picked = y.reshape([n, 1]).gatherRows(tensor(Int32Array.of(at(0), at(Math.floor(n / 2)), at(n - 1))));
  return joined([y.mean(), std(y), y.abs().max(), picked]);
}

/** One axis of the numbers of all. */
function joined(parts: readonly Tensor[]): Tensor {
  const [first, ...others] = parts.map((x) => x.reshape([-1]));
  return first.concat(others, 0);
}

/** A clip of odd sizes through the first layers of the narrow network: SAME padding differs on the two sides there. */
export async function* oddSizes(path: string): AsyncGenerator<Check> {
  const folder = await openModelFolder(path);
  const name = [...folder.io.keys()].find((key) => key.startsWith(ODD));
  if (!name) return;
  const model = await network(folder, await folder.json<Config>("config.json"), "tiny");
  const step = compile(({ odd }: { odd: Tensor }) => ({
    y: [...model.layers(odd, name.slice(ODD.length))].at(-1)![1],
  }));
  yield folder.check(name, await step({ odd: folder.input("odd") }).y.data());
}

const ODD = "out.tiny.odd.";

// ---- weights

async function network(folder: ModelFolder, config: Config, width: Width): Promise<I3d> {
  const [divisor, classes] =
    width === "tiny" ? [config.width_divisor, config.num_classes] : [1, config.full_num_classes];
  const model = new I3d({ classes, divisor, epsilon: config.bn_eps });
  if (width === "tiny") await folder.load(model.state(), i3dLayout);
  else await loadForeign(generated(model, config.lcg_instance_seed), model.state(), i3dLayout);
  return model;
}

/** Values of the folder's linear congruential generator, by the rules of its README. */
function generate(name: string, shape: Shape, seed: number): Float32Array {
  let state = (hashName(name) ^ seed) >>> 0;
  const fanIn = shape.slice(1).reduce((a, b) => a * b, 1);
  const value = (u: number): number => {
    if (name.endsWith(".running_var")) return 0.5 + u;
    if (name.endsWith(".bn.weight")) return 0.75 + 0.5 * u;
    if (/\.(running_mean|bias)$/.test(name)) return (2 * u - 1) * 0.2;
    return (2 * u - 1) * Math.sqrt(6 / fanIn);
  };
  return Float32Array.from({ length: fanIn * shape[0] }, () => {
    state = (Math.imul(1664525, state) + 1013904223) >>> 0;
    return value((state >>> 8) / 2 ** 24);
  });
}

/** A file of the published names whose tensors are made when they are read. */
function generated(model: I3d, seed: number): TensorFile {
  const named = [...model.state()].map(([name, p]) => [name.replace(/^end_points\./, ""), torchShape(p)] as const);
  const shapes = new Map(named);
  const read = async (name: string): Promise<Float32Array> => generate(name, shapes.get(name) as Shape, seed);
  return {
    tensors: new Map(named.map(([name, shape]) => [name, { dtype: "F32", shape }])),
    metadata: {},
    read,
    readFloat64: async (name) => Float64Array.from(await read(name)),
    close: async () => {},
  };
}

/** First values of some generated weights, to the bit. */
async function* probes(folder: ModelFolder, config: Config): AsyncGenerator<Check> {
  const first = await folder.json<Record<string, number[]>>("full_weight_probe.json");
  const file = generated(
    new I3d({ classes: config.full_num_classes, divisor: 1, epsilon: 0 }),
    config.lcg_instance_seed,
  );
  for (const [name, want] of Object.entries(first))
    yield compare(`full_weight_probe.${name}`, (await file.read(name)).subarray(0, want.length), want, 0);
}
