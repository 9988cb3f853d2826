// The autoencoder, the text encoder and the diffusion samplers against golden data of the implementations they follow
// (outputs, loss and gradients on the GPU device), and against closed forms where there are any.

import { describe, expect, test } from "vitest";
import { compile, type Data, grad, ones, Rng, type Tensor, tensor, useDevice, zeros } from "../engine/index.ts";
import type { Module } from "../engine/nn/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import type { Parameter } from "../engine/state.ts";
import { Autoencoder, currentName, klDivergence, measureScale, samplePosterior } from "../models/autoencoder.ts";
import type { AutoencoderConfig, TextConfig } from "../models/config.ts";
import {
  type DdimPlanOptions,
  ddim,
  ddimPlan,
  ddimStep,
  ddimUpdate,
  guide,
  NoiseSchedule,
  type NoiseScheduleOptions,
  type Predict,
  type Prediction,
} from "../models/diffusion.ts";
import { TextEncoder } from "../models/text_encoder.ts";
import { expectClose } from "./close.ts";
import { onGpu } from "./device.ts";
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

type Values = Record<string, Data>;

async function read(tensors: Readonly<Record<string, Tensor>>): Promise<Values> {
  const values: Values = {};
  for (const [name, t] of Object.entries(tensors)) values[name] = await t.data();
  return values;
}

/** Problems of everything in `got` that the golden data has a bound for; wanted images are channels first there. */
function problems(golden: Golden, got: Values, wanted: (name: string) => Stored): string[] {
  return Object.entries(got)
    .map(([name, values]) => golden.problem(name, values, wanted(name).data))
    .filter((p) => p !== null);
}

/** The loss that golden gradients are of: sum over outputs of mean(output * projection). */
function projected(outputs: Readonly<Record<string, Tensor>>, projection: (name: string) => Tensor): Tensor {
  const parts = Object.entries(outputs).map(([name, y]) => y.mul(projection(name)).mean());
  return parts.reduce((a, b) => a.add(b));
}

interface Norms {
  readonly grad_l2_and_sum: Readonly<Record<string, readonly [l2: number, sum: number]>>;
}

/** Compares the gradient of every weight by its L2 norm and sum, and those stored whole element by element. */
function gradientProblems(golden: Golden, state: ReadonlyMap<string, Parameter>, grads: Values): string[] {
  const norms = Object.entries(golden.json<Norms>("grad_norms.json").grad_l2_and_sum);
  const bound =
    10 * Math.max(...norms.map(([name]) => (golden.io.has(`grad.w.${name}`) ? golden.tolerance(`grad.w.${name}`) : 0)));
  // A gradient that is zero in exact arithmetic (a bias before a norm, or of keys) is rounding of terms as large as the rest.
  const floor = 1e-6 * Math.max(...norms.map(([, [l2]]) => l2));
  return norms.flatMap(([name, [l2, sum]]) => {
    const g = Array.from(grads[name]);
    const found = [Math.hypot(...g), g.reduce((a, b) => a + b, 0)];
    const slack = [bound * l2 + floor, bound * l2 * Math.sqrt(g.length) + floor];
    const off = [l2, sum].some((want, i) => !(Math.abs(found[i] - want) <= slack[i]));
    const stored = golden.io.get(`grad.w.${name}`);
    const p = state.get(name);
    const whole = stored && p ? golden.problem(`grad.w.${name}`, g, asParameter(stored, p).data) : null;
    return [...(off ? [`${name}: L2 norm and sum ${found}, expected ${l2},${sum}`] : []), ...(whole ? [whole] : [])];
  });
}

/** Gradients of a model's whole state, under the names of its parameters. */
function stateGrads(loss: Tensor, model: Module): Record<string, Tensor> {
  const state = model.state();
  const grads = grad(loss, [...state.values()]);
  return Object.fromEntries([...state.keys()].map((name, i) => [name, grads[i]]));
}

