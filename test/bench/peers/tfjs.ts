// TensorFlow.js as a subject of the benchmark, on its WebGPU back end; the CPU back end is there because the other forwards
// small host-side tensors to it. Loaded by child.ts.

import type { Framework } from "../subject.ts";
import { adapterName, versionOf } from "./host.ts";

/** Imports TensorFlow.js only now, behind host.ts. */
export async function framework(): Promise<Framework> {
  const tf = await import("@tensorflow/tfjs-core");
  await import("@tensorflow/tfjs-core/dist/register_all_gradients");
  await import("@tensorflow/tfjs-backend-cpu");
  await import("@tensorflow/tfjs-backend-webgpu");
  const { micros } = await import("./tfjs_micro.ts");
  const { models } = await import("./tfjs_models.ts");
  return {
    open: async () => {
      if (!(await tf.setBackend("webgpu"))) throw new Error("TensorFlow.js has no webgpu here");
      await tf.ready();
      return { version: versionOf("@tensorflow/tfjs-core"), adapter: await adapterName() };
    },
    workloads: { ...micros, ...models },
  };
}
