// Device "planning": plans every program that it is given and computes nothing. What is run on it (a sampling loop, a training
// step) thus says what it would cost on an adapter of the stated capabilities, without one and without allocating a weight.
// For `gifgrad plan`, the costs of systems and tests; openDevice does not offer it.

import type { Caps } from "../kernels/wgsl.ts";
import { type Device, type KernelTime, type MemoryStats, onDevice, type Program, type Tracing } from "./device.ts";
import { type Data, emptyData } from "./dtype.ts";
import { DeviceError } from "./error.ts";
import { explainPlan } from "./plan/explain.ts";
import { makePlan, type Plan, tensorBytes } from "./plan/plan.ts";
import { heldBytes, type PlanSummary, summarise } from "./plan/summary.ts";
import { numel } from "./shape.ts";
import { Storage } from "./storage.ts";

/** A compiled step that was called, and how often. */
export interface PlannedStep extends PlanSummary {
  readonly plan: Plan;
  readonly calls: number;
}

export class PlanningDevice implements Device {
  readonly name = "planning (computes nothing)";
  readonly caps: Caps;
  readonly #steps = new Map<Program, PlannedStep>();
  /** Tensors with memory of their own: state, data, and what was computed outside of steps. */
  readonly #tensors = new Map<Storage, number>();

  constructor(caps: Caps) {
    this.caps = caps;
  }

  /** Throws DeviceError where the adapter could not run the program: a tensor larger than a binding, say. */
  run(program: Program): Record<string, Storage> {
    const known = this.#steps.get(program);
    const plan = known?.plan ?? makePlan(program, this.caps);
    for (const storage of plan.storages) this.#hold(storage);
    if (program.reused)
      this.#steps.set(program, { ...(known ?? { plan, ...summarise(plan) }), calls: (known?.calls ?? 0) + 1 });
    const out = plan.outputs.map(({ name, shape, dtype }) => [name, new Storage(shape, dtype, null)] as const);
    if (!program.reused) for (const [, storage] of out) this.#hold(storage);
    return Object.fromEntries(out);
  }

  #hold(storage: Storage): void {
    this.#tensors.set(storage, tensorBytes(storage, this.caps));
  }

  /** Compiled steps in order of their first call. */
  steps(): PlannedStep[] {
    return [...this.#steps.values()];
  }

  /** Bytes of a tensor with memory of its own; 0 where nothing has used it. */
  bytesOf(storage: Storage): number {
    return this.#tensors.get(storage) ?? 0;
  }

  /** What the device would hold: all tensors, and each step's arena, inputs, results, tables and uniforms. */
  memory(): MemoryStats {
    const tensors = [...this.#tensors.values()].reduce((sum, bytes) => sum + bytes, 0);
    const steps = this.steps();
    const buffers = ({ plan }: PlannedStep): number =>
      2 + plan.inputs.length + 2 * plan.outputs.length + plan.setup.length;
    return {
      buffers: steps.reduce((sum, s) => sum + buffers(s), this.#tensors.size),
      bytes: steps.reduce((sum, s) => sum + heldBytes(s.memory), tensors),
    };
  }

  /** Zeros: nothing was computed. */
  async read({ shape, dtype }: Storage): Promise<Data> {
    return emptyData(dtype, numel(shape));
  }
  explain(program: Program): string {
    return explainPlan(this.#steps.get(program)?.plan ?? makePlan(program, this.caps));
  }
  async profile(): Promise<KernelTime[]> {
    throw new DeviceError("nothing runs on the planning device: profile on a GPU device (a software one counts)");
  }
  traceTo(): Tracing {
    throw new DeviceError("nothing runs on the planning device: trace a GPU device (a software one counts)");
  }
  details(): Record<string, string> {
    return { device: this.name, kind: "none" };
  }
  async settle(): Promise<void> {}
  close(): void {}
}

/** What some work would do: its compiled steps, and sums over all of their calls. */
export interface PlannedWork<T> {
  readonly result: T;
  readonly device: PlanningDevice;
  /** In order of their first call. */
  readonly steps: readonly Omit<PlannedStep, "plan">[];
  readonly dispatches: number;
  readonly flops: number;
  /** Bytes on the device: tensors that outlive a step, and what each step keeps for itself. */
  readonly peak: number;
}

/** Does `work` on a planning device of its own; the device that was current is so again when it is done. */
export function planWork<T>(caps: Caps, work: () => T | Promise<T>): Promise<PlannedWork<T>> {
  return onDevice(
    () => new PlanningDevice(caps),
    async (device) => {
      const result = await work();
      const steps = device.steps().map(({ plan: _, ...summary }) => summary);
      const sum = (of: (step: PlannedStep) => number): number =>
        device.steps().reduce((n, step) => n + step.calls * of(step), 0);
      return {
        result,
        device,
        steps,
        dispatches: sum((s) => s.dispatches),
        flops: sum((s) => s.flops),
        peak: device.memory().bytes,
      };
    },
  );
}
