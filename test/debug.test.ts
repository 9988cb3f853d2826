// DEBUG=plan, wgsl and time: what each prints, and that nothing is printed without it. What a tensor prints as.

import { inspect } from "node:util";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { compile } from "../engine/compile.ts";
import { type Tensor, tensor } from "../engine/tensor.ts";
import { observe, type Span, timed } from "../engine/timeline.ts";
import { onGpu } from "./device.ts";

const before = process.env.DEBUG;
let printed: string[] = [];
beforeEach(() => {
  printed = [];
  vi.spyOn(console, "error").mockImplementation((text: string) => void printed.push(text));
});
afterEach(() => {
  vi.restoreAllMocks();
  if (before === undefined) delete process.env.DEBUG;
  else process.env.DEBUG = before;
});

/** Calls a new step twice, reading its result, with DEBUG as given. */
async function runWith(debug: string): Promise<string[]> {
  process.env.DEBUG = debug;
  const step = compile(({ x }: { x: Tensor }) => ({ y: x.mul(3).sin() }), { name: "debugged" });
  for (let i = 0; i < 2; i++) await step({ x: tensor([1, 2]) }).y.data();
  return printed;
}

onGpu("nothing is printed unasked", async () => {
  expect(await runWith("stack")).toEqual([]);
});

onGpu("plan prints each plan once, wgsl each kernel", async () => {
  const lines = await runWith("plan,wgsl");
  expect(lines.filter((t) => /^debugged\(x f32\[2\]\): 1 dispatches/.test(t))).toHaveLength(1);
  // A text that an earlier test compiled on this device is not printed again.
  expect(lines.filter((t) => /^\/\/ mul sin\n.*fn main/s.test(t)).length).toBeLessThanOrEqual(1);
});

onGpu("time prints one line per call, and the waits", async () => {
  const lines = (await runWith("time")).join("\n");
  expect(lines).toMatch(
    /^time debugged: trace [\d.]+ ms, plan [\d.]+ ms, (compile (\d+ kernels )?[\d.]+ ms, )?record [\d.]+ ms, submit [\d.]+ ms, encode [\d.]+ ms$/m,
  );
  expect(lines).toMatch(/^time debugged: first run [\d.]+ ms$/m);
  expect(lines.match(/^time debugged: submit [\d.]+ ms, encode [\d.]+ ms$/gm)).toHaveLength(1);
  expect(lines.match(/^time \[2\]: wait [\d.]+ ms$/gm)).toHaveLength(2);
});

test("time sums the kernels that a trace compiles", () => {
  process.env.DEBUG = "time";
  for (let i = 0; i < 3; i++) timed("compile", "many", () => {});
  timed("record", "many", () => {});
  timed("encode", "many", () => {});
  timed("encode", "many", () => {});
  expect(printed).toHaveLength(2);
  expect(printed[0]).toMatch(/^time many: compile 3 kernels [\d.]+ ms, record [\d.]+ ms, encode [\d.]+ ms$/);
  expect(printed[1]).toMatch(/^time many: encode [\d.]+ ms$/);
});

onGpu("an observer gets spans, in order and inside each other", async (device) => {
  const spans: Span[] = [];
  const stop = observe((s) => spans.push(s));
  await runWith("");
  await device.settle();
  stop();
  await runWith("");
  expect(spans.map((s) => s.phase).filter((p) => p === "encode")).toHaveLength(2);
  expect(spans.every((s) => s.end >= s.start)).toBe(true);
  const [plan, record] = ["plan", "record"].map((phase) => spans.find((s) => s.phase === phase) as Span);
  expect(record.start).toBeGreaterThanOrEqual(plan.end);
});

test("a tensor prints as what it is", () => {
  expect(inspect({ x: tensor([1, 2]) })).toBe("{ x: Tensor f32[2] }");
});
