// The video UNet and the STI layer: golden data of the implementations they follow, parameter counts of the paper, and
// the properties the paper claims (identity start, which gradients flow first, what the semantic branch cannot see).

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { compile, type Data, grad, type Parameter, Rng, type Tensor, tensor, useDevice } from "../engine/index.ts";
import type { Module } from "../engine/nn/index.ts";
import type { Array64 } from "../engine/ops/op.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { drawer, uniforms } from "../engine/testing/draw.ts";
import { Inputs } from "../engine/testing/gradients.ts";
import { PLAIN, type Preset, presetConfig, type StiConfig, type UNetConfig } from "../models/config.ts";
import { LatentDiffusion, type Trained } from "../models/latent_diffusion.ts";
import { TemporalConv, TemporalTransformer } from "../models/make_a_video.ts";
import { SpatialTemporalInteraction } from "../models/sti.ts";
import { ResidualBlock, SpatialTransformer } from "../models/unet_blocks.ts";
import { VideoUNet } from "../models/video_unet.ts";
import { expectClose } from "./close.ts";
import { gpu, onGpu } from "./device.ts";
import {
  asParameter,
  channelsLast,
  describeGolden,
  f32,
  type Golden,
  i32,
  loadWeights,
  type Stored,
} from "./golden.ts";

const reference = new ReferenceDevice();

/** A test on the float64 reference. */
function onReference(name: string, body: () => Promise<void>): void {
  test(name, async () => {
    useDevice(reference);
    await body();
  });
}

// ---- golden data ----------------------------------------------------------------------------------------------------

type Values = Record<string, Data>;
type Tensors = Readonly<Record<string, Tensor>>;

/** Something that golden data has outputs and gradients of; names are those of the golden files less their first word. */
interface Network {
  readonly golden: Golden;
  readonly params: ReadonlyMap<string, Parameter>;
  readonly inputs: Tensors;
  outputs(inputs: Tensors): Tensors;
}

/** As stored, in the order of axes used here: pictures and videos channels last, weights as their parameter. */
function wanted({ golden, params }: Network, name: string): Stored {
  const stored = golden.get(name);
  const p = params.get(name.replace(/^grad\.w\./, ""));
  if (p) return asParameter(stored, p);
  return stored.shape.length >= 4 ? channelsLast(stored) : stored;
}

/**
 * Outputs, loss = sum over outputs of mean(output * projection), and its gradients with respect to inputs and `weights`,
 * by their golden names. Call the result again after changing weights.
 */
function prepare(net: Network, weights: readonly string[], open: () => void): () => Promise<Values> {
  const { golden, params, inputs } = net;
  const step = compile((feed: Tensors) => {
    const out = net.outputs(feed);
    const names = Object.keys(out).filter((name) => golden.io.has(`proj.${name}`));
    const projection = (name: string): Tensor => f32(wanted(net, `proj.${name}`)).reshape(out[name].shape);
    const loss = names.map((name) => out[name].mul(projection(name)).mean()).reduce((a, b) => a.add(b));
    const ins = Object.keys(feed).filter((name) => golden.io.has(`grad.in.${name}`));
    const grads = grad(loss, [
      ...ins.map((name) => feed[name]),
      ...weights.map((name) => params.get(name) as Parameter),
    ]);
    const gradNames = [...ins.map((name) => `grad.in.${name}`), ...weights.map((name) => `grad.w.${name}`)];
    const outs = Object.entries(out).map(([name, y]): [string, Tensor] => [`out.${name}`, y]);
    return Object.fromEntries([
      ...outs,
      ["loss", loss],
      ...gradNames.map((name, i): [string, Tensor] => [name, grads[i]]),
    ]);
  });
  return async () => {
    open();
    const results = Object.entries(step(inputs));
    return Object.fromEntries(await Promise.all(results.map(async ([name, t]) => [name, await t.data()] as const)));
  };
}

