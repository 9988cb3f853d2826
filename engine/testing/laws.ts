// Laws of whole programs, over random ones: fused equals unfused, compiled equals eager, one set of kernels equals another,
// and values that live at the same time never share memory. The programs are drawn over Tensor's methods (programs.ts), or
// by the caller.

import { type Caps, MINIMUM_CAPS } from "../../kernels/wgsl.ts";
import { compile, type Named } from "../compile.ts";
import { type Device, device, type Program, useDevice } from "../device.ts";
import type { DType } from "../dtype.ts";
import { type Node, print, substitute, toposort } from "../graph.ts";
import type { Array64 } from "../ops/op.ts";
import type { FuseOptions } from "../plan/fuse.ts";
import { ALIGNMENT, type Arena, type Interval } from "../plan/memory.ts";
import { makePlan, type Plan } from "../plan/plan.ts";
import { evaluate64 } from "../reference.ts";
import { Storage } from "../storage.ts";
import { fromStorage, Tensor } from "../tensor.ts";
import { type Check, type CheckOptions, forAll, type Report, runChecks, Skip, type Verdict } from "./check.ts";
import { bitDifference, difference, magnitude } from "./close.ts";
import { drawn, uniforms, values } from "./draw.ts";
import { interpret } from "./interpret.ts";
import { type LeafValues, leavesOf } from "./leaves.ts";
import { type DrawProgram, drawProgram } from "./programs.ts";

/** A drawn program's results; its leaves are on the host, with values that follow from the seed. */
function build(draw: Parameters<DrawProgram>[0], program: DrawProgram): (seed: number) => Tensor[] {
  const wanted: { shape: readonly number[]; dtype: DType; below: number; storage: Storage }[] = [];
  const outs = program(draw, (shape, dtype = "f32", below = 8) => {
    const storage = new Storage(shape, dtype, null);
    wanted.push({ shape, dtype, below, storage });
    return fromStorage(storage);
  });
  return (seed) => {
    const next = uniforms(seed);
    for (const w of wanted) w.storage.write(values(w, next));
    return outs;
  };
}

/** Checks of programs. `draw` makes one out of choices and leaves; random programs over the op table when absent. */
export function lawChecks(draw: DrawProgram = drawProgram, subject = "programs"): Check[] {
  const check = (
    law: string,
    needs: Check["needs"],
    judge: (outs: Tensor[], seed: number) => Verdict | Promise<Verdict>,
  ): Check => ({
    subject,
    law,
    needs,
    run: (budget) =>
      forAll(
        drawn((d) => build(d, draw)),
        budget,
        async (made, seed) => {
          const outs = made(seed);
          const verdict = await judge(outs, seed);
          return typeof verdict === "string" ? `${verdict}\n${print(outs.map((t) => t.node))}` : verdict;
        },
      ),
  });
  return [
    check("fused equals unfused", "host", (outs) => hostProblem(outs, { maxBindings: 16, fuse: true })),
    check("fused for eight bindings equals unfused", "host", (outs) =>
      hostProblem(outs, { maxBindings: 8, fuse: true, epilogues: () => "bias" }),
    ),
    check("one op per kernel equals the definition", "host", (outs) =>
      hostProblem(outs, { maxBindings: 16, fuse: false }),
    ),
    check("live values never share memory", "host", (outs) => {
      const problem = (chain: "all" | false) => memoryProblem(makePlan(programOf(outs), MINIMUM_CAPS, { chain }));
      return problem(false) ?? problem("all");
    }),
    check("WGSL equals the definition", "gpu", (outs, seed) => wgslProblem(outs, seed, device())),
    check("compiled equals eager", "gpu", compiledProblem),
    check("other kernels equal the definition", "gpu", otherProblem),
  ];
}

/** Runs every law of programs. Throws CheckError with the smallest program that breaks one, printed node by node. */
export function checkLaws(options: CheckOptions & { readonly draw?: DrawProgram } = {}): Promise<Report> {
  return runChecks(lawChecks(options.draw), options);
}

export function programOf(outs: readonly Tensor[]): Program {
  const outputs = Object.fromEntries(outs.map((t, i) => [`y${i}`, t.node]));
  return { name: "drawn", inputs: {}, outputs, assigns: [], reused: false };
}

/** Results against the float64 definition, relative to the largest of each or to 1. */
async function programProblem(
  outs: readonly Tensor[],
  got: (out: Tensor, index: number) => ArrayLike<number> | Promise<ArrayLike<number>>,
  rtol: number,
): Promise<string | null> {
  const roots = outs.map((t) => t.node);
  const want = evaluate64(roots, await leavesOf(outs));
  for (const [i, out] of outs.entries()) {
    const { data } = want.get(out.node) as Array64;
    const wrong = difference(await got(out, i), data, { rtol, scale: Math.max(1, magnitude(data)) });
    if (wrong) return `result ${i}: ${wrong}`;
  }
  return null;
}

export async function hostProblem(outs: readonly Tensor[], options: FuseOptions): Promise<string | null> {
  const found = interpret(programOf(outs), await leavesOf(outs), options);
  return programProblem(outs, (out) => (found.get(out.node) as Array64).data, 1e-12); // the same float64 operations
}

// ---- on the device ---------------------------------------------------------------------------------------------------

/** A dozen ops of a few ulp each, some of which amplify: far above rounding, far below any wrong index. */
const PROGRAM_RTOL = 1e-4;

