// Memory: the arena planner's laws on random lifetimes, and what stays constant while a compiled step runs: buffers and bytes.
// The same laws on plans of random programs are in fuse.test.ts.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { grad } from "../engine/autograd.ts";
import { compile } from "../engine/compile.ts";
import { StaleTensorError } from "../engine/error.ts";
import { ALIGNMENT, type Interval, planMemory } from "../engine/plan/memory.ts";
import { Parameter } from "../engine/state.ts";
import { type Tensor, tensor } from "../engine/tensor.ts";
import { arenaProblem } from "../engine/testing/laws.ts";
import { collected } from "./collect.ts";
import { onGpu } from "./device.ts";

const interval = fc
  .record({ bytes: fc.integer({ min: 16, max: 100_000 }), first: fc.nat({ max: 40 }), length: fc.nat({ max: 20 }) })
  .map(({ bytes, first, length }): Interval => ({ bytes, first, last: first + length }));

/** Lifetimes of a training step: activations that wait for their layer's backward pass, and short temporaries. */
const training = fc
  .array(fc.record({ kept: fc.integer({ min: 16, max: 60_000 }), temporary: fc.integer({ min: 16, max: 60_000 }) }), {
    minLength: 3,
    maxLength: 30,
  })
  .map((layers): Interval[] => {
    const end = 2 * layers.length - 1;
    return layers.flatMap(({ kept, temporary }, i) => [
      { bytes: kept, first: i, last: end - i },
      { bytes: temporary, first: i, last: i + 1 },
      { bytes: temporary, first: end - i, last: end - i + 1 },
    ]);
  });

describe("the planner", () => {
  test("never overlaps what lives at the same time", () => {
    fc.assert(
      fc.property(fc.array(interval, { maxLength: 60 }), (intervals) => {
        const arena = planMemory(intervals);
        expect(arenaProblem(intervals, arena)).toBeNull();
        expect(arena.bytes).toBeGreaterThanOrEqual(arena.lowerBound);
      }),
      { seed: 1, numRuns: 200 },
    );
  });
  test("keeps every interval inside one slab", () => {
    const largest = 100_000;
    fc.assert(
      fc.property(fc.array(interval, { maxLength: 60 }), fc.integer({ min: 1, max: 8 }), (intervals, n) => {
        const arena = planMemory(intervals, n * (largest + ALIGNMENT));
        expect(arenaProblem(intervals, arena)).toBeNull();
        expect(arena.slab % ALIGNMENT).toBe(0);
        expect(planMemory(intervals, 1e12)).toEqual({ ...planMemory(intervals), slab: expect.any(Number) });
      }),
      { seed: 1, numRuns: 100 },
    );
  });
  test("stays within 1.3 times the lower bound on training steps", () => {
    fc.assert(
      fc.property(training, (intervals) => {
        const arena = planMemory(intervals);
        expect(arenaProblem(intervals, arena)).toBeNull();
        expect(arena.bytes).toBeLessThanOrEqual(1.3 * arena.lowerBound);
      }),
      { seed: 1, numRuns: 200 },
    );
  });
  test("the check sees an overlap, a misplaced and an overflowing interval", () => {
    const intervals = [0, 1, 2].map((first): Interval => ({ bytes: 300, first, last: first + 1 }));
    const sound = planMemory(intervals);
    expect(arenaProblem(intervals, sound)).toBeNull();
    expect(arenaProblem(intervals, { ...sound, offsets: [0, 256, 0] })).toBe("intervals 0 and 1 overlap");
    expect(arenaProblem(intervals, { ...sound, offsets: [0, 300, 0] })).toBe("interval 1 starts at 300");
    expect(arenaProblem(intervals, { ...sound, bytes: 512 })).toBe("interval 1 ends past the arena");
    expect(arenaProblem(intervals, { ...sound, slab: 768 })).toBe("interval 1 lies across the end of a slab");
  });
});

function smallTraining(): (feed: { x: Tensor }) => { loss: Tensor } {
  const w = new Parameter(
    [4, 4],
    Float32Array.from({ length: 16 }, (_, i) => Math.sin(i)),
  );
  const momentum = new Parameter([4, 4], new Float32Array(16));
  return compile(
    ({ x }: { x: Tensor }) => {
      const loss = x.matmul(w).tanh().matmul(w).square().mean();
      const [g] = grad(loss, [w]);
      momentum.assign(momentum.mul(0.9).add(g));
      w.assign(w.sub(momentum.mul(0.01)));
      return { loss };
    },
    { name: "small" },
  );
}

const input = (): Tensor =>
  tensor(
    Float32Array.from({ length: 8 }, (_, i) => Math.cos(i)),
    [2, 4],
  );

describe("on the device", () => {
  onGpu("buffers and bytes are constant over 100 steps", async (device) => {
    const step = smallTraining();
    const x = input();
    for (let i = 0; i < 3; i++) await step({ x }).loss.item();
    await collected(); // what earlier tests left
    const before = device.memory();
    const losses: number[] = [];
    for (let i = 0; i < 100; i++) losses.push(await step({ x }).loss.item());
    expect(device.memory()).toEqual(before);
    expect(losses[99]).toBeLessThan(losses[0]);
  });

  onGpu("an eager loop returns what it no longer holds", async (device) => {
    let x = tensor(new Float32Array(256));
    let most = 0;
    const before = device.memory().buffers;
    for (let i = 0; i < 400; i++) {
      x = x.mul(0.9).add(1);
      x.realise();
      if (i % 20 !== 19) continue;
      await collected(); // the collector itself does not see device memory
      most = Math.max(most, device.memory().buffers - before);
    }
    expect(most).toBeLessThan(120);
    expect((await x.data())[0]).toBeCloseTo(10, 4);
  });

  onGpu("a result is readable until the second next call, and says so afterwards", async () => {
    const step = compile(({ x }: { x: Tensor }) => ({ y: x.add(1) }), { name: "addOne" });
    const x = tensor([1, 2]);
    const [first, kept] = [step({ x }).y, step({ x: tensor([5, 6]) }).y.keep()];
    expect([...(await first.data())]).toEqual([2, 3]);
    step({ x });
    await expect(first.data()).rejects.toThrow(StaleTensorError);
    await expect(first.data()).rejects.toThrow(
      'result "y" of call 1 of addOne was overwritten by call 3 (use keep() to hold on to it)',
    );
    expect(() => step({ x: first })).toThrow(StaleTensorError);
    for (let i = 0; i < 5; i++) step({ x });
    expect([...(await kept.data())]).toEqual([6, 7]);
  });
});
