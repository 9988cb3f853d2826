// The six systems: their parameters by component, held against the paper's counts; and the layers that are particular to
// Make-A-Video, VideoLDM and VideoFactory, against plain loops and central differences. STI: sti.test.ts; I2VGen-XL and
// VideoGPT have test files of their own.

import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, test, vi } from "vitest";
import { SYSTEMS as CHOICES } from "../cli/options.ts";
import { Rng, Tensor, useDevice } from "../engine/index.ts";
import type { Module } from "../engine/nn/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { directional } from "../engine/testing/index.ts";
import { type Preset, type SwapConfig, type SystemName, systemConfig } from "../models/config.ts";
import { LatentDiffusion, type Trained } from "../models/latent_diffusion.ts";
import { TemporalConv, TemporalTransformer } from "../models/make_a_video.ts";
import { PseudoConv, PseudoResidualBlock, SpaceTimeAttention } from "../models/pseudo3d.ts";
import { SpatialTemporalInteraction } from "../models/sti.ts";
import { countSystem, countSystems, SYSTEMS, type System } from "../models/systems.ts";
import { ResidualBlock, SpatialTransformer } from "../models/unet_blocks.ts";
import { VideoUNet } from "../models/video_unet.ts";
import { SwapAttention } from "../models/videofactory.ts";
import { MixedTemporalConv, MixedTemporalTransformer } from "../models/videoldm.ts";
import { expectClose } from "./close.ts";
import { onGpu, onReference } from "./device.ts";
import { describeFolder } from "./golden.ts";
import { goldenFailures, outputFailures } from "./golden_failures.ts";
import { drawnInput, scramble } from "./scramble.ts";

const reference = new ReferenceDevice();

afterEach(() => vi.restoreAllMocks());

const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

// ---- counts ---------------------------------------------------------------------------------------------------------

