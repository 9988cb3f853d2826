// The run folder: what may be resumed, what a damaged or killed run leaves, and that killing a training process at any
// moment changes nothing in the end. The killed process is run_child.ts.

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { appendFile, cp, mkdir, mkdtemp, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Device, openDevice, Parameter, useDevice } from "../engine/index.ts";
import { latestCheckpoint, removeLeftovers } from "../train/checkpoints.ts";
import { holdsImport } from "../train/foreign/record.ts";
import { interruptible, stepLog } from "../train/log.ts";
import { readMetrics } from "../train/metrics.ts";
import { openRun, type RunOptions, type RunRecord, readRun } from "../train/run.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
let folder: string;
let bundle: string;
let device: Device;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "gifgrad-run-"));
  device = await openDevice({ device: "reference" });
  await mkdir(join(root, ".cache"), { recursive: true });
  bundle = await mkdtemp(join(root, ".cache/run-test-")); // inside the checkout, so that packages are found
  const { build } = await import("esbuild");
  const entryPoints = [join(root, "test/run_child.ts")];
  const common = { bundle: true, platform: "node", format: "esm", packages: "external", splitting: true } as const;
  await build({ ...common, entryPoints, outdir: bundle, outExtension: { ".js": ".mjs" }, target: "node20" });
});
afterAll(async () => {
  device.close();
  useDevice(null);
  await Promise.all([folder, bundle].map((path) => rm(path, { recursive: true })));
});

let made = 0;
const fresh = () => join(folder, `run-${made++}`);
const options = (o: Partial<RunOptions> = {}): RunOptions => ({
  config: { recipe: "vae", seed: 1, model: { width: 8 } },
  resume: false,
  adapter: "here",
  ...o,
});
const parameters = (value: number) => new Map([["w", new Parameter([3], new Float32Array(3).fill(value))]]);
const checkpointNames = (dir: string) => readdirSync(join(dir, "checkpoints")).sort();
const record = (dir: string) => JSON.parse(readFileSync(join(dir, "run.json"), "utf8")) as RunRecord;

/** A run that has logged and saved these steps, its weights being the step. */
async function runWith(dir: string, steps: readonly number[], o: Partial<RunOptions> = {}) {
  const run = await openRun(dir, options(o));
  for (const step of steps) {
    run.log({ step, loss: 1 / step });
    await run.save(step, parameters(step), { place: step });
  }
  run.close();
}

