// compile(step): trace a function once per input shapes, then replay. Arguments vary from call to call; everything the
// function captures is a constant of the trace, except Parameters and Rng, which are state.

import { device, type FeedValue, type Program, selfContained } from "./device.ts";
import type { DType } from "./dtype.ts";
import { got, ShapeError, show } from "./error.ts";
import { leaf, type Node } from "./graph.ts";
import { placeholder } from "./ops/leaf.ts";
import type { Shape } from "./shape.ts";
import { fromStorage, Tensor } from "./tensor.ts";
import { timed } from "./timeline.ts";
import { withTrace } from "./trace.ts";

/** Tensors by name: what a step takes and returns. */
export type Named = Readonly<Record<string, Tensor>>;
/** What a step is called with: a number stands for a scalar that varies from call to call. */
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

function signature(name: string, feed: Feed<Named>): Record<string, Signature> {
  if (typeof feed !== "object" || feed === null || feed instanceof Tensor)
    throw new TypeError(`${name}: a step is fed its inputs by name, such as step({ x }), got ${got(feed)}`);
  for (const [k, v] of Object.entries(feed))
    if (typeof v !== "number" && !(v instanceof Tensor))
      throw new TypeError(`${name}: input "${k}": expected a tensor or a number, got ${got(v)}`);
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

/** Calls `step`; where it fails over an input that it was not fed, the error names the input. */
function callOn<O>(name: string, step: (inputs: Named) => O, inputs: Named): O {
  const missing = new Set<string>();
  const watched = new Proxy(inputs, {
    get: (target, key) => {
      if (typeof key === "string" && !(key in target)) missing.add(key);
      return Reflect.get(target, key);
    },
  });
  try {
    return step(watched);
  } catch (cause) {
    if (!(cause instanceof TypeError) || missing.size === 0) throw cause;
    const fed = Object.keys(inputs).join(", ") || "nothing";
    throw new TypeError(`${name}: was fed no "${[...missing].join('", "')}" (only ${fed}): ${cause.message}`, {
      cause,
    });
  }
}

/** Nodes of what a step returned. */
function results(name: string, out: unknown): Record<string, Node> {
  if (out instanceof Promise) throw new TypeError(`${name}: a step cannot be async; await values outside it`);
  const record = out ?? {};
  if (typeof record !== "object" || record instanceof Tensor || Array.isArray(record))
    throw new TypeError(`${name}: a step must return a record of tensors, such as { y }, got ${got(record)}`);
  return Object.fromEntries(
    Object.entries(record).map(([k, t]) => {
      if (!(t instanceof Tensor)) throw new TypeError(`${name}: result "${k}": expected a tensor, got ${got(t)}`);
      return [k, t.node];
    }),
  );
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
  const { trace: recorded, result } = withTrace(name, () =>
    results(name, callOn(name, step, Object.fromEntries(Object.entries(inputs).map(([k, n]) => [k, new Tensor(n)])))),
  );
  return selfContained({ name, inputs, outputs: result, assigns: [...recorded.assigns], reused });
}

/**
 * A function that runs `step` as one recorded program. Results stay valid until the second next call (so that a step can
 * be fed its own previous result); `keep()` makes one permanent. Throws ShapeError when it meets more than `maxTraces`
 * different input shapes, TypeError where it is fed or returns something else than tensors by name.
 */
export function compile<I extends Named, O extends Named>(step: (inputs: I) => O, o: CompileOptions = {}): Step<I, O> {
  const name = o.name ?? (step.name || "step");
  const programs = new Map<string, Program>();
  let last: Program | undefined;
  const call = (feed: Feed<I>): O => {
    const sig = signature(name, feed);
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
