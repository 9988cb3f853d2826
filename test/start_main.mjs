// What `npm run` commands of this folder share: builds a main.ts, because Node 20 does not run TypeScript, and starts it.
// Plain JavaScript like the other entries of the project. Called by deep/deep.mjs, fuzz/fuzz.mjs and scale/scale.mjs.

import { rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import { sourceUrls } from "../cli/build.mjs";
import { prepareEnvironment, root } from "../cli/environment.mjs";

/** Runs `<name>/main.ts` from a bundle of its own under .cache, which goes when the process ends: several may be running. */
export async function startMain(name) {
  const outdir = join(root, ".cache", name, String(process.pid));
  await build({
    entryPoints: [fileURLToPath(new URL(`${name}/main.ts`, import.meta.url))],
    outdir,
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "node",
    target: "node20",
    packages: "external",
    outExtension: { ".js": ".mjs" },
    logLevel: "warning",
    plugins: [sourceUrls("../../..")],
  });
  process.on("exit", () => rmSync(outdir, { recursive: true, force: true }));
  prepareEnvironment();
  process.argv[1] = join(outdir, "main.mjs"); // what a main starts itself by
  await import(pathToFileURL(process.argv[1]).href);
}