describe("a run folder", () => {
  it("keeps the newest checkpoints and resumes from the last", async () => {
    const dir = fresh();
    await runWith(dir, [5, 100, 1_000_000, 2_000_000], { keep: 2 });
    expect(checkpointNames(dir)).toEqual(["step-1000000", "step-2000000"]);
    const run = await openRun(dir, options({ resume: true }));
    const into = parameters(0);
    expect(await run.restore(into)).toEqual({ place: 2_000_000 });
    expect(run.step).toBe(2_000_000);
    expect(await into.get("w")?.data()).toEqual(new Float32Array(3).fill(2_000_000));
    run.close();
    const { checkpoint, config } = await readRun(dir);
    expect([checkpoint.step, config.seed]).toEqual([2_000_000, 1]);
  });

  it("records who ran it and how it ended", async () => {
    const dir = fresh();
    const run = await openRun(dir, options());
    const last = await run.save(3, parameters(3));
    await run.finish(last, { loss: 0.5 });
    run.close();
    const { sessions, finished } = record(dir);
    expect(finished).toMatchObject({ step: 3, sha256: last.sha256, results: { loss: 0.5 } });
    expect(last.sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(sessions).toMatchObject([
      { fromStep: 0, adapter: "here", versions: { node: process.versions.node, gifgrad: "0.1.0" } },
    ]);
    expect(sessions[0].git?.commit ?? "0".repeat(40)).toMatch(/^[0-9a-f]{40}$/); // null in a tarball
    const told: string[] = [];
    (await openRun(dir, options({ resume: true, adapter: "there", notice: (text) => told.push(text) }))).close();
    expect(told.join()).toMatch(/begun on here, going on with there/);
    expect(record(dir).sessions.map(({ fromStep, adapter }) => [fromStep, adapter])).toEqual([
      [0, "here"],
      [3, "there"],
    ]);
  });

  it("is not overwritten, and only resumed where there is one", async () => {
    const dir = fresh();
    await expect(openRun(dir, options({ resume: true }))).rejects.toThrow(/holds no run to resume.*without --resume/);
    expect(existsSync(dir)).toBe(false);
    await expect(readRun(dir)).rejects.toThrow(/holds no run/);
    await symlink("round", join(folder, "round")); // as with a folder without permission: what is in it cannot be told
    await expect(readRun(join(folder, "round"))).rejects.toThrow("ELOOP");
    expect(() => holdsImport(join(folder, "round"))).toThrow("ELOOP");
    await writeFile(join(folder, "file"), "");
    expect([holdsImport(join(folder, "file")), holdsImport(join(folder, "none"))]).toEqual([false, false]);
    await runWith(dir, [1]);
    const before = readFileSync(join(dir, "run.json"), "utf8");
    await expect(openRun(dir, options())).rejects.toThrow(/holds a run already.*--resume/);
    expect(readFileSync(join(dir, "run.json"), "utf8")).toBe(before);
  });

  it("names every key of the configuration that differs", async () => {
    const dir = fresh();
    await runWith(dir, [1]);
    const config = { recipe: "vae", seed: 2, model: { width: 16, depth: undefined as never }, extra: [1] };
    const error = (await openRun(dir, options({ resume: true, config })).catch((thrown: unknown) => thrown)) as Error;
    expect(error.message.split("\n  ").slice(1)).toEqual([
      "seed: 1 in the run, 2 now",
      "model.width: 8 in the run, 16 now",
      "extra: absent in the run, [1] now",
    ]);
    expect(record(dir).sessions).toHaveLength(1);
  });

  it("has in metrics.jsonl what was logged up to the checkpoint, once", async () => {
    const dir = fresh();
    await runWith(dir, [1, 2]);
    await appendFile(join(dir, "metrics.jsonl"), '{"step":3,"loss":9}\n{"step":4,"lo');
    expect(readMetrics(join(dir, "metrics.jsonl")).map(({ step }) => step)).toEqual([1, 2, 3]);
    await runWith(dir, [3], { resume: true });
    expect(readFileSync(join(dir, "metrics.jsonl"), "utf8")).toBe(
      '{"step":1,"loss":1}\n{"step":2,"loss":0.5}\n{"step":3,"loss":0.3333333333333333}\n',
    );
  });
});

describe("a damaged checkpoint is passed over:", () => {
  const damages: [string, (path: string) => Promise<void>][] = [
    ["cut off", (path) => truncate(join(path, "state.safetensors"), 40)],
    [
      "a changed byte",
      async (path) => {
        const file = await readFile(join(path, "state.safetensors"));
        file[file.length - 1] ^= 1;
        await writeFile(join(path, "state.safetensors"), file);
      },
    ],
    ["no parameters", (path) => rm(join(path, "state.safetensors"))],
    ["no state.json", (path) => rm(join(path, "state.json"))],
    ["half a state.json", (path) => truncate(join(path, "state.json"), 20)],
  ];
  it.each(damages)("%s", async (_, damage) => {
    const dir = fresh();
    await runWith(dir, [10, 20]);
    await damage(join(dir, "checkpoints/step-000020"));
    const told: string[] = [];
    const run = await openRun(dir, options({ resume: true, notice: (text) => told.push(text) }));
    expect(run.step).toBe(10);
    expect(told.join()).toMatch(/step-000020 is incomplete or damaged/);
    await run.save(20, parameters(20)); // takes the damaged one's place
    run.close();
    expect((await readRun(dir)).checkpoint.step).toBe(20);
  });

  it("and so are folders that were being written or deleted", async () => {
    const dir = fresh();
    await runWith(dir, [10]);
    const [whole, aside] = ["step-000010", ".aside-step-000020"].map((name) => join(dir, "checkpoints", name));
    await cp(whole, aside, { recursive: true });
    expect((await latestCheckpoint(join(dir, "checkpoints")))?.step).toBe(10);
    await removeLeftovers(join(dir, "checkpoints"));
    expect(checkpointNames(dir)).toEqual(["step-000010"]);
    await rm(whole, { recursive: true });
    await expect(readRun(dir)).rejects.toThrow(/no complete checkpoint/);
  });
});

describe("the progress line of a run", () => {
  it("shows step, loss, stickers a second and the time left, and logs the same", async () => {
    const dir = fresh();
    await runWith(dir, [20]);
    const run = await openRun(dir, options({ resume: true }));
    const written: string[] = [];
    let now = 0;
    const stream = { write: (text: string) => written.push(text) };
    const log = stepLog(run, { label: "vae", steps: 100, batch: 16, stream, clock: () => now });
    for (let step = 21; step <= 30; step++) {
      now += 1000;
      log.step(step, { loss: 0.123456, lr: 1e-4 });
    }
    log.stopped(30);
    run.close();
    expect(written).toEqual([
      "vae  30/100  16 stickers/s  1 min 10 s left  loss 0.1235\n",
      `vae  30/100  in 10 s  stopped after step 30, saved in ${dir}\n`,
      "to go on, give the same command with --resume\n",
    ]);
    expect(readMetrics(join(dir, "metrics.jsonl")).at(-1)).toEqual({ step: 30, loss: 0.123456, lr: 1e-4, seconds: 10 });
  });

  it("interruptible hears the first signal and gives the signals back", () => {
    const listeners = process.listenerCount("SIGINT");
    const interrupt = interruptible({ write: () => {} });
    expect(interrupt.requested).toBe(false);
    process.emit("SIGINT", "SIGINT");
    expect(interrupt.requested).toBe(true);
    interrupt.release();
    expect(process.listenerCount("SIGINT")).toBe(listeners);
  });
});

// ---- processes that are killed -----------------------------------------------------------------------------------------

interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stderr: string;
}