describe("parameter counts", () => {
  const system = (name: SystemName): System => SYSTEMS.find((one) => one.name === name) as System;
  const AUTOENCODER = 83_653_863;
  const TEXT = 340_387_840;

  // The "Param. (B)" row of the paper, to the last parameter, by what is loaded (spec 1).
  test.each<[SystemName, number, Readonly<Record<string, number>>]>([
    ["videogpt", 102_236_851, { vqvae: 21_141_619, prior: 81_095_232 }],
    ["make-a-video", 1_835_275_563, { autoencoder: AUTOENCODER, "text encoder": TEXT, unet: 1_411_233_860 }],
    ["videoldm", 1_835_275_601, { autoencoder: AUTOENCODER, "text encoder": TEXT, unet: 1_411_233_860 + 38 }],
    ["videofactory", 1_846_805_972, { autoencoder: AUTOENCODER, "text encoder": TEXT, unet: 1_422_764_269 }],
    [
      "i2vgen-xl",
      2_489_183_951,
      {
        autoencoder: AUTOENCODER,
        "text encoder": 352_984_064,
        "image encoder": 632_076_800,
        unet: 1_420_469_224,
      },
    ],
    ["sti", 1_855_939_607, { autoencoder: AUTOENCODER, "text encoder": TEXT, unet: 1_431_897_904 }],
  ])("%s at preset paper", (name, total, components) => {
    const count = countSystem(system(name), "paper");
    expect(count.total).toBe(total);
    expect(Object.fromEntries(Object.entries(count.components).map(([c, { count: n }]) => [c, n]))).toEqual(components);
  });

  test("the parts of the UNets (spec 1)", () => {
    const common = {
      "first convolution": 11_840,
      "time embedding": 2_050_560,
      head: 12_164,
      "residual blocks": 537_670_400,
      "spatial transformers": 273_629_120,
      resampling: 52_536_640,
      "temporal convolutions": 266_891_520,
      "temporal attention": 272_850_880,
      "first temporal attention": 5_580_736,
    };
    const parts = (name: SystemName): unknown => countSystem(system(name), "paper").components.unet.parts;
    expect(parts("make-a-video")).toEqual(common);
    expect(parts("videoldm")).toEqual({ ...common, "mixing scalars": 38 });
    expect(parts("videofactory")).toEqual({ ...common, "swapped attention": 11_530_409 });
    expect(parts("sti")).toEqual({ ...common, "STI attention": 20_664_000, "STI weights": 44 });
    const guided = { ...common, "first convolution": 11_840 + 11_520 };
    expect(parts("i2vgen-xl")).toEqual({ ...guided, "image guidance": 3_492 + 288 + 610_528 + 6_558_976 + 2_050_560 });
    const image = new VideoUNet(systemConfig("sti", "paper").unet, { temporal: false });
    expect(image.count()).toBe(865_910_724);
  });

  test.each<[Preset, readonly [number, number, number, number, number, number]]>([
    ["micro", [8_765_028, 2_690_688, 2_752_096, 23_200, 260_108, 116_249]],
    ["tiny", [34_966_724, 10_714_368, 10_955_968, 91_456, 1_036_268, 462_889]],
    ["small", [139_680_132, 42_760_704, 43_719_040, 363_136, 4_136_876, 1_847_369]],
  ])("preset %s (spec 8)", (preset, [image, convs, attention, first, sti, swap]) => {
    const unet = (name: SystemName): number => countSystem(system(name), preset).components.unet.count;
    const { parts } = countSystem(system("make-a-video"), preset).components.unet;
    const between = ["temporal convolutions", "temporal attention", "first temporal attention"];
    expect(between.map((part) => parts[part])).toEqual([convs, attention, first]);
    const plain = image + convs + attention + first;
    expect(unet("make-a-video")).toBe(plain);
    expect(unet("videoldm")).toBe(plain + 38);
    expect(unet("videofactory")).toBe(plain + swap);
    expect(unet("sti")).toBe(plain + sti);
  });

  test("per layer, at 320, 640 and 1280 channels (spec 1, 3.3)", () => {
    const each = (make: (c: number) => Module): number[] => [320, 640, 1280].map((c) => make(c).count());
    expect(each((c) => new TemporalConv(c, 32))).toEqual([1_232_640, 4_922_880, 19_676_160]);
    expect(each((c) => new TemporalTransformer(c, c / 64, 64, 32))).toEqual([2_259_520, 9_024_640, 36_071_680]);
    expect(each((c) => new SpatialTransformer(c, c / 64, 1024, 32))).toEqual([2_710_080, 9_516_160, 35_416_320]);
    expect(each((c) => new ResidualBlock(c, c, 1280, 32))).toEqual([2_255_040, 8_196_480, 31_138_560]);
    const window = [8, 8, 8] as const;
    expect(each((c) => new SwapAttention(c, { window, heads: null }))).toEqual([128_401, 512_801, 2_049_601]);
    const sti = { heads: 8, dim: 32, pool: 2, outNorm: false };
    const extra = (c: number, over = {}): number =>
      new SpatialTemporalInteraction(c, { ...sti, ...over }, 32).count() - new TemporalConv(c, 32).count();
    expect([320, 640, 1280].map((c) => extra(c))).toEqual([328_002, 656_002, 1_312_002]);
    expect(extra(320, { outNorm: true, third: true })).toBe(328_002 + 640 + 1);
  });

  test("variants: the heads of VideoFactory, three weights and an output norm in STI (spec 3.3, 3.5)", () => {
    const count = (name: "videofactory" | "sti", over: object): number => {
      const config = systemConfig(name, "paper");
      return new LatentDiffusion({ ...config, unet: { ...config.unet, ...over } }).count();
    };
    const swap: SwapConfig = { window: [8, 8, 8], heads: { count: 8, dim: 64 } };
    expect(count("videofactory", { swap })).toBe(1_847_077_803);
    const { sti } = systemConfig("sti", "paper").unet;
    expect(count("sti", { sti: { ...sti, third: true } })).toBe(1_855_939_629);
    expect(count("sti", { sti: { ...sti, outNorm: true } })).toBe(1_855_979_927);
  });

  test("the STI layers and the image network of the authors' later system (spec 7.1)", () => {
    const { unet } = systemConfig("sti", "paper");
    const sti = { heads: 8, dim: 32, pool: 2, outNorm: true, light: { frames: 8 } };
    const later = new VideoUNet({ ...unet, channels: [320, 640, 1024, 1280], inputs: 8, sti });
    const of = (pattern: RegExp): number =>
      [...later.state()].filter(([name]) => pattern.test(name)).reduce((sum, [, p]) => sum + size(p.shape), 0);
    expect(of(/temp_convs/)).toBe(19_442_604);
    expect(of(/temp_attentions/)).toBe(207_943_360);
    expect(of(/^(?!.*(temp_|transformer_in))/)).toBe(723_474_884);
  });

  test.each<[SystemName, Trained, number]>([
    ["make-a-video", "conv", 266_891_520],
    ["make-a-video", "temporal", 545_323_136],
    ["videofactory", "temporal", 545_323_136 + 11_530_409],
    ["sti", "conv", 266_891_520 + 20_664_044],
    ["sti", "temporal", 565_987_180],
    ["sti", "scratch", 1_431_897_904 + TEXT],
  ])("trained parameters of %s: %s (spec 2.14)", (name, what, count) => {
    const model = system(name).build("paper") as LatentDiffusion;
    expect(
      model
        .train(what)
        .parameters()
        .reduce((sum, p) => sum + size(p.shape), 0),
    ).toBe(count);
  });

  test("all systems at all presets are counted in seconds and without their weights", () => {
    const before = process.memoryUsage().arrayBuffers;
    const started = process.cpuUsage(); // processor time, which other jobs hardly change
    const counts = countSystems();
    expect(counts).toHaveLength(30);
    expect(counts.every(({ total }) => total > 1e5)).toBe(true);
    const { user, system: kernel } = process.cpuUsage(started);
    expect((user + kernel) / 1e6).toBeLessThan(5);
    // Tables of noise schedules; the smallest of these systems has 1.8 MB of weights.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1_500_000);
  });

  test("the command prints them, as tables and as JSON", () => {
    const print = (...args: string[]): string => {
      const bin = fileURLToPath(new URL("../cli/gifgrad.mjs", import.meta.url));
      return spawnSync(process.execPath, [bin, "params", "--preset", "paper", ...args], { encoding: "utf8" }).stdout;
    };
    expect(JSON.parse(print("--json"))).toEqual(countSystems(undefined, ["paper"]));
    const table = print("--system", "videogpt");
    expect(table).toMatch(/^VideoGPT \(videogpt\): told tags/);
    expect(table).toMatch(/\n {2}total +102,236,851\n {2}not in it: tags +128,000\n/);
  });

  test("the command line offers these systems", () => {
    expect(CHOICES).toEqual(SYSTEMS.map(({ name }) => name));
  });

  test("a parameter of no component is named", () => {
    const sti = system("sti");
    const components = sti.components.filter(({ part }) => part !== "resampling");
    expect(() => countSystem({ ...sti, components }, "nano")).toThrow(
      /sti: unet\..*samplers.* belongs to no component/,
    );
  });
});