/** What differs by more than ten times the float32 error of the implementation that made the data. */
function problems(net: Network, got: Values): string[] {
  const compared = Object.keys(got).filter((name) => net.golden.io.has(name));
  return compared.map((name) => net.golden.problem(name, got[name], wanted(net, name).data)).filter((p) => p !== null);
}

interface Norms {
  readonly grad_l2_and_sum: Readonly<Record<string, readonly [l2: number, sum: number]>>;
}

/** All gradients in float64, by L2 norm and sum. Their bound is 1e-4 because the stored run rounded the time sinusoid. */
function normProblems({ golden }: Network, got: Values, of: (name: string) => boolean = () => true): string[] {
  const norms = Object.entries(golden.json<Norms>("grad_norms.json").grad_l2_and_sum).filter(([name]) => of(name));
  const largest = Math.max(...norms.map(([, [l2]]) => l2));
  return norms.flatMap(([name, [l2, sum]]) => {
    const g = Array.from(got[`grad.w.${name}`]);
    const slack = 1e-4 * l2 + 1e-7 * largest;
    const found = [Math.hypot(...g), g.reduce((a, b) => a + b, 0)];
    const off = Math.abs(found[0] - l2) > slack || Math.abs(found[1] - sum) > slack * Math.sqrt(g.length);
    return off ? [`${name}: L2 norm and sum ${found}, expected ${l2},${sum}`] : [];
  });
}

function storedWeights(golden: Golden): string[] {
  return [...golden.io.keys()].filter((name) => name.startsWith("grad.w.")).map((name) => name.slice(7));
}

/** A video UNet with the weights of a golden folder. */
function videoNetwork(golden: Golden, config: UNetConfig): Network {
  const unet = new VideoUNet(config);
  loadWeights(unet.state(), golden.weights());
  const inputs = {
    sample: f32(channelsLast(golden.get("in.sample"))),
    encoder_hidden_states: f32(golden.get("in.encoder_hidden_states")),
  };
  const step = i32(golden.get("in.timestep"));
  return {
    golden,
    params: unet.state(),
    inputs,
    outputs: (x) => ({ sample: unet.forward(x.sample, step, x.encoder_hidden_states) }),
  };
}

const small = { latent: 4, layers: 1, dropout: 0, ...PLAIN } as const;
const sti: StiConfig = { heads: 8, dim: 32, pool: 2, outNorm: false };

describeGolden("unet3d-ms-a", (golden) => {
  const config = {
    ...small,
    channels: [16, 32],
    headDim: 8,
    context: 32,
    groups: 8,
    transformerIn: { heads: 8, dim: 8 },
  };

  onReference("output, loss and all gradients", async () => {
    const net = videoNetwork(golden, config);
    const got = await prepare(net, [...net.params.keys()], () => useDevice(reference))();
    expect([...problems(net, got), ...normProblems(net, got)]).toEqual([]);
  });
});

describeGolden("sti-unet-a", (golden) => {
  const config = {
    ...small,
    channels: [8, 16],
    headDim: 4,
    context: 20,
    groups: 4,
    transformerIn: { heads: 8, dim: 4 },
    sti,
  };

  // On a software adapter, 200 kernels are compiled first: most of a minute of two cores.
  test("output, loss and gradients", { timeout: 300_000 }, async (context) => {
    const device = await gpu();
    if (!device) return context.skip("no WebGPU adapter");
    const net = videoNetwork(golden, config);
    const run = prepare(net, storedWeights(golden), () => useDevice(device));
    const got = await run();
    expect(Object.keys(got)).toHaveLength(2 + 2 + 14);
    expect(problems(net, got)).toEqual([]);
    for (const [name, p] of net.params) if (/w[12]$/.test(name)) p.write([name.endsWith("w1") ? 0 : 1]);
    const plain = wanted(net, "out.sample_w01").data;
    expect(golden.problem("out.sample_w01", (await run())["out.sample"], plain)).toBeNull();
    // One of eight layers with a weight half a percent off is noticed.
    net.params.get("mid_block.temp_convs.1.w2")?.write([1.005]);
    expect(golden.problem("out.sample_w01", (await run())["out.sample"], plain)).not.toBeNull();
  });

  onReference("all gradients", async () => {
    const net = videoNetwork(golden, config);
    const got = await prepare(net, [...net.params.keys()], () => useDevice(reference))();
    expect([...problems(net, got), ...normProblems(net, got)]).toEqual([]);
  });
});

