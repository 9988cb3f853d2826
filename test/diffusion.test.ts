// Noise schedules, DDIM and guidance against golden data of two implementations, and against closed forms.

import { describe, expect, test } from "vitest";
import { compile, type Data, ones, Rng, type Tensor, tensor, useDevice, zeros } from "../engine/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import {
  type DdimPlanOptions,
  ddim,
  ddimPlan,
  ddimStep,
  ddimUpdate,
  guide,
  NoiseSchedule,
  type NoiseScheduleOptions,
  type Predict,
  type Prediction,
} from "../models/diffusion.ts";
import { expectClose } from "./close.ts";
import { onGpu } from "./device.ts";
import { describeGolden, f32, i32 } from "./golden.ts";

const reference = new ReferenceDevice();

describeGolden("ddim-a", (golden) => {
  interface Variant {
    readonly steps: number;
    readonly eta: number;
    readonly prediction_type: string;
    readonly timestep_spacing: "leading" | "trailing";
    readonly set_alpha_to_one: boolean;
    readonly clip_sample: boolean;
    readonly rescale_betas_zero_snr?: boolean;
  }
  // Stable Diffusion neither clips x0 nor ends at alphaBar = 1, and no system here predicts x0.
  const variants = Object.entries(golden.json<Record<string, Variant>>("variants.json")).filter(
    ([, v]) => !v.clip_sample && !v.set_alpha_to_one && v.prediction_type !== "sample",
  );

  test("the schedules", () => {
    const bound = golden.tolerance("out.alphas_cumprod (float32 table vs exact)");
    const exact = (name: string, o: NoiseScheduleOptions, rtol: number): void =>
      expectClose(new NoiseSchedule(o).alphaBar, golden.get(name).data, name, { rtol });
    exact("out.alphas_cumprod_f64", {}, 1e-12);
    exact("out.alphas_cumprod.linear", { betas: "linear", range: [1e-4, 0.02] }, 10 * bound);
    exact("out.alphas_cumprod.cosine", { betas: "cosine" }, 10 * bound);
    exact("out.zero_snr.alphas_cumprod", { zeroTerminalSnr: true }, 10 * bound);
  });

  onGpu("noising and velocity", async () => {
    const schedule = new NoiseSchedule();
    const [x0, noise, step] = [f32(golden.get("in.q.x0")), f32(golden.get("in.q.noise")), i32(golden.get("in.q.t"))];
    expect(golden.problem("out.q.x_t", await schedule.addNoise(x0, noise, step).data())).toBeNull();
    expect(golden.problem("out.q.velocity", await schedule.target("v", x0, noise, step).data())).toBeNull();
  });

  test("ending at alphaBar = 1 instead of alphaBar_0 would be noticed", () => {
    const other = golden.get("out.epsilon.eta0.set_alpha_to_one.x").data;
    expect(golden.problem("out.epsilon.eta0.x", other)).not.toBeNull();
  });

  test("six variants are followed", () => expect(variants).toHaveLength(6));

  for (const [name, v] of variants) {
    onGpu(`trajectory ${name}`, async () => {
      const prediction: Prediction = v.prediction_type === "epsilon" ? "epsilon" : "v";
      const schedule = new NoiseSchedule({ zeroTerminalSnr: v.rescale_betas_zero_snr ?? false });
      const o: DdimPlanOptions = { steps: v.steps, eta: v.eta, spacing: v.timestep_spacing };
      expect(ddimPlan(schedule, o).map((p) => p.step)).toEqual([...golden.get(`out.${name}.timesteps`).data]);
      const shape = golden.get("in.x_T").shape;
      const rows = (of: string): Tensor => f32(golden.get(of)).reshape([v.steps, -1]);
      // Network and noise are look-ups by the number of the step, so that the loop is the real one.
      const step = compile(({ x, i, signal, noise, nextSignal, nextNoise, sigma }: Record<string, Tensor>) => {
        const at = (table: Tensor): Tensor => table.gatherRows(i.cast("i32").reshape([1])).reshape(shape);
        const k = { signal, noise, nextSignal, nextNoise, sigma };
        return ddimUpdate(
          prediction,
          x,
          at(rows("in.model_output")),
          k,
          v.eta > 0 ? at(rows("in.variance_noise")) : undefined,
        );
      });
      let x = f32(golden.get("in.x_T"));
      const [xs, x0s] = [[...(await x.data())], [] as number[]];
      for (const [i, { numbers }] of ddimPlan(schedule, o).entries()) {
        const next = step({ x, i, ...numbers });
        x = next.x;
        xs.push(...(await x.data()));
        x0s.push(...(await next.x0.data()));
      }
      expect([golden.problem(`out.${name}.x`, xs), golden.problem(`out.${name}.pred_x0`, x0s)]).toEqual([null, null]);
    });
  }
});

