// The `gifgrad` command as its users meet it: a process with arguments, output and an exit code. What the commands do is
// tested where they do it; here: start-up time, help, mistakes on the command line, the build and the progress line.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { asideOf, withoutAside } from "../engine/atomic.ts";
import { progress } from "../train/progress.ts";
import { valueImports } from "./layout.ts";

const bin = fileURLToPath(new URL("../cli/gifgrad.mjs", import.meta.url));

function gifgrad(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [bin, ...args], { encoding: "utf8" });
  return { status, stdout, stderr };
}

/** Seconds of processor time of one `gifgrad --help`, Node's own start included, told by the process as it ends. */
function helpSeconds(): number {
  const tell =
    'process.on("exit", () => { const { user, system } = process.cpuUsage(); console.error(user + system); });';
  const args = ["--import", `data:text/javascript,${tell}`, bin, "--help"];
  return Number(spawnSync(process.execPath, args, { encoding: "utf8" }).stderr) / 1e6;
}

beforeAll(() => {
  expect(gifgrad("--help").stderr).toBe(""); // builds dist where it is missing or older than the sources
});

test("DEBUG says in one line what it does not know", () => {
  const warned = (DEBUG: string): string =>
    spawnSync(process.execPath, [bin, "params", "--json", "--preset", "nano"], {
      encoding: "utf8",
      env: { ...process.env, DEBUG },
    }).stderr;
  expect(warned("foo,stack,bar")).toBe("warning: DEBUG does not know foo, bar; it takes plan, wgsl, time, stack\n");
  expect(warned("time,stack")).toBe("");
});

test("an error names a file and not the place where it is written aside", () => {
  const said = (path: string): string => `Cannot open "${path}": Permission denied`;
  expect(withoutAside(said(asideOf("a/b.parquet")))).toBe(said("a/b.parquet"));
  expect(withoutAside(said("a/b.12.tmp"))).toBe(said("a/b.12.tmp"));
});

describe("help", () => {
  test("comes in under half a second", () => {
    // Processor time, which other jobs on the machine hardly change; start-up waits for nothing, so alone it is the
    // time on the clock as well. The best of three; usually 0.12 s.
    const best = Math.min(...[1, 2, 3].map(helpSeconds));
    expect(best).toBeLessThan(0.5);
  });
  test("and --version the version of the package", () => {
    const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
    expect(gifgrad("--version")).toEqual({ status: 0, stdout: `${version}\n`, stderr: "" });
  });
  test("loads nothing but commander: the commands' own files wait until they run", () => {
    const commands = ["benchmark_commands.ts", "dataset_commands.ts", "eval_commands.ts"];
    const eager = ["main.ts", "options.ts", ...commands].flatMap((file) => {
      const source = readFileSync(new URL(`../cli/${file}`, import.meta.url), "utf8");
      return valueImports(source).filter(({ dynamic }) => !dynamic);
    });
    expect(new Set(eager.map(({ target }) => target))).toEqual(
      new Set(["commander", "./options.ts", ...commands.map((file) => `./${file}`), "../package.json"]),
    );
  });
  test("names every command, and each command has its own", () => {
    const commands = ["start", "starter", "train", "generate", "doctor", "golden"];
    const help = gifgrad("--help").stdout;
    for (const command of commands) {
      expect(help).toMatch(new RegExp(`^  ${command}\\b`, "m"));
      expect(gifgrad(command, "--help")).toMatchObject({ status: 0, stderr: "" });
    }
  });
});

