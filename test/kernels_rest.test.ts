// Every variant of softmax, norm, attention, gather, random and resize against its float64 definition, over drawn specs,
// on the real adapter as each kind of machine would use it; and the properties that only these families have.
// Matmul, convolution, elementwise and generic reductions are tested elsewhere.

import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import * as attentionFile from "../kernels/attention.ts";
import * as gatherFile from "../kernels/gather.ts";
import * as normFile from "../kernels/norm.ts";
import {
  bitsAt,
  NORMAL_TABLE_SIZE,
  normalAt,
  normalTable,
  type RandomSpec,
  type RandomState,
  random,
  threefry2x32,
  uniformAt,
  families as randomFamilies,
} from "../kernels/random.ts";
import * as resizeFile from "../kernels/resize.ts";
import * as softmaxFile from "../kernels/softmax.ts";
import { type Caps, choose, type Draw, type Family, type Lowered, MINIMUM_CAPS, type Operand, type Variant } from "../kernels/wgsl.ts";
import { type BareDevice, openBare, prepare, type Values } from "./kernel_runner.ts";

const families = [softmaxFile, normFile, attentionFile, gatherFile, { families: randomFamilies }, resizeFile].flatMap(
  (file) => file.families,
);

// Both devices are opened once; the null one only type-checks.
let real: BareDevice;
let checker: BareDevice;

beforeAll(async () => {
  const opened = await openBare();
  if (!opened) throw new Error("no WebGPU adapter: install a Vulkan driver (Mesa lavapipe will do)");
  real = opened;
  checker = (await openBare(["backend=null"]))!;
});

afterAll(() => {
  real?.device.destroy();
  checker?.device.destroy();
});

/** The machines a kernel may be emitted for; all of them can run on the adapter at hand. */
function machines(): Record<string, Caps> {
  return {
    real: real.caps,
    minimum: MINIMUM_CAPS,
    gpu: { ...real.caps, adapter: "gpu", subgroupSize: 0, maxWorkgroupMemory: 32768, maxInvocations: 256 },
    "cpu without subgroups": { ...real.caps, adapter: "cpu", subgroupSize: 0 },
    "folded grid": { ...MINIMUM_CAPS, maxWorkgroupsPerDim: 3 },
  };
}

const drawer = (g: fc.GeneratorValue): Draw => ({
  int: (lo, hi) => g(fc.integer, { min: lo, max: hi }),
  pick: (choices) => choices[g(fc.nat, { max: choices.length - 1 })],
});

/** Inputs of a spec, from one seed: f32 uniform in [-2, 2), integers uniform below their bound. */
function drawInputs(operands: readonly Operand[], seed: number): Values[] {
  return operands.map(({ dtype, size, below = 2 ** 31 }, i) => {
    const at = (e: number): number => uniformAt([seed, i, 0], 0, e);
    if (dtype === "f32") return Float32Array.from({ length: size }, (_, e) => 4 * at(e) - 2);
    const words = Array.from({ length: size }, (_, e) => Math.floor(at(e) * below));
    return dtype === "i32" ? Int32Array.from(words) : Uint32Array.from(words);
  });
}

/** Largest difference relative to the largest magnitude expected; NaN counts as infinitely wrong. */
function error(got: Values, want: ArrayLike<number>): number {
  let worst = 0;
  let scale = 1e-30;
  for (let i = 0; i < want.length; i++) {
    const d = Math.abs(got[i] - want[i]);
    worst = Math.max(worst, Number.isNaN(d) ? Infinity : d);
    scale = Math.max(scale, Math.abs(want[i]));
  }
  return worst / scale;
}

async function execute(lowered: Lowered, inputs: readonly Values[], outputs: readonly Operand[]): Promise<Values[]> {
  const prepared = await prepare(real, lowered, inputs, outputs);
  prepared.dispatch();
  const got = await prepared.read();
  prepared.destroy();
  return got;
}

async function check<S>(family: Family<S>, lowered: Lowered, spec: S, inputs: readonly Values[]): Promise<void> {
  const outputs = family.outputs(spec);
  const got = await execute(lowered, inputs, outputs);
  const want = family.reference(spec, inputs.map((v) => Float64Array.from(v)));
  for (const [i, w] of want.entries()) {
    expect(w.length, "size of the reference").toBe(outputs[i].size);
    expect(error(got[i], w), `${lowered.passes[0].source.label} on ${JSON.stringify(spec)}`).toBeLessThanOrEqual(family.rtol);
  }
}

const checked = new Set<string>();

/** Tint's opinion of a kernel, once per text. The null back end compiles for no machine, so this is cheap. */
async function typeCheck(lowered: Lowered): Promise<void> {
  for (const { source } of lowered.passes) {
    if (checked.has(source.wgsl)) continue;
    const module = checker.device.createShaderModule({ code: source.wgsl, label: source.label });
    const { messages } = await module.getCompilationInfo();
    expect(messages.map((m) => `${source.label}:${m.lineNum}: ${m.message}`)).toEqual([]);
    checked.add(source.wgsl);
  }
}

const variantsOf = (family: Family<unknown>): [string, Variant<unknown>][] => family.variants.map((v) => [v.name, v]);

describe.each(families.map((f) => [f.name, f] as const))("%s", (_name, family) => {
  test("has a variant for every spec on the weakest device", () => {
    fc.assert(
      fc.property(fc.gen(), (g) => {
        const last = family.variants.at(-1);
        const spec = family.draw(drawer(g));
        expect(choose(family, spec, MINIMUM_CAPS)).toBeDefined();
        expect(last?.supports(spec, MINIMUM_CAPS)).toBe(true);
      }),
      { seed: 1, numRuns: 50 },
    );
  });

  test.each(variantsOf(family))("%s equals the definition", async (name, variant) => {
    let ran = 0;
    for (const [machine, caps] of Object.entries(machines())) {
      const property = fc.asyncProperty(fc.gen(), fc.integer({ min: 0, max: 2 ** 31 - 1 }), async (g, seed) => {
        const spec = family.draw(drawer(g));
        if (!variant.supports(spec, caps)) return;
        ran++;
        const lowered = variant.emit(spec, caps);
        await typeCheck(lowered);
        for (const { source } of lowered.passes) {
          expect(Math.max(...source.workgroups), machine).toBeLessThanOrEqual(caps.maxWorkgroupsPerDim);
        }
        await check(family, lowered, spec, drawInputs(family.inputs(spec), seed));
      });
      await fc.assert(property, { seed: 1, numRuns: 8 });
    }
    expect(ran, `specs that ${name} ran on`).toBeGreaterThan(0);
  });
});