describeGolden("unet-sd-a", (golden) => {
  const config = {
    ...small,
    channels: [16, 32, 32],
    headDim: 8,
    context: 32,
    groups: 8,
    transformerIn: { heads: 1, dim: 8 },
  };
  const unet = new VideoUNet({ ...config, heads: [2, 4, 2] }, { temporal: false });
  /** Images are clips of one frame. */
  const clips = (name: string): Tensor => {
    const images = f32(channelsLast(golden.get(name)));
    return images.reshape([images.shape[0], 1, ...images.shape.slice(1)]);
  };

  onReference("the per-frame network alone, also at odd sizes", async () => {
    loadWeights(unet.state(), golden.weights());
    const step = i32(golden.get("in.timestep"));
    const inputs = { sample: clips("in.sample"), encoder_hidden_states: f32(golden.get("in.encoder_hidden_states")) };
    const outputs = ({ sample, encoder_hidden_states: text }: Tensors): Tensors => ({
      sample: unet.forward(sample, step, text),
      sample_odd: unet.forward(clips("in.sample_odd"), step.slice(0, 0, 1), text.slice(0, 0, 1)),
    });
    const net = { golden, params: unet.state(), inputs, outputs };
    const got = await prepare(net, [...net.params.keys()], () => useDevice(reference))();
    expect([...problems(net, got), ...normProblems(net, got)]).toEqual([]);
  });
});