describeGolden("vgen-ddim-a", (golden) => {
  const steps = 25;
  // VGen visits the same steps and stops at alphaBar_0 too.
  const cases: [string, Prediction, NoiseScheduleOptions][] = [
    ["linear_sd.eps", "epsilon", {}],
    ["cosine_ztsnr.v", "v", { betas: "cosine", zeroTerminalSnr: true }],
  ];
  const x = golden.get("in.x_T");
  const [batch, ...rest] = x.shape;

  /** A network that looks its answers up by step, and believes `conditioned` as to which of the two is asked for. */
  const predict = (_: Tensor, step: Tensor, { conditioned }: { readonly conditioned: Tensor }): Tensor => {
    const i = step
      .slice(0, 0, 1)
      .neg()
      .add(961)
      .cast("f32")
      .mul(1 / 40)
      .add(0.5)
      .cast("i32");
    const answer = (name: string): Tensor => {
      const table = f32(golden.get(name));
      const found = table.reshape([table.shape[0], -1]).gatherRows(i).reshape(x.shape);
      return found.concat([found], 0);
    };
    const flag = conditioned.reshape([2 * batch, ...rest.map(() => 1)]);
    return flag.less(0.5).where(answer("in.out_uncond"), answer("in.out_cond"));
  };

  for (const [name, prediction, options] of cases) {
    onGpu(`guided trajectory ${name}`, async () => {
      const schedule = new NoiseSchedule(options);
      // Two orders of float64 products over 1000 factors.
      expectClose(schedule.alphaBar, golden.get(`out.${name}.alphas_cumprod`).data, "alphaBar", { rtol: 1e-12 });
      const guided: Predict = (xt, step, { off, on, scale }) =>
        guide(predict, xt, step, { off: { conditioned: off }, on: { conditioned: on }, scale });
      const context = { off: zeros([batch]), on: ones([batch]), scale: 9 };
      const found = { visited: [] as number[], x: [...x.data], x0: [] as number[] };
      for await (const s of ddim(ddimStep(guided, prediction), f32(x), schedule, { steps, context })) {
        found.visited.push(s.step);
        found.x.push(...(await s.x.data()));
        found.x0.push(...(await s.x0.data()));
      }
      expect(found.visited).toEqual([...golden.get(`out.${name}.steps`).data]);
      expect([golden.problem(`out.${name}.x`, found.x), golden.problem(`out.${name}.x0`, found.x0)]).toEqual([
        null,
        null,
      ]);
    });
  }
});

describe("diffusion", () => {
  const schedule = new NoiseSchedule();

  test("25 steps visit 961, 921, ..., 1 (spec 2.12)", () => {
    const visited = ddimPlan(schedule, { steps: 25 }).map((p) => p.step);
    expect(visited).toEqual(Array.from({ length: 25 }, (_, i) => 961 - 40 * i));
  });

  test("any number of steps stays inside the schedule and goes down", () => {
    for (const spacing of ["leading", "trailing"] as const) {
      for (const steps of [1, 2, 3, 7, 30, 333, 999, 1000]) {
        const visited = ddimPlan(schedule, { steps, spacing }).map((p) => p.step);
        expect(visited).toHaveLength(steps);
        expect(visited.every((t, i) => t >= 0 && t < 1000 && (i === 0 || t < visited[i - 1]))).toBe(true);
      }
    }
    for (const steps of [0, 2.5, 1001]) expect(() => ddimPlan(schedule, { steps })).toThrow(RangeError);
    for (const eta of [-1, 1.1]) expect(() => ddimPlan(schedule, { steps: 5, eta })).toThrow(RangeError);
  });

  test("signal and noise keep unit variance; eta = 1 is ancestral sampling", () => {
    for (const { step, numbers: k } of ddimPlan(schedule, { steps: 10, eta: 1 })) {
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
      return prediction === "epsilon" ? eps : schedule.velocity(x0, eps, step);
    };
  };

  test.each([
    ["epsilon", 0],
    ["v", 0],
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
    let last = start;
    for await (const s of ddim(ddimStep(network, prediction, new Rng(3)), start, schedule, { steps: 25, eta })) {
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
    const { signal, noise } = ddimPlan(schedule, { steps: 25 })[0].numbers;
    return start.sub(x0.mul(signal)).div(noise).data();
  };

  test("a condition with a name of the update's own is refused", async () => {
    const loop = ddim(ddimStep(oracle("v"), "v"), x0, schedule, { steps: 2, context: { noise: x0 } });
    await expect(loop.next()).rejects.toThrow('"noise" in the context');
  });

  test("fresh noise without a generator is refused", async () => {
    useDevice(reference);
    const loop = ddim(ddimStep(oracle("v"), "v"), zeros([2, 3]), schedule, { steps: 2, eta: 1 });
    await expect(loop.next()).rejects.toThrow("give ddimStep a generator");
  });
});
