// `gifgrad golden` and the kind "ops": every case of the golden operations on the GPU, and what the runner says of folders
// that are wrong, planted here. The kinds of optimisers and torch files have tests of their own.

import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test, vi } from "vitest";
import { useDevice } from "../engine/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { writeSafetensors } from "../engine/safetensors.ts";
import { type Event, golden } from "../eval/golden/index.ts";
import { type Check, compare } from "../eval/golden/kind.ts";
import { runGroup } from "../eval/golden/ops.ts";
import { onGpu } from "./device.ts";

// A software adapter compiles two or three kernels per case.
vi.setConfig({ testTimeout: 600_000 });

const root = fileURLToPath(new URL("../../shared/golden/", import.meta.url));
const folders = existsSync(root) ? readdirSync(root).filter((name) => existsSync(`${root}${name}/ops.json`)) : [];
if (folders.length === 0) test.skip("golden operations: ../shared/golden has none", () => {});

const line = (c: Check): string => `${c.name}: ${c.message ?? `error ${c.error}, bound ${c.bound}`}`;

async function failures(checks: AsyncIterable<Check>): Promise<{ count: number; failed: string[] }> {
  const failed: string[] = [];
  let count = 0;
  for await (const check of checks) {
    count++;
    if (!check.ok) failed.push(line(check));
  }
  return { count, failed };
}

describe.each(folders)("golden %s", (folder) => {
  for (const group of Object.keys(JSON.parse(readFileSync(`${root}${folder}/ops.json`, "utf8")))) {
    onGpu(`${group}: outputs and gradients`, async () => {
      const { count, failed } = await failures(runGroup(`${root}${folder}`, group));
      expect(failed).toEqual([]);
      expect(count).toBeGreaterThan(0);
    });
  }
});

// ---- folders made here

const temporary: string[] = [];
afterAll(() => {
  for (const folder of temporary) rmSync(folder, { recursive: true });
});

interface Planted {
  readonly op?: string;
  readonly args?: object;
  /** What the folder says x squared is, and its gradient under proj = 1. */
  readonly out?: readonly number[];
  readonly grad?: readonly number[];
  readonly tensors?: boolean;
  readonly tolerance?: boolean;
}

/** A folder with one case on x = [1, 2, 3]. */
async function plant(p: Planted = {}): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "golden-"));
  temporary.push(folder);
  const one = { op: p.op ?? "square", args: p.args ?? {}, inputs: ["x"], outputs: ["out"], grads: ["x"] };
  writeFileSync(join(folder, "ops.json"), JSON.stringify({ mine: { one } }));
  const bound = { rel_to_max: 1e-7 };
  if (p.tolerance !== false)
    writeFileSync(join(folder, "tolerance.json"), JSON.stringify({ "mine/one.out": bound, "mine/one.grad.x": bound }));
  const stored = { "in.x": [1, 2, 3], out: p.out ?? [1, 4, 9], proj: [1, 1, 1], "grad.x": p.grad ?? [2 / 3, 4 / 3, 2] };
  const tensors = Object.entries(stored).map(
    ([key, values]) =>
      [`one.${key}`, { dtype: "F32", shape: [values.length], values: Float32Array.from(values) }] as const,
  );
  if (p.tensors !== false) await writeSafetensors(join(folder, "mine.safetensors"), new Map(tensors));
  return folder;
}

async function run(folder: string): Promise<string[]> {
  useDevice(new ReferenceDevice());
  const words = (e: Event): string =>
    e.type === "folder" ? e.kind : e.type === "check" ? `${e.check.ok} ${line(e.check)}` : `problem: ${e.message}`;
  const lines: string[] = [];
  for await (const event of golden(folder)) lines.push(words(event));
  return lines;
}

test("a folder is known by what it holds, and its tensors pass", async () => {
  const lines = await run(await plant());
  expect(lines).toEqual([
    "ops",
    expect.stringMatching(/^true mine\/one.out:/),
    expect.stringMatching(/^true .*grad.x/),
  ]);
});

