// A kernel family as checks: every variant against the family's float64 definition over drawn specs, as each kind of machine
// would run it, twice with the same bits; and its WGSL type-checked for machines that are not here.

import { chainKernel, takeApart } from "../../kernels/chain.ts";
import {
  type Caps,
  type Family,
  type KernelSource,
  type Lowered,
  MINIMUM_CAPS,
  type Operand,
  storage,
  type Variant,
  wgsl,
} from "../../kernels/wgsl.ts";
import { device } from "../device.ts";
import {
  type Budget,
  type Check,
  type CheckOptions,
  forAll,
  type Outcome,
  type Report,
  runChecks,
  Skip,
  type Verdict,
} from "./check.ts";
import { bitDifference, difference, magnitude } from "./close.ts";
import { drawn, uniforms, values } from "./draw.ts";
import { type Machine, prepare, type Values } from "./runner.ts";

// biome-ignore lint/suspicious/noExplicitAny: existential type: specs differ per family
export type AnyFamily = Family<any>;

export interface KernelCheckOptions extends CheckOptions {
  /** Check this variant alone, which need not be in the family's list. */
  // biome-ignore lint/suspicious/noExplicitAny: existential type, see above
  readonly variant?: Variant<any>;
}

/**
 * Checks a kernel family: a variant for every spec on the weakest device, WGSL that compiles for every kind of machine, and
 * every variant equal to `reference` over drawn specs on the open GPU device, the same bits twice, whatever the buffers held
 * before, and joined with other kernels as plans join small ones. Throws CheckError: "matmul/shuffle, {"m":3,...}: output 0, element 4: expected ..., got ...".
 */
export function checkKernel(family: AnyFamily, options: KernelCheckOptions = {}): Promise<Report> {
  const { variant } = options;
  const checks = kernelChecks(variant ? { ...family, variants: [variant] } : family);
  return runChecks(variant ? checks.filter((c) => c.law !== COVERS) : checks, options);
}

const COVERS = "a variant for every spec on the weakest device";

export function kernelChecks(family: AnyFamily): Check[] {
  const check = (law: string, needs: Check["needs"], run: (budget: Budget) => Promise<Outcome>): Check => ({
    subject: `kernel ${family.name}`,
    law,
    needs,
    run,
  });
  const specs = drawn((d) => family.draw(d));
  return [
    check(COVERS, "host", (budget) => forAll(specs, budget, (spec) => coverageProblem(family, spec))),
    check("WGSL compiles for every machine", "dawn", (budget) => compileAll(family, budget)),
    check("every variant equals the definition", "gpu", async (budget) => {
      const runs: Record<string, number> = {};
      const outcome = await forAll(specs, budget, (spec, seed) => variantsProblem(family, spec, seed, runs));
      return { ...outcome, runs };
    }),
    check("joined with others equals the definition", "gpu", (budget) =>
      forAll(specs, budget, (spec, seed) => joinedProblem(family, spec, seed)),
    ),
  ];
}

function coverageProblem(family: AnyFamily, spec: unknown): string | null {
  if (family.rtol > 0 && !family.why)
    return `${family.name}: rtol ${family.rtol} has no reason: say in a line, \`why\`, what it allows for`;
  const last = family.variants.at(-1);
  if (last?.supports(spec, MINIMUM_CAPS)) return null;
  return `${family.name}: the last variant, ${last?.name}, does not support ${JSON.stringify(spec)} on WebGPU's minimum limits`;
}

// ---- WGSL as text ----------------------------------------------------------------------------------------------------

const CPU: Caps = { ...MINIMUM_CAPS, adapter: "cpu", maxInvocations: 1024, maxWorkgroupMemory: 32768 };
/** Machines that need not be here: kernels for them are type-checked. */
const ELSEWHERE: readonly Caps[] = [
  MINIMUM_CAPS,
  CPU,
  { ...CPU, subgroupSize: 4 },
  { ...CPU, subgroupSize: 8 },
  { ...CPU, subgroupSize: 16 },
  { ...MINIMUM_CAPS, subgroupSize: 32, maxInvocations: 1024, maxWorkgroupMemory: 49152 },
  { ...MINIMUM_CAPS, maxWorkgroupsPerDim: 2 }, // grids of small specs fit in one row elsewhere: here they must fold
];

/** Dawn's back end that compiles for no hardware; opened at the first check that needs it, for the length of a run. */
async function compileAll(family: AnyFamily, budget: Budget): Promise<Outcome> {
  const { openDawn } = await import("../runtime/dawn.ts");
  const dawn = await openDawn({ backend: "null" });
  try {
    return await forAll(
      drawn((d) => family.draw(d)),
      budget,
      async (spec) => {
        for (const caps of ELSEWHERE)
          for (const variant of family.variants) {
            if (!variant.supports(spec, caps)) continue;
            const lowered = variant.emit(spec, caps);
            const words = `${family.name}/${variant.name}, ${JSON.stringify(spec)}`;
            const wrong = loweredProblem(family, spec, lowered, caps) ?? (await textProblem(lowered, dawn));
            if (wrong) return `${words}: ${wrong}`;
          }
        return null;
      },
    );
  } finally {
    dawn.release();
  }
}

