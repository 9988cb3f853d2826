// jax-js as a subject of the benchmark, on WebGPU or on its WebAssembly back end. Loaded by child.ts.

import type { Framework, Subject } from "../subject.ts";
import { adapterName, versionOf } from "./host.ts";
import type { Device } from "./jax_run.ts";

/** Imports jax-js only now, behind host.ts. */
export async function framework(device: Device): Promise<Framework> {
  const { defaultDevice, init } = await import("@jax-js/jax");
  const { micros } = await import("./jax_micro.ts");
  const { models } = await import("./jax_models.ts");
  const all: Readonly<Record<string, ((device: Device) => Subject) | string>> = { ...micros, ...models };
  return {
    open: async () => {
      const ready = await init(device);
      if (!ready.includes(device)) throw new Error(`jax-js has no ${device} here`);
      defaultDevice(device);
      return { version: versionOf("@jax-js/jax"), adapter: device === "webgpu" ? await adapterName() : "WebAssembly" };
    },
    workloads: Object.fromEntries(
      Object.entries(all).map(([id, make]) => [id, typeof make === "string" ? make : () => make(device)]),
    ),
  };
}
