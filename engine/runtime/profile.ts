// Where a step's time goes: runs each recorded dispatch on its own and adds up by kernel label. Process CPU time, not wall
// time: on a software adapter that is what a kernel costs, whatever else the machine is doing.

import { cpuMs } from "../env.ts";

export interface KernelTime {
  readonly label: string;
  readonly dispatches: number;
  /** Milliseconds of process CPU time, all dispatches of this label together. */
  readonly cpuMs: number;
  readonly wallMs: number;
}

export interface Replay {
  readonly label: string;
  /** Submits this dispatch alone. */
  submit(): void;
}

/** Least of `rounds` timings of each dispatch, summed by label, most expensive first. Waits for the device. */
export async function profile(
  replays: readonly Replay[],
  done: () => Promise<unknown>,
  rounds = 3,
): Promise<KernelTime[]> {
  const rows = new Map<string, { dispatches: number; cpuMs: number; wallMs: number }>();
  for (const replay of replays) {
    let cpu = Number.POSITIVE_INFINITY;
    let wall = Number.POSITIVE_INFINITY;
    for (let i = 0; i < rounds; i++) {
      const before = cpuMs();
      const start = performance.now();
      replay.submit();
      await done();
      wall = Math.min(wall, performance.now() - start);
      cpu = Math.min(cpu, cpuMs() - before);
    }
    const row = rows.get(replay.label) ?? { dispatches: 0, cpuMs: 0, wallMs: 0 };
    rows.set(replay.label, { dispatches: row.dispatches + 1, cpuMs: row.cpuMs + cpu, wallMs: row.wallMs + wall });
  }
  return [...rows].map(([label, r]) => ({ label, ...r })).sort((a, b) => b.cpuMs - a.cpuMs);
}

/** The table as text: CPU ms, share, dispatches, label. */
export function formatProfile(rows: readonly KernelTime[]): string {
  const total = rows.reduce((sum, r) => sum + r.cpuMs, 0);
  const line = (ms: number, n: number, label: string): string =>
    `${ms.toFixed(2).padStart(10)} ms ${((100 * ms) / total).toFixed(1).padStart(5)} %  x${String(n).padEnd(4)} ${label}`;
  return [
    ...rows.map((r) => line(r.cpuMs, r.dispatches, r.label)),
    line(
      total,
      rows.reduce((s, r) => s + r.dispatches, 0),
      "total",
    ),
  ].join("\n");
}
