// Training as its users meet it, at preset nano for a handful of steps: a folder of good and bad files in, run folders out;
// interrupted, killed and resumed runs end where uninterrupted ones do; what cannot go on says why. That it learns is
// overfit.test.ts; the run folder alone is run.test.ts.

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { type StageOptions, stageFolder, trainStage } from "../cli/train.ts";
import { type Dataset, openDataset } from "../data/store.ts";
import { loadTokenizer, saveTokenizer } from "../data/tokenizer.ts";
import { trainTokenizer } from "../data/tokenizer_train.ts";
import { presetConfig } from "../models/config.ts";
import { type AutoencoderRecipe, trainAutoencoder } from "../train/autoencoder.ts";
import { trainDiffusion } from "../train/diffusion.ts";
import { exitCode } from "../train/log.ts";
import { MetricsFile, readMetrics } from "../train/metrics.ts";
import { type RunRecord, readRun } from "../train/run.ts";
import { type StageResult, TrainingError } from "../train/stage.ts";
import { gpu, onGpu } from "./device.ts";
import { type MixedFolder, writeMixedFolder } from "./stickers.ts";

// A software adapter compiles two hundred kernels for the first step of a model: seconds when it is alone, more when not.
vi.setConfig({ testTimeout: 240_000, hookTimeout: 60_000 });

const root = fileURLToPath(new URL("..", import.meta.url));
const config = presetConfig("nano");
const LR = 1e-3;
const STEPS = 5;

let folder: string;
let stickers: string;
let mixed: MixedFolder;
let data: Dataset;
let written: string[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "gifgrad-train-"));
  stickers = join(folder, "stickers");
  mixed = await writeMixedFolder(stickers);
  data = await openDataset(stickers, { size: config.size });
  await gpu();
  vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    written.push(String(text));
    return true;
  });
  vi.spyOn(console, "error").mockImplementation((text) => void written.push(`${text}\n`));
});
afterAll(async () => {
  vi.restoreAllMocks();
  data.close();
  await rm(folder, { recursive: true });
});

/** What the body wrote for the user. */
async function told(body: () => Promise<unknown>): Promise<string> {
  written = [];
  await body();
  return written.join("");
}

const options = (o: Partial<StageOptions>): StageOptions => ({
  data: stickers,
  recipe: "autoencoder",
  preset: "nano",
  steps: STEPS,
  out: join(folder, "run"),
  resume: false,
  seed: 3,
  batch: 1,
  lr: LR,
  ...o,
});
const train = (o: Partial<StageOptions>): Promise<StageResult> => trainStage(options(o));
const autoencoderRun = (): string => stageFolder(join(folder, "run"), "autoencoder");
const recipe = (o: Partial<AutoencoderRecipe>): AutoencoderRecipe => ({
  data,
  config,
  out: join(folder, "unused"),
  steps: STEPS,
  batch: 1,
  lr: LR,
  seed: 3,
  resume: false,
  ...o,
});
const record = (dir: string): RunRecord => JSON.parse(readFileSync(join(dir, "run.json"), "utf8"));

/** Presses Ctrl-C when a step has been done, while `body` runs. */
async function interrupting<T>(step: number, signal: "SIGINT" | "SIGTERM", body: () => Promise<T>): Promise<T> {
  const append = MetricsFile.prototype.append;
  const spy = vi.spyOn(MetricsFile.prototype, "append").mockImplementation(function (this: MetricsFile, metrics) {
    append.call(this, metrics);
    if (metrics.step === step) process.emit(signal, signal);
  });
  return body().finally(() => spy.mockRestore());
}

