// How jax-js executes: waiting for the device, compiled functions of fixed arguments, the AdamW step. Called by
// jax_micro.ts and jax_models.ts.

import { blockUntilReady, getWebGPUDevice, jit, numpy as np, tree, valueAndGrad } from "@jax-js/jax";
import { loadParams, type ModelName } from "../params.ts";
import type { Subject } from "../subject.ts";
import { type A, add, div, mul, type Params, paramsOf, sqrt, sub } from "./jax_ops.ts";

export type Device = "webgpu" | "wasm";

export async function settle(device: Device, outputs: readonly A[]): Promise<void> {
  await blockUntilReady([...outputs]);
  if (device === "webgpu") await getWebGPUDevice().queue.onSubmittedWorkDone();
}

/** A compiled function of arguments that stay on the device. */
export function fixed(device: Device, f: (...args: A[]) => A[], args: readonly A[], names: readonly string[]): Subject {
  const compiled = jit(f);
  let last: A[] = [];
  return {
    run: async () => {
      tree.dispose(last);
      last = compiled(...args.map((a) => a.ref));
      await settle(device, last);
      return undefined;
    },
    outputs: async () =>
      Object.fromEntries(await Promise.all(names.map(async (n, i) => [n, await last[i].ref.data()]))),
  };
}

const map = (p: Params, f: (a: A, name: string) => A): Params =>
  Object.fromEntries(Object.entries(p).map(([name, a]) => [name, f(a, name)]));

/** One compiled AdamW step on a fixed batch. The bias corrections 1 - beta^t come from the host. */
export function training(
  model: ModelName,
  batch: Params,
  loss: (p: Params, batch: Params) => A,
  decay = 0.01,
): Subject {
  const lr = 1e-3;
  const step = jit((p: Params, m: Params, v: Params, c1: A, c2: A, x: Params): [A, Params, Params, Params] => {
    const [value, g] = valueAndGrad((q: Params): A => loss(q, x))(map(p, (a) => a.ref)) as unknown as [A, Params];
    const m2 = map(m, (a, n) => add(mul(a, 0.9), mul(g[n], 1 - 0.9)));
    const v2 = map(v, (a, n) => add(mul(a, 0.999), mul(mul(g[n], g[n]), 1 - 0.999)));
    const p2 = map(p, (a, n) => {
      const width = add(sqrt(div(v2[n], c2)), 1e-8);
      return sub(mul(a, 1 - lr * decay), mul(div(div(m2[n], c1), width), lr));
    });
    return [value, p2, m2, v2];
  });
  let p = paramsOf(loadParams(model));
  let [m, v] = [map(p, (a) => np.zerosLike(a.ref)), map(p, (a) => np.zerosLike(a.ref))];
  let t = 0;
  return {
    run: async () => {
      t++;
      const [c1, c2] = [0.9, 0.999].map((beta) => np.array(1 - beta ** t));
      const out = step(p, m, v, c1, c2, tree.ref(batch) as Params) as unknown as [A, Params, Params, Params];
      [p, m, v] = out.slice(1) as [Params, Params, Params];
      return (await out[0].data())[0];
    },
  };
}
