// The video UNet and the system around it: golden data of the implementations they follow, and bugs planted to see that data
// notice; the identity start, dropout, the loss, guidance, what trains. The systems' layers: sti.test.ts, systems.test.ts.

import { afterEach, describe, expect, test, vi } from "vitest";
import { type Data, type Parameter, Rng, type Tensor, tensor, useDevice } from "../engine/index.ts";
import { GroupNorm } from "../engine/nn/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { PLAIN, presetConfig, type UNetConfig } from "../models/config.ts";
import { LatentDiffusion, type Trained } from "../models/latent_diffusion.ts";
import { TemporalTransformer } from "../models/make_a_video.ts";
import { SpatialTemporalInteraction } from "../models/sti.ts";
import { perFrame } from "../models/unet_blocks.ts";
import { VideoUNet } from "../models/video_unet.ts";
import { MixedTemporalConv } from "../models/videoldm.ts";
import { expectClose } from "./close.ts";
import { gpu, onReference } from "./device.ts";
import { describeFolder } from "./golden.ts";
import { goldenFailures, outputFailures } from "./golden_failures.ts";

const reference = new ReferenceDevice();

// ---- golden data ----------------------------------------------------------------------------------------------------

afterEach(() => vi.restoreAllMocks());

/** Names of the tensors that fail where `prototype[method]` is another function. */
async function failuresWith<T extends object, K extends keyof T>(
  path: string,
  prototype: T,
  method: K,
  planted: (this: T, ...args: never[]) => unknown,
): Promise<string[]> {
  vi.spyOn(prototype, method as never).mockImplementation(planted as never);
  return outputFailures(path);
}

// Gradients take ten times the time of outputs: one folder has them here, all have them in `gifgrad golden`.
describeFolder("unet-sd-a", (path) => {
  onReference("outputs", async () => expect(await outputFailures(path)).toEqual([]));
});

describeFolder("unet3d-ms-a", (path) => {
  onReference("output", async () => expect(await outputFailures(path)).toEqual([]));

  // One statistic per frame instead of one per clip, in every layer between frames.
  onReference("notices group norms that see single frames", async () => {
    const forward = GroupNorm.prototype.forward;
    const planted = function (this: GroupNorm, x: Tensor): Tensor {
      return x.rank === 5 ? perFrame({ forward: (y) => forward.call(this, y) }, x) : forward.call(this, x);
    };
    expect(await failuresWith(path, GroupNorm.prototype, "forward", planted)).toContain("out.sample");
  });

  onReference("notices a temporal transformer that is left out", async () => {
    const planted = (x: Tensor): Tensor => x;
    expect(await failuresWith(path, TemporalTransformer.prototype, "forward", planted)).toContain("out.sample");
  });
});

describeFolder("videoldm-mix-a", (path) => {
  onReference("outputs, also with every layer mixed out, in or by halves", async () => {
    expect(await outputFailures(path)).toEqual([]);
  });

  onReference("notices a and 1 - a exchanged", async () => {
    const planted = function (this: MixedTemporalConv, x: Tensor): Tensor {
      return x.add(this.change(x).mul(this.mix.sigmoid()));
    };
    const failed = await failuresWith(path, MixedTemporalConv.prototype, "forward", planted);
    expect(failed).toContain("out.sample");
    expect(failed).not.toContain("out.sample_p0"); // a = 1 - a there
  });
});

describeFolder("sti-unet-a", (path) => {
  // On a software adapter, 200 kernels are compiled first: most of a minute of two cores.
  test("output, loss and all gradients on the GPU", { timeout: 300_000 }, async (context) => {
    if (!(await gpu())) return context.skip("no WebGPU adapter");
    const { count, failed } = await goldenFailures(path);
    expect(failed).toEqual([]);
    expect(count).toBeGreaterThan(500);
  });

  onReference("notices a weight of one branch that is a thousandth off", async () => {
    const planted = function (this: SpatialTemporalInteraction, x: Tensor): Tensor {
      return this.semantic(x)
        .mul(this.w1)
        .add(this.detail(x).mul(this.w2.mul(1.001)));
    };
    const failed = await failuresWith(path, SpatialTemporalInteraction.prototype, "forward", planted);
    expect(failed).toContain("out.sample");
    expect(failed).toContain("out.sample_w01");
  });
});

describeFolder("sti-unet-light-a", (path) => {
  onReference("outputs with the small detail branch", async () => expect(await outputFailures(path)).toEqual([]));
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
  const window = [2, 2, 3] as const;
  const systems: readonly [system: string, layers: Partial<UNetConfig>, awake: readonly string[]][] = [
    ["Make-A-Video", { sti: null }, ["mid_block.temp_convs.0.conv4.3.weight", "transformer_in.proj_out.weight"]],
    ["VideoLDM", { sti: null, mixing: true }, ["up_blocks.0.temp_convs.1.conv4.3.weight"]],
    ["VideoFactory", { sti: null, swap: { window, heads: null } }, ["mid_block.swap_attention.gamma"]],
    [
      "VideoFactory, multi-head",
      { sti: null, swap: { window, heads: { count: 2, dim: 3 } } },
      ["down_blocks.0.swap_attention.out.weight"],
    ],
    ["STI", {}, ["mid_block.temp_convs.0.conv_layer.conv4.3.weight", "up_blocks.1.temp_convs.1.w1"]],
  ];
  test.each(systems)("%s starts as its per-frame self (spec 9.2), and does not stay it", async (_, layers, awake) => {
    useDevice(reference);
    const unet = new VideoUNet({ ...tiny, ...layers }).seed(1);
    for (const [name, p] of unet.state()) if (name.endsWith(".mix")) p.write([Math.sin(7 * name.length)]);
    const image = new VideoUNet({ ...tiny, ...layers }, { temporal: false }).seed(1);
    const before = await unet.forward(clip(1), steps, caption).data();
    expectClose(before, await image.forward(clip(1), steps, caption).data(), "identity start", { rtol: 1e-6 });
    for (const name of awake) {
      const p = unet.state().get(name) as Parameter;
      const start = await p.data();
      expect(start.every((v) => v === 0)).toBe(true);
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