export async function wgslProblem(outs: readonly Tensor[], seed: number, on: Device): Promise<Verdict> {
  const found = on.run(programOf(outs), {});
  const wrong = await programProblem(outs, (_, i) => on.read(found[`y${i}`]), PROGRAM_RTOL);
  if (!wrong) return null;
  return (await illConditioned(outs, seed)) ? new Skip("ill-conditioned") : wrong;
}

/**
 * Would the definition itself give something else if every value were off by a float32 rounding? Then neither result is
 * wrong: a sum that cancels to zero, or a floor of a whole number.
 */
async function illConditioned(outs: readonly Tensor[], seed: number): Promise<boolean> {
  const roots = outs.map((t) => t.node);
  const leaves = await leavesOf(outs);
  const exact = evaluate64(roots, leaves);
  const next = uniforms(seed);
  return [1, 2, 3, 4].some(() => {
    const shaken = evaluateShaken(roots, leaves, next);
    return roots.some((r) => {
      const { data } = exact.get(r) as Array64;
      const rtol = PROGRAM_RTOL / 2;
      return difference((shaken.get(r) as Array64).data, data, { rtol, scale: Math.max(1, magnitude(data)) }) !== null;
    });
  });
}

/** evaluate64, with every float off by up to four roundings of float32 relative to the largest of its tensor. */
function evaluateShaken(roots: readonly Node[], leaves: LeafValues, next: () => number): Map<Node, Array64> {
  const done = new Map<Node, Array64>();
  for (const node of toposort(roots)) {
    const { data, shape } = evaluate64([node], leaves, done).get(node) as Array64;
    const unit = node.dtype === "f32" && node.src.length > 0 ? magnitude(data) * 2 ** -22 : 0;
    done.set(node, { shape, data: data.map((x) => x + unit * (2 * next() - 1)) });
  }
  return done;
}

/** The program as a compiled step that is fed its leaves, twice, against the eager results: the same bits. */
async function compiledProblem(outs: readonly Tensor[]): Promise<Verdict> {
  const roots = outs.map((t) => t.node);
  const leaves = toposort(roots).filter((n) => n.storage);
  const feed = Object.fromEntries(leaves.map((n, i) => [`x${i}`, new Tensor(n)]));
  const step = compile((fed: Named): Named => {
    const placed = new Map(leaves.map((n, i) => [n, fed[`x${i}`].node]));
    return Object.fromEntries(substitute(roots, placed).map((n, i) => [`y${i}`, new Tensor(n)]));
  });
  const eager = device().run(programOf(outs), {});
  for (const call of ["compiled", "replayed"]) {
    const got = step(feed);
    for (const name of Object.keys(eager)) {
      const wrong = bitDifference(await got[name].data(), await device().read(eager[name]));
      if (wrong) return `eager and then ${call}, result ${name}: ${wrong}`;
    }
  }
  return null;
}

/** Devices whose kernels are those of another machine, for as long as the device they were opened beside is open. */
const others = new WeakMap<Device, Promise<Device>>();

async function otherProblem(outs: readonly Tensor[], seed: number): Promise<Verdict> {
  const open = device();
  const other = others.get(open) ?? openOther(open.caps);
  others.set(open, other);
  try {
    return await wgslProblem(outs, seed, await other);
  } finally {
    useDevice(open);
  }
}

/** Closes what the checks have opened beside `open`. */
export async function closeOthers(open: Device): Promise<void> {
  (await others.get(open))?.close();
  others.delete(open);
}

/** A second device on the same adapter that takes the kernels of a GPU without subgroups, or of a CPU on a GPU. */
async function openOther(caps: Caps): Promise<Device> {
  const { openGpu } = await import("../runtime/gpu.ts");
  return openGpu({ caps: { adapter: caps.adapter === "cpu" ? "gpu" : "cpu", subgroupSize: 0 } });
}

// ---- memory ----------------------------------------------------------------------------------------------------------

/** Names two intervals that share a moment and a byte, or a misplaced one; null when the arena is sound. */
export function arenaProblem(intervals: readonly Interval[], { offsets, bytes, slab }: Arena): string | null {
  for (const [i, a] of intervals.entries()) {
    if (Math.floor(offsets[i] / slab) !== Math.floor((offsets[i] + a.bytes - 1) / slab))
      return `interval ${i} lies across the end of a slab`;
    if (offsets[i] % ALIGNMENT !== 0) return `interval ${i} starts at ${offsets[i]}`;
    if (offsets[i] + a.bytes > bytes) return `interval ${i} ends past the arena`;
    for (const [j, b] of intervals.entries()) {
      const together = j > i && a.first <= b.last && b.first <= a.last;
      if (together && offsets[i] < offsets[j] + b.bytes && offsets[j] < offsets[i] + a.bytes)
        return `intervals ${i} and ${j} overlap`;
    }
  }
  return null;
}

/** When each arena place of a plan is touched, from the dispatches alone. */
export function lifetimes(plan: Plan): Interval[] {
  const found: { bytes: number; first: number; last: number }[] = [];
  const touch = (p: Plan["outputs"][number]["place"], time: number): void => {
    if (p.kind !== "arena") return;
    const known = found[p.index] ?? { bytes: p.bytes, first: time, last: time };
    found[p.index] = { bytes: p.bytes, first: Math.min(known.first, time), last: Math.max(known.last, time) };
  };
  plan.dispatches.forEach((d, time) => {
    for (const p of d.places) touch(p, time);
  });
  for (const o of plan.outputs) touch(o.place, plan.dispatches.length);
  return found;
}

export function memoryProblem(plan: Plan): string | null {
  return arenaProblem(lifetimes(plan), plan.arena);
}