describe("on a folder of four formats by two programs, with bad files in it,", () => {
  onGpu("the autoencoder is trained on what can be used, and the rest is named", async () => {
    const out = await told(async () => {
      const result = await train({});
      expect(result.sha256).toMatch(/^[0-9a-f]{64}$/);
      expect(result.losses.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5]);
      expect(record(autoencoderRun()).finished).toMatchObject({ step: STEPS, sha256: result.sha256 });
    });
    expect(out).toMatch(/7 stickers in .*stickers, 6 rejected \(see rejected\.jsonl\)/);
    expect(out).toMatch(/autoencoder {2}5\/5 {2}in/);
    expect(data.records.map((r) => r.file_name)).toEqual(mixed.good);
    const lines = readFileSync(join(stickers, "rejected.jsonl"), "utf8").trim().split("\n");
    const rejected = lines.map((line) => JSON.parse(line) as { file_name: string; reason: string });
    expect(rejected.map((r) => r.file_name).sort()).toEqual(["metadata.jsonl:13", ...mixed.bad].sort());
    for (const { reason } of rejected)
      expect(reason).toMatch(/truncated|corrupt|empty|does not exist|not a GIF|not JSON/);
  });

  onGpu("then the diffusion model on its latents; both log every step", async () => {
    const result = await train({ recipe: "diffusion" });
    const dir = stageFolder(join(folder, "run"), "diffusion");
    expect(await readdir(dir)).toEqual(
      expect.arrayContaining([
        "autoencoder.safetensors",
        "checkpoints",
        "config.json",
        "metrics.jsonl",
        "tokenizer.json",
      ]),
    );
    // Noise of variance 1, to a network that answers nearly nothing yet: far more would mean latents of another scale.
    expect(result.losses.map(({ loss }) => loss).filter((loss) => !(loss > 0.1 && loss < 2.5))).toEqual([]);
    for (const stage of [autoencoderRun(), dir]) {
      const metrics = readMetrics(join(stage, "metrics.jsonl"));
      expect(metrics.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5]);
      for (const line of metrics) {
        expect(Object.keys(line)).toEqual(["step", "loss", "gradient_norm", "lr", "stall_ms", "seconds"]);
        expect(Object.values(line).every(Number.isFinite)).toBe(true);
      }
      expect(metrics[0].lr).toBe(LR); // the warm-up is half a step long, and does not overshoot
      expect(metrics[4].lr).toBeLessThan(0.2 * LR);
    }
  });
});

describe("an interrupted run", () => {
  const dir = (): string => join(folder, "interrupted");

  onGpu("saves, says how to go on, and ends in the same bits as an uninterrupted one", async () => {
    const out = await told(async () => {
      const result = await interrupting(3, "SIGINT", () => trainAutoencoder(recipe({ out: dir() })));
      expect(result).toMatchObject({ sha256: null, stopped: "SIGINT" });
    });
    expect(out).toMatch(/stopping after this step; Ctrl-C again/);
    expect(out).toMatch(
      /stopped after step 3, saved in .*interrupted\nto go on, give the same command with --resume\n/,
    );
    expect(record(dir()).finished).toBeUndefined();
    const result = await trainAutoencoder(recipe({ out: dir(), resume: true }));
    expect(result.sha256).toBe(record(autoencoderRun()).finished?.sha256);
    expect(result.losses.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5]); // of both sessions
    expect(result.firstLoss).toBe(readMetrics(join(autoencoderRun(), "metrics.jsonl"))[0].loss);
  });

  onGpu("is stopped by SIGTERM just so, with its own exit code and its own advice", async () => {
    const out = await told(async () => {
      const o = recipe({ out: join(folder, "terminated"), goOn: "begin again" });
      const result = await interrupting(1, "SIGTERM", () => trainAutoencoder(o));
      expect(result).toMatchObject({ sha256: null, stopped: "SIGTERM" });
    });
    expect(out).toMatch(/stopped after step 1, saved in .*terminated\nto go on, begin again\n/);
    expect([exitCode("SIGINT"), exitCode("SIGTERM")]).toEqual([130, 143]);
  });

  onGpu("that was complete stays complete when it is resumed", async () => {
    const before = record(dir()).finished?.sha256;
    const out = await told(async () => {
      const result = await trainAutoencoder(recipe({ out: dir(), resume: true }));
      expect(result).toMatchObject({ sha256: before, stopped: null });
      expect(result.losses).toHaveLength(STEPS);
    });
    expect(out).not.toMatch(/stopped|--resume/);
    expect(record(dir()).finished?.sha256).toBe(before);
  });

  onGpu("is not resumed with other options, and says which", async () => {
    const resume = (o: Partial<AutoencoderRecipe>): Promise<unknown> =>
      trainAutoencoder(recipe({ out: dir(), resume: true, ...o }));
    await expect(resume({ lr: 2e-3, seed: 4 })).rejects.toThrow(
      /was started with another configuration.*\n {2}lr: 0\.001 in the run, 0\.002 now\n {2}seed: 3 in the run, 4 now$/,
    );
    await expect(resume({ data: { ...data, fingerprint: "other" } })).rejects.toThrow(
      /data: "[0-9a-f]{64}" in the run, "other" now/,
    );
    await expect(trainAutoencoder(recipe({ out: dir() }))).rejects.toThrow(
      /holds a run already: go on with it by --resume/,
    );
  });
});

