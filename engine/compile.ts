// compile(step): trace a function once per input shapes, then replay. Arguments vary from call to call; everything the
// function captures is a constant of the trace, except Parameters and Rng, which are state.

import { device, type FeedValue, type Program } from "./device.ts";
import type { DType } from "./dtype.ts";
import { ShapeError, show } from "./error.ts";
import { leaf } from "./graph.ts";
import { placeholder } from "./ops/leaf.ts";
import type { Shape } from "./shape.ts";
import { fromStorage, Tensor } from "./tensor.ts";
import { timed } from "./timeline.ts";
import { withTrace } from "./trace.ts";

export type Named = Readonly<Record<string, Tensor>>;
export type Feed<I extends Named> = { readonly [K in keyof I]: Tensor | number };

export interface CompileOptions {
  readonly name?: string;
  /** Traces kept before it is an error: a step that is traced again and again is fed ever new shapes. */
  readonly maxTraces?: number;
}

export interface Step<I extends Named, O extends Named> {
  (feed: Feed<I>): O;
  /** The plan of the last trace: dispatches, what was fused, memory. */
  explain(): string;
  /** The program of the last trace, for a device's own tools. */
  program(): Program;
}

interface Signature {
  readonly shape: Shape;
  readonly dtype: DType;
}

function signature(feed: Feed<Named>): Record<string, Signature> {
  const entries = Object.entries(feed)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([k, v]) => [
      k,
      typeof v === "number" ? { shape: [], dtype: "f32" as const } : { shape: v.shape, dtype: v.dtype },
    ]);
  return Object.fromEntries(entries);
}

function describe(sig: Record<string, Signature>): string {
  return Object.entries(sig)
    .map(([k, s]) => `${k}: ${s.dtype}${show(s.shape)}`)
    .join(", ");
}

/** Runs `step` on placeholders and records what it returned and assigned. */
export function trace<O extends Named>(
  name: string,
  step: (inputs: Named) => O,
  sig: Record<string, Signature>,
  reused = true,
): Program {
  const inputs = Object.fromEntries(
    Object.entries(sig).map(([k, s]) => [k, leaf(placeholder, { name: k }, s.shape, s.dtype)]),
  );
  const { trace: recorded, result } = withTrace(name, () => {
    const out = step(Object.fromEntries(Object.entries(inputs).map(([k, n]) => [k, new Tensor(n)])));
    if (out instanceof Promise) throw new TypeError(`${name}: a step cannot be async; await values outside it`);
    return Object.fromEntries(Object.entries(out ?? {}).map(([k, t]) => [k, t.node]));
  });
  return { name, inputs, outputs: result, assigns: [...recorded.assigns], reused };
}

/**
 * A function that runs `step` as one recorded program. Results stay valid until the second next call (so that a step can
 * be fed its own previous result); `keep()` makes one permanent. Throws ShapeError when it meets more than `maxTraces`
 * different input shapes.
 */
export function compile<I extends Named, O extends Named>(step: (inputs: I) => O, o: CompileOptions = {}): Step<I, O> {
  const name = o.name ?? (step.name || "step");
  const programs = new Map<string, Program>();
  let last: Program | undefined;
  const call = (feed: Feed<I>): O => {
    const sig = signature(feed);
    const key = describe(sig);
    let program = programs.get(key);
    if (!program) {
      if (programs.size >= (o.maxTraces ?? 4)) {
        throw new ShapeError(
          `${name}: traced for ${programs.size} different inputs already; now ${key}, before ${[...programs.keys()].at(-1)} (pad to one shape, or raise maxTraces)`,
        );
      }
      program = timed("trace", name, () => trace(name, step as unknown as (inputs: Named) => O, sig));
      programs.set(key, program);
    }
    last = program;
    const values = Object.entries(feed).map(([k, v]): [string, FeedValue] => [
      k,
      typeof v === "number" ? v : v.realise(),
    ]);
    const out = device().run(program, Object.fromEntries(values));
    return Object.fromEntries(Object.entries(out).map(([k, s]) => [k, fromStorage(s)])) as unknown as O;
  };
  const program = (): Program => {
    if (!last) throw new Error(`${name}: not traced yet`);
    return last;
  };
  return Object.assign(call, { program, explain: () => device().explain(program()) });
}
