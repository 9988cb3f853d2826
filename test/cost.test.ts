// What a sticker costs: which runs are timed and what is said of them, and that counting, planning and measuring speak of the model
// that was given, on the device that was current before.

import { describe, expect, test } from "vitest";
import { costOfRun } from "../cli/eval_cost.ts";
import { planSampling } from "../cli/plan.ts";
import { trainTokenizer } from "../data/tokenizer_train.ts";
import { device, useDevice } from "../engine/index.ts";
import { planWork } from "../engine/planning.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { measureCost, percentile, timeRuns } from "../eval/cost.ts";
import { systemConfig } from "../models/config.ts";
import { LatentDiffusion } from "../models/latent_diffusion.ts";
import { SYSTEMS } from "../models/systems.ts";
import { Sampler } from "../train/sample.ts";
import { gpu, onGpu } from "./device.ts";

describe("time", () => {
  test("is that of the runs behind the first, with mean, median and percentiles", async () => {
    let clock = 0;
    const lengths = [99_000, 3000, 1000, 2000, 10_000, 4000];
    const told: string[] = [];
    let run = 0;
    const timing = await timeRuns(
      async () => {
        clock += lengths[run++];
      },
      { runs: 5, onRun: (done, total) => void told.push(`${done}/${total}`) },
      () => clock,
    );
    // Of 1, 2, 3, 4, 10: the 5th percentile lies a fifth of the way from the first to the second, as the 95th from the last.
    expect(timing).toEqual({ runs: 5, mean: 4, median: 3, p5: expect.closeTo(1.2), p95: expect.closeTo(8.8) });
    expect(told).toEqual(["0/5", "1/5", "2/5", "3/5", "4/5", "5/5"]);
    expect([percentile([7], 0.95), percentile([1, 2], 0.5), percentile([1, 2], 1)]).toEqual([7, 1.5, 2]);
    await expect(timeRuns(async () => {}, { runs: 0 })).rejects.toThrow("at least one run is timed, got 0");
  });
});

test("counts the model that is there, plans a twin of it, and leaves the current device as it was", async () => {
  const open = useDevice(new ReferenceDevice());
  const text = { vocabulary: 514, width: 8, layers: 1, heads: 2, mlp: 8, length: 8 };
  const autoencoder = { channels: [4, 4], layers: 1, latent: 4, groups: 2 };
  const unet = { channels: [4, 8], headDim: 4, context: 8, groups: 2, transformerIn: { heads: 1, dim: 4 } };
  const nano = systemConfig("make-a-video", "nano");
  const config = { ...nano, size: 8, frames: 2, text, autoencoder, unet: { ...nano.unet, ...unet } };
  const model = new LatentDiffusion(config).seed(1);
  const sampler = new Sampler(model, trainTokenizer([], { vocabSize: 514 }));
  const o = { steps: 2, guidance: 2, seed: 1 } as const;
  let made = 0;
  const work = {
    system: SYSTEMS.find(({ name }) => name === "make-a-video")!,
    state: sampler.state(),
    make: () => {
      made++;
      return sampler.sample([{ caption: "", index: 0 }], o);
    },
    plan: () => planSampling(config, o),
  };
  const cost = await measureCost(work, { runs: 1 });
  expect(device()).toBe(open);
  expect(made).toBe(2);
  expect(cost.parameters.total).toBe(model.count());
  expect(Object.values(cost.parameters.components).reduce((a, b) => a + b, 0)).toBe(model.count());
  expect(cost.memory.measured).toBeNull(); // the reference keeps no count
  expect(cost.memory.planned).toBeGreaterThan(4 * model.count());
  // Another step is another call of the same update.
  const longer = await planWork(open.caps, () => planSampling(config, { ...o, steps: 3 }));
  const update = longer.steps.find(({ name }) => name === "sampler")!;
  expect(longer.dispatches - cost.dispatches).toBeGreaterThanOrEqual(update.dispatches);
  expect(longer.flops - cost.flops).toBeGreaterThanOrEqual(update.flops);
  expect(longer.peak - cost.memory.planned).toBeLessThan(0.1 * cost.memory.planned);
});

onGpu("a folder without a run is refused in one line, and the open device stays open", async (opened) => {
  const o = { runs: 1, sampler: "ddim", steps: 1, guidance: 1, seed: 1 } as const;
  await expect(costOfRun("/nowhere/at/all", o)).rejects.toThrow(/^\/nowhere\/at\/all does not exist.*train one with/);
  expect(device()).toBe(opened);
  expect(await gpu()).toBe(opened);
});
