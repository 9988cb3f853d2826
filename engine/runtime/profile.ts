// Where a step's time goes: runs each recorded dispatch on its own and adds up by kernel label. Process CPU time, not wall
// time: on a software adapter that is what a kernel costs, whatever else the machine is doing. Also the table, which traces
// (tracing.ts) share.

import type { KernelTime } from "../device.ts";
import { cpuMs } from "../env.ts";

export type { KernelTime };

export interface Replay extends Pick<KernelTime, "label" | "flops" | "bytes"> {
  /** Submits this dispatch alone. */
  submit(): void;
}

/** Least CPU time of `rounds` runs of each dispatch, summed by label, most expensive first. Waits for the device. */
export async function profile(
  replays: readonly Replay[],
  done: () => Promise<unknown>,
  rounds = 3,
): Promise<KernelTime[]> {
  const times: KernelTime[] = [];
  for (const { submit, label, flops, bytes } of replays) {
    let ms = Number.POSITIVE_INFINITY;
    for (let i = 0; i < rounds; i++) {
      const before = cpuMs();
      submit();
      await done();
      ms = Math.min(ms, cpuMs() - before);
    }
    times.push({ label, dispatches: 1, ms, flops, bytes });
  }
  return sumByLabel(times);
}

/** One row per label, most expensive first. */
export function sumByLabel(times: readonly KernelTime[]): KernelTime[] {
  const rows = new Map<string, KernelTime>();
  for (const t of times) {
    const r = rows.get(t.label);
    rows.set(t.label, r ? add(r, t) : t);
  }
  return [...rows.values()].sort((a, b) => b.ms - a.ms);
}

function add(a: KernelTime, b: KernelTime): KernelTime {
  return {
    label: a.label,
    dispatches: a.dispatches + b.dispatches,
    ms: a.ms + b.ms,
    flops: a.flops + b.flops,
    bytes: a.bytes + b.bytes,
  };
}

/** The table as text: time, share, dispatches, achieved rates, label. */
export function formatProfile(rows: readonly KernelTime[]): string {
  const total = rows.reduce(add, { label: "", dispatches: 0, ms: 0, flops: 0, bytes: 0 });
  const rate = (n: number, ms: number): string => (n > 0 && ms > 0 ? (n / ms / 1e6).toFixed(2) : "-").padStart(9);
  const line = (r: KernelTime): string =>
    `${r.ms.toFixed(2).padStart(10)} ms ${((100 * r.ms) / total.ms).toFixed(1).padStart(5)} % ${`x${r.dispatches}`.padStart(6)} ${rate(r.flops, r.ms)} ${rate(r.bytes, r.ms)}  ${r.label}`;
  return [
    `${"time".padStart(13)}   share  calls   GFLOP/s      GB/s  kernel`,
    ...rows.map(line),
    line({ ...total, label: "total" }),
  ].join("\n");
}
