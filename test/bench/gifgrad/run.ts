// What every Gifgrad workload shares: the tools of a compiled step, loading the workload's weights into modules, and the
// loop of a train step. Called by the files beside it.

import {
  compile,
  type Device,
  grad,
  type Named,
  type Parameter,
  type Step,
  type Tensor,
} from "../../../engine/index.ts";
import type { Module } from "../../../engine/nn/index.ts";
import { AdamW } from "../../../engine/optim/index.ts";
import { makePlan, type PlanOptions } from "../../../engine/plan/plan.ts";
import { summarise } from "../../../engine/plan/summary.ts";
import { GpuDevice } from "../../../engine/runtime/gpu.ts";
import { formatProfile } from "../../../engine/runtime/profile.ts";
import { kernelLast, permute } from "../data.ts";
import { type LoadedParam, loadParams, type ModelName } from "../params.ts";
import type { Subject } from "../subject.ts";

/** The plan of a compiled step that has run, its memory, and its time by kernel. */
export function compiled(
  device: Device,
  step: Step<Named, Named>,
  plan?: PlanOptions,
): Pick<Subject, "profile" | "explain" | "arena"> {
  return {
    explain: () => step.explain(),
    arena: () => {
      const { memory } = summarise(makePlan(step.program(), device.caps, plan));
      return { bytes: memory.arena, least: memory.lowerBound };
    },
    profile: async () =>
      device instanceof GpuDevice
        ? formatProfile(await device.profile(step.program(), 5))
        : "no profile on this device",
  };
}

/** "r0.ta.q.w" -> "r0.temporal.ta.to_q.weight" */
function stateName(name: string): string {
  return name
    .replace(/\.([qkv])\./, ".to_$1.")
    .replace(/\.o\./, ".to_out.0.")
    .replace(/\.[wg]$/, ".weight")
    .replace(/\.b$/, ".bias")
    .replace(/^(r\d)\.(tn|tc|ta_n|ta)\./, "$1.temporal.$2.")
    .replace(/^(tok|pos|code)$/, "$1.weight");
}

/** The workload's layout -> the engine's: linear layers [out, in], convolutions [...kernel, in, out]. */
function stored({ kind, data, shape }: LoadedParam): Float32Array {
  if (kind === "lin") return permute(data, shape, [1, 0]);
  return kind === "conv" ? kernelLast(data, shape) : data;
}

/** Gives every parameter of `model` the workload's value. Throws when names or counts do not match one to one. */
export function loadInto(model: Module, name: ModelName): void {
  const state = model.state();
  for (const p of loadParams(name)) {
    const target = state.get(stateName(p.name));
    if (!target) throw new Error(`${name}: ${stateName(p.name)} is not in the model: ${[...state.keys()].join(", ")}`);
    target.write(stored(p));
    state.delete(stateName(p.name));
  }
  if (state.size > 0) throw new Error(`${name}: no values for ${[...state.keys()].join(", ")}`);
}

/** Compiles one AdamW step on a fixed batch and runs it. */
export function training<I extends Named>(
  device: Device,
  model: Module,
  batch: I,
  loss: (batch: I) => Tensor,
  weightDecay = 0.01,
): Subject {
  const adam = new AdamW(model.state() as ReadonlyMap<string, Parameter>, { weightDecay });
  const step = compile(
    (inputs: I) => {
      const value = loss(inputs);
      adam.step(grad(value, adam.targets), { lr: 1e-3 });
      return { loss: value };
    },
    { name: "train" },
  );
  return {
    ...compiled(device, step as unknown as Step<Named, Named>),
    run: () => step(batch as never).loss.item(),
  };
}
