// `gifgrad profile`: a trace for Perfetto and a table of kernels, of a preset's training step on random data, or of any
// command that opens a device (which TRACE=file makes write a trace).

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, rmSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { compile, openDevice } from "../engine/index.ts";
import { formatProfile } from "../engine/runtime/profile.ts";
import { kernelTimes, type TraceEvent, type TraceFile } from "../engine/runtime/tracing.ts";
import { presetConfig } from "../models/config.ts";
import type { ProfileOptions } from "./options.ts";
import { STEPS } from "./steps.ts";
import { announce } from "./train.ts";

/** Writes the trace and prints the table. The exit code is the command's own. */
export async function run(o: ProfileOptions): Promise<void> {
  const file = resolve(o.out);
  rmSync(file, { force: true });
  if (o.command.length > 0) process.exitCode = await traceCommand(o.command, file);
  else await tracePreset(o, file);
  if (!statSync(file, { throwIfNoEntry: false }))
    throw new Error(`profile: ${o.command[0]} wrote no trace: it opens no device with openDevice()`);
  const trace = JSON.parse(readFileSync(file, "utf8")) as TraceFile;
  const kernels = kernelTimes(trace);
  const host = hostTimes(trace.traceEvents);
  if (o.json) console.log(JSON.stringify({ file, device: trace.otherData, kernels, host }));
  else print(o.out, kernels, host);
}

function print(file: string, kernels: ReturnType<typeof kernelTimes>, host: readonly HostTime[]): void {
  if (kernels.length > 0) console.log(formatProfile(kernels));
  else console.log("This adapter does not time kernels (timestamp-query); the trace has the host's side only.");
  console.log("\nhost, ms        total   median    calls");
  for (const { phase, total, median, calls } of host)
    console.log(
      `${phase.padEnd(10)} ${total.toFixed(1).padStart(10)} ${median.toFixed(2).padStart(8)} ${String(calls).padStart(8)}`,
    );
  console.log(`\n${file}: open it at https://ui.perfetto.dev or chrome://tracing`);
}

async function traceCommand([program, ...args]: readonly string[], file: string): Promise<number> {
  const child = spawn(program, args, { stdio: "inherit", env: { ...process.env, TRACE: file } });
  const [code] = (await once(child, "exit").catch((e: Error) => {
    throw new Error(`profile: ${program} cannot be run: ${e.message}`);
  })) as [number | null];
  return code ?? 1;
}

async function tracePreset(o: ProfileOptions, file: string): Promise<void> {
  const device = await openDevice({ device: "gpu" });
  try {
    announce(device);
    const { step, feed } = STEPS[o.recipe](presetConfig(o.preset), o);
    const train = compile(step, { name: o.recipe });
    const tracing = device.traceTo(file);
    console.error("planning...");
    for (let i = 0; i < o.steps; i++) {
      const start = performance.now();
      const { loss } = train(feed);
      if (i === 0) console.error(`planned: ${planned(train.explain())}; compiling...`);
      await loss.item(); // waits for the device
      console.error(`step ${i + 1}/${o.steps}: ${((performance.now() - start) / 1e3).toFixed(1)} s`);
    }
    await tracing.stop();
  } finally {
    device.close();
  }
}

/** "261 dispatches of 57 kernels", from the first line of a plan in words. */
export function planned(explained: string): string {
  return explained.match(/\d+ dispatches of \d+ kernels/)?.[0] ?? "";
}

interface HostTime {
  readonly phase: string;
  readonly total: number;
  readonly median: number;
  readonly calls: number;
}

/** Milliseconds of each host phase of a trace. */
function hostTimes(events: readonly TraceEvent[]): HostTime[] {
  const times = new Map<string, number[]>();
  const begun = new Map<number, number>();
  const add = (phase: string, us: number): void => void times.set(phase, [...(times.get(phase) ?? []), us / 1e3]);
  for (const e of events.filter(({ pid }) => pid === 1)) {
    if (e.ph === "X") add(e.name, e.dur as number);
    if (e.ph === "b") begun.set(e.id as number, e.ts);
    if (e.ph === "e") add(e.name, e.ts - (begun.get(e.id as number) as number));
  }
  return [...times].map(([phase, list]) => ({
    phase,
    total: list.reduce((a, b) => a + b, 0),
    median: list.sort((a, b) => a - b)[Math.floor(list.length / 2)],
    calls: list.length,
  }));
}
