// Traces: the file is what viewers accept, the times in it are possible, every kernel is there with its operations and bytes;
// and the table of a profile. The reader of the format finds planted mistakes.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { planned } from "../cli/profile.ts";
import { grad } from "../engine/autograd.ts";
import { compile } from "../engine/compile.ts";
import { type Device, openDevice, useDevice } from "../engine/device.ts";
import { formatProfile } from "../engine/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { sumByLabel } from "../engine/runtime/profile.ts";
import type { TraceEvent, TraceFile } from "../engine/runtime/tracing.ts";
import { Parameter } from "../engine/state.ts";
import { type Tensor, tensor } from "../engine/tensor.ts";
import { onGpu } from "./device.ts";
import { traceProblems } from "./trace_format.ts";

const folder = mkdtempSync(join(tmpdir(), "gifgrad-trace-"));
afterAll(() => rmSync(folder, { recursive: true }));

function trainingStep() {
  const w = new Parameter(
    [16, 16],
    Float32Array.from({ length: 256 }, (_, i) => Math.sin(i) / 4),
  );
  return compile(
    ({ x }: { x: Tensor }) => {
      const loss = x.matmul(w).tanh().softmax().square().mean();
      w.assign(w.sub(grad(loss, [w])[0]));
      return { loss };
    },
    { name: "traced" },
  );
}

onGpu("a trace holds every kernel, host phase and wait, at times that are possible", async (device) => {
  const file = join(folder, "step.json");
  const step = trainingStep();
  const x = tensor(new Float32Array(8 * 16).fill(0.5), [8, 16]);
  const tracing = device.traceTo(file);
  expect(() => device.traceTo(file)).toThrow("a trace is being written already");
  for (let i = 0; i < 3; i++) await step({ x }).loss.item();
  const rows = await tracing.stop();
  await step({ x }).loss.item(); // not in the trace
  const text = readFileSync(file, "utf8");
  expect(traceProblems(text)).toEqual([]);
  const { traceEvents, otherData } = JSON.parse(text) as TraceFile;
  expect(otherData.adapter).toBe(device.name);
  const phases = (name: string): TraceEvent[] => traceEvents.filter((e) => e.pid === 1 && e.name === name);
  for (const once of ["trace", "plan", "record"]) expect(phases(once)).toHaveLength(1);
  expect(phases("encode")).toHaveLength(3);
  expect(phases("wait").filter((e) => e.ph === "b")).toHaveLength(3);
  const dispatches = Number(step.explain().match(/(\d+) dispatches/)?.[1]);
  const kernels = traceEvents.filter((e) => e.pid === 2 && e.ph === "X");
  if (!device.dawn.features.includes("timestamp-query")) return expect(kernels).toEqual([]);
  expect(kernels).toHaveLength(3 * dispatches);
  const product = kernels.find((e) => e.name.startsWith("matmul")) as TraceEvent;
  expect(product.args).toMatchObject({ step: "traced", call: 1, family: "matmul", flops: 2 * 8 * 16 * 16 });
  expect(product.args?.reads).toBe("x f32[8, 16], state 0 f32[16, 16]");
  // Kernels of a call run after it was submitted and before its result was there. Two clocks tell, which drift apart by a
  // share of what passes between, and the more of it the busier the machine.
  const last = phases("wait").filter((e) => e.ph === "e")[2].ts;
  const drift = 1e3 + 0.05 * (last - phases("encode")[0].ts);
  phases("encode").forEach((call, i) => {
    const done = phases("wait").filter((e) => e.ph === "e")[i];
    for (const k of kernels.slice(i * dispatches, (i + 1) * dispatches)) {
      expect(k.ts).toBeGreaterThan(call.ts);
      expect(k.ts + (k.dur as number)).toBeLessThan(done.ts + drift);
    }
  });
  expect(rows.reduce((sum, r) => sum + r.dispatches, 0)).toBe(2 * dispatches); // without the first call
  expect(rows.map((r) => r.label)).toEqual(expect.arrayContaining(["matmul", "reduce"]));
});