describeGolden("sti-layer-a", (golden) => {
  interface LayerConfig {
    readonly frames: Readonly<Record<string, { readonly batch: number }>>;
    readonly start: { readonly zero_gradient: readonly string[]; readonly non_zero_gradient: readonly string[] };
  }
  const { frames, start } = golden.json<LayerConfig>("config.json");
  const all = golden.weights();
  /** One of the file's layers; without the output norm, `norm` is not part of it, and w3 never is. */
  const layer = (outNorm: boolean, over: ReadonlyMap<string, Stored> = new Map()): SpatialTemporalInteraction => {
    const made = new SpatialTemporalInteraction(24, { ...sti, outNorm }, 8);
    const names = [...all.keys()].filter(
      (k) => k.startsWith("full.") && k !== "full.w3" && (outNorm || !k.startsWith("full.norm")),
    );
    loadWeights(
      made.state(),
      new Map(names.map((k) => [k.slice(5), over.get(`start.${k}`) ?? (all.get(k) as Stored)])),
    );
    return made;
  };
  const video = (name: string): Tensor => {
    const images = f32(channelsLast(golden.get(`in.${name}`)));
    return images.reshape([frames[name].batch, -1, ...images.shape.slice(1)]);
  };
  const network = (
    params: ReadonlyMap<string, Parameter>,
    names: readonly string[],
    outputs: Network["outputs"],
  ): Network => {
    const inputs = Object.fromEntries(names.map((name) => [name, video(name)]));
    return { golden, params: new Map([...params].map(([name, p]) => [`full.${name}`, p])), inputs, outputs };
  };

  const odd = (): Network => {
    const [plain, normed] = [layer(false), layer(true)];
    return network(normed.state(), ["x_odd"], ({ x_odd: x }) => ({
      full_odd: plain.forward(x),
      full_odd_norm: normed.forward(x),
    }));
  };
  onGpu("an odd size, with and without output norm: outputs and input gradient", async (device) => {
    const net = odd();
    const got = await prepare(net, ["full.norm.weight"], () => useDevice(device))();
    const { loss: _, ...parts } = got; // stored together with other outputs
    expect(Object.keys(parts)).toHaveLength(4);
    expect(problems(net, parts)).toEqual([]);
  });

  onReference("every four-conv case: outputs, gradients of inputs and weights", async () => {
    const [one, normed] = [layer(false), layer(true)];
    const w3 = f32(all.get("full.w3") as Stored);
    // The released class forgets the frame count: its detail branch sees every frame as a clip of its own.
    const released = (x: Tensor): Tensor => {
      const { b, f, h, w, c } = x.dims("b f h w c");
      const detail = one.detail(x.reshape([b * f, 1, h, w, c])).reshape(x.shape);
      return one.semantic(x).mul(one.w1).add(detail.mul(one.w2));
    };
    const plain = {
      full_even: "x_even",
      full_odd: "x_odd",
      full_one: "x_one",
      full_eight: "x_eight",
      full_small: "x_small",
    };
    const net = network(one.state(), Object.values(plain), (x) => ({
      ...Object.fromEntries(Object.entries(plain).map(([name, input]) => [name, one.forward(x[input])])),
      full_odd_norm: normed.forward(x.x_odd),
      full_even_released: released(x.x_even),
      three_even: one.forward(x.x_even).add(x.x_even.mul(w3)),
    }));
    // Two modules hold one layer's weights here, so gradients of a weight are the sum over both.
    const twin = {
      ...net,
      params: new Map([...net.params, ...[...normed.state()].map(([k, p]) => [`twin.${k}`, p] as const)]),
    };
    const got = await prepare(twin, [...twin.params.keys()], () => useDevice(reference))();
    for (const name of net.params.keys()) {
      const other = got[`grad.w.${name.replace("full.", "twin.")}`];
      got[`grad.w.${name}`] = got[`grad.w.${name}`].map((g, i) => g + other[i]) as Data;
    }
    // Stored together with other layers' outputs.
    const { loss: _, "grad.in.x_eight": __, ...parts } = got;
    expect(Object.keys(parts).filter((name) => golden.io.has(name))).toHaveLength(8 + 4 + 8);
    expect([...problems(net, parts), ...normProblems(net, parts, (name) => net.params.has(name))]).toEqual([]);
  });

  onReference("at the start: the identity, and which gradients are zero (spec 9.4)", async () => {
    const stored = golden.weights("start.safetensors");
    const one = layer(false, stored);
    const x = video("x_even");
    const loss = one
      .forward(x)
      .mul(f32(channelsLast(stored.get("proj.full_even") as Stored)).reshape(x.shape))
      .mean();
    expect(await one.forward(x).data()).toEqual(await x.data());
    const grads = grad(loss, [...one.state().values()]);
    for (const [i, name] of [...one.state().keys()].entries()) {
      const g = await grads[i].data();
      const zero = start.zero_gradient.includes(`full.${name}`);
      expect(
        g.every((v) => v === 0),
        name,
      ).toBe(zero);
      expect(start.non_zero_gradient.includes(`full.${name}`), name).toBe(!zero);
      const want = stored.get(`grad.w.full.${name}`);
      if (want) expectClose(g, asParameter(want, one.state().get(name) as Parameter).data, name, { rtol: 1e-6 });
    }
  });
});

// ---- counts ---------------------------------------------------------------------------------------------------------

/** Parameters whose name matches. */
function countOf(module: Module, pattern: RegExp): number {
  const sizes = [...module.state()]
    .filter(([name]) => pattern.test(name))
    .map(([, p]) => p.shape.reduce((a, b) => a * b, 1));
  return sizes.reduce((a, b) => a + b, 0);
}

/** What STI adds to the temporal convolutions it replaces. */
const STI_EXTRA = /temp_convs\.\d+\.(w1|w2|transformer_blocks\..*)$/;