function start(...args: string[]): { child: ChildProcess; ended: Promise<Ended>; running: Promise<unknown> } {
  const child = spawn(process.execPath, [join(bundle, "run_child.mjs"), ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stderr = "";
  child.stderr.on("data", (text: Buffer) => {
    stderr += text.toString();
  });
  const ended = new Promise<Ended>((resolve) => child.on("close", (code, signal) => resolve({ code, signal, stderr })));
  return { child, ended, running: Promise.race([new Promise((resolve) => child.stdout.once("data", resolve)), ended]) };
}

/** metrics.jsonl without what depends on the speed of the machine. */
const metrics = (dir: string) => readMetrics(join(dir, "metrics.jsonl")).map(({ seconds: _, ...rest }) => rest);

describe("a process in the middle of training", () => {
  const STEPS = "40";
  let whole: string;
  beforeAll(async () => {
    whole = fresh();
    expect(await start(whole, STEPS, "start").ended).toMatchObject({ code: 0 });
  });

  /** The same end as the uninterrupted run. */
  function expectSameEnd(dir: string) {
    expect(record(dir).finished?.sha256).toBe(record(whole).finished?.sha256);
    expect(metrics(dir)).toEqual(metrics(whole));
    expect(checkpointNames(dir)).toEqual(checkpointNames(whole));
  }

  it("killed at any moment leaves a whole checkpoint, and ends as if it had not been", async () => {
    const dir = fresh();
    let step = 0;
    for (const [i, wait] of [0, 23, 57, 90].entries()) {
      const { child, ended, running } = start(dir, STEPS, i === 0 ? "start" : "resume");
      await running;
      await sleep(wait);
      child.kill("SIGKILL");
      if ((await ended).signal === null) break; // a disk so fast that it was done already
      const { checkpoint } = await readRun(dir);
      expect(checkpoint.step).toBeGreaterThan(step); // it had saved once when it said that it was running
      step = checkpoint.step;
      for (const name of checkpointNames(dir).filter((name) => !name.startsWith("."))) {
        // Every folder with a checkpoint's name is whole, not only the last.
        const only = join(folder, "only");
        await cp(join(dir, "checkpoints", name), join(only, name), { recursive: true });
        expect((await latestCheckpoint(only))?.step).toBe(Number(name.slice(5)));
        await rm(only, { recursive: true });
      }
    }
    expect(step).toBeGreaterThan(0);
    expect(await start(dir, STEPS, "resume").ended).toMatchObject({ code: 0 });
    expectSameEnd(dir);
  });

  it("saves on Ctrl-C, says how to go on, and goes on to the same end", async () => {
    const dir = fresh();
    const { child, ended, running } = start(dir, STEPS, "start");
    await running;
    child.kill("SIGINT");
    const { code, stderr } = await ended;
    expect({ code, stderr }).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/stopped after step \d+, saved in/),
    });
    expect(stderr).toMatch(/the same command with --resume/);
    expect(record(dir).finished).toBeUndefined();
    expect(await start(dir, STEPS, "resume").ended).toMatchObject({ code: 0 });
    expectSameEnd(dir);
  });

  it("leaves at once on the second Ctrl-C", async () => {
    const { child, ended, running } = start(fresh(), "100000", "start", "deaf");
    await running;
    child.kill("SIGINT");
    await new Promise((resolve) => child.stderr?.once("data", resolve));
    child.kill("SIGINT");
    expect((await ended).code).toBe(130);
  });
});