describeGolden("vae-sd-a", (golden) => {
  const config: AutoencoderConfig = { channels: [16, 24, 32], layers: 1, latent: 4, groups: 8 };
  const wanted = (name: string): Stored =>
    golden.get(name).shape.length === 4 ? channelsLast(golden.get(name)) : golden.get(name);
  const input = (name: string): Tensor => f32(wanted(name));
  const outputs = (vae: Autoencoder, image: Tensor, latent: Tensor, noise: Tensor): Record<string, Tensor> => {
    const posterior = vae.encode(image);
    const sample = samplePosterior(posterior, noise);
    const std = posterior.logvar.mul(0.5).exp();
    const kl = klDivergence(posterior);
    return {
      moments: vae.moments(image),
      mode: posterior.mean,
      std,
      sample,
      kl,
      decoded: vae.decode(latent),
      recon: vae.decode(sample),
    };
  };

  onGpu("outputs, loss and gradients", async () => {
    const vae = new Autoencoder(config);
    loadWeights(vae.state(), golden.weights());
    const step = compile(({ image, latent, noise }: { image: Tensor; latent: Tensor; noise: Tensor }) => {
      const out = outputs(vae, image, latent, noise);
      const loss = projected(out, (name) => input(`proj.${name}`));
      const [gImage, gLatent] = grad(loss, [image, latent]);
      const prefixed = Object.entries(out).map(([name, y]) => [`out.${name}`, y]);
      return {
        ...Object.fromEntries(prefixed),
        loss,
        "grad.in.image": gImage,
        "grad.in.latent": gLatent,
        ...stateGrads(loss, vae),
      } as Record<string, Tensor>;
    });
    const run = async (): Promise<string[]> => {
      const got = await read(step({ image: input("in.image"), latent: input("in.latent"), noise: input("in.noise") }));
      const direct = Object.entries(got).filter(([name]) => golden.io.has(name));
      expect(direct).toHaveLength(10);
      return [...problems(golden, Object.fromEntries(direct), wanted), ...gradientProblems(golden, vae.state(), got)];
    };
    expect(await run()).toEqual([]);
    // The bounds are tight enough to notice one weight of 200,000 with the wrong sign.
    const p = vae.state().get("decoder.up_blocks.1.resnets.0.conv1.weight") as Parameter;
    const weights = await p.data();
    weights[1234] *= -1;
    p.write(weights);
    expect(await run()).not.toEqual([]);
  });

  test("the decoder on the reference device, from the legacy file names", async () => {
    useDevice(reference);
    const vae = new Autoencoder(config);
    const legacy = [...golden.weights("weights_legacy.safetensors")].map(([name, w]): [string, Stored] => [
      currentName(name),
      w,
    ]);
    loadWeights(vae.state(), new Map(legacy));
    const got = await vae.decode(input("in.latent")).data();
    expect(golden.problem("out.decoded", got, wanted("out.decoded").data)).toBeNull();
  });
});

describe("autoencoder", () => {
  const config: AutoencoderConfig = { channels: [8, 8], layers: 1, latent: 2, groups: 4 };

  test("counts of the paper's networks (spec 2.4)", () => {
    const vae = new Autoencoder({ channels: [128, 256, 512, 512], layers: 2, latent: 4, groups: 32 });
    const counts = [vae.encoder, vae.decoder, vae.quantConv, vae.postQuantConv].map((part) => part.count());
    expect(counts).toEqual([34_163_592, 49_490_179, 72, 20]);
  });

  test("loss is squared error plus weighted KL per image value; scaling is undone", async () => {
    useDevice(reference);
    const vae = new Autoencoder(config, 0.5).seed(3);
    const x = new Rng(1).uniform([2, 4, 6, 3]);
    const noise = new Rng(2).normal([2, 2, 3, 2]);
    const z = vae.latents(x, noise);
    const posterior = vae.encode(x);
    const logvar = await posterior.logvar.data();
    const mean = [...(await posterior.mean.data())];
    const kl =
      mean.reduce((sum, m, i) => sum + 0.5 * (m * m + Math.exp(logvar[i]) - 1 - logvar[i]), 0) / (2 * 4 * 6 * 3);
    const pixels = await x.data();
    const error =
      [...(await vae.decode(z.mul(2)).data())].reduce((sum, y, i) => sum + (y - pixels[i]) ** 2, 0) / pixels.length;
    const parts = vae.loss(x, noise, { klWeight: 0.1 });
    // Float32 rounding of the values read back.
    expect(await parts.kl.item()).toBeCloseTo(kl, 6);
    expect(await parts.reconstruction.item()).toBeCloseTo(error, 6);
    expect(await parts.loss.item()).toBeCloseTo(error + 0.1 * kl, 6);
    const scaled = z.mul(await measureScale(z).item());
    expect(await scaled.square().mean().sub(scaled.mean().square()).item()).toBeCloseTo(1, 5);
  });

  test("an image whose sides do not divide is refused by name", () => {
    expect(() => new Autoencoder(config).encode(tensor(new Float32Array(63), [1, 7, 3, 3]))).toThrow(
      /divisible by 2.*\[1, 7, 3, 3\]/,
    );
  });
});

