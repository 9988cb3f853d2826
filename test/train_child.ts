// A diffusion training run as a process of its own, saved at every second step, for train.test.ts to kill. Arguments: data
// folder, run folder of the autoencoder, run folder, steps, "start" or "resume".

import { openDataset } from "../data/store.ts";
import { openDevice } from "../engine/index.ts";
import { presetConfig } from "../models/config.ts";
import { trainDiffusion } from "../train/diffusion.ts";

const [folder, autoencoder, out, steps, how] = process.argv.slice(2);
const config = presetConfig("nano");
const data = await openDataset(folder, { size: config.size });
const device = await openDevice();
try {
  const settings = { steps: Number(steps), batch: 1, lr: 1e-3, seed: 3, saveEvery: 2 };
  await trainDiffusion({ data, config, autoencoder, out, resume: how === "resume", ...settings });
} finally {
  device.close();
  data.close();
}
