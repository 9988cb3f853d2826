// Noise schedules, samplers and guidance: golden trajectories of two implementations, closed forms, and the law that every
// sampler draws from a Gaussian whose denoiser is known.

import { describe, expect, test, vi } from "vitest";
import { type Data, Rng, type Tensor, tensor, useDevice, zeros } from "../engine/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { denoise, NoiseSchedule, type Predict, type Prediction, type SampleLimit } from "../models/diffusion.ts";
import { type PlannedStep, SAMPLERS, type SamplerName, sample, samplerStep } from "../models/samplers.ts";
import { expectClose } from "./close.ts";
import { onGpu } from "./device.ts";
import { describeFolder } from "./golden.ts";
import { goldenFailures } from "./golden_failures.ts";

vi.setConfig({ testTimeout: 120_000 });
const reference = new ReferenceDevice();

for (const folder of ["ddim-a", "vgen-ddim-a"])
  describeFolder(folder, (path) => {
    onGpu("schedules, noising and every trajectory", async () => {
      const { count, failed } = await goldenFailures(path);
      expect(failed).toEqual([]);
      expect(count).toBeGreaterThan(20);
    });

    test("what is planted is found: the wrong end, the wrong stride, eta left out", async () => {
      useDevice(reference);
      const { ddim } = SAMPLERS;
      const planted: Readonly<Record<string, typeof ddim>> = {
        end: (schedule, o) => ddim(schedule, { ...o, end: o.end === "clean" ? "first" : "clean" }),
        stride: (schedule, o) => ddim(schedule, { ...o, offset: 0 }),
        eta: (schedule, o) => ddim(schedule, { ...o, eta: 0 }),
      };
      for (const [bug, broken] of Object.entries(planted)) {
        const spy = vi.spyOn(SAMPLERS as { ddim: typeof ddim }, "ddim").mockImplementation(broken);
        const { failed } = await goldenFailures(path);
        spy.mockRestore();
        expect(failed.length, bug).toBeGreaterThan(0);
      }
    });
  });

