#!/usr/bin/env node
// `npm run dataset:scale`: builds main.ts, because Node 20 does not run TypeScript, and starts it. Plain JavaScript like the
// other entries of the project; everything else is in main.ts.

import { rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import { prepareEnvironment, root } from "../../cli/environment.mjs";

const outdir = join(root, ".cache", "scale", String(process.pid)); // several may be running
await build({
  entryPoints: [fileURLToPath(new URL("main.ts", import.meta.url))],
  outdir,
  bundle: true,
  splitting: true,
  format: "esm",
  platform: "node",
  target: "node20",
  packages: "external",
  outExtension: { ".js": ".mjs" },
  logLevel: "warning",
});
process.on("exit", () => rmSync(outdir, { recursive: true, force: true }));
prepareEnvironment();
await import(pathToFileURL(join(outdir, "main.mjs")).href);