// ---- layers ---------------------------------------------------------------------------------------------------------

describe("VideoFactory's swapped attention", () => {
  const shape = [2, 3, 5, 2, 8] as const;
  const window = [2, 3, 4] as const;
  const [spatial, temporal] = [drawnInput(shape, 1), drawnInput(shape, 2)];

  /** t + gamma softmax(q k^T / sqrt(d)) v over the positions of the same window, in plain loops. */
  async function loops(layer: SwapAttention, asking: Tensor, answering: Tensor): Promise<number[]> {
    const [b, f, h, w, c] = shape;
    const values = new Map<string, ArrayLike<number>>();
    for (const [name, p] of layer.state()) values.set(name, await p.data());
    const rows = async (x: Tensor, name: string): Promise<number[][]> => {
      const [data, weight, bias] = [await x.data(), values.get(`${name}.weight`)!, values.get(`${name}.bias`)!];
      return Array.from({ length: b * f * h * w }, (_, at) =>
        Array.from({ length: bias.length }, (_, o) =>
          Array.from({ length: c }, (_, i) => data[at * c + i] * weight[o * c + i]).reduce((x, y) => x + y, bias[o]),
        ),
      );
    };
    const [q, k, v] = [await rows(asking, "query"), await rows(answering, "key"), await rows(answering, "value")];
    const windowOf = (at: number): string => {
      const place = [Math.floor(at / (h * w)) % f, Math.floor(at / w) % h, at % w];
      return [Math.floor(at / (f * h * w)), ...place.map((x, axis) => Math.floor(x / window[axis]))].join();
    };
    const t = await temporal.data();
    const gamma = values.get("gamma")![0];
    return q.flatMap((one, at) => {
      const inside = k.map((_, j) => j).filter((j) => windowOf(j) === windowOf(at));
      const weights = inside.map((j) => Math.exp(one.reduce((sum, x, d) => sum + x * k[j][d], 0) / Math.sqrt(c / 8)));
      const total = weights.reduce((x, y) => x + y);
      const seen = (o: number): number => inside.reduce((sum, j, n) => sum + (weights[n] / total) * v[j][o], 0);
      return Array.from({ length: c }, (_, o) => t[at * c + o] + gamma * seen(o));
    });
  }

  onReference("is attention within windows, those at the edges smaller; the flag swaps the roles", async () => {
    const layer = scramble(new SwapAttention(8, { window, heads: null }), 3);
    const got = async (swapped: boolean) => await layer.forward(spatial, temporal, swapped).data();
    const want = await loops(layer, spatial, temporal);
    const other = await loops(layer, temporal, spatial);
    expectClose(await got(false), want, "s asks t", { rtol: 1e-6 }); // outputs are rounded to float32
    expectClose(await got(true), other, "t asks s", { rtol: 1e-6 });
    expect(Math.max(...want.map((x, i) => Math.abs(x - other[i])))).toBeGreaterThan(0.1);
  });

  onGpu("the GPU computes what the reference does, with one head and with several", async (device) => {
    for (const heads of [null, { count: 2, dim: 3 }]) {
      const layer = scramble(new SwapAttention(8, { window, heads }), 4);
      useDevice(reference);
      const want = await layer.forward(spatial, temporal, true).data();
      useDevice(device);
      const got = await layer.forward(spatial, temporal, true).data();
      expectClose(got, want, `heads ${heads?.count}`, { rtol: 1e-5 }); // float32 sums of a few dozen terms
    }
  });

  onReference("a window larger than the map is the map", async () => {
    const [large, whole] = [[8, 8, 8] as const, [3, 5, 2] as const].map((w) =>
      scramble(new SwapAttention(8, { window: w, heads: null }), 3).forward(spatial, temporal, false),
    );
    expect(await large.data()).toEqual(await whole.data());
  });

  onReference("a network's layers take turns, and the middle asks behind its temporal transformer", async () => {
    const calls: string[] = [];
    const unet = systemConfig("videofactory", "nano").unet;
    const net = new VideoUNet({ ...unet, layers: 2 });
    const stages = [...net.downBlocks, net.midBlock, ...net.upBlocks];
    for (const [i, stage] of stages.entries())
      Object.assign(stage.swapAttention as SwapAttention, {
        forward: (_: Tensor, t: Tensor, swapped: boolean) => {
          calls.push(`${i}${swapped ? "t" : "s"}`);
          return t;
        },
      });
    const x = new Rng(1).normal([1, 2, 4, 4, 4]);
    net.forward(x, new Rng(1).integers([1], 1000), new Rng(1).normal([1, 3, unet.context]));
    expect(calls).toEqual(["0s", "0t", "1s", "1t", "2s", "3s", "3t", "3s", "4s", "4t", "4s"]);
  });

  test("refuses channels that 8 does not divide", () => {
    expect(() => new SwapAttention(12, { window, heads: null })).toThrow("an eighth of the channels, and there are 12");
  });
});

