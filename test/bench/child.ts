// One framework and one workload in a process of its own. Waits for orders from harness.ts, so that the executions of
// several frameworks can be interleaved, and answers each with what it measured.

import { type Errors, lossErrors, outputErrors, reference } from "./errors.ts";
import { GIFGRAD, JAX, JAX_WASM, TFJS } from "./results.ts";
import type { ArenaSize, Framework, HostCost, Subject } from "./subject.ts";

export type Order =
  | { readonly do: "open"; readonly framework: string; readonly workload: string }
  | { readonly do: "run" }
  | { readonly do: "check"; readonly ref: string; readonly seconds: number }
  | { readonly do: "profile" }
  | { readonly do: "cost" }
  | { readonly do: "explain" }
  | { readonly do: "end" };

/** What an order is answered with; `error` stands alone. */
export interface Answer {
  readonly error?: string;
  /** The framework has no such workload, for this reason. */
  readonly cannot?: string;
  readonly version?: string;
  readonly adapter?: string;
  readonly initMs?: number;
  readonly wallMs?: number;
  readonly cpuMs?: number;
  readonly errors?: Errors | null;
  readonly text?: string;
  readonly arena?: ArenaSize;
  readonly host?: HostCost;
  readonly rssMb?: number;
}

const frameworks: Readonly<Record<string, () => Promise<Framework>>> = {
  [GIFGRAD]: async () => (await import("./gifgrad/index.ts")).framework,
  [JAX]: async () => await (await import("./peers/jax.ts")).framework("webgpu"),
  [JAX_WASM]: async () => await (await import("./peers/jax.ts")).framework("wasm"),
  [TFJS]: async () => await (await import("./peers/tfjs.ts")).framework(),
};

const losses: number[] = [];
let id = "";
let subject: Subject;

/** Wall and process CPU time of `body`, all threads counted: on a software adapter the device is this process. */
async function timed(body: () => Promise<unknown>): Promise<{ wallMs: number; cpuMs: number }> {
  const cpu = process.cpuUsage();
  const start = performance.now();
  await body();
  const wallMs = performance.now() - start;
  const used = process.cpuUsage(cpu);
  return { wallMs, cpuMs: (used.user + used.system) / 1000 };
}

async function execute(): Promise<void> {
  const loss = await subject.run();
  if (loss !== undefined) losses.push(loss);
}

/** Errors against the reference; a model goes on training until there are losses enough, for at most `seconds`. */
async function check(ref: string, seconds: number): Promise<Errors | null> {
  const want = reference(id, ref);
  const end = performance.now() + 1000 * seconds;
  if (!want) return null;
  if (!want.losses) return outputErrors(id, (await subject.outputs?.()) ?? {}, want.outputs ?? {});
  while (losses.length < want.losses.length && performance.now() < end) await execute();
  return lossErrors(losses, want.losses);
}

async function obey(order: Order): Promise<Answer> {
  if (order.do === "open") {
    id = order.workload;
    const start = performance.now();
    const framework = await frameworks[order.framework]();
    const workload = framework.workloads[id] ?? "not implemented";
    if (typeof workload === "string") return { cannot: workload };
    const opened = await framework.open();
    const initMs = performance.now() - start;
    subject = await workload();
    return { ...opened, initMs };
  }
  if (order.do === "run") return await timed(execute);
  if (order.do === "check") return { errors: await check(order.ref, order.seconds) };
  if (order.do === "profile") return { text: (await subject.profile?.()) ?? "no profile of this framework" };
  if (order.do === "cost") return { arena: subject.arena?.(), host: await subject.host?.() };
  if (order.do === "explain") return { text: subject.explain?.() ?? "no plan of this framework" };
  return { rssMb: process.resourceUsage().maxRSS / 1024 };
}

process.on("message", async (order: Order) => {
  const answer = await obey(order).catch((e: Error): Answer => ({ error: e.stack ?? e.message }));
  process.send?.(answer);
});
process.on("disconnect", () => process.exit());