describe("parameter counts", () => {
  const paper = presetConfig("paper");

  test("the paper's systems (spec 1): Make-A-Video, STI, and the image model under both", () => {
    const plain = { ...paper.unet, sti: null };
    expect(new VideoUNet(plain, { temporal: false }).count()).toBe(865_910_724);
    expect(new VideoUNet(plain).count()).toBe(1_411_233_860);
    expect(new LatentDiffusion({ ...paper, unet: plain }).count()).toBe(1_835_275_563);
    expect(new LatentDiffusion(paper).count()).toBe(1_855_939_607);
    const unet = new VideoUNet(paper.unet);
    expect(unet.count()).toBe(1_431_897_904);
    expect(countOf(unet, STI_EXTRA)).toBe(20_664_044);
    expect(countOf(unet, /temp_convs.*conv_layer/)).toBe(266_891_520);
    expect(countOf(unet, /temp_attentions/)).toBe(272_850_880);
    expect(countOf(unet, /^transformer_in/)).toBe(5_580_736);
    expect(countOf(unet, /resnets/)).toBe(537_670_400);
    expect(countOf(unet, /\.attentions/)).toBe(273_629_120);
    expect(countOf(unet, /samplers/)).toBe(52_536_640);
  });

  test("per layer, at 320, 640 and 1280 channels", () => {
    const each = (make: (c: number) => Module): number[] => [320, 640, 1280].map((c) => make(c).count());
    expect(each((c) => new TemporalConv(c, 32))).toEqual([1_232_640, 4_922_880, 19_676_160]);
    expect(each((c) => new TemporalTransformer(c, c / 64, 64, 32))).toEqual([2_259_520, 9_024_640, 36_071_680]);
    expect(each((c) => new SpatialTransformer(c, c / 64, 1024, 32))).toEqual([2_710_080, 9_516_160, 35_416_320]);
    expect(each((c) => new ResidualBlock(c, c, 1280, 32))).toEqual([2_255_040, 8_196_480, 31_138_560]);
    const extra = (c: number): number =>
      new SpatialTemporalInteraction(c, sti, 32).count() - new TemporalConv(c, 32).count();
    expect([320, 640, 1280].map(extra)).toEqual([328_002, 656_002, 1_312_002]);
    const norm = (c: number): number => new SpatialTemporalInteraction(c, { ...sti, outNorm: true }, 32).count();
    expect(norm(320)).toBe(1_232_640 + 328_002 + 640);
  });

  test.each<[Preset, number, number, number, number]>([
    ["micro", 14_231_012, 2_690_688, 2_752_096, 260_108],
    ["tiny", 56_728_516, 10_714_368, 10_955_968, 1_036_268],
    ["small", 226_523_012, 42_760_704, 43_719_040, 4_136_876],
  ])("preset %s (spec 8)", (preset, total, convolutions, attentions, extra) => {
    const { unet } = presetConfig(preset);
    expect(new VideoUNet({ ...unet, sti: null }).count()).toBe(total);
    const withSti = new VideoUNet(unet);
    expect(withSti.count()).toBe(total + extra);
    expect([/conv_layer/, /temp_attentions/, STI_EXTRA].map((p) => countOf(withSti, p))).toEqual([
      convolutions,
      attentions,
      extra,
    ]);
  });

  test.each<[Trained, number]>([
    ["conv", 266_891_520 + 20_664_044],
    ["temporal", 545_323_136 + 20_664_044],
    ["scratch", 1_431_897_904 + 340_387_840],
  ])("trained parameters: %s (spec 2.14)", (what, count) => {
    const model = new LatentDiffusion(paper).train(what);
    const sizes = model.parameters().map((p) => p.shape.reduce((a, b) => a * b, 1));
    expect(sizes.reduce((a, b) => a + b, 0)).toBe(count);
  });

  test("counting allocates nothing", () => {
    const before = process.memoryUsage().arrayBuffers;
    expect(new LatentDiffusion(paper).count()).toBeGreaterThan(1e9);
    // Tables of the noise schedule; the smallest convolution of this model alone has 46 KB of weights.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(100_000);
  });
});

// ---- properties -----------------------------------------------------------------------------------------------------