describeFolder("make-a-video-a", (path) => {
  onReference("Make-A-Video's own layers: outputs, loss and all gradients", async () => {
    const { count, failed } = await goldenFailures(path);
    expect(failed).toEqual([]);
    expect(count).toBeGreaterThan(80);
  });

  onReference("notice a perceptron that does not look at the frame before", async () => {
    const { slice } = Tensor.prototype;
    const planted = function (this: Tensor, axis: number, start: number, end?: number, step?: number): Tensor {
      const passedOn = axis === 1 && start === 0 && end === this.shape[1] - 1; // all frames but the last
      return passedOn ? slice.call(this, axis, 1) : slice.call(this, axis, start, end, step);
    };
    vi.spyOn(Tensor.prototype, "slice").mockImplementation(planted);
    expect(await outputFailures(path)).toEqual(["out.attn"]);
  });
});

describe("layers that start as the identity", () => {
  const x = new Rng(1).normal([1, 3, 2, 2, 8]);
  const attention = { heads: 2, dim: 3, feedForward: 4, positionBias: true, causal: false };

  onReference("Make-A-Video's own: the part over time changes nothing at first", async () => {
    const conv = new PseudoConv(8, 5, 3).seed(1);
    expect(await conv.forward(x).data()).toEqual(await conv.forward(x, { time: false }).data());
    const plain = new SpaceTimeAttention(8, { ...attention, feedForward: null }).seed(1);
    expect(await plain.forward(x).data()).toEqual(await x.data());
    scramble(conv, 1);
    expect(await conv.forward(x).data()).not.toEqual(await conv.forward(x, { time: false }).data());
  });

  onReference("Make-A-Video's own with `causal`: a frame does not see those behind it", async () => {
    const y = scramble(new SpaceTimeAttention(8, { ...attention, causal: true }), 1);
    const first = (z: Tensor): Promise<ArrayLike<number>> => y.forward(z).slice(1, 0, 1).data();
    const changed = x.slice(1, 0, 1).concat([x.slice(1, 1).mul(2)], 1);
    expect(await first(changed)).toEqual(await first(x));
  });

  onReference("VideoLDM: half of the temporal layer at first, all of it at p = -100", async () => {
    const layer = scramble(new MixedTemporalConv(8, 2), 1);
    const plain = scramble(new TemporalConv(8, 2), 1);
    for (const [name, p] of plain.state()) p.write(await layer.state().get(name)!.data());
    const y = await plain.forward(x).data();
    const start = await x.data();
    layer.mix.write([0]);
    expectClose(
      await layer.forward(x).data(),
      y.map((v, i) => (v + start[i]) / 2),
      "p = 0",
      { rtol: 1e-6 },
    );
    layer.mix.write([-100]);
    expectClose(await layer.forward(x).data(), y, "p = -100", { rtol: 1e-6 });
  });
});

