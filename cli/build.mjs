// Turns the sources into JavaScript under dist/: the `gifgrad` command (Node 20 does not run TypeScript) and the package's
// entry points. Both come from one bundle with shared chunks, so that all of a program uses one engine; packages stay
// outside, and each lazily imported command is a chunk of its own, so that `gifgrad --help` loads almost nothing. Called by
// gifgrad.mjs before every command, when esbuild itself is loaded only if something changed; and by package.mjs.

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { root } from "./environment.mjs";

export const dist = join(root, "dist");
const stamp = join(dist, "build.json"); // {source file: its modification time when it was built}
const DAY = 24 * 3600 * 1000;

/** The package's entry points: name in dist -> source. package.json's `exports` names the same. */
export const entries = {
  index: "engine/index.ts",
  nn: "engine/nn/index.ts",
  optim: "engine/optim/index.ts",
  testing: "engine/testing/index.ts",
  models: "models/index.ts",
};

/** True when dist is missing or any file that went into it has changed, or gone, since. */
export function stale() {
  if (!existsSync(stamp)) return true;
  const built = JSON.parse(readFileSync(stamp, "utf8"));
  return Object.entries(built).some(([file, time]) => modified(join(root, file)) !== time);
}

/**
 * Bundles into dist. Throws with esbuild's message, which names file and line, when a source does not parse.
 * `sourcemap` is for a clone; the package goes without.
 */
export async function build({ sourcemap = true } = {}) {
  const { build: bundle } = await import("esbuild");
  const started = Date.now();
  const { outputFiles, metafile } = await bundle({
    absWorkingDir: root,
    entryPoints: { main: "cli/main.ts", curate_worker: "data/curate/worker.ts", ...entries },
    outdir: "dist",
    bundle: true,
    format: "esm",
    platform: "node",
    target: "node20",
    packages: "external",
    splitting: true,
    sourcemap,
    metafile: true,
    write: false,
    logLevel: "silent",
    plugins: [sourceUrls("..")],
  });
  mkdirSync(dist, { recursive: true });
  for (const { path, contents } of outputFiles) replaceFile(path, contents);
  removeOldChunks(new Set(outputFiles.map(({ path }) => path)));
  // A file saved while esbuild was reading gets time 0 and so is built again next time.
  const time = (file) => (modified(join(root, file)) < started ? modified(join(root, file)) : 0);
  const inputs = [
    ...Object.keys(metafile.inputs),
    relative(root, fileURLToPath(import.meta.url))
      .split(sep)
      .join("/"),
  ];
  replaceFile(stamp, JSON.stringify(Object.fromEntries(inputs.map((file) => [file, time(file)]))));
}

/**
 * `new URL("font.ttf", import.meta.url)` must mean the file beside the source, not beside the bundle: each source's own address
 * is "<up>/<path>" from any chunk. A bundle is flat, and `up` leads from its folder to the root.
 */
export function sourceUrls(up) {
  return {
    name: "source-urls",
    setup(esbuild) {
      esbuild.onLoad({ filter: /\.ts$/ }, ({ path }) => {
        const text = readFileSync(path, "utf8");
        if (!text.includes("import.meta.url")) return undefined;
        const from = JSON.stringify(`${up}/${relative(root, path).split(sep).join("/")}`);
        return { loader: "ts", contents: text.replaceAll("import.meta.url", `new URL(${from}, import.meta.url).href`) };
      });
    },
  };
}

function modified(path) {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? -1;
}

/** Written aside and renamed: another command may be importing from dist at this moment. */
function replaceFile(path, contents) {
  const aside = join(dirname(path), `.${basename(path)}.${process.pid}.tmp`);
  writeFileSync(aside, contents);
  renameSync(aside, path);
}

/** Chunks of earlier builds stay for a day: a training run started from one may not have imported all of it yet. */
function removeOldChunks(current) {
  for (const entry of readdirSync(dist, { withFileTypes: true })) {
    const path = join(dist, entry.name);
    const old = entry.isFile() && !current.has(path) && path !== stamp && Date.now() - modified(path) > DAY;
    if (old) rmSync(path, { force: true });
  }
}
