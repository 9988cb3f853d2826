// An op's record as checks: its shape rule against its definition, gradients and second derivatives, its behaviour inside
// fused expressions, the laws it declares, and its WGSL on the open device, a kernel's on views and with ops behind it too.
// checkOp runs them all; the project's own tests loop over the op table with the same list.

import { compile, type Named } from "../compile.ts";
import { device, type Program } from "../device.ts";
import { type Data, toData } from "../dtype.ts";
import {
  type AnyOp,
  type Array64,
  contiguous,
  isComposite,
  type KernelLowering,
  type OpDef,
  type Sample,
} from "../ops/op.ts";
import { evaluate64 } from "../reference.ts";
import { numel, type Shape, sameShape } from "../shape.ts";
import { Storage } from "../storage.ts";
import { apply, fromStorage, type Tensor } from "../tensor.ts";
import {
  type Check,
  type CheckOptions,
  describeCall,
  forAll,
  type Report,
  runChecks,
  Skip,
  type Verdict,
} from "./check.ts";
import { bitDifference, difference, magnitude } from "./close.ts";
import { drawn, seededDraw } from "./draw.ts";
import { floats, gradientProblem, hvpProblem, Inputs, nothingToDifferentiate } from "./gradients.ts";
import { interpret } from "./interpret.ts";
import { kernelChecks } from "./kernels.ts";

type AnySample = Sample<never>;

/** One random call of an op, with float64 values for its inputs. */
interface Call {
  readonly op: AnyOp;
  readonly attrs: never;
  readonly wanted: AnySample["inputs"];
  readonly inputs: Inputs;
  readonly ins: readonly Tensor[];
  readonly out: Tensor;
  readonly seed: number;
}

type Judge = (call: Call) => Verdict | Promise<Verdict>;

function makeCall(op: AnyOp, sample: AnySample, seed: number): Call {
  const inputs = new Inputs(seed);
  const ins = sample.inputs.map((i) => inputs.make(i, op.domain));
  return { op, attrs: sample.attrs, wanted: sample.inputs, inputs, ins, out: apply(op, ins, sample.attrs), seed };
}

/** Every check of an op that says something about it. */
export function opChecks(op: AnyOp): Check[] {
  const check = (law: string, needs: Check["needs"], judge: Judge): Check => ({
    subject: `op ${op.name}`,
    law,
    needs,
    run: (budget) =>
      forAll(
        drawn((d) => op.draw(d) as AnySample),
        budget,
        async (sample, seed) => {
          const verdict = await judge(makeCall(op, sample, seed));
          const shapes = sample.inputs.map((i) => i.shape);
          return typeof verdict === "string" ? `${describeCall(op.name, shapes, sample.attrs)}: ${verdict}` : verdict;
        },
      ),
  });
  const differentiable = isComposite(op) || op.vjp !== "none";
  return [
    check("record", "host", recordProblem),
    ...(differentiable ? [check("gradient", "host", gradientOf)] : []),
    ...(differentiable ? [check("second derivative", "host", secondOf)] : []),
    check("fused equals unfused", "host", fusionProblem),
    ...lawsOf(op).map((law) => check(`law: ${law.name}`, "host", (call) => lawProblem(call, law))),
    check("WGSL equals the definition", "gpu", wgslProblem),
    ...(isComposite(op) && op.lower.kind === "kernel"
      ? [check("kernel equals decomposition", "gpu", decompositionProblem)]
      : []),
    ...(op.lower.kind === "kernel"
      ? [
          check("on views equals the definition", "gpu", viewsProblem),
          check("with ops behind it equals the definition", "gpu", behindProblem),
        ]
      : []),
    check("compiled equals eager", "gpu", compiledProblem),
  ];
}

/**
 * Checks an op's record, in the op table or not: shape rule, gradient, second derivative, fusion, declared laws, WGSL on the
 * open GPU device, and its kernel family when it has one. Throws CheckError with the smallest counterexample of each law
 * that fails: "permute, shapes [2,1,2], order [2,0,1]: gradient of input 0, element 1: expected 0.8, got 1.2".
 */