describe("what is wrong is found and named:", () => {
  test.each<[string, Planted, RegExp]>([
    ["one output", { out: [1, 4.00001, 9] }, /^false mine\/one.out: error 0.0000011\d+, bound 0.000001$/],
    ["one gradient", { grad: [2 / 3, 4 / 3, -2] }, /^false mine\/one.grad.x: error 2,/],
    ["too few values", { out: [1, 4] }, /^false mine\/one.out: expected shape \[2\], got \[3\]/],
    ["an op nobody knows", { op: "sqare" }, /^false mine\/one: no op "sqare" is known here/],
    ["an argument nobody asked for", { op: "clamp", args: { max: 2, mni: 0 } }, /op "clamp" knows no argument mni/],
    [
      "an argument of the wrong type",
      { op: "elu", args: { alpha: "1" } },
      /argument alpha: expected a number, got "1"/,
    ],
    ["no tensors", { tensors: false }, /^problem: .* has no mine.safetensors$/],
    ["no tolerances", { tolerance: false }, /^problem: .* has no tolerance.json$/],
  ])("%s", async (_, planted, message) => {
    expect((await run(await plant(planted))).join("\n")).toMatch(new RegExp(message, "m"));
  });

  test("a folder of another kind, among others, and one that is not there", async () => {
    const [good, outer] = [await plant(), mkdtempSync(join(tmpdir(), "golden-"))];
    temporary.push(outer);
    expect(await run(outer)).toEqual([expect.stringMatching(/^problem: no kind of golden data .*\(ops, /)]);
    expect(await run(join(outer, "nowhere"))).toEqual(["problem: does not exist"]);
    expect(await run(join(good, "ops.json"))).toEqual(["problem: is not a folder"]);
  });
  test("a damaged file by which a folder would be known", async () => {
    const folder = mkdtempSync(join(tmpdir(), "golden-"));
    temporary.push(folder);
    writeFileSync(join(folder, "config.json"), '{ "runs": ');
    expect(await run(folder)).toEqual([expect.stringMatching(/^problem: config.json is not JSON: /)]);
    writeFileSync(join(await plant(), "config.json"), "{"); // and one that another kind would be known by does not matter
    expect((await run(temporary.at(-1) as string))[0]).toBe("ops");
  });
  test("NaN is never close", () => {
    expect(compare("x", [1, Number.NaN], [1, 2], 1).ok).toBe(false);
  });
});

describe("gifgrad golden", () => {
  const bin = fileURLToPath(new URL("../cli/gifgrad.mjs", import.meta.url));
  const gifgrad = (...args: string[]) =>
    spawnSync(process.execPath, [bin, "golden", ...args, "--device", "reference"], { encoding: "utf8" });

  test("prints a line per tensor and ends with 1 on a failure", async () => {
    const right = gifgrad(await plant());
    expect(right.stdout).toMatch(/^ok {4}mine\/one.out +error 0.0e\+0 {2}bound 1.0e-6$/m);
    expect(right.status).toBe(0);
    const wrong = gifgrad(await plant({ out: [1, 5, 9] }));
    expect(wrong.stdout).toMatch(/^FAIL {2}mine\/one.out .*\n(.*\n)*1 of 2 tensors within their bounds on reference/m);
    expect(wrong.status).toBe(1);
  });
  test("says that there is no folder before it opens a device", () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [bin, "golden", "/nowhere"], { encoding: "utf8" });
    expect({ status, stdout, stderr }).toEqual({
      status: 1,
      stdout: "",
      stderr: "gifgrad: golden: /nowhere does not exist\n",
    });
  });
  test("counts one folder as one, and says why on standard error", async () => {
    const folder = await plant({ tensors: false });
    const { stdout, stderr, status } = gifgrad(folder);
    expect(stdout).toMatch(/^0 of 0 tensors .*; 1 folder not checked to the end$/m);
    const [, why = ""] = new RegExp(`^gifgrad: golden: ${basename(folder)}: (.+)`, "m").exec(stderr) ?? [];
    expect([status, why !== "", stdout.includes(why)]).toEqual([1, true, false]);
  });
  test("--json is one document", async () => {
    const folder = await plant({ op: "sqare" });
    const { stdout, status } = gifgrad(folder, "--json");
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({ passed: 0, failed: 1, problems: 0 });
    expect(report.results[0]).toMatchObject({ folder: basename(folder), kind: "ops" });
    expect(report.results[0].checks[0]).toMatchObject({ name: "mine/one", ok: false, error: null });
    expect(status).toBe(1);
  });
});