/** Rows of workgroups that every machine has: `foldGrid` makes y of what x does not hold. */
const ROWS = MINIMUM_CAPS.maxWorkgroupsPerDim;

/** Operands that exist, bindings and grids within the machine's limits. */
function loweredProblem(family: AnyFamily, spec: unknown, lowered: Lowered, caps: Caps): string | null {
  const buffers = family.inputs(spec).length + family.outputs(spec).length + lowered.scratch.length;
  for (const { source, operands } of lowered.passes) {
    const stray = operands.find((o) => !(o >= 0 && o < buffers));
    if (stray !== undefined) return `${source.label} binds operand ${stray} of ${buffers}`;
    if (operands.length > caps.maxBindings)
      return `${source.label} has ${operands.length} bindings, ${caps.maxBindings} fit`;
    const [x, y, z] = source.workgroups;
    if (x > caps.maxWorkgroupsPerDim || z > caps.maxWorkgroupsPerDim || y > Math.max(ROWS, caps.maxWorkgroupsPerDim))
      return `${source.label} has a grid of ${source.workgroups.join(" x ")} workgroups where ${caps.maxWorkgroupsPerDim} fit along one dimension (foldGrid)`;
  }
  return null;
}

/** Texts that a device's compiler has accepted. */
const accepted = new WeakMap<GPUDevice, Set<string>>();

/** Names of WGSL's extensions as features of a device, where the two differ. */
const FEATURES: Readonly<Record<string, string>> = {
  f16: "shader-f16",
  chromium_experimental_subgroup_matrix: "chromium-experimental-subgroup-matrix",
};

/** Dawn's null back end knows every extension; a browser's device, which stands in for it there, those of its adapter. */
function allows(gpu: GPUDevice, wgsl: string): boolean {
  return [...wgsl.matchAll(/^\s*enable (\w+);/gm)].every(([, name]) => gpu.features.has(FEATURES[name] ?? name));
}

/** The compiler's first complaint about a kernel, with the line it is about. */
async function textProblem(lowered: Lowered, { device: gpu }: Machine): Promise<string | null> {
  const known = accepted.get(gpu) ?? new Set<string>();
  accepted.set(gpu, known);
  for (const { source } of lowered.passes) {
    if (known.has(source.wgsl) || !allows(gpu, source.wgsl)) continue;
    gpu.pushErrorScope("validation");
    const { messages } = await gpu.createShaderModule({ code: source.wgsl, label: source.label }).getCompilationInfo();
    await gpu.popErrorScope();
    const error = messages.find((m) => m.type === "error");
    const line = error && source.wgsl.split("\n")[error.lineNum - 1];
    if (error) return `${source.label}, line ${error.lineNum}: ${error.message}: ${line?.trim()}`;
    known.add(source.wgsl);
  }
  return null;
}

// ---- on the device ---------------------------------------------------------------------------------------------------

/** The open GPU device without the engine around it. */
function machine(): Machine {
  const open = device() as { dawn?: Machine };
  if (!open.dawn) throw new TypeError("checkKernel: the open device is not a GPU");
  return open.dawn;
}

/** The machines a kernel may be emitted for; the one at hand can run the kernels of all of them. */
function machinesOf(real: Caps): readonly Caps[] {
  return [
    real,
    MINIMUM_CAPS,
    { ...real, adapter: "cpu", subgroupSize: 0 },
    { ...real, adapter: "gpu", subgroupSize: 0 },
    { ...MINIMUM_CAPS, maxWorkgroupsPerDim: 7 }, // several rows of workgroups, the last one overshooting
  ];
}

/** Inputs of a spec, from one seed. @internal */
export function kernelInputs(operands: readonly Operand[], seed: number): Values[] {
  const next = uniforms(seed);
  return operands.map(
    ({ dtype, size, below = 2 ** 31, domain }) => values({ shape: [size], dtype, below }, next, domain) as Values,
  );
}

interface Emitted {
  readonly variant: string;
  readonly caps: Caps;
  readonly lowered: Lowered;
}

/** What the variants make of a spec for every machine that the one at hand can stand in for, drawn inputs and the definition. */
function emitted(family: AnyFamily, spec: unknown, seed: number, { caps: real }: Machine) {
  const inputs = kernelInputs(family.inputs(spec), seed);
  const want = family.reference(
    spec,
    inputs.map((v) => Float64Array.from(v)),
  );
  const all = machinesOf(real).flatMap((caps): Emitted[] =>
    family.variants
      .filter((v) => v.supports(spec, caps))
      .map((v) => ({ variant: v.name, caps, lowered: v.emit(spec, caps) })),
  );
  return { inputs, want, all };
}

