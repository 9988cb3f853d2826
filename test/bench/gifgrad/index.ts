// Gifgrad as a subject of the benchmark. Loaded by child.ts.

import { type Device, openDevice } from "../../../engine/index.ts";
import type { Framework, Subject } from "../subject.ts";
import { micros } from "./micro.ts";

const all: Readonly<Record<string, (device: Device) => Subject>> = { ...micros };

let device: Device;

export const framework: Framework = {
  open: async () => {
    device = await openDevice();
    return { version: "this checkout", adapter: device.name };
  },
  workloads: Object.fromEntries(Object.entries(all).map(([id, make]) => [id, () => make(device)])),
};
