// What the kinds of sampler trajectories share: a network that looks its answers up by the number of the step, so that the
// project's own sampling loop is what runs, and reading x and x0 after every update. Used by ddim.ts and vgen_ddim.ts.

import type { Named, Tensor } from "../../engine/index.ts";
import { tensor } from "../../engine/index.ts";
import type { Prediction, SampleLimit } from "../../models/diffusion.ts";
import { type PlannedStep, sample, samplerStep } from "../../models/samplers.ts";
import { type Stored, upload } from "./files.ts";

export interface Trajectory {
  readonly plan: readonly PlannedStep[];
  readonly prediction: Prediction;
  readonly limit?: SampleLimit;
  readonly start: Stored;
  /** [steps, ...start.shape]: what the networks answer at the i-th update; combined by `answer`. */
  readonly answers: Readonly<Record<string, Stored>>;
  readonly answer: (rows: Named) => Tensor;
  /** [steps, ...start.shape] */
  readonly noise?: Stored;
}

/** x before the first update and after each, and the x0 of each, one after another. */
export async function follow(t: Trajectory): Promise<{ x: number[]; x0: number[] }> {
  const { shape } = t.start;
  const places = new Float32Array(1 + Math.max(...t.plan.map(({ step }) => step)));
  t.plan.forEach(({ step }, i) => {
    places[step] = i;
  });
  const tables = Object.entries(t.answers).map(
    ([
      name,
      {
        data,
        shape: [rows],
      },
    ]) => {
      return [name, tensor(Float32Array.from(data), [rows, data.length / rows])] as const;
    },
  );
  const predict = (_: Tensor, step: Tensor, { places, ...tables }: Named): Tensor => {
    const i = places
      .gatherRows(step.slice(0, 0, 1))
      .reshape([1])
      .cast("i32");
    return t.answer(
      Object.fromEntries(Object.entries(tables).map(([k, rows]) => [k, rows.gatherRows(i).reshape(shape)])),
    );
  };
  const context = { places: tensor(places, [places.length, 1]), ...Object.fromEntries(tables) };
  const found = { x: [...t.start.data], x0: [] as number[] };
  const update = samplerStep(predict, t.prediction, t.limit);
  const noise = t.noise && upload(t.noise);
  for await (const { x, x0 } of sample(update, upload(t.start), t.plan, { context, noise })) {
    found.x.push(...(await x.data()));
    found.x0.push(...(await x0.data()));
  }
  return found;
}
