// `npm run test:browser [-- names] [-t pattern]`: the engine's tests in Chromium, a line for each and a count at the end.

import { CHROMIUM, hasChromium } from "./chromium.ts";
import type { Outcome } from "./page.ts";
import { runInBrowser } from "./run.ts";
import { SUITES } from "./suites.ts";

function fail(message: string): never {
  console.error(`test:browser: ${message}`);
  process.exit(1);
}

function print({ file, name, state, ms, message }: Outcome): void {
  console.log(`${state}  ${file}  ${name}  ${Math.round(ms)} ms`);
  if (state === "failed") console.log(message.replaceAll(/^/gm, "  "));
}

const args = process.argv.slice(2);
const at = args.indexOf("-t");
const [, pattern] = at < 0 ? [] : args.splice(at, 2);
const files = SUITES.filter((file) => args.length === 0 || args.some((name) => file.includes(name)));
if (files.length === 0) fail(`no file is called ${args.join(" or ")}: there are ${SUITES.join(", ")}`);
if (!hasChromium) fail(`${CHROMIUM} is not installed (Debian's package chromium)`);

const started = Date.now();
const timeout = 600_000; // of one test
const result = await runInBrowser({ files, pattern, timeout, onTest: print });
if (!result) fail("this Chromium has no WebGPU adapter");
const of = (state: Outcome["state"]): Outcome[] => result.outcomes.filter((o) => o.state === state);
console.log(`\n${result.adapter}, ${Math.round((Date.now() - started) / 1000)} s`);
for (const outcome of of("failed")) print(outcome);
console.log(`${of("passed").length} passed, ${of("failed").length} failed, ${of("skipped").length} skipped`);
process.exit(of("failed").length > 0 ? 1 : 0);