const tiny: UNetConfig = {
  latent: 2,
  channels: [8, 8],
  layers: 1,
  headDim: 4,
  context: 6,
  groups: 2,
  transformerIn: { heads: 2, dim: 2 },
  dropout: 0.1,
  ...PLAIN,
  sti: { heads: 2, dim: 4, pool: 2, outNorm: false },
};
const clip = (seed: number): Tensor => new Rng(seed).normal([2, 3, 5, 4, 2]);
const caption = new Rng(8).normal([2, 4, 6]);
const steps = tensor(Int32Array.of(3, 700));

describe("video UNet", () => {
  onReference("starts as its per-frame self (spec 9.2), and does not stay it", async () => {
    const unet = new VideoUNet(tiny).seed(1);
    const image = new VideoUNet(tiny, { temporal: false }).seed(1);
    const before = await unet.forward(clip(1), steps, caption).data();
    expectClose(before, await image.forward(clip(1), steps, caption).data(), "identity start", { rtol: 1e-6 });
    for (const name of [
      "mid_block.temp_convs.0.conv_layer.conv4.3.weight",
      "transformer_in.proj_out.weight",
      "up_blocks.1.temp_convs.1.w1",
    ]) {
      const p = unet.state().get(name) as Parameter;
      const start = await p.data();
      expect(
        start.every((v) => v === 0),
        name,
      ).toBe(true);
      p.write(start.map(() => 0.1));
      expect(await unet.forward(clip(1), steps, caption).data(), name).not.toEqual(before);
      p.write(start);
    }
  });

  onReference("dropout acts only where a generator is given", async () => {
    const unet = new VideoUNet(tiny).seed(1);
    for (const [name, p] of unet.state()) if (name.includes("conv4.3.weight")) p.write(new Float32Array(192).fill(0.1));
    const run = (rng?: Rng): Promise<Data> => unet.forward(clip(1), steps, caption, { rng }).data();
    expect(await run()).toEqual(await run());
    expect(await run(new Rng(1))).not.toEqual(await run());
  });

  test("what does not fit is named", () => {
    const unet = new VideoUNet(tiny);
    expect(() => unet.forward(clip(1), steps, new Rng(1).normal([3, 4, 6]))).toThrow(
      /text "b m 6" of one b.*\[3, 4, 6\]/,
    );
    expect(() => new VideoUNet({ ...tiny, headDim: 3 })).toThrow("8 channels do not divide into 2.66");
    const { autoencoder } = presetConfig("nano");
    expect(() => new LatentDiffusion(presetConfig("nano", { autoencoder: { ...autoencoder, latent: 8 } }))).toThrow(
      "expects 4 latents",
    );
  });
});

