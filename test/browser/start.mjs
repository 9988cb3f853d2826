#!/usr/bin/env node
// `npm run test:browser`: builds main.ts, because Node 20 does not run TypeScript, and starts it.

import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { build } from "esbuild";
import { root } from "../../cli/environment.mjs";

const outfile = join(root, ".cache", "browser", "main.mjs");
await build({
  absWorkingDir: root,
  entryPoints: ["test/browser/main.ts"],
  outfile,
  bundle: true,
  format: "esm",
  platform: "node",
  target: "node20",
  packages: "external",
  logLevel: "warning",
});
process.env.GIFGRAD_ROOT = root;
await import(pathToFileURL(outfile).href);