describeGolden("clip-text-a", (golden) => {
  const config: TextConfig = { vocabulary: 120, width: 32, layers: 3, heads: 4, mlp: 96, length: 16 };
  const proj = (name: string): Tensor => f32(golden.get(`proj.${name}`));
  const model = (): TextEncoder => {
    const text = new TextEncoder(config);
    const { "text_model.embeddings.position_ids": _, ...weights } = Object.fromEntries(golden.weights());
    loadWeights(text.state(), new Map(Object.entries(weights)));
    return text;
  };

  /** The row of the highest token id of each caption: where CLIP reads the caption's one vector. */
  const pooled = (hidden: Tensor): Tensor => {
    const ids = golden.get("in.input_ids");
    const [b, n] = ids.shape;
    const rows = Array.from({ length: b }, (_, i) => {
      const row = ids.data.subarray(i * n, (i + 1) * n);
      return i * n + row.indexOf(Math.max(...row));
    });
    return hidden.reshape([b * n, config.width]).gatherRows(tensor(Int32Array.from(rows)));
  };

  /** Padding is on the right and attention is causal, so a padding mask only zeroes rows. */
  const outputs = (text: TextEncoder): Record<string, Tensor> => {
    const ids = i32(golden.get("in.input_ids"));
    const last = text.forward(ids);
    const mask = f32(golden.get("in.attention_mask"));
    return {
      last_hidden_state: last,
      pooled: pooled(last),
      penultimate_hidden: text.hidden(ids, 2),
      masked_last_hidden_state: last.mul(mask.reshape([...mask.shape, 1])),
      short_last_hidden_state: text.forward(i32(golden.get("in.short_ids"))),
    };
  };

  onGpu("outputs, loss and gradients", async () => {
    const text = model();
    const step = compile(() => {
      const out = outputs(text);
      const loss = projected(out, proj);
      const prefixed = Object.entries(out).map(([name, y]) => [`out.${name}`, y]);
      return { ...Object.fromEntries(prefixed), loss, ...stateGrads(loss, text) } as Record<string, Tensor>;
    });
    const got = await read(step({}));
    const direct = Object.fromEntries(Object.entries(got).filter(([name]) => golden.io.has(name)));
    expect(Object.keys(direct)).toHaveLength(6);
    expect([
      ...problems(golden, direct, (name) => golden.get(name)),
      ...gradientProblems(golden, text.state(), got),
    ]).toEqual([]);
  });

  test("outputs on the reference device", async () => {
    useDevice(reference);
    const got = await read(Object.fromEntries(Object.entries(outputs(model())).map(([name, y]) => [`out.${name}`, y])));
    expect(problems(golden, got, (name) => golden.get(name))).toEqual([]);
  });
});

