// Golden kind "sti-layer": the Spatial Temporal Interaction layer alone, from the authors' code: with four convolutions, with
// the small detail branch, without pooling, and as it stands at the start of training. One set of weights serves several
// outputs, with and without a part of the layer.

import { grad } from "../../engine/autograd.ts";
import { compile } from "../../engine/compile.ts";
import type { Module } from "../../engine/nn/index.ts";
import type { Parameter } from "../../engine/state.ts";
import type { Tensor } from "../../engine/tensor.ts";
import { SpatialTemporalInteraction } from "../../models/sti.ts";
import { asParameter, channelsLast } from "./axes.ts";
import { exists, need, readJson, readTensors, type Stored, upload } from "./files.ts";
import type { Check, Kind } from "./kind.ts";
import { ModelFolder, openModelFolder, peekConfig, type Tensors } from "./model.ts";

interface LayerConfig {
  readonly channels: number;
  readonly groups: number;
  readonly heads: number;
  readonly head_dim: number;
  readonly nopool: Omit<LayerConfig, "nopool" | "frames" | "start">;
  /** Videos lie in the files as pictures [batch num_frames, c, h, w], clip by clip. */
  readonly frames: Readonly<Record<string, { readonly batch: number; readonly num_frames: number }>>;
  /** Names of weights by whether their gradient is zero at the start of training. */
  readonly start: { readonly zero_gradient: readonly string[]; readonly non_zero_gradient: readonly string[] };
}

export const stiLayer: Kind = {
  name: "sti-layer",
  recognises: async (folder) => {
    const config = await peekConfig(folder);
    return typeof config?.nopool === "object" && typeof config.frames === "object" && typeof config.start === "object";
  },
  run,
};

type Tolerances = Readonly<Record<string, { readonly rel_to_max: number }>>;

const START = "start.safetensors";
/** The released class with the small branch is made for clips of this many frames. */
const LIGHT = { frames: 8 };

async function* run(path: string): AsyncGenerator<Check> {
  const folder = await openModelFolder(path);
  const config = await readJson<LayerConfig>(path, "config.json");
  const layers = makeLayers(config);
  await folder.load(layers.weights);
  yield* folder.checks({
    weights: layers.weights,
    inputs: videos(folder, config, [...new Set(Object.values(CASES).map(({ input }) => input))]),
    outputs: (x) => outputs(layers, x, (name) => folder.io.has(`out.${name}`)),
  });
  if (await exists(path, START)) yield* startChecks(path, folder, config, layers);
}

interface Layers {
  readonly full: SpatialTemporalInteraction;
  readonly light: SpatialTemporalInteraction;
  readonly nopool: SpatialTemporalInteraction;
  /** Parameters of all of them by the folder's names. */
  readonly weights: ReadonlyMap<string, Parameter>;
}

function makeLayers({ channels, groups, heads, head_dim: dim, nopool: n }: LayerConfig): Layers {
  const all = { heads, dim, pool: 2, outNorm: true };
  const full = new SpatialTemporalInteraction(channels, { ...all, third: true }, groups);
  const light = new SpatialTemporalInteraction(channels, { ...all, light: LIGHT }, groups);
  const plain = { heads: n.heads, dim: n.head_dim, pool: 1, outNorm: false };
  const nopool = new SpatialTemporalInteraction(n.channels, plain, n.groups);
  const named = (prefix: string, layer: Module): [string, Parameter][] =>
    [...layer.state()].map(([name, p]) => [`${prefix}.${name}`, p]);
  return {
    full,
    light,
    nopool,
    weights: new Map([...named("full", full), ...named("light", light), ...named("nopool", nopool)]),
  };
}

type Forward = (layers: Layers, x: Tensor) => Tensor;

/** The layer's own forward without some of its parts, on the very parameters of the whole. */
function without(layer: SpatialTemporalInteraction, ...parts: ("norm" | "w3")[]): SpatialTemporalInteraction {
  return Object.create(layer, Object.fromEntries(parts.map((part) => [part, { value: null }])));
}

/** The released classes forget the frame count: their detail branch sees every frame as a clip of its own. */
function released(layer: SpatialTemporalInteraction, x: Tensor): Tensor {
  const { b, f, h, w, c } = x.dims("b f h w c");
  const detail = layer.detail(x.reshape([b * f, 1, h, w, c])).reshape(x.shape);
  return layer.semantic(x).mul(layer.w1).add(detail.mul(layer.w2));
}

