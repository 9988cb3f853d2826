// The engine in a browser: its own tests, bundled for one and run in Chromium, whose WebGPU is another driver (SwiftShader
// where there is no GPU) behind another implementation of the API. `npm run test:browser` runs more of them. Skipped, aloud,
// where Debian's chromium is not installed.

import { describe, expect, test } from "vitest";
import { CHROMIUM, hasChromium } from "./browser/chromium.ts";
import { type BrowserResult, bundle, runInBrowser } from "./browser/run.ts";
import { QUICK, SUITES } from "./browser/suites.ts";

if (!hasChromium) console.warn(`${CHROMIUM} is not installed: the engine is not tested in a browser`);

const NONE = "this Chromium has no WebGPU adapter";
const by = (state: string, { outcomes }: BrowserResult): string[] =>
  outcomes.filter((o) => o.state === state).map(({ file, name, message }) => `${file}: ${name}: ${message}`);

test("the files that `npm run test:browser` runs ask nothing of Node", async () => {
  await expect(bundle(["debug.test.ts"])).rejects.toThrow(/debug.test.ts.*Could not resolve "node:util"/);
  expect([...(await bundle(SUITES)).keys()]).toEqual(expect.arrayContaining(["/functions.test.js", "/page.js"]));
});

describe.skipIf(!hasChromium)("in Chromium", () => {
  test("the tests of ops, gradients and compiled steps pass", async (context) => {
    const result = await runInBrowser({ files: QUICK, timeout: 120_000 });
    if (!result) return context.skip(NONE);
    expect(by("failed", result)).toEqual([]);
    expect(by("passed", result).length).toBeGreaterThan(150);
  }, 400_000);

  test("a failure there is one here, with its reason", async (context) => {
    const result = await runInBrowser({ files: ["browser/planted.ts"], timeout: 60_000 });
    if (!result) return context.skip(NONE);
    expect(by("passed", result)).toEqual(["planted.js: passes: "]);
    expect(by("skipped", result)).toEqual(["planted.js: is skipped: for a reason"]);
    const [wrong, unknown, ...others] = by("failed", result);
    expect(wrong).toMatch(/not the definition: expected Float32Array\[ 2 \] to deeply equal Float32Array\[ 0\.84/);
    expect(unknown).toMatch(/does not compile: .*sine/s);
    expect(others).toEqual([]);
  }, 120_000);
});