describe("text encoder", () => {
  const config: TextConfig = { vocabulary: 30, width: 8, layers: 2, heads: 2, mlp: 16, length: 6 };

  test("count of the paper's network (spec 1)", () => {
    const text = new TextEncoder({ vocabulary: 49408, width: 1024, layers: 23, heads: 16, mlp: 4096, length: 77 });
    expect(text.count()).toBe(340_387_840);
  });

  test("a position does not depend on later tokens, and does on earlier ones", async () => {
    useDevice(reference);
    const text = new TextEncoder(config).seed(5);
    const features = async (...ids: number[]): Promise<number[][]> => {
      const flat = await text.forward(tensor(Int32Array.from(ids), [1, ids.length])).data();
      return ids.map((_, i) => [...flat.subarray(i * 8, (i + 1) * 8)]);
    };
    const [a, b] = [await features(1, 2, 3, 4), await features(1, 2, 9, 4)];
    expect(b.slice(0, 2)).toEqual(a.slice(0, 2));
    expect(b[3]).not.toEqual(a[3]);
  });

  test("too many tokens are refused", () => {
    const text = new TextEncoder(config);
    expect(() => text.forward(tensor(new Int32Array(7), [1, 7]))).toThrow("7 tokens, at most 6");
  });
});

describeGolden("ddim-a", (golden) => {
  interface Variant {
    readonly steps: number;
    readonly eta: number;
    readonly prediction_type: string;
    readonly timestep_spacing: "leading" | "trailing";
    readonly set_alpha_to_one: boolean;
    readonly clip_sample: boolean;
    readonly rescale_betas_zero_snr?: boolean;
  }
  // Stable Diffusion neither clips x0 nor ends at alphaBar = 1, and no system here predicts x0.
  const variants = Object.entries(golden.json<Record<string, Variant>>("variants.json")).filter(
    ([, v]) => !v.clip_sample && !v.set_alpha_to_one && v.prediction_type !== "sample",
  );

  test("the schedules", () => {
    const bound = golden.tolerance("out.alphas_cumprod (float32 table vs exact)");
    const exact = (name: string, o: NoiseScheduleOptions, rtol: number): void =>
      expectClose(new NoiseSchedule(o).alphaBar, golden.get(name).data, name, { rtol });
    exact("out.alphas_cumprod_f64", {}, 1e-12);
    exact("out.alphas_cumprod.linear", { betas: "linear", range: [1e-4, 0.02] }, 10 * bound);
    exact("out.alphas_cumprod.cosine", { betas: "cosine" }, 10 * bound);
    exact("out.zero_snr.alphas_cumprod", { zeroTerminalSnr: true }, 10 * bound);
  });

  onGpu("noising and velocity", async () => {
    const schedule = new NoiseSchedule();
    const [x0, noise, step] = [f32(golden.get("in.q.x0")), f32(golden.get("in.q.noise")), i32(golden.get("in.q.t"))];
    expect(golden.problem("out.q.x_t", await schedule.addNoise(x0, noise, step).data())).toBeNull();
    expect(golden.problem("out.q.velocity", await schedule.target("v", x0, noise, step).data())).toBeNull();
  });

  test("six variants are followed", () => expect(variants).toHaveLength(6));

  for (const [name, v] of variants) {
    onGpu(`trajectory ${name}`, async () => {
      const prediction: Prediction = v.prediction_type === "epsilon" ? "epsilon" : "v";
      const schedule = new NoiseSchedule({ zeroTerminalSnr: v.rescale_betas_zero_snr ?? false });
      const o: DdimPlanOptions = { steps: v.steps, eta: v.eta, spacing: v.timestep_spacing };
      expect(ddimPlan(schedule, o).map((p) => p.step)).toEqual([...golden.get(`out.${name}.timesteps`).data]);
      const shape = golden.get("in.x_T").shape;
      const rows = (of: string): Tensor => f32(golden.get(of)).reshape([v.steps, -1]);
      // Network and noise are look-ups by the number of the step, so that the loop is the real one.
      const step = compile(({ x, i, signal, noise, nextSignal, nextNoise, sigma }: Record<string, Tensor>) => {
        const at = (table: Tensor): Tensor => table.gatherRows(i.cast("i32").reshape([1])).reshape(shape);
        const k = { signal, noise, nextSignal, nextNoise, sigma };
        return ddimUpdate(
          prediction,
          x,
          at(rows("in.model_output")),
          k,
          v.eta > 0 ? at(rows("in.variance_noise")) : undefined,
        );
      });
      let x = f32(golden.get("in.x_T"));
      const [xs, x0s] = [[...(await x.data())], [] as number[]];
      for (const [i, { numbers }] of ddimPlan(schedule, o).entries()) {
        const next = step({ x, i, ...numbers });
        x = next.x;
        xs.push(...(await x.data()));
        x0s.push(...(await next.x0.data()));
      }
      expect([golden.problem(`out.${name}.x`, xs), golden.problem(`out.${name}.pred_x0`, x0s)]).toEqual([null, null]);
    });
  }
});