export function checkOp(op: AnyOp, options: CheckOptions = {}): Promise<Report> {
  const family = op.lower.kind === "kernel" ? kernelChecks(op.lower.family) : [];
  return runChecks([...opChecks(op), ...family], options);
}

// ---- on the host -----------------------------------------------------------------------------------------------------

function gradientOf({ out, ins, inputs, seed }: Call): Verdict {
  const wrt = floats(ins);
  return wrt.length === 0 ? nothingToDifferentiate() : gradientProblem(out, wrt, inputs, seed);
}

function secondOf({ out, ins, inputs }: Call): Verdict {
  const wrt = floats(ins);
  // Third derivatives are larger than second ones, and so is what central differences leave out.
  return wrt.length === 0 ? nothingToDifferentiate() : hvpProblem(out, wrt, inputs, { tolerance: 1e-5 });
}

/** Shape rule, definition and kernel must agree about sizes, and a tolerance needs a reason. */
function recordProblem(call: Call): Verdict {
  const { op, ins, out, attrs } = call;
  if (op.rtol > 0 && !op.why)
    return `rtol ${op.rtol} has no reason: say in a line of the record, \`why\`, what it allows for`;
  const bad = out.shape.find((n) => !Number.isInteger(n) || n < 0);
  if (bad !== undefined) return `the shape rule gives [${out.shape.join()}]`;
  if (isComposite(op)) {
    const whole = op.decompose(ins, attrs);
    if (!sameShape(whole.shape, out.shape))
      return `the shape rule gives [${out.shape.join()}], the decomposition [${whole.shape.join()}]`;
    if (whole.dtype !== out.dtype) return `the dtype rule gives ${out.dtype}, the decomposition ${whole.dtype}`;
  } else {
    const wrong = definitionProblem(op, call);
    if (wrong) return wrong;
  }
  return op.lower.kind === "kernel" ? sizesProblem(op.lower, call) : null;
}

