// What a run of the benchmark records, and the targets it is held to. Pure; called by harness.ts and table.ts.

import type { Errors } from "./errors.ts";
import type { ArenaSize, HostCost } from "./subject.ts";

export const GIFGRAD = "gifgrad";
export const JAX = "jax-js webgpu";
export const JAX_WASM = "jax-js wasm";
export const TFJS = "tfjs webgpu";
export const PEERS: readonly string[] = [JAX, JAX_WASM, TFJS];

/** One framework on one workload. Times in milliseconds. */
export interface Result {
  readonly workload: string;
  readonly framework: string;
  /** Why there are no numbers, or not all. */
  readonly failed?: string;
  /** Taken from a report of this date; measured by this run when absent. */
  readonly earlier?: string;
  /** Import and device creation. */
  readonly initMs?: number;
  /** First execution, compilation included, with the driver's cache as `cache` says. */
  readonly coldMs?: number;
  readonly coldCpuMs?: number;
  readonly cache?: "empty" | "kept";
  /** First execution in a second process, with the driver's cache that the first one filled. */
  readonly warmMs?: number;
  readonly warmCpuMs?: number;
  /** Least process CPU time of one execution, user and system, all threads. */
  readonly cpuMs?: number;
  readonly minMs?: number;
  readonly medMs?: number;
  readonly runs: number;
  readonly gflops?: number;
  readonly rssMb?: number;
  readonly errors?: Errors | null;
  readonly arena?: ArenaSize;
  readonly host?: HostCost;
}

export interface Report {
  readonly date: string;
  readonly commit: string;
  readonly node: string;
  readonly adapter: string;
  readonly driver: string;
  readonly versions: Readonly<Record<string, string>>;
  readonly cores: number;
  /** Load average of the last minute at the beginning and at the end. */
  readonly load: readonly number[];
  readonly results: readonly Result[];
  readonly targets: readonly Verdict[];
}

// ---- targets

/** CPU time of Gifgrad at most 1/factor of the peer's. Workloads as in --only. */
interface RatioTarget {
  readonly workload: string;
  readonly peer: string;
  readonly factor: number;
}

const of = (workload: string, factors: Readonly<Record<string, number>>): RatioTarget[] =>
  Object.entries(factors).map(([peer, factor]) => ({ workload, peer, factor }));

export const RATIOS: readonly RatioTarget[] = [
  ...of("W1.1024", { [JAX]: 4.5, [TFJS]: 4.5 }),
  ...of("W2.fb", { [JAX]: 6, [TFJS]: 15 }),
  ...of("W3b.fb", { [JAX]: 5, [TFJS]: 7 }),
  ...of("W4", { [JAX]: 4, [TFJS]: 15 }),
  ...of("W5", { [JAX]: 3, [TFJS]: 6 }),
  ...of("W6", { [JAX]: 3, [TFJS]: 10 }),
  ...of("W7.full", { [JAX]: 2, [TFJS]: 2 }),
  ...of("W7.row", { [JAX]: 2, [TFJS]: 2 }),
  ...of("W8", { [JAX]: 4, [TFJS]: 4 }),
  ...of("W9", { [JAX]: 5, [TFJS]: 12 }),
  ...of("W10.train", { [TFJS]: 12 }),
  ...of("W10.ddim", { [TFJS]: 12 }),
  ...of("W11.train", { [TFJS]: 8 }),
  ...of("W11.sample", { [JAX]: 8 }),
  ...of("W12", { [TFJS]: 12 }),
];

/** First execution of Gifgrad, in milliseconds of wall time. */
export const COLD: readonly { readonly workload: string; readonly cache: "empty" | "kept"; readonly ms: number }[] = [
  { workload: "W9", cache: "empty", ms: 10_000 },
  { workload: "W9", cache: "kept", ms: 1_500 },
];

/** Bytes planned for intermediate values, at most so many times the least possible. */
export const PEAK = { workloads: ["W9", "W10.train", "W11.train", "W12"], factor: 1.3 };

/** A replayed step of so many dispatches: milliseconds to encode it, and bytes that its calls leave behind. */
export const HOST = { dispatches: 500, encodeMs: 1.7, grownBytes: 0 };

export interface Verdict {
  readonly workload: string;
  /** What is asked, in words. */
  readonly target: string;
  readonly want: number;
  /** The same quantity as measured; absent when something was not measured. */
  readonly got?: number;
  readonly met?: boolean;
  /** CPU time of the same, where `got` is wall time. */
  readonly cpuMs?: number;
  /** Less than `want` is better. */
  readonly less?: true;
}

/** Every target that concerns a workload of `results`, held against them. */
export function verdicts(results: readonly Result[]): Verdict[] {
  const find = (workload: string, framework: string): Result | undefined =>
    results.find((r) => r.workload === workload && r.framework === framework);
  const measured = new Set(results.map((r) => r.workload));
  const ratios = RATIOS.filter((t) => measured.has(t.workload)).map(({ workload, peer, factor }): Verdict => {
    const [own, other] = [find(workload, GIFGRAD)?.cpuMs, find(workload, peer)?.cpuMs];
    const target = `CPU time at most 1/${factor} of ${peer}`;
    if (own === undefined || other === undefined) return { workload, target, want: factor };
    return { workload, target, want: factor, got: other / own, met: other / own >= factor };
  });
  const colds = COLD.filter((t) => measured.has(t.workload)).map(({ workload, cache, ms }): Verdict => {
    const r = find(workload, GIFGRAD);
    const first = r?.cache === "empty" ? { got: r.coldMs, cpuMs: r.coldCpuMs } : {};
    const { got, cpuMs } = cache === "empty" ? first : { got: r?.warmMs, cpuMs: r?.warmCpuMs };
    const target = `first execution, driver cache ${cache === "empty" ? "empty" : "filled"}, at most ${ms} ms`;
    return atMost(workload, target, ms, got, cpuMs);
  });
  const peaks = PEAK.workloads
    .filter((id) => measured.has(id))
    .map((workload): Verdict => {
      const arena = find(workload, GIFGRAD)?.arena;
      const target = `planned peak at most ${PEAK.factor} of the least possible`;
      return atMost(workload, target, PEAK.factor, arena && arena.bytes / arena.least);
    });
  return [...ratios, ...colds, ...peaks, ...(measured.has("host") ? hostVerdicts(find("host", GIFGRAD)?.host) : [])];
}

function atMost(workload: string, target: string, want: number, got?: number, cpuMs?: number): Verdict {
  return { workload, target, want, got, met: got === undefined ? undefined : got <= want, cpuMs, less: true };
}

function hostVerdicts(host: HostCost | undefined): Verdict[] {
  const { dispatches, encodeMs, grownBytes } = HOST;
  return [
    atMost("host", `${dispatches} dispatches encoded in at most ${encodeMs} ms (median)`, encodeMs, host?.encodeMs),
    atMost("host", `bytes more on the device after ${host?.calls ?? "many"} calls`, grownBytes, host?.grownBytes),
  ];
}