onGpu("a trace whose folder does not exist is refused before anything runs", async (device) => {
  const file = join(tmpdir(), "gifgrad-no-such-folder", "trace.json");
  expect(() => device.traceTo(file)).toThrow(/^a trace cannot be written to .*: there is no folder .*no-such-folder$/);
});

onGpu("every device has profile, whose rows formatProfile shows", async (gpu) => {
  const device: Device = gpu;
  const step = trainingStep();
  await step({ x: tensor(new Float32Array(128), [8, 16]) }).loss.item();
  const rows = await device.profile(step.program(), 1);
  expect(planned(step.explain())).toMatch(/^\d+ dispatches of \d+ kernels$/);
  expect(planned(step.explain())).toContain(`${rows.reduce((sum, r) => sum + r.dispatches, 0)} dispatches`);
  expect(formatProfile(rows)).toMatch(/kernel\n(.*\n)+.*total$/);
  const reference: Device = new ReferenceDevice();
  await expect(reference.profile(step.program())).rejects.toThrow("only a GPU device");
});

onGpu("TRACE=file traces from openDevice to close", async (shared) => {
  const file = join(folder, "env.json");
  process.env.TRACE = file;
  const device = await openDevice();
  delete process.env.TRACE;
  try {
    const step = trainingStep();
    for (let i = 0; i < 2; i++) await step({ x: tensor(new Float32Array(128), [8, 16]) }).loss.item();
  } finally {
    device.close();
    useDevice(shared);
  }
  const text = readFileSync(file, "utf8");
  expect(traceProblems(text)).toEqual([]);
  const names = (JSON.parse(text) as TraceFile).traceEvents.map((e) => e.name);
  expect(names.filter((n) => n === "encode")).toHaveLength(2);
});

test("the reader finds what is wrong with a trace", () => {
  const good: TraceEvent = { name: "a", ph: "X", ts: 10, dur: 5, pid: 1, tid: 1 };
  const problems = (...traceEvents: object[]): string[] =>
    traceProblems(JSON.stringify({ traceEvents, displayTimeUnit: "ms" }));
  expect(problems(good, { ...good, ts: 11, dur: 2 }, { ...good, ts: 15 })).toEqual([]);
  expect(problems(good, { ...good, name: "late", ts: 12 })).toEqual(["late on track 1/1 overlaps what it began in"]);
  expect(problems({ ...good, dur: undefined })).toEqual(["event 0: dur is not a number"]);
  expect(problems({ ...good, dur: -1 })).toContain("event 0: negative duration");
  expect(problems({ ...good, ph: "Q" })).toEqual(["event 0: unknown phase Q"]);
  expect(problems({ name: "w", ph: "b", cat: "wait", id: 1, ts: 1, pid: 1, tid: 1 })).toEqual(["wait 1 never ends"]);
  expect(problems({ name: "process_name", ph: "M", ts: 0, pid: 1, tid: 1, args: {} })).toEqual([
    "event 0: metadata without a name",
  ]);
  expect(traceProblems("{}")).toEqual(["traceEvents is not a list"]);
  expect(() => traceProblems("{")).toThrow();
});

test("a table adds up by label and says rates", () => {
  const row = (label: string, ms: number, flops: number) => ({ label, dispatches: 1, ms, flops, bytes: 2e6 });
  const rows = sumByLabel([row("small", 1, 0), row("big", 2, 6e6), row("big", 4, 6e6)]);
  expect(rows.map((r) => [r.label, r.dispatches, r.ms])).toEqual([
    ["big", 2, 6],
    ["small", 1, 1],
  ]);
  expect(
    formatProfile(rows)
      .split("\n")
      .map((l) => l.trim().replace(/ +/g, " ")),
  ).toEqual([
    "time share calls GFLOP/s GB/s kernel",
    "6.00 ms 85.7 % x2 2.00 0.67 big",
    "1.00 ms 14.3 % x1 - 2.00 small",
    "7.00 ms 100.0 % x3 1.71 0.86 total",
  ]);
});