describe("a run whose numbers overflow", () => {
  onGpu("stops with the step, the last good checkpoint and the usual causes", async () => {
    const out = join(folder, "overflow");
    const before = process.listenerCount("SIGINT");
    const error = await trainAutoencoder(recipe({ out, lr: 1e30, saveEvery: 1 })).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(TrainingError);
    expect((error as Error).message).toMatch(
      /^(loss|the gradient's norm) is (NaN|Infinity) at step 2; the last good checkpoint is step 1 in .*overflow\. Usual causes: the learning rate is too high \(halve --lr\)/,
    );
    expect((await readRun(out)).checkpoint.step).toBe(1);
    expect(process.listenerCount("SIGINT")).toBe(before);
  });
});

describe("the diffusion recipe", () => {
  const diffusion = (o: Partial<Parameters<typeof trainDiffusion>[0]>): Promise<StageResult> =>
    trainDiffusion({ ...recipe({}), autoencoder: autoencoderRun(), ...o });

  onGpu("takes a tokenizer.json from elsewhere, and holds a resumed run to it", async () => {
    const [mine, other] = ["mine.json", "other.json"].map((name) => join(folder, name));
    await saveTokenizer(trainTokenizer(["a red disc", "a blue disc"], { vocabSize: 600 }), mine);
    await saveTokenizer(trainTokenizer(["etaoin shrdlu"], { vocabSize: 600 }), other);
    const out = join(folder, "external");
    expect((await diffusion({ out, tokenizer: mine, steps: 1 })).sha256).not.toBe(null);
    expect((await loadTokenizer(join(out, "tokenizer.json"))).file).toEqual((await loadTokenizer(mine)).file);
    await expect(diffusion({ out, tokenizer: other, steps: 1, resume: true })).rejects.toThrow(/\n {2}tokenizer: /);
    await expect(diffusion({ out, tokenizer: join(folder, "none.json") })).rejects.toThrow(/none\.json/);
  });

  test("refuses an autoencoder of other sizes before it makes a folder", async () => {
    if (!(await gpu())) return;
    const out = join(folder, "misfit");
    await expect(diffusion({ out, config: presetConfig("micro") })).rejects.toThrow(
      /holds an autoencoder of preset nano, which does not fit preset micro: give --preset nano/,
    );
    await expect(diffusion({ out, autoencoder: join(folder, "nothing") })).rejects.toThrow(/nothing holds no run/);
    expect(existsSync(out)).toBe(false);
  });
});

/** A child process with its output; `said` resolves when its standard error matches. */
function start(args: readonly string[]) {
  const child: ChildProcess = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "pipe"] });
  let stderr = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const ended = new Promise<{ code: number | null; signal: string | null; stderr: string }>((resolve) => {
    child.on("close", (code, signal) => resolve({ code, signal, stderr }));
  });
  return { child, ended };
}

