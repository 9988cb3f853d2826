// What explain() prints: exact text for a small step, which is the same on every machine of given capabilities, and laws that
// hold for the text of any plan. That Step.explain and DEBUG=plan print this text: compile.test.ts and debug.test.ts.

import fc from "fast-check";
import { expect, test } from "vitest";
import { grad } from "../engine/autograd.ts";
import { trace } from "../engine/compile.ts";
import type { Program } from "../engine/device.ts";
import { explainPlan } from "../engine/plan/explain.ts";
import { makePlan, type Plan } from "../engine/plan/plan.ts";
import { Parameter } from "../engine/state.ts";
import { type Tensor, tensor } from "../engine/tensor.ts";
import { drawer } from "../engine/testing/draw.ts";
import { drawProgram } from "../engine/testing/programs.ts";
import { MINIMUM_CAPS } from "../kernels/wgsl.ts";

function small(): Program {
  const [scale, momentum] = [8, 8].map((n) => new Parameter([n], new Float32Array(n)));
  const step = ({ x }: Readonly<Record<string, Tensor>>): { loss: Tensor } => {
    const loss = x.mul(scale).tanh().square().mean();
    const [g] = grad(loss, [scale]);
    momentum.assign(momentum.mul(0.9).add(g));
    scale.assign(scale.sub(momentum.mul(0.01)));
    return { loss };
  };
  return trace("small", step, { x: { shape: [64, 8], dtype: "f32" } });
}

test("a training step, word for word", () => {
  expect(explainPlan(makePlan(small(), MINIMUM_CAPS))).toBe(
    `
small(x f32[64, 8]): 3 dispatches of 3 kernels, 0 once
   0  sum(mul*2 tanh) mul rows                                     1x1x1        2,096 B
        computes reshape*2 expand mul*3 tanh sum
        reads    x f32[64, 8], state 0 f32[8]
        writes   result loss f32[]
   1  sum(mul*6 tanh add*2 neg) mul add columns                    1x1x1        2,144 B
        computes reshape*5 expand*4 mul*7 tanh add*3 neg sum
        reads    x f32[64, 8], state 0 f32[8], state 1 f32[8]
        writes   @0 f32[8]
   2  mul sub                                                      1x1x1           64 B
        computes reshape expand mul sub
        reads    @0 f32[8]
        updates  state 0 f32[8]
result loss f32[]
copy @0 to state 1, 32 B
arena 256 bytes (lower bound 256, ratio 1.00), 1 values: offset, bytes, dispatches
           0         32       1-3  @0 add f32[8]
memory: state 64 B in 2, data 0 B in 0, inputs 2,048 B, results 16 B, tables 0 B, uniforms 48 B
1 state copies, 2 storages, 4,304 B bound per call
`.slice(1, -1),
  );
});

/** A random program, the same at every call with the same seed; its nodes are new each time. */
function drawn(seed: number): Plan {
  const [g] = fc.sample(fc.gen(), { seed, numRuns: 1 });
  const outs = drawProgram(drawer(g), (shape, dtype = "f32") =>
    tensor(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape, dtype),
  );
  const outputs = Object.fromEntries(outs.map((t, i) => [`y${i}`, t.node]));
  return makePlan({ name: "drawn", inputs: {}, outputs, assigns: [], reused: false }, MINIMUM_CAPS);
}

test("equal programs have equal texts; every dispatch, value and result has its line", () => {
  fc.assert(
    fc.property(fc.nat(), (seed) => {
      const held = drawn(seed); // makes the constants, which are shared: their place in the order is that of the first use
      const plan = drawn(seed);
      const text = explainPlan(plan);
      expect(explainPlan(drawn(seed))).toBe(text);
      expect(held.outputs.length).toBe(plan.outputs.length);
      const lines = text.split("\n");
      const count = (pattern: RegExp): number => lines.filter((l) => pattern.test(l)).length;
      expect(count(/^ +computes \w/)).toBe(plan.setup.length + plan.dispatches.length);
      expect(count(/^result y\d+ /)).toBe(plan.outputs.length);
      expect(count(/^ +\d+ +\d+ +\d+-\d+ {2}@\d+ /)).toBe(plan.arena.offsets.length);
      // Each dispatch writes somewhere, and a value is written before it is read.
      const written = new Set<string>();
      for (const l of lines.filter((line) => /^ +(reads|writes|updates) /.test(line))) {
        const places = l.match(/[@#]\d+/g) ?? [];
        if (l.trim().startsWith("reads")) expect(places.filter((p) => !written.has(p))).toEqual([]);
        for (const p of places) written.add(p);
      }
      expect(count(/^ +(writes|updates) /)).toBeGreaterThanOrEqual(plan.dispatches.length);
    }),
    { seed: 1, numRuns: 60 },
  );
});
