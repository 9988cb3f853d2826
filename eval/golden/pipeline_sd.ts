// Golden kind "pipeline-sd": Stable Diffusion from token ids to pictures, over a text encoder, a UNet and an autoencoder whose
// folders lie beside. Checked are the text features, the latents after every step, and the pictures.

import { basename, dirname, join } from "node:path";
import type { Tensor } from "../../engine/tensor.ts";
import { Autoencoder } from "../../models/autoencoder.ts";
import { readTextConfig } from "../../models/checkpoints/clip.ts";
import { transformersLayout } from "../../models/checkpoints/clip_names.ts";
import { loadForeign } from "../../models/checkpoints/layout.ts";
import { ConfigReader } from "../../models/checkpoints/reader.ts";
import { readSchedulerConfig } from "../../models/checkpoints/scheduler.ts";
import { readUNetConfig } from "../../models/checkpoints/unet.ts";
import { readVaeConfig, vaeLayout } from "../../models/checkpoints/vae.ts";
import { guide, NoiseSchedule } from "../../models/diffusion.ts";
import { SAMPLERS, sample, samplerStep } from "../../models/samplers.ts";
import { TextEncoder } from "../../models/text_encoder.ts";
import { VideoUNet } from "../../models/video_unet.ts";
import { channelsLast } from "./axes.ts";
import { peekJson, readJson, type Stored } from "./files.ts";
import type { Check, Kind } from "./kind.ts";
import { openModelFolder } from "./model.ts";

export const pipelineSd: Kind = {
  name: "pipeline-sd",
  recognises: async (folder) => {
    const config = (await peekJson(folder, "config.json")) as Readonly<Record<string, unknown>> | null;
    return ["text_encoder", "unet", "vae"].every((part) => typeof config?.[part] === "string");
  },
  run,
};

async function* run(path: string): AsyncGenerator<Check> {
  const folder = await openModelFolder(path);
  const config = new ConfigReader(await folder.json("config.json"), "config.json");
  const { text, unet, vae } = await loadParts(path, config);
  const { prediction, schedule, plan } = readSchedulerConfig(
    await schedulerOf(folder.json("config.json")),
    "scheduler",
  );

  const embed = (name: string): Tensor => text.forward(folder.input(name));
  const [on, off] = [embed("prompt_ids"), embed("negative_ids")];
  yield folder.check("out.prompt_embeds", await on.data());
  yield folder.check("out.negative_embeds", await off.data());

  const noise = new NoiseSchedule(schedule);
  const steps = SAMPLERS.ddim(noise, {
    steps: config.count("num_inference_steps"),
    eta: config.number("eta"),
    ...plan,
  });
  const visited = steps.map(({ step }) => step);
  yield folder.check("out.timesteps", visited);
  const scale = config.number("guidance_scale");
  const predict = (x: Tensor, t: Tensor, { text: c }: { text: Tensor }): Tensor => unet.forward(x, t, c);
  const update = samplerStep(
    (x, t, context) => guide(predict, x, t, { on: { text: context.on }, off: { text: context.off }, scale }),
    prediction,
  );
  const start = folder.input("latents");
  const clips = start.reshape([start.shape[0], 1, ...start.shape.slice(1)]);
  const latents: number[] = [];
  let last = clips;
  for await (const { x } of sample(update, clips, steps, { context: { on, off } })) {
    last = x;
    latents.push(...(await x.data()));
  }
  yield folder.check("out.latents", latents, (x: Stored) => channelsLast(x, 2));
  const pictures = vae.decode(last.reshape(start.shape).div(vae.scale));
  yield folder.check("out.decoded_raw", await pictures.data());
  yield folder.check("out.image", await pictures.mul(0.5).add(0.5).clamp(0, 1).data());
}

/** The three models, each from its folder, through the readers and loaders that users' files go through. */
async function loadParts(path: string, config: ConfigReader) {
  const folder = (part: string): string => join(dirname(path), basename(config.text(part)));
  const file = (part: string): string => join(folder(part), "weights.safetensors");
  const describe = (part: string): Promise<unknown> => readJson(folder(part), "config.json");
  const text = new TextEncoder(readTextConfig(await describe("text_encoder"), "config.json of the text encoder"));
  await loadForeign(file("text_encoder"), text.state(), transformersLayout);
  const described = readUNetConfig(await describe("unet"), "config.json of the UNet");
  const unet = new VideoUNet(described.config, { temporal: described.temporal });
  await loadForeign(file("unet"), unet.state(), (name) => ({ names: [name] }));
  const { config: sizes, scale } = readVaeConfig(await describe("vae"), "config.json of the autoencoder");
  const vae = new Autoencoder(sizes, scale);
  await loadForeign(file("vae"), vae.state(), vaeLayout);
  return { text, unet, vae };
}

async function schedulerOf(config: Promise<unknown>): Promise<unknown> {
  return ((await config) as { readonly scheduler?: unknown }).scheduler;
}
