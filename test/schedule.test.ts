// Learning-rate schedules: their values where the definition can be read off, and laws over drawn settings. That they agree
// with another implementation step by step is in optim.test.ts, where golden runs use them.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  constant,
  cosine,
  exponential,
  type LrSchedule,
  linearWarmup,
  oneCycle,
  polynomial,
  stepDecay,
  warmupCosine,
} from "../engine/optim/index.ts";

const rates = (schedule: LrSchedule, steps: number): number[] => Array.from({ length: steps }, (_, k) => schedule(k));

test("each schedule has the values of its definition", () => {
  expect(rates(constant(0.5), 2)).toEqual([0.5, 0.5]);
  expect(rates(linearWarmup(4, constant(1)), 5)).toEqual([0.25, 0.5, 0.75, 1, 1]);
  expect(rates(linearWarmup(4, constant(1), { fromZero: true }), 5)).toEqual([0, 0.25, 0.5, 0.75, 1]);
  expect(cosine({ lr: 1, steps: 8, floor: 0.5 })(4)).toBeCloseTo(0.75, 14);
  expect(rates(polynomial({ lr: 1, steps: 4 }), 6)).toEqual([1, 0.75, 0.5, 0.25, 0, 0]);
  expect(polynomial({ lr: 1, steps: 4, power: 2, floor: 0.5 })(2)).toBe(0.625);
  expect(rates(stepDecay({ lr: 1, every: 2, factor: 0.5 }), 5)).toEqual([1, 1, 0.5, 0.5, 0.25]);
  expect(rates(exponential({ lr: 1, factor: 0.5 }), 3)).toEqual([1, 0.5, 0.25]);
});

test("the rate of the recipes rises to its peak, never above it, and ends at the floor", () => {
  const found = rates(warmupCosine({ lr: 0.5, warmup: 10, steps: 100, floor: 0.05 }), 101);
  expect(found[0]).toBeCloseTo(0.05, 12);
  expect(found[9]).toBeCloseTo(0.5, 12);
  expect(Math.max(...found)).toBeLessThanOrEqual(0.5);
  expect(found[100]).toBeCloseTo(0.05, 12);
});

test("one cycle starts and ends where torch's does, with its peak at 30 % of the steps", () => {
  const found = rates(oneCycle({ lr: 1, steps: 100 }), 100);
  expect(found[0]).toBeCloseTo(1 / 25, 14);
  expect(found[29]).toBeCloseTo(1, 14);
  expect(found[99]).toBeCloseTo(1 / 25e4, 14);
});

describe("whatever the settings", () => {
  const settings = fc.record({ lr: fc.constantFrom(1e-4, 0.1, 3), steps: fc.integer({ min: 1, max: 300 }) });
  const makers: Record<string, (o: { lr: number; steps: number }) => LrSchedule> = {
    cosine: (o) => cosine({ ...o, floor: o.lr / 10 }),
    polynomial: (o) => polynomial({ ...o, floor: o.lr / 10, power: 1.5 }),
    warmupCosine: (o) => warmupCosine({ ...o, floor: o.lr / 10, warmup: o.steps / 7 }),
    oneCycle: (o) => oneCycle(o),
  };
  test.each(Object.entries(makers))("%s stays in (0, lr], rises once and falls once, and keeps its end", (_, make) => {
    fc.assert(
      fc.property(settings, (o) => {
        const schedule = make(o);
        const found = rates(schedule, o.steps + 1);
        const top = found.indexOf(Math.max(...found));
        const slack = o.lr * 1e-12;
        expect(found.every((x) => x > 0 && x <= o.lr + slack)).toBe(true);
        expect(found.every((x, k) => k === 0 || (k <= top ? x >= found[k - 1] : x <= found[k - 1] + slack))).toBe(true);
        expect(schedule(10 * o.steps + 10)).toBeCloseTo(schedule(5 * o.steps + 5), 14);
      }),
      { numRuns: 100, seed: 1 },
    );
  });
});