/** Every variant that some machine would run on this spec, against the definition. Same text and sizes run once. */
async function variantsProblem(
  family: AnyFamily,
  spec: unknown,
  seed: number,
  runs: Record<string, number>,
): Promise<string | null> {
  const bare = machine();
  const { inputs, want, all } = emitted(family, spec, seed, bare);
  const ran = new Set<string>();
  for (const { variant, caps, lowered } of all) {
    const words = `${family.name}/${variant}, ${JSON.stringify(spec)}`;
    const beyond = loweredProblem(family, spec, lowered, caps);
    if (beyond) return `${words}: ${beyond}`;
    const key = JSON.stringify(lowered.passes.map(({ source }) => [source.wgsl, source.uniforms, source.workgroups]));
    if (ran.has(key)) continue;
    ran.add(key);
    runs[variant] = (runs[variant] ?? 0) + 1;
    const wrong = await kernelProblem(bare, family, spec, lowered, inputs, want);
    if (wrong) return `${words}: ${wrong}`;
  }
  return null;
}

/** A kernel that knows nothing of others. */
const NEIGHBOUR: KernelSource = {
  label: "neighbour",
  wgsl: wgsl`
    ${storage([["y", "u32"]])}
    @compute @workgroup_size(64)
    fn main(@builtin(local_invocation_index) i: u32) { y[i] = i; }
  `,
  workgroups: [1, 1, 1],
  uniforms: [],
};

/** Workgroups that a plan might let one workgroup run. */
const FEW = 256;

/** The passes of a kernel and a neighbour on either side as one kernel; null where they cannot be joined. */
function joinedWithOthers({ passes, scratch }: Lowered, buffers: number, caps: Caps): Lowered | null {
  const around = { source: NEIGHBOUR, operands: [buffers] };
  const all = [around, ...passes, around];
  const kernels = all.map(({ source }) => takeApart(source)).filter((k) => k !== null);
  if (kernels.length < all.length || all.some(({ source }) => source.workgroups[0] > FEW)) return null;
  const operands = all.map((p) => p.operands);
  const source = buffers < caps.maxBindings ? chainKernel(kernels, operands, buffers + 1, caps) : null;
  const places = Array.from({ length: buffers + 1 }, (_, i) => i);
  return source && { passes: [{ source, operands: places }], scratch: [...scratch, 64] };
}

/** Every variant as a part of a chain. Skipped where none can be one. */
async function joinedProblem(family: AnyFamily, spec: unknown, seed: number): Promise<Verdict> {
  const bare = machine();
  const { inputs, want, all } = emitted(family, spec, seed, bare);
  const ran = new Set<string>();
  for (const { variant, caps, lowered } of all) {
    const joined = joinedWithOthers(lowered, inputs.length + want.length + lowered.scratch.length, caps);
    if (!joined || ran.has(joined.passes[0].source.wgsl)) continue;
    ran.add(joined.passes[0].source.wgsl);
    const wrong = await kernelProblem(bare, family, spec, joined, inputs, want);
    if (wrong) return `${family.name}/${variant} between other kernels, ${JSON.stringify(spec)}: ${wrong}`;
  }
  return ran.size > 0 ? null : new Skip("its kernels are not joined with others");
}

/** What the errors of each output are relative to. */
function scalesOf(
  family: AnyFamily,
  spec: unknown,
  inputs: readonly Values[],
  want: readonly Float64Array[],
): number[] {
  if (!family.sums) return want.map(magnitude);
  const positive = inputs.map((v) => Float64Array.from(v, (x) => (v instanceof Float32Array ? Math.abs(x) : x)));
  return family.reference(spec, positive).map(magnitude);
}

/** Runs a kernel twice: right the first time, the same bits the second. Null, or what is wrong. @internal */
export async function kernelProblem(
  bare: Machine,
  family: AnyFamily,
  spec: unknown,
  lowered: Lowered,
  inputs: readonly Values[],
  want: readonly Float64Array[],
): Promise<string | null> {
  const scales = scalesOf(family, spec, inputs, want);
  const text = await textProblem(lowered, bare);
  if (text) return text;
  const prepared = await prepare(bare, lowered, inputs, family.outputs(spec));
  try {
    prepared.dispatch();
    const once = await prepared.read();
    prepared.dispatch();
    const twice = await prepared.read();
    for (const [i, w] of want.entries()) {
      const wrong = difference(once[i], w, { rtol: family.rtol, scale: scales[i] });
      if (wrong) return `output ${i}, ${wrong}${family.why ? ` (rtol ${family.rtol}: ${family.why})` : ""}`;
      const changed = bitDifference(twice[i], once[i]);
      if (changed) return `output ${i} is not the same on every run, ${changed}`;
    }
    return null;
  } finally {
    prepared.destroy();
  }
}
