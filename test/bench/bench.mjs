#!/usr/bin/env node
// `npm run bench`: builds main.ts and child.ts, because Node 20 does not run TypeScript, and starts the first. Plain
// JavaScript like the other entries of the project; everything else is in main.ts.

import { rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import { prepareEnvironment, root } from "../../cli/environment.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const outdir = join(root, ".cache", "bench", String(process.pid)); // several benchmarks may be running
await build({
  entryPoints: [join(here, "main.ts"), join(here, "child.ts")],
  outdir,
  bundle: true,
  splitting: true,
  format: "esm",
  platform: "node",
  target: "node20",
  external: ["webgpu", "commander", "@jax-js/*", "esbuild"],
  mainFields: ["module", "main"], // TensorFlow.js registers its gradients in its module build only, so it is bundled
  banner: {
    js: 'import { createRequire as requireFrom } from "node:module"; const require = requireFrom(import.meta.url);',
  },
  outExtension: { ".js": ".mjs" },
  logLevel: "warning",
});
process.on("exit", () => rmSync(outdir, { recursive: true, force: true }));
prepareEnvironment();
process.env.BENCH_ROOT = root;
process.env.BENCH_CHILD = join(outdir, "child.mjs");
try {
  await import(pathToFileURL(join(outdir, "main.mjs")).href);
} catch (error) {
  // One line for what the user can mend, the place for what only we can.
  const ours = error instanceof TypeError || error instanceof ReferenceError;
  console.error(`bench: ${ours || process.env.DEBUG?.split(",").includes("stack") ? error.stack : error.message}`);
  process.exit(1);
}
