// Every kernel that the planner emits for representative programs, for three kinds of machine, type-checked by Dawn's null
// back end, which compiles for no hardware and so exists everywhere; and within what the machine said it can bind.

import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { grad } from "../engine/autograd.ts";
import { trace } from "../engine/compile.ts";
import type { Program } from "../engine/device.ts";
import { interpolate, maxPool } from "../engine/nn/index.ts";
import { allOps } from "../engine/ops/op.ts";
import { makePlan } from "../engine/plan/plan.ts";
import { type Dawn, openDawn } from "../engine/runtime/dawn.ts";
import { Parameter, Rng } from "../engine/state.ts";
import { type Tensor, tensor } from "../engine/tensor.ts";
import { drawer } from "../engine/testing/draw.ts";
import { drawProgram } from "../engine/testing/programs.ts";
import { withHalves } from "../kernels/half.ts";
import { type Caps, type KernelSource, MINIMUM_CAPS } from "../kernels/wgsl.ts";

const CPU: Caps = {
  ...MINIMUM_CAPS,
  adapter: "cpu",
  subgroupSize: 8,
  subgroupIds: true,
  maxBindings: 16,
  maxInvocations: 1024,
  maxWorkgroupMemory: 32768,
};
const GPU: Caps = {
  ...MINIMUM_CAPS,
  subgroupSize: 32,
  maxBindings: 10,
  maxInvocations: 1024,
  maxWorkgroupMemory: 49152,
};
const machines: [string, Caps][] = [
  ["the weakest device", MINIMUM_CAPS],
  ["a CPU with subgroups of 8", CPU],
  ["a GPU with subgroups of 32", GPU],
  ["a GPU with matrix units", { ...GPU, matrices: [{ m: 8, n: 8, k: 8, input: "f32", result: "f32" }] }],
];

let dawn: Dawn;
beforeAll(async () => {
  dawn = await openDawn({ backend: "null" });
});
afterAll(() => dawn.release());

const checked = new Set<string>();

/** Tint's complaints about a kernel, with the offending line; each text is checked once. */
async function complaints({ wgsl, label }: KernelSource): Promise<string[]> {
  if (checked.has(wgsl)) return [];
  checked.add(wgsl);
  dawn.device.pushErrorScope("validation");
  const { messages } = await dawn.device.createShaderModule({ code: wgsl }).getCompilationInfo();
  await dawn.device.popErrorScope();
  const lines = wgsl.split("\n");
  return messages.filter((m) => m.type === "error").map((m) => `${label}: ${m.message}: ${lines[m.lineNum - 1]}`);
}

const weight = (...shape: number[]): Parameter =>
  new Parameter(shape, () => new Float32Array(shape.reduce((a, b) => a * b, 1)));

/** A training step of `loss` on one input: forward, backward, an update with momentum. */
function training(name: string, shape: number[], weights: Parameter[], loss: (x: Tensor) => Tensor): Program {
  const momenta = weights.map((w) => weight(...w.shape));
  const step = ({ x }: Readonly<Record<string, Tensor>>): { total: Tensor } => {
    const total = loss(x);
    grad(total, weights).forEach((g, i) => {
      momenta[i].assign(momenta[i].mul(0.9).add(g));
      weights[i].assign(weights[i].sub(momenta[i].mul(0.01)));
    });
    return { total };
  };
  return trace(name, step, { x: { shape, dtype: "f32" } });
}