describe("a mistake gives one line and exit code 1:", () => {
  test.each([
    ["an unknown command", ["trian"], /unknown command 'trian' \(Did you mean train\?\)/],
    [
      "a benchmark without a configuration",
      ["benchmark"],
      /^gifgrad: benchmark: give a configuration; --schema prints/,
    ],
    [
      "a benchmark's that is not there",
      ["benchmark", "nowhere.json"],
      /the configuration nowhere\.json does not exist/,
    ],
    ["a benchmark's that is not JSON", ["benchmark", "README.md"], /^gifgrad: README\.md is not JSON: /],
    ["an unknown option", ["start", "--sede", "3"], /unknown option '--sede' \(Did you mean --seed\?\)/],
    ["a missing argument", ["starter"], /missing required argument 'out'/],
    ["a missing option", ["train", "d"], /--out <folder>' not specified/],
    [
      "an unknown recipe",
      ["train", "d", "--recipe", "gan", "--out", "r"],
      /Allowed choices are autoencoder, diffusion/,
    ],
    ["a count that is no number", ["starter", "o", "--count", "many"], /--count <n>' argument 'many' .*whole number/],
    ["a negative count", ["starter", "o", "--count", "-5"], /--count <n>' argument '-5' .*from 1/],
    ["an odd size", ["starter", "o", "--size", "65"], /--size <pixels>' argument '65' .*multiple of 8/],
    ["a rate of zero", ["train", "d", "--recipe", "diffusion", "--out", "r", "--lr", "0"], /'0' .*above 0/],
    ["an empty caption", ["generate", "--run", "r", " "], /caption is empty/],
    ["one file for two captions", ["generate", "--run", "r", "a", "b", "-o", "x.gif"], /2 stickers .*give -o a folder/],
    [
      "an option of other systems",
      ["train", "d", "--system", "videogpt", "--trainable", "conv", "--out", "r"],
      /--trainable is for diffusion systems, not for videogpt/,
    ],
    ["VideoGPT's option", ["train", "d", "--objective", "masked", "--out", "r"], /--objective is for videogpt's prior/],
    [
      "fresh noise where there is none",
      ["generate", "--run", "r", "a", "--sampler", "dpm++", "--eta", "0.5"],
      /--eta is for the samplers ddim and euler, not for dpm\+\+/,
    ],
    [
      "a stage of no training",
      ["plan", "--recipe", "diffusion"],
      /--recipe is for training steps, which --train plans/,
    ],
    ["a picture that is no GIF", ["generate", "--run", "r", "a", "-o", "x.png"], /x.png is no .gif/],
  ])("%s", (_, args, message) => {
    const { status, stdout, stderr } = gifgrad(...args);
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(/^gifgrad: [^\n]+\n$/);
    expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
  });
});

test("a command finds its files from the build as it does from the sources", () => {
  // The starter set reads its font and subjects from data/starter: dist must not have moved them.
  const out = mkdtempSync(join(tmpdir(), "gifgrad-"));
  try {
    const { status, stderr } = gifgrad("starter", out, "--count", "4", "--size", "32");
    expect(stderr).toMatch(/^starter {2}4\/4 .*\n$/);
    expect(status).toBe(0);
    expect(readFileSync(join(out, "metadata.jsonl"), "utf8").trim().split("\n")).toHaveLength(4);
  } finally {
    rmSync(out, { recursive: true });
  }
});

describe("the progress line", () => {
  function record(isTTY: boolean) {
    const written: string[] = [];
    let now = 0;
    const stream = { isTTY, columns: 60, write: (text: string) => written.push(text) };
    const line = progress("train", 100, { from: 20, stream, clock: () => now });
    for (let done = 21; done <= 100; done++) {
      now += 1000; // one unit a second
      line.update(done, "loss 0.5");
    }
    line.done("saved");
    return written;
  }

  test("is a line every ten seconds in a log, with the speed of this process alone", () => {
    const lines = record(false);
    expect(lines).toHaveLength(8 + 1);
    expect(lines[0]).toBe("train  30/100  1.0/s  1 min 10 s left  loss 0.5\n");
    expect(lines.at(-1)).toBe("train  100/100  in 1 min 20 s  saved\n");
  });
  test("is one line rewritten on a terminal, never wider than it", () => {
    const lines = record(true);
    expect(lines.length).toBeGreaterThan(50);
    expect(lines.slice(0, -1).join("")).not.toContain("\n");
    for (const line of lines) expect(line.replace("\u001b[K", "").trim().length).toBeLessThan(60);
  });
});