describeGolden("vgen-ddim-a", (golden) => {
  const steps = 25;
  // VGen visits the same steps and stops at alphaBar_0 too.
  const cases: [string, Prediction, NoiseScheduleOptions][] = [
    ["linear_sd.eps", "epsilon", {}],
    ["cosine_ztsnr.v", "v", { betas: "cosine", zeroTerminalSnr: true }],
  ];
  const x = golden.get("in.x_T");
  const [batch, ...rest] = x.shape;

  /** A network that looks its answers up by step, and believes `conditioned` as to which of the two is asked for. */
  const predict = (_: Tensor, step: Tensor, { conditioned }: { readonly conditioned: Tensor }): Tensor => {
    const i = step
      .slice(0, 0, 1)
      .neg()
      .add(961)
      .cast("f32")
      .mul(1 / 40)
      .add(0.5)
      .cast("i32");
    const answer = (name: string): Tensor => {
      const table = f32(golden.get(name));
      const found = table.reshape([table.shape[0], -1]).gatherRows(i).reshape(x.shape);
      return found.concat([found], 0);
    };
    const flag = conditioned.reshape([2 * batch, ...rest.map(() => 1)]);
    return flag.less(0.5).where(answer("in.out_uncond"), answer("in.out_cond"));
  };

  for (const [name, prediction, options] of cases) {
    onGpu(`guided trajectory ${name}`, async () => {
      const schedule = new NoiseSchedule(options);
      // Two orders of float64 products over 1000 factors.
      expectClose(schedule.alphaBar, golden.get(`out.${name}.alphas_cumprod`).data, "alphaBar", { rtol: 1e-12 });
      const guided: Predict = (xt, step, { off, on, scale }) =>
        guide(predict, xt, step, { off: { conditioned: off }, on: { conditioned: on }, scale });
      const context = { off: zeros([batch]), on: ones([batch]), scale: 9 };
      const found = { visited: [] as number[], x: [...x.data], x0: [] as number[] };
      for await (const s of ddim(ddimStep(guided, prediction), f32(x), schedule, { steps, context })) {
        found.visited.push(s.step);
        found.x.push(...(await s.x.data()));
        found.x0.push(...(await s.x0.data()));
      }
      expect(found.visited).toEqual([...golden.get(`out.${name}.steps`).data]);
      expect([golden.problem(`out.${name}.x`, found.x), golden.problem(`out.${name}.x0`, found.x0)]).toEqual([
        null,
        null,
      ]);
    });
  }
});

