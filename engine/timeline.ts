// Where host time goes. The engine wraps each phase of a step in `timed`; whoever observes (a trace being written, DEBUG=time)
// gets one span per phase, and where nobody does, nothing is measured. Also what DEBUG asks for. Knows no step and no device.

import { env } from "./env.ts";

/** What `DEBUG`, a comma list, may name: `DEBUG=plan,time`. ("stack" is the command line's, which also warns of what is none.) */
export const TOPICS = ["plan", "wgsl", "time"] as const;
export type Topic = (typeof TOPICS)[number];

/** Does the environment variable DEBUG name `topic`? Read at each call, so that a script can set it as it goes. */
export function debugging(topic: Topic): boolean {
  return env.DEBUG?.split(",").includes(topic) ?? false;
}

/**
 * trace: running the step on placeholders. plan: fusion, memory, WGSL. record: buffers, bind groups; inside it, compile:
 * shader modules and pipelines. encode: feeding, encoding, submitting; inside it, submit: what the queue takes. first run:
 * from the first submission until the device has done it, which on software adapters is mostly the driver compiling. wait:
 * until a value can be read.
 */
export type Phase = "trace" | "plan" | "record" | "compile" | "encode" | "submit" | "first run" | "wait";

export interface Span {
  readonly phase: Phase;
  /** The step it was for. */
  readonly name: string;
  /** Milliseconds as of performance.now(). */
  readonly start: number;
  readonly end: number;
}

type Observer = (span: Span) => void;

const observers = new Set<Observer>();

/** Calls `observer` after each phase from now on; returns what ends that. */
export function observe(observer: Observer): () => void {
  observers.add(observer);
  return () => observers.delete(observer);
}

export function observed(): boolean {
  return observers.size > 0 || debugging("time");
}

/** Runs `body` and reports how long it took; a promise is timed until it settles. */
export function timed<T>(phase: Phase, name: string, body: () => T): T {
  if (!observed()) return body();
  const start = performance.now();
  const result = body();
  if (result instanceof Promise)
    return result.finally(() => report({ phase, name, start, end: performance.now() })) as T;
  report({ phase, name, start, end: performance.now() });
  return result;
}

function report(span: Span): void {
  for (const observer of observers) observer(span);
  if (debugging("time")) printTime(span);
}

/** Phases of the call in progress, each summed, printed in one line when it has been encoded. */
const current = new Map<Phase, { readonly times: number; readonly ms: number }>();

function printTime({ phase, name, start, end }: Span): void {
  const ms = end - start;
  if (phase === "first run" || phase === "wait") {
    console.error(`time ${name}: ${phase} ${ms.toFixed(1)} ms`);
    return;
  }
  const before = current.get(phase) ?? { times: 0, ms: 0 };
  current.set(phase, { times: before.times + 1, ms: before.ms + ms });
  if (phase !== "encode") return;
  const words = [...current].map(([p, sum]) => `${p}${kernels(p, sum.times)} ${sum.ms.toFixed(1)} ms`);
  console.error(`time ${name}: ${words.join(", ")}`);
  current.clear();
}

/** " 57 kernels": each is a span of its own. */
function kernels(phase: Phase, times: number): string {
  return phase === "compile" && times > 1 ? ` ${times} kernels` : "";
}