/** Does the reference write every element of a result of the shape that the shape rule gives, and no other? */
function definitionProblem(op: OpDef, { ins, out, inputs, attrs }: Call): Verdict {
  const data = new Float64Array(numel(out.shape)).fill(Number.NaN);
  let outside: string | null = null;
  const guarded = new Proxy(data, {
    get: (target, key) => {
      const value = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
    set: (target, key, value) => {
      if (typeof key === "string" && /^-?\d+$/.test(key) && !(Number(key) in target)) outside ??= key;
      return Reflect.set(target, key, value, target);
    },
  });
  const rule = `the shape rule gives [${out.shape.join()}], but the reference`;
  try {
    const values = ins.map((t) => inputs.values.get(t.node) as Array64);
    op.reference(values, { shape: out.shape, data: guarded }, attrs);
  } catch (e) {
    return `${rule} throws ${(e as Error).message}`;
  }
  if (outside !== null) return `${rule} writes element ${outside}`;
  const unwritten = data.findIndex(Number.isNaN);
  return unwritten < 0 ? null : `${rule} leaves element ${unwritten} unwritten, or makes it NaN`;
}

function sizesProblem(lower: KernelLowering<never>, { ins, out, attrs, op }: Call): string | null {
  const shapes = ins.map((t) => t.shape);
  const spec = lower.spec(shapes, attrs, shapes.map(contiguous));
  const wanted = lower.family.inputs(spec);
  if (wanted.length !== ins.length)
    return `its kernel family reads ${wanted.length} tensors, ${op.name} has ${ins.length}`;
  const i = ins.findIndex((t, j) => wanted[j].size !== numel(t.shape));
  if (i >= 0)
    return `its kernel family reads ${wanted[i].size} elements of input ${i}, which has ${numel(ins[i].shape)}`;
  const [{ size }] = lower.family.outputs(spec);
  return size === numel(out.shape)
    ? null
    : `its kernel family writes ${size} elements, the result has ${numel(out.shape)}`;
}

function programOf(outs: readonly Tensor[]): Program {
  const outputs = Object.fromEntries(outs.map((t, i) => [`y${i}`, t.node]));
  return { name: "checked", inputs: {}, outputs, assigns: [], reused: false };
}

/** The op between views and elementwise ops, evaluated as the groups that the fuser makes, against op by op. */
function fusionProblem({ op, ins, attrs, inputs, seed }: Call): Verdict {
  const d = seededDraw(seed);
  const around = (x: Tensor): Tensor => {
    const axis = x.rank > 0 ? d.int(0, x.rank - 1) : -1;
    if (x.dtype !== "f32") return x;
    return d.pick([
      () => x,
      () => x.neg().neg(),
      () => (axis < 0 ? x : x.flip([axis])),
      () => (x.rank < 2 ? x : x.transpose().mul(1).transpose()),
      () => x.reshape([numel(x.shape)]).reshape(x.shape),
    ])();
  };
  const made = apply(op, ins.map(around), attrs);
  const out = around(made);
  const want = evaluate64([out.node], inputs.leaf).get(out.node) as Array64;
  const got = interpret(programOf([out]), inputs.leaf, { maxBindings: 16, fuse: true }).get(out.node) as Array64;
  const wrong = difference(got.data, want.data, { rtol: 1e-12 }); // the same float64 operations, in another order at most
  return wrong && `inside a fused expression, ${wrong}`;
}

type AnyLaw = NonNullable<AnyOp["laws"]>[number];

/** What every elementwise op owes: it does not see where an element is. */
const blind: AnyLaw = {
  name: "moving elements moves results",
  of: (ins, _, d) => {
    const axis = d.int(0, Math.max(0, ins[0].rank - 1));
    if (ins[0].rank === 0) return null;
    return { ins: ins.map((x) => x.flip([axis])), after: (y) => y.flip([axis]) };
  },
};

function lawsOf(op: AnyOp): readonly AnyLaw[] {
  return [...(op.lower.kind === "elementwise" ? [blind] : []), ...(op.laws ?? [])];
}

function lawProblem({ op, ins, attrs, inputs, out, seed }: Call, law: AnyLaw): Verdict {
  const changed = law.of(ins, attrs, seededDraw(seed));
  if (!changed) return new Skip("the law says nothing of this call");
  const again = changed.after(apply(op, changed.ins, changed.attrs ?? attrs));
  const [want, got] = inputs.evaluate([changed.seen?.(out) ?? out, again]);
  // Sums in another order: float64 keeps all but the last digits.
  const wrong = difference(got, want, { rtol: 1e-11, scale: Math.max(1, magnitude(want)) });
  return wrong && `${law.name}: ${wrong}`;
}

// ---- on the device ---------------------------------------------------------------------------------------------------

/** The tensor's values moved to a leaf that every device can read. */
function onDevice(t: Tensor, inputs: Inputs): Tensor {
  const { data } = inputs.values.get(t.node) as Array64;
  return fromStorage(new Storage(t.shape, t.dtype, toData(t.dtype, data)));
}

const moved = ({ ins, inputs }: Call): Tensor[] => ins.map((t) => onDevice(t, inputs));

/** What errors are relative to: for sums, what the magnitudes of the terms add up to. */
function scaleOf(
  { op, ins, inputs, attrs }: Pick<Call, "op" | "ins" | "inputs" | "attrs">,
  want: Float64Array,
): number {
  if (!op.sums) return Math.max(op.unit ?? 0, magnitude(want));
  const [terms] = inputs.evaluate([
    apply(
      op,
      ins.map((t) => (t.dtype === "f32" ? t.abs() : t)),
      attrs,
    ),
  ]);
  return magnitude(terms);
}

async function wgslProblem(call: Call): Promise<Verdict> {
  const { op, out, attrs, inputs } = call;
  const [want] = inputs.evaluate([out]);
  const got = await apply(op, moved(call), attrs).data();
  const wrong = difference(got, want, { rtol: op.rtol, scale: scaleOf(call, want) });
  return wrong && `on ${device().name}, ${wrong}${op.why ? ` (rtol ${op.rtol}: ${op.why})` : ""}`;
}

async function decompositionProblem(call: Call): Promise<Verdict> {
  const { op, attrs } = call;
  if (!isComposite(op)) return null;
  const ins = moved(call);
  const whole = await apply(op, ins, attrs).data();
  const parts = await op.decompose(ins, attrs).data();
  const wrong = difference(whole, parts, { rtol: 2 * op.rtol }); // both sides may be off by one rtol
  return wrong && `against its decomposition, ${wrong}`;
}

/** Operands that do not lie in memory row by row: the shape that is stored for one, and what makes the operand of it. */
const VIEWS: readonly { name: string; stored(shape: Shape): Shape; seen(x: Tensor, shape: Shape): Tensor }[] = [
  {
    name: "transposed",
    stored: (shape) => [...shape].reverse(),
    seen: (x) => x.permute([...x.shape.keys()].reverse()),
  },
  {
    name: "sliced",
    stored: (shape) => shape.map((n) => n + 1),
    seen: (x, shape) => x.sliceWith({ start: shape.map(() => 1), size: shape, step: shape.map(() => 1) }),
  },
  {
    name: "broadcast",
    stored: (shape) => shape.map((n, i) => (i === shape.findIndex((m) => m > 1) ? 1 : n)),
    seen: (x, shape) => x.expand(shape),
  },
];

/** A kernel reads what the op is given however it lies, or has it copied: `strided` says which. */
async function viewsProblem({ op, attrs, wanted, seed }: Call): Promise<Verdict> {
  if (wanted.every((w) => w.shape.length === 0)) return new Skip("no operand has an axis");
  for (const { name, stored, seen } of VIEWS) {
    const inputs = new Inputs(seed);
    const kept = wanted.map((w) => inputs.make({ ...w, shape: stored(w.shape) }, op.domain));
    const ins = kept.map((x, i) => seen(x, wanted[i].shape));
    const [want] = inputs.evaluate([apply(op, ins, attrs)]);
    const given = kept.map((x, i) => seen(onDevice(x, inputs), wanted[i].shape));
    const got = await apply(op, given, attrs).data();
    const scale = scaleOf({ op, ins, inputs, attrs }, want);
    const wrong = difference(got, want, { rtol: op.rtol, scale });
    if (wrong) return `on ${device().name}, operands ${name}, ${wrong}`;
  }
  return null;
}

/** What follows the op is computed behind its kernel, or in it: `epilogue` says which. */
async function behindProblem(call: Call): Promise<Verdict> {
  const { op, out, attrs, inputs } = call;
  const weights = inputs.make({ shape: out.shape }, [0.5, 1]);
  const ways: [string, (y: Tensor, w: Tensor) => Tensor][] = [
    ["a number added to it", (y) => y.cast("f32").add(0.5)],
    ["used twice behind it", (y, w) => y.cast("f32").mul(w).add(y.cast("f32"))],
  ];
  for (const [name, behind] of ways) {
    const [alone, want] = inputs.evaluate([out, behind(out, weights)]);
    const got = await behind(apply(op, moved(call), attrs), onDevice(weights, inputs)).data();
    // Twice the op's own error at most, and two roundings.
    const wrong = difference(got, want, { rtol: 2 * op.rtol + 2 ** -22, scale: scaleOf(call, alone) + 0.5 });
    if (wrong) return `on ${device().name}, ${name}, ${wrong}`;
  }
  return null;
}

/** A compiled step gives the bits of the eager call, and the same ones when it is replayed. */
async function compiledProblem(call: Call): Promise<Verdict> {
  const { op, attrs } = call;
  const ins = moved(call);
  const names = ins.map((_, i) => `x${i}`);
  const step = compile(
    (feed: Named) => ({
      y: apply(
        op,
        names.map((n) => feed[n]),
        attrs,
      ),
    }),
    { name: op.name },
  );
  const feed = Object.fromEntries(ins.map((t, i) => [names[i], t]));
  const eager = await apply(op, ins, attrs).data();
  const [first, second]: Data[] = [await step(feed).y.data(), await step(feed).y.data()];
  const replayed = bitDifference(second, first);
  if (replayed) return `replayed, ${replayed}`;
  const compiled = bitDifference(first, eager);
  return compiled && `eager and then compiled, ${compiled}`;
}