describe("diffusion", () => {
  const schedule = new NoiseSchedule();

  test("25 steps visit 961, 921, ..., 1 (spec 2.12)", () => {
    const visited = ddimPlan(schedule, { steps: 25 }).map((p) => p.step);
    expect(visited).toEqual(Array.from({ length: 25 }, (_, i) => 961 - 40 * i));
  });

  test("any number of steps stays inside the schedule and goes down", () => {
    for (const spacing of ["leading", "trailing"] as const) {
      for (const steps of [1, 2, 3, 7, 30, 333, 999, 1000]) {
        const visited = ddimPlan(schedule, { steps, spacing }).map((p) => p.step);
        expect(visited).toHaveLength(steps);
        expect(visited.every((t, i) => t >= 0 && t < 1000 && (i === 0 || t < visited[i - 1]))).toBe(true);
      }
    }
    for (const steps of [0, 2.5, 1001]) expect(() => ddimPlan(schedule, { steps })).toThrow(RangeError);
  });

  test("signal and noise keep unit variance; eta = 1 is ancestral sampling", () => {
    for (const { step, numbers: k } of ddimPlan(schedule, { steps: 10, eta: 1 })) {
      expect(k.signal ** 2 + k.noise ** 2).toBeCloseTo(1, 12);
      expect(k.nextSignal ** 2 + k.nextNoise ** 2 + k.sigma ** 2).toBeCloseTo(1, 12);
      // Ho et al. 2020, eq. 7: the posterior's variance, with the stride's product of alphas in place of one alpha.
      const [now, next] = [schedule.alphaBar[step], schedule.alphaBar[Math.max(step - 100, 0)]];
      expect(k.sigma ** 2).toBeCloseTo(((1 - next) / (1 - now)) * (1 - now / next), 12);
    }
  });

  test("predicting noise is refused where the last step holds no signal", () => {
    const terminal = new NoiseSchedule({ zeroTerminalSnr: true });
    const x = zeros([1, 2]);
    expect(() => terminal.target("epsilon", x, x, tensor(new Int32Array(1)))).toThrow(/zero terminal SNR/);
  });

  // With x = signal x0 + noise eps, an oracle that knows x0 knows eps, and so v.
  const x0 = new Rng(1).normal([2, 3]);
  const oracle = (prediction: Prediction): Predict => {
    return (x, step) => {
      const k = schedule.at(step, 2);
      const eps = x.sub(x0.mul(k.signal)).div(k.noise);
      return prediction === "epsilon" ? eps : schedule.velocity(x0, eps, step);
    };
  };

  test.each([
    ["epsilon", 0],
    ["v", 0],
    ["epsilon", 1],
    ["v", 1],
  ] as const)("a perfect %s oracle recovers x0, eta %d, in one program (spec 9.5)", async (prediction, eta) => {
    useDevice(reference);
    let traced = 0;
    const network: Predict = (...a) => {
      traced++;
      return oracle(prediction)(...a);
    };
    const want = await x0.data();
    const start = new Rng(2).normal([2, 3]);
    let last = start;
    for await (const s of ddim(ddimStep(network, prediction, new Rng(3)), start, schedule, { steps: 25, eta })) {
      // The step's numbers are float64 here and the oracle's table is float32, which 1 / signal magnifies at the start.
      expectClose(await s.x0.data(), want, `x0 at step ${s.step}`, { rtol: 1e-5 });
      last = s.x;
    }
    expect(traced).toBe(1);
    // What is left is alphaBar_0's share of noise: 2.9 % of a unit normal.
    const left = last.sub(x0.mul(Math.sqrt(schedule.alphaBar[0]))).div(Math.sqrt(1 - schedule.alphaBar[0]));
    if (eta > 0) expect(Math.max(...(await left.abs().data()))).toBeLessThan(5);
    else expectClose(await left.data(), await implied(start), "remaining noise", { rtol: 1e-3 });
  });

  /** The noise that `start`, taken as x at step 961 of x0, holds: without fresh noise it never changes. */
  const implied = (start: Tensor): Promise<Data> => {
    const { signal, noise } = ddimPlan(schedule, { steps: 25 })[0].numbers;
    return start.sub(x0.mul(signal)).div(noise).data();
  };

  test("fresh noise without a generator is refused", async () => {
    useDevice(reference);
    const loop = ddim(ddimStep(oracle("v"), "v"), zeros([2, 3]), schedule, { steps: 2, eta: 1 });
    await expect(loop.next()).rejects.toThrow("give ddimStep a generator");
  });
});