describe("latent diffusion", () => {
  const shape = [2, 2, 4, 4, 4];
  const batch = {
    latents: new Rng(1).normal(shape),
    captions: tensor(Int32Array.of(5, 6, 7, 8), [2, 2]),
    empty: tensor(new Int32Array(2)),
  };
  const unet = { ...tiny, latent: 4, context: 64 };

  onReference("an answer of zero costs the mean square of the target (Eq. 2)", async () => {
    for (const prediction of ["epsilon", "v"] as const) {
      const model = new LatentDiffusion(presetConfig("nano", { unet, prediction })).seed(2);
      for (const p of model.unet.convOut.state().values())
        p.write(new Float32Array(p.shape.reduce((a, b) => a * b, 1)));
      const rng = new Rng(3);
      const step = rng.integers([2], 1000);
      const noise = rng.normal(shape);
      const target = prediction === "v" ? model.noiseSchedule.velocity(batch.latents, noise, step) : noise;
      const want = await target.square().mean().item();
      expect(await model.loss(batch, new Rng(3)).item()).toBeCloseTo(want, 6);
    }
  });

  onReference("dropped captions do not matter, others do", async () => {
    const model = new LatentDiffusion(presetConfig("nano", { unet })).seed(2);
    const other = { ...batch, captions: tensor(Int32Array.of(5, 6, 7, 9), [2, 2]) };
    const loss = (of: typeof batch, drop: number): Promise<number> => model.loss(of, new Rng(3), { drop }).item();
    expect(await loss(other, 1)).toBe(await loss(batch, 1));
    expect(await loss(other, 0)).not.toBe(await loss(batch, 0));
  });

  test("what trains is chosen by name; the autoencoder never does", () => {
    const model = new LatentDiffusion(presetConfig("nano", { unet }));
    const prefixes = (what: Trained): string[] => {
      model.train(what);
      const names = [...model.state()].filter(([, p]) => p.trainable).map(([name]) => name);
      return [...new Set(names.map((name) => name.split(".")[0]))];
    };
    expect(prefixes("scratch")).toEqual(["text_encoder", "unet"]);
    expect(prefixes("temporal")).toEqual(["unet"]);
    expect(model.unet.convIn.weight.trainable).toBe(false);
    expect(model.unet.transformerIn?.projIn.weight.trainable).toBe(true);
    expect(prefixes("conv")).toEqual(["unet"]);
    expect(model.unet.transformerIn?.projIn.weight.trainable).toBe(false);
    expect(model.parameters()).toContain((model.unet.midBlock.tempConvs[0] as SpatialTemporalInteraction).w1);
  });

  onReference("frames to latents and back keep their places", async () => {
    const autoencoder = { channels: [8, 8], layers: 1, latent: 4, groups: 4 };
    const model = new LatentDiffusion(presetConfig("nano", { unet, autoencoder })).seed(2);
    const frames = new Rng(4).uniform([2, 2, 4, 4, 3]);
    const noise = new Rng(5).normal([2, 2, 2, 2, 4]);
    const latents = model.encode(frames, noise);
    const alone = model.encode(frames.slice(0, 1).slice(1, 1), noise.slice(0, 1).slice(1, 1));
    expect(await latents.slice(0, 1).slice(1, 1).data()).toEqual(await alone.data());
    expect(model.decode(latents).shape).toEqual(frames.shape);
    expect(() => model.encode(frames, noise.slice(1, 0, 1))).toThrow("[2, 2, 2, 2, 4]");
  });

  onReference("guidance: 1 is the caption's answer, 0 the empty one's", async () => {
    const model = new LatentDiffusion(presetConfig("nano", { unet })).seed(2);
    const [x, text, plain] = [
      new Rng(1).normal([1, 2, 4, 4, 4]),
      new Rng(2).normal([1, 3, 64]),
      new Rng(3).normal([1, 3, 64]),
    ];
    const at = tensor(Int32Array.of(500));
    const guided = (scale: number): Promise<Data> => model.guided(x, at, { text, plain, scale: tensor(scale) }).data();
    const alone = (y: Tensor): Promise<Data> => model.unet.forward(x, at, y).data();
    expectClose(await guided(1), await alone(text), "scale 1", { rtol: 1e-6 });
    expectClose(await guided(0), await alone(plain), "scale 0", { rtol: 1e-6 });
    const [on, off] = [await alone(text), await alone(plain)];
    expectClose(
      await guided(7.5),
      on.map((v, i) => off[i] + 7.5 * (v - off[i])),
      "scale 7.5",
      { rtol: 1e-6 },
    );
  });
});

