// Every kernel that the diffusion systems themselves need, for training and for sampling, type-checked on Dawn's null back
// end: STI's for each kind of machine, the others' for the weakest. No GPU is used and no weight is allocated: plans are
// made from the configuration.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { grad } from "../engine/autograd.ts";
import { trace } from "../engine/compile.ts";
import type { Program } from "../engine/device.ts";
import { Rng, type Tensor, tensor } from "../engine/index.ts";
import { AdamW, clipGradNorm, Ema } from "../engine/optim/index.ts";
import { makePlan } from "../engine/plan/plan.ts";
import { type Dawn, openDawn } from "../engine/runtime/dawn.ts";
import { type Caps, MINIMUM_CAPS } from "../kernels/wgsl.ts";
import { DIFFUSION_SYSTEMS, type DiffusionSystem, systemConfig } from "../models/config.ts";
import { type Guidance, LatentDiffusion } from "../models/latent_diffusion.ts";

const MACHINES: [string, Caps][] = [
  ["the weakest device", MINIMUM_CAPS],
  ["a CPU with subgroups of 8", { ...MINIMUM_CAPS, adapter: "cpu", subgroupSize: 8, maxBindings: 16 }],
  ["a GPU with subgroups of 32", { ...MINIMUM_CAPS, subgroupSize: 32, maxBindings: 10, maxWorkgroupMemory: 32768 }],
];

let dawn: Dawn;
beforeAll(async () => {
  dawn = await openDawn({ backend: "null" });
});
afterAll(() => dawn.release());

/** The three programs of a run at preset nano: both training steps and the guided update of sampling. */
function programs(system: DiffusionSystem): Program[] {
  const config = systemConfig(system, "nano");
  const model = new LatentDiffusion(config);
  const rng = new Rng(1);
  const { size, frames, text } = config;
  const side = size / 2 ** (config.autoencoder.channels.length - 1);
  const latents = [2, frames, side, side, config.autoencoder.latent];
  const f32 = (...shape: number[]): { shape: number[]; dtype: "f32" } => ({ shape, dtype: "f32" });

  const first = new AdamW(model.autoencoder.freeze(false).state());
  const autoencoder = trace(
    "autoencoder",
    ({ x, lr }) => {
      const { loss, reconstruction } = model.autoencoder.loss(x, rng);
      first.step(clipGradNorm(grad(loss, first.targets), 1).grads, { lr });
      return { reconstruction };
    },
    { x: f32(4, size, size, 3), lr: f32() },
  );
  model.train("scratch");
  const trained = new Map([...model.state()].filter(([, p]) => p.trainable));
  const second = new AdamW(trained);
  const ema = new Ema(trained, 0.99);
  const empty = tensor(new Int32Array(text.length));
  const diffusion = trace(
    "diffusion",
    ({ z, captions, lr, start }) => {
      const loss = model.loss({ latents: z, captions, empty }, rng);
      second.step(clipGradNorm(grad(loss, second.targets), 1).grads, { lr });
      ema.update(start);
      return { loss };
    },
    { z: f32(...latents), captions: { shape: [2, text.length], dtype: "i32" }, lr: f32(), start: f32() },
  );
  const sampling = trace(
    "sampling",
    ({ x, step, ...context }) => ({
      out: model.guided(x, step, context as unknown as Guidance),
      frames: model.decode(x),
    }),
    {
      x: f32(...latents),
      step: { shape: [2], dtype: "i32" },
      text: f32(2, text.length, text.width),
      plain: f32(2, text.length, text.width),
      scale: f32(),
    },
  );
  return [autoencoder, diffusion, sampling];
}

/** Tint's error messages for the distinct texts of a plan that are not in `known` yet, and how many texts there are. */
async function check(
  program: Program,
  caps: Caps,
  known = new Set<string>(),
): Promise<{ texts: number; errors: string[]; bindings: number }> {
  const plan = makePlan(program, caps);
  const sources = new Map([...plan.setup, ...plan.dispatches].map(({ source }) => [source.wgsl, source]));
  const errors: string[] = [];
  dawn.device.pushErrorScope("validation");
  for (const { wgsl, label } of sources.values()) {
    if (known.has(wgsl)) continue;
    known.add(wgsl);
    const { messages } = await dawn.device.createShaderModule({ code: wgsl, label }).getCompilationInfo();
    errors.push(...messages.filter((m) => m.type === "error").map((m) => `${label}: ${m.message}`));
  }
  await dawn.device.popErrorScope();
  return { texts: sources.size, errors, bindings: Math.max(...plan.dispatches.map((d) => d.places.length)) };
}

describe.each(MACHINES)("kernels of the STI system on %s", (_, caps) => {
  test("all type-check and bind no more than the device allows", async () => {
    for (const program of programs("sti")) {
      const { texts, errors, bindings } = await check(program, caps);
      expect(errors, program.name).toEqual([]);
      expect(texts, program.name).toBeGreaterThan(20);
      expect(bindings, program.name).toBeLessThanOrEqual(caps.maxBindings);
    }
  });
});

test("kernels of the other systems on the weakest device", { timeout: 300_000 }, async () => {
  const known = new Set<string>();
  for (const system of DIFFUSION_SYSTEMS.filter((name) => name !== "sti")) {
    const [, diffusion, sampling] = programs(system); // the autoencoder is STI's
    for (const program of [diffusion, sampling]) {
      const { errors, bindings } = await check(program, MINIMUM_CAPS, known);
      expect(errors, `${system}: ${program.name}`).toEqual([]);
      expect(bindings, `${system}: ${program.name}`).toBeLessThanOrEqual(MINIMUM_CAPS.maxBindings);
    }
  }
});

test("a kernel that does not type-check is reported", async () => {
  const broken = trace("broken", ({ x }) => ({ y: (x as Tensor).sqrt() }), { x: { shape: [8], dtype: "f32" } });
  const plan = makePlan(broken, MINIMUM_CAPS);
  const text = plan.dispatches[0].source.wgsl.replace("sqrt(", "sqrtt(");
  dawn.device.pushErrorScope("validation");
  const { messages } = await dawn.device.createShaderModule({ code: text }).getCompilationInfo();
  await dawn.device.popErrorScope();
  expect(messages.some((m) => m.type === "error" && m.message.includes("sqrtt"))).toBe(true);
});
