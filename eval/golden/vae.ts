// Golden kind "vae": diffusers' AutoencoderKL with its weights under their current names and, where the folder has them,
// under those of the published Stable Diffusion files. Either must load, and they must be the same weights.

import type { Parameter } from "../../engine/state.ts";
import { Autoencoder, klDivergence, samplePosterior } from "../../models/autoencoder.ts";
import { readVaeConfig, vaeLayout } from "../../models/checkpoints/vae.ts";
import { exists, readJson } from "./files.ts";
import { type Check, compare, type Kind } from "./kind.ts";
import { openModelFolder, peekConfig, type Tensors } from "./model.ts";

export const vae: Kind = {
  name: "vae",
  recognises: async (folder) => (await peekConfig(folder))?._class_name === "AutoencoderKL",
  run,
};

const LEGACY = "weights_legacy.safetensors";

async function* run(path: string): AsyncGenerator<Check> {
  const folder = await openModelFolder(path);
  const { config } = readVaeConfig(await readJson(path, "config.json"), "config.json");
  const made = new Autoencoder(config);
  await folder.load(made.state());
  yield* folder.checks({
    weights: made.state(),
    inputs: { image: folder.input("image"), latent: folder.input("latent"), noise: folder.input("noise") },
    outputs: (inputs) => outputs(made, inputs),
  });
  if (!(await exists(path, LEGACY))) return;
  const legacy = new Autoencoder(config);
  await folder.load(legacy.state(), vaeLayout, LEGACY);
  for (const [name, p] of legacy.state()) {
    const same = compare(`${LEGACY}: ${name}`, await p.data(), await (made.state().get(name) as Parameter).data(), 0);
    if (!same.ok) yield same;
  }
  yield { name: LEGACY, error: 0, bound: 0, ok: true };
}

function outputs(model: Autoencoder, { image, latent, noise }: Tensors): Tensors {
  const posterior = model.encode(image);
  const sample = samplePosterior(posterior, noise);
  return {
    moments: model.moments(image),
    mode: posterior.mean,
    std: posterior.logvar.mul(0.5).exp(),
    sample,
    kl: klDivergence(posterior),
    decoded: model.decode(latent),
    recon: model.decode(sample),
  };
}