/** Waits until the run in `dir` has logged that many steps. */
async function logged(dir: string, steps: number, ended: Promise<{ stderr: string }>): Promise<void> {
  let over: string | null = null;
  void ended.then(({ stderr }) => {
    over = stderr;
  });
  const path = join(dir, "metrics.jsonl");
  while (!existsSync(path) || readMetrics(path).length < steps) {
    if (over !== null) throw new Error(`the process ended before step ${steps}: ${over}`);
    await sleep(20);
  }
}

describe("a process", () => {
  onGpu("that is killed in the middle and resumed ends in the same bits", async () => {
    const bundle = await mkdtemp(join(root, ".cache/train-test-")); // inside the checkout, so that packages are found
    try {
      const { build } = await import("esbuild");
      const outfile = join(bundle, "child.mjs");
      const entryPoints = [join(root, "test/train_child.ts")];
      await build({ entryPoints, outfile, bundle: true, platform: "node", format: "esm", packages: "external" });
      const args = (out: string, how: string): string[] => [outfile, stickers, autoencoderRun(), out, "6", how];
      const killed = join(folder, "killed");
      const first = start(args(killed, "start"));
      await logged(killed, 3, first.ended);
      first.child.kill("SIGKILL");
      expect((await first.ended).signal).toBe("SIGKILL");
      expect(await start(args(killed, "resume")).ended).toMatchObject({ code: 0 });
      const { sessions, finished } = record(killed);
      expect(sessions[1].fromStep).toBeGreaterThanOrEqual(2); // it went on, and did not begin again
      const whole = await trainDiffusion({
        ...recipe({ out: join(folder, "whole"), steps: 6 }),
        autoencoder: autoencoderRun(),
      });
      expect(finished?.sha256).toBe(whole.sha256);
    } finally {
      await rm(bundle, { recursive: true });
    }
  });

  onGpu("`gifgrad train` saves on Ctrl-C, exits with 130 and goes on to the same end", async () => {
    const out = join(folder, "command");
    const flags = `--preset nano --steps ${STEPS} --batch 1 --lr ${LR} --seed 3 --out`.split(" ");
    const args = [join(root, "cli/gifgrad.mjs"), "train", stickers, "--recipe", "autoencoder", ...flags, out];
    const first = start(args);
    await logged(stageFolder(out, "autoencoder"), 1, first.ended);
    first.child.kill("SIGINT");
    const { code, stderr } = await first.ended;
    expect({ code, stderr }).toMatchObject({ code: 130, stderr: expect.stringMatching(/to go on, .*--resume/) });
    const again = await start(args).ended; // without --resume
    expect(again.code).toBe(1);
    expect(again.stderr).toMatch(
      /^gifgrad: .* holds a run already: go on with it by --resume, or give another folder\n$/,
    );
    const second = await start([...args, "--resume"]).ended;
    expect(second).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/^adapter: .+\n7 stickers in .+, 6 rejected/m),
    });
    expect(record(stageFolder(out, "autoencoder")).finished?.sha256).toBe(record(autoencoderRun()).finished?.sha256);
  });

  onGpu(
    "`gifgrad start` stops after the stage that Ctrl-C met, with 130 and the command that finishes that stage",
    async () => {
      const out = join(folder, "start");
      const job = start([join(root, "cli/gifgrad.mjs"), "start", "--out", out]);
      await logged(stageFolder(out, "autoencoder"), 1, job.ended);
      job.child.kill("SIGINT");
      const { code, stderr } = await job.ended;
      expect({ code, stderr }).toMatchObject({
        code: 130,
        stderr: expect.stringMatching(/interrupted: what follows was not done/),
      });
      expect(stderr).toMatch(
        /to go on, finish this stage alone with\n {2}npx gifgrad train .* --recipe autoencoder .* --resume\n/,
      );
      expect(existsSync(stageFolder(out, "diffusion"))).toBe(false);
    },
  );
});