function programs(): Program[] {
  const [w1, b1, w2] = [weight(24, 32), weight(32), weight(32, 10)];
  const [k1, k2, k3] = [weight(3, 3, 3, 8), weight(3, 3, 8, 8), weight(3, 1, 1, 8, 8)];
  const [q, k, v] = [weight(16, 16), weight(16, 16), weight(16, 16)];
  const table = weight(30, 16);
  const rng = new Rng(1);
  const norm = (x: Tensor): Tensor => {
    const m = x.reshape([2, 64, 4, 2]).moments(1e-5);
    const part = (i: number): Tensor => m.slice(2, i, i + 1).reshape([2, 1, 4, 1]);
    return x.reshape([2, 64, 4, 2]).sub(part(0)).mul(part(1)).reshape(x.shape).silu();
  };
  return [
    training("mlp", [6, 24], [w1, b1, w2], (x) => x.matmul(w1).add(b1).gelu().matmul(w2).softmax().log().mean()),
    training("convolution", [2, 8, 8, 3], [k1, k2], (x) =>
      interpolate(maxPool(norm(x.conv(k1, { padding: 1 })).conv(k2, { padding: 1, stride: 2 }), 2), { size: [3, 5] })
        .square()
        .mean(),
    ),
    training("frames", [1, 4, 6, 6, 8], [k3], (x) =>
      x
        .conv(k3, { padding: [1, 0, 0] })
        .add(x)
        .relu()
        .mean(),
    ),
    training("attention", [2, 12, 16], [q, k, v], (x) => {
      const heads = (w: Parameter): Tensor => x.matmul(w).reshape([2, 12, 2, 8]);
      return heads(q).attention(heads(k), heads(v), { causal: true }).square().mean();
    }),
    training("lookup", [5], [table], (x) =>
      table
        .gatherRows(x.mul(7).cast("i32"))
        .add(rng.normal([5, 16]))
        .mul(rng.uniform([16]))
        .max(0)
        .sum(),
    ),
  ];
}

/** Random programs as well: shapes that no model has. */
function drawn(): Program[] {
  const made: Program[] = [];
  fc.assert(
    fc.property(fc.gen(), (g) => {
      const outs = drawProgram(drawer(g), (shape, dtype = "f32") =>
        tensor(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape, dtype),
      );
      made.push({
        name: "drawn",
        inputs: {},
        outputs: Object.fromEntries(outs.map((t, i) => [`y${i}`, t.node])),
        assigns: [],
        reused: false,
      });
    }),
    { seed: 7, numRuns: 40 },
  );
  return made;
}

describe.each(machines)("for %s", (_, caps) => {
  test("kernels are WGSL and within the limits", async () => {
    let kernels = 0;
    for (const program of [...programs(), ...drawn()]) {
      const [plan, joined] = ([false, "all"] as const).map((chain) => makePlan(program, caps, { chain }));
      for (const { source, places } of [...plan.setup, ...plan.dispatches, ...joined.dispatches]) {
        expect(await complaints(source)).toEqual([]);
        expect(places.length, source.label).toBeLessThanOrEqual(caps.maxBindings);
        expect(Math.max(...source.workgroups), source.label).toBeLessThanOrEqual(caps.maxWorkgroupsPerDim);
        kernels++;
      }
    }
    expect(kernels).toBeGreaterThan(100);
  });
});

test("a wrong kernel is found, with its line", async () => {
  const wgsl = "@compute @workgroup_size(1)\nfn main() {\n  let x: u32 = 1.5f;\n}\n";
  const found = await complaints({ label: "broken", wgsl, workgroups: [1, 1, 1], uniforms: [] });
  expect(found.length).toBe(1);
  expect(found[0]).toMatch(/^broken: .*: {3}let x: u32 = 1.5f;$/s);
});

test("every variant of every family type-checks with its float operands in 16 bits", async () => {
  expect(dawn.features).toContain("shader-f16");
  const families = new Map(
    allOps().flatMap((op) => (op.lower.kind === "kernel" ? [[op.lower.family.name, op.lower.family]] : [])),
  );
  const bad: string[] = [];
  const seen = new Set<string>();
  const narrow = (source: KernelSource, operands: readonly number[], halves: ReadonlySet<number>): KernelSource => {
    const text = operands.reduce((wgsl, o, i) => (halves.has(o) ? withHalves(wgsl, i) : wgsl), source.wgsl);
    return { ...source, wgsl: text === source.wgsl ? text : `enable f16;\n${text}` };
  };
  for (const [, caps] of machines)
    for (const [name, family] of families)
      for (const spec of fc.sample(
        fc.gen().map((g) => family.draw(drawer(g))),
        { numRuns: 10, seed: 1 },
      )) {
        const halves = new Set(family.inputs(spec).flatMap((o, i) => (o.dtype === "f32" ? [i] : [])));
        for (const variant of family.variants.filter((v) => v.supports(spec, caps)))
          for (const { source, operands } of variant.emit(spec, caps).passes) {
            const { wgsl, label } = narrow(source, operands, halves);
            if (/array<(vec4<)?f16>/.test(wgsl)) seen.add(name);
            bad.push(...(await complaints({ ...source, wgsl, label: `${name} ${label}` })));
          }
      }
  expect(bad).toEqual([]);
  expect(seen.size).toBeGreaterThan(10);
});
