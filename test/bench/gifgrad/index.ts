// Gifgrad as a subject of the benchmark. Loaded by child.ts.

import { type Device, openDevice } from "../../../engine/index.ts";
import type { Framework, Subject } from "../subject.ts";
import { gpt, sample } from "./gpt.ts";
import { host } from "./host.ts";
import { micros } from "./micro.ts";
import { mlp } from "./mlp.ts";
import { ddim, unet, videoUnet } from "./unet.ts";
import { vqvae } from "./vqvae.ts";

const all: Readonly<Record<string, (device: Device) => Subject | Promise<Subject>>> = {
  ...micros,
  W8: mlp,
  W9: unet,
  "W10.train": videoUnet,
  "W10.ddim": ddim,
  "W11.train": gpt,
  "W11.sample": sample,
  W12: vqvae,
  host,
};

let device: Device;

export const framework: Framework = {
  open: async () => {
    device = await openDevice();
    return { version: "this checkout", adapter: device.name };
  },
  workloads: Object.fromEntries(Object.entries(all).map(([id, make]) => [id, () => make(device)])),
};