describe("diffusion", () => {
  const schedule = new NoiseSchedule();

  test("25 steps visit 961, 921, ..., 1 (spec 2.12)", () => {
    const visited = SAMPLERS.ddim(schedule, { steps: 25 }).map((p) => p.step);
    expect(visited).toEqual(Array.from({ length: 25 }, (_, i) => 961 - 40 * i));
  });

  test("any number of steps stays inside the schedule and goes down", () => {
    for (const spacing of ["leading", "trailing", "linspace"] as const) {
      for (const steps of [1, 2, 3, 7, 30, 333, 999, 1000]) {
        const visited = SAMPLERS.ddim(schedule, { steps, spacing }).map((p) => p.step);
        expect(visited).toHaveLength(steps);
        expect(visited.every((t, i) => t >= 0 && t < 1000 && (i === 0 || t < visited[i - 1]))).toBe(true);
      }
    }
    for (const steps of [0, 2.5, 1001]) expect(() => SAMPLERS.ddim(schedule, { steps })).toThrow(RangeError);
    expect(() => SAMPLERS.ddim(schedule, { steps: 25, offset: 41 })).toThrow("offset 41 leads out");
    for (const eta of [-1, 1.1]) expect(() => SAMPLERS.ddim(schedule, { steps: 5, eta })).toThrow(RangeError);
  });

  test("signal and noise keep unit variance; eta = 1 is ancestral sampling", () => {
    for (const { step, numbers: k } of SAMPLERS.ddim(schedule, { steps: 10, eta: 1 })) {
      expect(k.signal ** 2 + k.noise ** 2).toBeCloseTo(1, 12);
      expect(k.nextSignal ** 2 + k.nextNoise ** 2 + k.sigma ** 2).toBeCloseTo(1, 12);
      // Ho et al. 2020, eq. 7: the posterior's variance, with the stride's product of alphas in place of one alpha.
      const [now, next] = [schedule.alphaBar[step], schedule.alphaBar[Math.max(step - 100, 0)]];
      expect(k.sigma ** 2).toBeCloseTo(((1 - next) / (1 - now)) * (1 - now / next), 12);
    }
  });

  test("predicting noise is refused where the last step holds no signal", () => {
    const terminal = new NoiseSchedule({ zeroTerminalSnr: true });
    const x = zeros([1, 2]);
    expect(() => terminal.target("epsilon", x, x, tensor(new Int32Array(1)))).toThrow(/zero terminal SNR/);
  });

  // With x = signal x0 + noise eps, an oracle that knows x0 knows eps, and so v.
  const x0 = new Rng(1).normal([2, 3]);
  const oracle = (prediction: Prediction): Predict => {
    return (x, step) => {
      const k = schedule.at(step, 2);
      const eps = x.sub(x0.mul(k.signal)).div(k.noise);
      return schedule.target(prediction, x0, eps, step);
    };
  };

  test.each([
    ["epsilon", 0],
    ["v", 0],
    ["sample", 0],
    ["epsilon", 1],
    ["v", 1],
  ] as const)("a perfect %s oracle recovers x0, eta %d, in one program (spec 9.5)", async (prediction, eta) => {
    useDevice(reference);
    let traced = 0;
    const network: Predict = (...a) => {
      traced++;
      return oracle(prediction)(...a);
    };
    const want = await x0.data();
    const start = new Rng(2).normal([2, 3]);
    const noise = new Rng(3).normal([25, 2, 3]);
    let last = start;
    const plan = SAMPLERS.ddim(schedule, { steps: 25, eta });
    for await (const s of sample(samplerStep(network, prediction), start, plan, { noise })) {
      // The step's numbers are float64 here and the oracle's table is float32, which 1 / signal magnifies at the start.
      expectClose(await s.x0.data(), want, `x0 at step ${s.step}`, { rtol: 1e-5 });
      last = s.x;
    }
    expect(traced).toBe(1);
    // What is left is alphaBar_0's share of noise: 2.9 % of a unit normal.
    const left = last.sub(x0.mul(Math.sqrt(schedule.alphaBar[0]))).div(Math.sqrt(1 - schedule.alphaBar[0]));
    if (eta > 0) expect(Math.max(...(await left.abs().data()))).toBeLessThan(5);
    else expectClose(await left.data(), await implied(start), "remaining noise", { rtol: 1e-3 });
  });

  /** The noise that `start`, taken as x at step 961 of x0, holds: without fresh noise it never changes. */
  const implied = (start: Tensor): Promise<Data> => {
    const { signal, noise } = SAMPLERS.ddim(schedule, { steps: 25 })[0].numbers;
    return start.sub(x0.mul(signal)).div(noise).data();
  };

  test("a condition with a name of the update's own is refused", async () => {
    const plan = SAMPLERS.ddim(schedule, { steps: 2 });
    const loop = sample(samplerStep(oracle("v"), "v"), x0, plan, { context: { noise: x0 } });
    await expect(loop.next()).rejects.toThrow('"noise" in the context');
  });

  test("a plan that adds noise is refused where there is none", async () => {
    const plan = SAMPLERS.ddim(schedule, { steps: 2, eta: 1 });
    const loop = sample(samplerStep(oracle("v"), "v"), zeros([2, 3]), plan);
    await expect(loop.next()).rejects.toThrow("give `noise`");
  });

  describe("limits on the clean sample:", () => {
    const limited = async (limit: SampleLimit): Promise<Record<"x0" | "eps", number[]>> => {
      useDevice(reference);
      const x = tensor([0.5, -4, 1, 2, 3, 0.25, -0.5, 0.1], [2, 4]);
      const k = { signal: tensor([0.6]), noise: tensor([0.8]) };
      const { x0, eps } = denoise("sample", x, x, k, limit);
      return { x0: [...(await x0.data())], eps: [...(await eps.data())] };
    };

    test("a clip, with the network's noise or that of the clipped sample", async () => {
      const kept = await limited({ clip: 1 });
      expectClose(kept.x0, [0.5, -1, 1, 1, 1, 0.25, -0.5, 0.1], "x0", { rtol: 1e-7 });
      expectClose(kept.eps, [0.25, -2, 0.5, 1, 1.5, 0.125, -0.25, 0.05], "eps", { rtol: 1e-6 });
      const fresh = await limited({ clip: 1, fresh: true });
      expectClose(fresh.eps, [0.25, -4.25, 0.5, 1.75, 3, 0.125, -0.25, 0.05], "eps", { rtol: 1e-6 });
    });

    test("dynamic thresholding by a quantile of each sample, at least 1", async () => {
      // Magnitudes 0.5 1 2 4: the quantile 0.5 is 1.5. Magnitudes 0.1 0.25 0.5 3: it is 0.375, and 1 is taken.
      const half = await limited({ threshold: { quantile: 0.5 } });
      expectClose(half.x0, [1 / 3, -1, 2 / 3, 1, 1, 0.25, -0.5, 0.1], "x0", { rtol: 1e-6 });
      const capped = await limited({ threshold: { quantile: 1, max: 2 } });
      expectClose(capped.x0, [0.25, -1, 0.5, 1, 1, 0.125, -0.25, 0.05], "x0", { rtol: 1e-6 });
    });
  });
});

