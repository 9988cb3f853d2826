// A system trained here, written as a folder of diffusers: UNet, autoencoder, text encoder, schedule and tokenizer, in
// float32. Layers that the library has not are told by keys of our own in its config.json, which `import` reads back.

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { saveTokenizer, type Tokenizer } from "../../data/tokenizer.ts";
import { torchShape } from "../../engine/checkpoint.ts";
import type { Data } from "../../engine/index.ts";
import type { Module } from "../../engine/nn/index.ts";
import { type TensorSource, writeSafetensors } from "../../engine/safetensors.ts";
import type { Parameter } from "../../engine/state.ts";
import { CHECKPOINTS, type CheckpointKind, type Part, type PartName } from "../../models/checkpoints/parts.ts";
import { writeSchedulerConfig } from "../../models/checkpoints/write.ts";
import { downsampling } from "../../models/config.ts";
import type { LatentDiffusion } from "../../models/latent_diffusion.ts";
import { newFolder } from "./folder.ts";

/** The layout that a system has a place in. */
export function kindOf({ config }: LatentDiffusion): CheckpointKind {
  if (config.unet.image) return "i2vgen-xl";
  return config.unet.temporal === false ? "sd21" : "text-to-video-ms";
}

/**
 * Writes `model` into the folder `out`, which appears when all of it is there. One tensor at a time is read from the open
 * device.
 * @throws ConfigError for layers that have no place in the layout (VideoFactory's); Error when `out` is there and not empty
 */
export async function exportModel(model: LatentDiffusion, tokenizer: Tokenizer, out: string): Promise<void> {
  const { config, autoencoder, textEncoder, unet, imageEncoder } = model;
  const sample = config.size / downsampling(config.autoencoder);
  const temporal = config.unet.temporal ?? true;
  const parts: Partial<Record<PartName, readonly [network: Module, config: object]>> = {
    unet: [unet, { config: config.unet, temporal, sample }],
    vae: [autoencoder, { config: config.autoencoder, scale: autoencoder.scale }],
    text_encoder: [textEncoder, config.text],
    ...(imageEncoder ? { image_encoder: [imageEncoder, imageEncoder.config] as const } : {}),
  };
  const known: Readonly<Record<string, Part>> = CHECKPOINTS[kindOf(model)];
  await newFolder(out, async (folder) => {
    for (const [name, [network, described]] of Object.entries(parts)) {
      await mkdir(join(folder, name));
      await writeJson(join(folder, name, "config.json"), known[name].write(described));
      const tensors = new Map([...network.state()].map(([key, p]) => [key, asTorch(p)] as const));
      await writeSafetensors(join(folder, name, `${known[name].weights}.safetensors`), tensors, { format: "pt" });
    }
    await mkdir(join(folder, "scheduler"));
    const { prediction, schedule = { betas: "scaled-linear", range: [0.00085, 0.012] } } = config;
    const scheduler = { prediction, schedule, plan: { spacing: "leading", offset: 1, end: "first" } } as const;
    await writeJson(join(folder, "scheduler", "scheduler_config.json"), writeSchedulerConfig(scheduler));
    await mkdir(join(folder, "tokenizer"));
    await saveTokenizer(tokenizer, join(folder, "tokenizer", "tokenizer.json"));
  });
}

/** A parameter in torch's order of axes, read when its turn comes. */
function asTorch(p: Parameter): TensorSource {
  const shape = torchShape(p);
  return {
    dtype: "F32",
    shape,
    values: async () => (shape === p.shape ? p.data() : outputsFirst(await p.data(), p.shape)),
  };
}

/** Values of [...kernel, in, out] as [out, in, ...kernel]. */
function outputsFirst(values: Data, shape: readonly number[]): Data {
  const [inputs, outputs] = shape.slice(-2);
  const taps = values.length / (inputs * outputs);
  const out = values.slice();
  for (let k = 0; k < taps; k++)
    for (let i = 0; i < inputs; i++)
      for (let o = 0; o < outputs; o++) out[(o * inputs + i) * taps + k] = values[(k * inputs + i) * outputs + o];
  return out;
}

async function writeJson(path: string, value: object): Promise<void> {
  await writeFile(path, `${JSON.stringify(value, null, 2)}\n`);
}