describe("STI layer", () => {
  const config: StiConfig = { heads: 2, dim: 4, pool: 2, outNorm: false };
  const frameOrder = [2, 0, 3, 1];
  const reordered = (x: Tensor): Tensor => {
    const [first, ...rest] = frameOrder.map((i) => x.slice(1, i, i + 1));
    return first.concat(rest, 1);
  };

  onReference("the semantic branch sees frames as a set, the detail branch in order (spec 9.3)", async () => {
    const layer = new SpatialTemporalInteraction(8, config, 2).seed(1);
    layer
      .state()
      .get("conv_layer.conv4.3.weight")
      ?.write(Float32Array.from({ length: 192 }, (_, i) => Math.sin(i)));
    const x = new Rng(4).normal([1, 4, 5, 4, 8]);
    const moved = (branch: "semantic" | "detail"): Promise<Data> => reordered(layer[branch](x)).data();
    expectClose(await layer.semantic(reordered(x)).data(), await moved("semantic"), "semantic", { rtol: 1e-6 });
    expect(
      Math.max(
        ...(await layer
          .detail(reordered(x))
          .sub(reordered(layer.detail(x)))
          .data()),
      ),
    ).toBeGreaterThan(0.1);
  });

  onReference("works on the paper's smallest maps, 4 x 4, and refuses 1 x 1", async () => {
    const layer = new SpatialTemporalInteraction(8, config, 2).seed(1);
    expect(layer.forward(new Rng(1).normal([1, 8, 4, 4, 8])).shape).toEqual([1, 8, 4, 4, 8]);
    expect(() => layer.forward(new Rng(1).normal([1, 8, 1, 1, 8]))).toThrow("a window of 2 does not fit into axis");
  });

  test("gradients against central differences, over drawn sizes", () => {
    fc.assert(
      fc.property(fc.gen(), fc.nat(), (g, seed) => {
        const { int, pick } = drawer(g);
        const groups = pick([2, 1]);
        const channels = groups * int(2, 3);
        const drawn = { heads: int(1, 2), dim: pick([4, 2]), pool: int(1, 2), outNorm: pick([false, true]) };
        const layer = new SpatialTemporalInteraction(channels, drawn, groups);
        const problem = directionalProblem(layer, [int(1, 2), int(1, 3), int(2, 4), int(2, 5), channels], seed);
        expect(problem === null, problem ?? "").toBe(true);
      }),
      { numRuns: 10, seed: 1 },
    );
  });

  test("the check notices a gradient one percent off in any one tensor", () => {
    const layer = new SpatialTemporalInteraction(4, config, 2);
    for (const name of ["x", ...layer.state().keys()]) {
      expect(directionalProblem(layer, [1, 2, 4, 2, 4], 5, name), name).toContain(name);
    }
  });
});

/**
 * For x and every weight: the derivative of a randomly weighted output along one random direction, against a central
 * difference of 1e-5 in float64, where truncation and rounding are both near 1e-9. A sentence about the first that differs,
 * or null. `wrong` names a tensor whose gradient is made one percent too large.
 */
function directionalProblem(
  layer: SpatialTemporalInteraction,
  shape: readonly number[],
  seed: number,
  wrong?: string,
): string | null {
  const inputs = new Inputs(seed);
  const next = uniforms(seed);
  const x = inputs.make({ shape });
  for (const p of layer.state().values()) {
    const data = Float64Array.from({ length: p.shape.reduce((a, b) => a * b, 1) }, () => 1.6 * next() - 0.8);
    inputs.values.set(p.leaf, { shape: p.shape, data });
  }
  const loss = layer
    .forward(x)
    .mul(inputs.make({ shape }, [0.5, 1.5]))
    .sum();
  const wrt = new Map<string, Tensor>([["x", x], ...layer.state()]);
  const analytic = inputs.evaluate(grad(loss, [...wrt.values()]));
  for (const [i, [name, t]] of [...wrt].entries()) {
    const { data } = inputs.values.get(t.node) as Array64;
    const direction = data.map(() => next() - 0.5);
    const got = analytic[i].reduce((sum, g, j) => sum + g * direction[j], 0) * (name === wrong ? 1.01 : 1);
    const at = (h: number): number => {
      const before = data.slice();
      data.forEach((v, j) => {
        data[j] = v + h * direction[j];
      });
      const value = inputs.evaluate([loss])[0][0];
      data.set(before);
      return value;
    };
    const want = (at(1e-5) - at(-1e-5)) / 2e-5;
    if (!(Math.abs(got - want) <= 1e-6 * Math.max(1, Math.abs(want))))
      return `${name}, x [${shape}]: expected ${want}, got ${got}`;
  }
  return null;
}