describe("gradients against central differences", () => {
  const [x, s] = [drawnInput([1, 2, 3, 2, 8], 1), drawnInput([1, 2, 3, 2, 8], 2)];
  const embedding = drawnInput([1, 6], 3);
  const attention = { heads: 2, dim: 3, feedForward: 2, positionBias: true, causal: false };
  const window = [2, 2, 2] as const; // of 3 rows: the last window overhangs

  const cases: readonly [string, Module, (m: never) => Tensor, readonly Tensor[]][] = [
    ["TemporalConv", new TemporalConv(8, 2), (m: TemporalConv) => m.forward(x), [x]],
    ["TemporalTransformer", new TemporalTransformer(8, 2, 3, 2), (m: TemporalTransformer) => m.forward(x), [x]],
    ["MixedTemporalConv", new MixedTemporalConv(8, 2), (m: MixedTemporalConv) => m.forward(x), [x]],
    [
      "MixedTemporalTransformer",
      new MixedTemporalTransformer(8, 2, 3, 2),
      (m: MixedTemporalTransformer) => m.forward(x),
      [x],
    ],
    [
      "SwapAttention",
      new SwapAttention(8, { window, heads: null }),
      (m: SwapAttention) => m.forward(s, x, false),
      [s, x],
    ],
    [
      "SwapAttention, swapped, multi-head",
      new SwapAttention(8, { window, heads: { count: 2, dim: 3 } }),
      (m: SwapAttention) => m.forward(s, x, true),
      [s, x],
    ],
    ["PseudoConv", new PseudoConv(8, 5, 3), (m: PseudoConv) => m.forward(x), [x]],
    ["SpaceTimeAttention", new SpaceTimeAttention(8, attention), (m: SpaceTimeAttention) => m.forward(x), [x]],
    [
      "PseudoResidualBlock",
      new PseudoResidualBlock(8, 5, 6),
      (m: PseudoResidualBlock) => m.forward(x, embedding),
      [x, embedding],
    ],
  ];
  test.each(cases)("of %s", async (_, module, forward, inputs) => {
    useDevice(reference);
    scramble(module, 7);
    await directional(forward(module as never), [...inputs, ...module.state().values()]);
  });
});
