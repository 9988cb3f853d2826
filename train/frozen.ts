// What a diffusion run does not train: the autoencoder, and the part of the model that its trainable set leaves out. Both lie
// in the run folder beside the checkpoints, written once, so that the folder alone is enough to sample. Called by
// diffusion.ts and sample.ts.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { load, save } from "../engine/checkpoint.ts";
import { joinState } from "../engine/index.ts";
import type { Parameter } from "../engine/state.ts";
import type { LatentDiffusion } from "../models/latent_diffusion.ts";

/** Names of the files in the run folder. */
export const AUTOENCODER_FILE = "autoencoder.safetensors";
const FROZEN_FILE = "frozen.safetensors";

/** What training updates and checkpoints hold. */
export function trainable(model: LatentDiffusion): Map<string, Parameter> {
  return new Map([...model.state()].filter(([, p]) => p.trainable));
}

/** What neither checkpoints nor the autoencoder's file hold; empty where the UNet and the text encoder train. */
function frozen(model: LatentDiffusion): Map<string, Parameter> {
  return new Map([...model.state()].filter(([name, p]) => !p.trainable && !name.startsWith("autoencoder.")));
}

/** Loads the autoencoder that a diffusion run was trained with. */
export async function loadAutoencoder(model: LatentDiffusion, dir: string): Promise<void> {
  const into = joinState({ model: model.autoencoder.state() });
  await load(join(dir, AUTOENCODER_FILE), into, { rename: (name) => (name.startsWith("model.") ? name : null) });
}

/** Writes the frozen part beside the checkpoints, where there is one. */
export async function saveFrozen(model: LatentDiffusion, dir: string): Promise<void> {
  const state = frozen(model);
  if (state.size > 0) await save(join(dir, FROZEN_FILE), state, {});
}

/** Loads what `saveFrozen` wrote. Throws where the model has a frozen part and the run has no file of it. */
export async function loadFrozen(model: LatentDiffusion, dir: string): Promise<void> {
  const state = frozen(model);
  if (state.size === 0) return;
  const path = join(dir, FROZEN_FILE);
  if (!existsSync(path)) throw new Error(`${path} is missing: it holds what this run does not train`);
  await load(path, state);
}