const full: Forward = (l, x) => without(l.full, "norm", "w3").forward(x);
const light: Forward = (l, x) => l.light.forward(x);

const CASES: Readonly<Record<string, { readonly input: string; readonly forward: Forward }>> = {
  full_even: { input: "x_even", forward: full },
  full_odd: { input: "x_odd", forward: full },
  full_one: { input: "x_one", forward: full },
  full_eight: { input: "x_eight", forward: full },
  full_small: { input: "x_small", forward: full },
  full_odd_norm: { input: "x_odd", forward: (l, x) => without(l.full, "w3").forward(x) },
  full_even_released: { input: "x_even", forward: (l, x) => released(l.full, x) },
  three_even: { input: "x_even", forward: (l, x) => without(l.full, "norm").forward(x) },
  light_eight: { input: "x_eight", forward: light },
  light_odd8: { input: "x_odd8", forward: light },
  light_small8: { input: "x_small8", forward: light },
  nopool: { input: "x_flat", forward: (l, x) => l.nopool.forward(x) },
  nopool_released: { input: "x_flat", forward: (l, x) => released(l.nopool, x) },
};

function outputs(layers: Layers, x: Tensors, wanted: (name: string) => boolean): Tensors {
  const cases = Object.entries(CASES).filter(([name]) => wanted(name));
  return Object.fromEntries(cases.map(([name, { input, forward }]) => [name, forward(layers, x[input])]));
}

/** Inputs as clips [b, f, h, w, c]. */
function videos(folder: ModelFolder, { frames }: LayerConfig, names: readonly string[]): Tensors {
  const clips = names.map((name): [string, Tensor] => {
    const pictures = folder.input(name);
    return [name, pictures.reshape([frames[name].batch, frames[name].num_frames, ...pictures.shape.slice(1)])];
  });
  return Object.fromEntries(clips);
}

/** The layer before the first step of training: what it computes, and which weights that step can move. */
async function* startChecks(
  path: string,
  { io }: ModelFolder,
  config: LayerConfig,
  layers: Layers,
): AsyncGenerator<Check> {
  const stored = await readTensors(path, START);
  for (const [name, p] of layers.weights) {
    const value = stored.get(`start.${name}`);
    if (value) p.write(asParameter(value, p).data);
  }
  const tolerances = await readJson<Tolerances>(path, "tolerance.json");
  const ours = Object.entries(tolerances).filter(([name]) => name.startsWith("start."));
  const start = new ModelFolder(
    path,
    new Map([...io, ...stored]),
    Object.fromEntries(ours.map(([name, tolerance]) => [name.slice("start.".length), tolerance])),
    {},
  );
  const names = Object.keys(CASES).filter((name) => stored.has(`out.${name}`));
  const inputs = videos(start, config, [...new Set(names.map((name) => CASES[name].input))]);
  const answers = (x: Tensors): Tensors => outputs(layers, x, (name) => names.includes(name));
  const except = (name: string): boolean => !stored.has(name);
  for await (const check of start.checks({ weights: layers.weights, inputs, outputs: answers }, { except }))
    yield { ...check, name: `start.${check.name}` };

  const projection = (name: string): Stored => channelsLast(need(stored, `proj.${name}`));
  const loss = (out: Tensors): Tensor =>
    Object.entries(out)
      .map(([name, y]) => y.mul(upload({ ...projection(name), shape: y.shape })).mean())
      .reduce((sum, part) => sum.add(part));
  const { zero_gradient: still, non_zero_gradient: moving } = config.start;
  const all = [...still, ...moving];
  const step = compile((x: Record<string, Tensor>) => {
    const parameters = all.map((name) => parameterOf(layers.weights, name));
    return Object.fromEntries(grad(loss(answers(x)), parameters).map((g, i) => [all[i], g.abs().max()]));
  });
  const got = step(inputs);
  for (const name of still) {
    const error = await got[name].item();
    yield { name: `start.zero.${name}`, error, bound: 0, ok: error === 0 };
  }
  for (const name of moving) {
    const ok = (await got[name].item()) > 0;
    yield { name: `start.moves.${name}`, error: ok ? 0 : 1, bound: 0, ok, message: ok ? undefined : "is zero" };
  }
}

function parameterOf(weights: Layers["weights"], name: string): Parameter {
  const p = weights.get(name);
  if (!p) throw new Error(`config.json: start names ${name}, which the layer has not`);
  return p;
}
