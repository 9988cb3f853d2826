// check:deep: shares of a budget, runs that are stopped, killed and resumed, and what it says and returns at the end.

import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import type { Check } from "../engine/testing/check.ts";
import { summary } from "./deep/report.ts";
import { runDeep } from "./deep/run.ts";
import { newState, readState, type State } from "./deep/state.ts";
import { atLeast, keyOf, share, suite } from "./deep/suite.ts";

const folder = mkdtempSync(join(tmpdir(), "deep"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const deep = fileURLToPath(new URL("deep/deep.mjs", import.meta.url));

/** A check that fails in batches whose seed is even, and writes down the batches it ran. */
function made(subject: string, fails: boolean, log: string[] = []): Check {
  return {
    subject,
    law: "law",
    needs: "host",
    run: async ({ seed, cases }) => {
      log.push(`${subject} ${seed} ${cases}`);
      const failure = fails && seed % 2 === 0 ? { message: `${subject}, shapes [1]: wrong`, seed, cases } : null;
      return { cases, skipped: { "no reason": 1 }, failure };
    },
  };
}

describe("a budget", () => {
  test("is shared among all ops, kernel families and programs, one case at least for each", () => {
    const checks = suite();
    const names = new Set(checks.map((c) => c.subject));
    expect([...names]).toEqual(expect.arrayContaining(["op matmul", "op softmax", "kernel attention", "programs"]));
    expect(new Set(checks.map(keyOf)).size).toBe(checks.length);
    const shares = share(checks, 500_000);
    const total = shares.reduce((a, b) => a + b, 0);
    expect(total).toBeGreaterThanOrEqual(500_000);
    expect(total).toBeLessThan(500_000 + checks.length);
    expect(Math.min(...share(checks, 1))).toBe(1);
  });
  test("that is smaller than one case for each check says how many cases it becomes", () => {
    const checks = [1, 2, 3, 4].map((i) => made(`op ${i}`, false));
    expect(atLeast(checks, 2)).toBe(
      "--cases 2 becomes 4 cases: each of the 4 checks gets its share, rounded up, and at least one.",
    );
    expect(atLeast(checks, 400)).toBeNull();
  });
});

describe("a run", () => {
  test("that is stopped and resumed draws what one that is not stopped draws", async () => {
    const [whole, parts]: string[][] = [[], []];
    const run = (state: State, log: string[], stop?: () => boolean): Promise<boolean> =>
      runDeep({ checks: [made("a", false, log), made("b", true, log)], state, path: join(folder, "s.json"), stop });
    const straight = newState(7, 1000, "");
    expect(await run(straight, whole)).toBe(true);
    let left = 3;
    expect(await run(newState(7, 1000, ""), parts, () => left-- === 0)).toBe(false);
    const resumed = readState(join(folder, "s.json")) as State;
    expect(resumed.finished).toBe(false);
    expect(await run(resumed, parts)).toBe(true);
    expect(parts).toEqual(whole);
    expect(readState(join(folder, "s.json"))).toEqual(straight);
  });

  test("stops a check that has failed three times, and says what failed", async () => {
    const state = newState(1, 2000, "");
    await runDeep({ checks: [made("bad", true), made("good", false)], state, path: join(folder, "f.json") });
    const { failures, cases } = state.checks["bad: law"];
    expect(failures).toHaveLength(3);
    expect(cases).toBeLessThan(1000);
    expect(state.checks["good: law"].cases).toBe(1000);
    const words = summary(state);
    expect(words).toContain(`bad: law\n  bad, shapes [1]: wrong\n  (seed ${failures[0].seed}, 50 cases)`);
    expect(words).toMatch(/law: no reason +\d+/);
    expect(words).toMatch(/1,\d+ cases, 3 failures, seed 1$/);
  });

  test("of the command line survives being killed", async () => {
    const state = join(folder, "killed.json");
    const args = [deep, "--host", "--only", "op tanh", "--cases", "8000", "--seed", "5", "--state", state];
    const child = spawn(process.execPath, args, { stdio: "ignore" });
    const done = new Promise((resolve) => child.on("close", resolve));
    const cases = (): number => {
      const found = readState(state);
      return found ? Object.values(found.checks).reduce((sum, t) => sum + t.cases, 0) : 0;
    };
    while (cases() < 100 && child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 20));
    child.kill("SIGKILL");
    await done;
    const before = cases();
    expect(before).toBeGreaterThanOrEqual(100);
    expect(JSON.parse(readFileSync(state, "utf8")).finished).toBe(false);
    const output = execFileSync(process.execPath, args, { encoding: "utf8" });
    expect(output).toMatch(/^Going on with the run/m);
    expect(output).toMatch(/op tanh +8,\d\d\d\n/);
    expect(output.trim()).toMatch(/8,\d\d\d cases, 0 failures, seed 5$/);
    expect(() => execFileSync(process.execPath, [...args, "--resume", "--seed", "6"], { stdio: "pipe" })).toThrow(
      /no run to resume/,
    );
  });
});
