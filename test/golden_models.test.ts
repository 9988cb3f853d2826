// The autoencoder and the text encoder against golden data of the implementations they follow: outputs, loss and gradients
// on the GPU device, outputs on the reference device; and what can be said of them without that data.

import { describe, expect, test, vi } from "vitest";
import { compile, type Data, grad, Rng, type Tensor, tensor, useDevice } from "../engine/index.ts";
import type { Module } from "../engine/nn/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import type { Parameter } from "../engine/state.ts";
import { Autoencoder, currentName, klDivergence, samplePosterior } from "../models/autoencoder.ts";
import type { AutoencoderConfig, TextConfig } from "../models/config.ts";
import { TextEncoder } from "../models/text_encoder.ts";
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

// A software adapter compiles over a hundred kernels for a model and its gradients, most of a second each when it is busy.
vi.setConfig({ testTimeout: 300_000 });

const reference = new ReferenceDevice();

// The models of vae-sd-a and clip-text-a.
const vaeConfig: AutoencoderConfig = { channels: [16, 24, 32], layers: 1, latent: 4, groups: 8 };
const textConfig: TextConfig = { vocabulary: 120, width: 32, layers: 3, heads: 4, mlp: 96, length: 16 };

function loadText(weights: ReadonlyMap<string, Stored>): TextEncoder {
  const text = new TextEncoder(textConfig);
  // The published files hold the position numbers as if they were weights.
  loadWeights(text.state(), new Map([...weights].filter(([name]) => !name.endsWith(".position_ids"))));
  return text;
}

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
    const vae = new Autoencoder(vaeConfig);
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
  });

  test("an image whose sides do not divide is refused by name", () => {
    expect(() => new Autoencoder(config).encode(tensor(new Float32Array(63), [1, 7, 3, 3]))).toThrow(
      /divisible by 2.*\[1, 7, 3, 3\]/,
    );
  });
});

describeGolden("clip-text-a", (golden) => {
  const proj = (name: string): Tensor => f32(golden.get(`proj.${name}`));
  /** The row of the highest token id of each caption: where CLIP reads the caption's one vector. */
  const pooled = (hidden: Tensor): Tensor => {
    const ids = golden.get("in.input_ids");
    const [b, n] = ids.shape;
    const rows = Array.from({ length: b }, (_, i) => {
      const row = ids.data.subarray(i * n, (i + 1) * n);
      return i * n + row.indexOf(Math.max(...row));
    });
    return hidden.reshape([b * n, textConfig.width]).gatherRows(tensor(Int32Array.from(rows)));
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
    const text = loadText(golden.weights());
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
    const got = await read(
      Object.fromEntries(Object.entries(outputs(loadText(golden.weights()))).map(([name, y]) => [`out.${name}`, y])),
    );
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

describeGolden("pipeline-sd-a", (golden) => {
  test("text features, and images from the last latents, on the reference device", async () => {
    useDevice(reference);
    const text = loadText(golden.weights("../clip-text-a/weights.safetensors"));
    const vae = new Autoencoder(vaeConfig, 0.18215);
    const legacy = golden.weights("../vae-sd-a/weights_legacy.safetensors");
    loadWeights(vae.state(), new Map([...legacy].map(([name, w]) => [currentName(name), w])));
    const latents = channelsLast(golden.get("out.latents"), 2); // [step, n, h, w, c]
    const images = vae.images(f32(latents).slice(0, -1).reshape(latents.shape.slice(1)));
    const got = await read({
      "out.prompt_embeds": text.forward(i32(golden.get("in.prompt_ids"))),
      "out.negative_embeds": text.forward(i32(golden.get("in.negative_ids"))),
      "out.image": images.mul(0.5).add(0.5),
    });
    const wanted = (name: string): Stored => (name === "out.image" ? channelsLast(golden.get(name)) : golden.get(name));
    expect(problems(golden, got, wanted)).toEqual([]);
  });
});