// Data N(MEAN, SPREAD^2) have the denoiser E[x0 | x] = MEAN + signal SPREAD^2 (x - signal MEAN) / (signal^2 SPREAD^2 + noise^2),
// and x_t ~ N(signal MEAN, signal^2 SPREAD^2 + noise^2). With it every sampler is affine in its noise, so what it draws is
// a Gaussian whose mean and variance come out exactly from probes: no noise at all, and one unit of each.
describe("a Gaussian with its exact denoiser is drawn by every sampler:", () => {
  const [MEAN, SPREAD] = [0.7, 0.5];
  const schedule = new NoiseSchedule();
  const oracle = (prediction: Prediction): Predict => {
    return (x, step) => {
      const { signal, noise } = schedule.at(step, 2);
      const variance = signal
        .square()
        .mul(SPREAD ** 2)
        .add(noise.square());
      const x0 = x
        .sub(signal.mul(MEAN))
        .mul(signal)
        .mul(SPREAD ** 2)
        .div(variance)
        .add(MEAN);
      const eps = x.sub(x0.mul(signal)).div(noise);
      return { epsilon: eps, v: eps.mul(signal).sub(x0.mul(noise)), sample: x0 }[prediction];
    };
  };

  /** Mean and standard deviation of what the plan draws, started at the distribution that its first step has. */
  async function drawn(plan: readonly PlannedStep[], prediction: Prediction): Promise<{ mean: number; std: number }> {
    useDevice(reference);
    const n = plan.length;
    const { signal, noise: sigma } = plan[0].numbers;
    const unit = Math.hypot(signal * SPREAD, sigma);
    const start = Float32Array.from({ length: n + 2 }, (_, i) => signal * MEAN + (i === 1 ? unit : 0));
    const rows = Array.from({ length: n }, (_, r) => Array.from({ length: n + 2 }, (_, i) => Number(i === r + 2)));
    const noise = tensor(Float32Array.from(rows.flat()), [n, n + 2, 1]);
    const update = samplerStep(oracle(prediction), prediction);
    let out: Data = start;
    for await (const { i, x } of sample(update, tensor(start, [n + 2, 1]), plan, { noise }))
      if (i === n - 1) out = await x.data();
    const [mean, ...moved] = out;
    return { mean, std: Math.hypot(...moved.map((v) => v - mean)) };
  }

  async function error(name: SamplerName, steps: number, o: object = {}, prediction: Prediction = "epsilon") {
    const plan = SAMPLERS[name](schedule, { steps, end: "clean", ...o });
    const { mean, std } = await drawn(plan, prediction);
    const { nextSignal } = plan[steps - 1].numbers; // below 1 where the plan ends with some noise left
    const left = Math.hypot(nextSignal * SPREAD, Math.sqrt(1 - nextSignal ** 2));
    return Math.max(Math.abs(mean - nextSignal * MEAN), Math.abs(std - left));
  }

  const cases: [string, SamplerName, object][] = [
    ["ddim", "ddim", {}],
    ["ddim, eta 0.5", "ddim", { eta: 0.5 }],
    ["ddpm", "ddpm", {}],
    ["dpm++", "dpm++", {}],
    ["euler", "euler", {}],
    ["euler, eta 1", "euler", { eta: 1 }],
  ];
  test.each(cases)("%s, closer with more steps", async (_, name, o) => {
    const trailing = { ...o, spacing: "trailing" as const };
    const [few, many] = [await error(name, 20, trailing), await error(name, 160, trailing)];
    expect(few).toBeLessThan(0.1);
    expect(many).toBeLessThan(0.25 * few);
  });

  test("whatever the network predicts", async () => {
    const errors = await Promise.all((["epsilon", "v", "sample"] as const).map((p) => error("dpm++", 20, {}, p)));
    for (const e of errors) expect(e).toBeCloseTo(errors[0], 4);
  });

  test("four times the steps: a quarter of the error at first order, less than half of that at second", async () => {
    const gain = async (name: SamplerName): Promise<number> =>
      (await error(name, 80, { end: "first" })) / (await error(name, 320, { end: "first" }));
    expect(await gain("ddim")).toBeLessThan(4.5);
    expect(await gain("dpm++")).toBeGreaterThan(8);
  });
});
