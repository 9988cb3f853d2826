// Test files in a browser: bundled for one, so that the engine finds navigator.gpu in place of Dawn, and run in Chromium
// on whatever adapter it has. Called by browser.test.ts (a part, within `npm test`) and main.ts (`npm run test:browser`).

import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { openPage, WEBGPU } from "./chromium.ts";
import type { Outcome, Wanted } from "./page.ts";

const root = process.env.GIFGRAD_ROOT ?? fileURLToPath(new URL("../..", import.meta.url));

/** Address -> JavaScript. Throws with esbuild's message when a test needs what a browser does not have. */
export async function bundle(files: readonly string[]): Promise<Map<string, string>> {
  const { outputFiles } = await build({
    absWorkingDir: root,
    entryPoints: ["test/browser/page.ts", ...files.map((file) => `test/${file}`)],
    entryNames: "[name]",
    outdir: "/",
    bundle: true,
    splitting: true,
    write: false,
    format: "esm",
    platform: "browser",
    target: "es2022",
    alias: { vitest: "./test/browser/vitest.ts" },
    logLevel: "silent",
  });
  return new Map(outputFiles.map(({ path, text }) => [path.replaceAll("\\", "/"), text]));
}

export interface BrowserRun extends Omit<Wanted, "addresses"> {
  /** Test files, named from test/. Their base names differ. */
  readonly files: readonly string[];
  onTest?(outcome: Outcome): void;
}

export interface BrowserResult {
  /** What Chromium says of its adapter. */
  readonly adapter: string;
  readonly outcomes: readonly Outcome[];
}

const ADAPTER = `navigator.gpu?.requestAdapter().then((a) => a
  && [a.info.vendor, a.info.architecture, a.info.device, a.info.description].filter(Boolean).join(" "))`;

/** Runs the tests, or returns null when this Chromium has no WebGPU adapter. Waits for all of them. */
export async function runInBrowser({ files, onTest, ...wanted }: BrowserRun): Promise<BrowserResult | null> {
  const served = await bundle(files);
  served.set("/", '<!doctype html><title>tests</title><script type="module" src="/page.js"></script>');
  const { page, close } = await openPage(served, WEBGPU);
  try {
    const adapter = (await page.evaluate(ADAPTER)) as string | null;
    if (!adapter) return null;
    await page.exposeFunction("report", (outcome: Outcome) => onTest?.(outcome));
    const addresses = files.map((file) => `/${basename(file, ".ts")}.js`);
    const call = `runTests(${JSON.stringify({ ...wanted, addresses } satisfies Wanted)})`;
    return { adapter, outcomes: (await page.evaluate(call)) as Outcome[] };
  } finally {
    await close();
  }
}
