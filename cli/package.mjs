// `npm run build`, which `npm pack` runs too: everything of dist/ that other projects install. The command and the entry
// points for Node (build.mjs), the entry points for browsers in dist/browser, and their declarations in dist/types.

import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { build, dist, entries } from "./build.mjs";
import { root } from "./environment.mjs";

/** The same entry points without a trace of Node: package.json's field "browser" says what stands in for what. */
async function buildForBrowsers() {
  const { build: bundle } = await import("esbuild");
  const { metafile } = await bundle({
    absWorkingDir: root,
    entryPoints: entries,
    outdir: "dist/browser",
    bundle: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    external: ["fast-check"],
    splitting: true,
    metafile: true,
    logLevel: "error",
  });
  return metafile;
}

const types = join(dist, "types");

/** Declarations by tsc, one beside the other as the sources are; those that no entry point reaches are left out. */
function declare() {
  const config = join(dist, "tsconfig.json");
  const emit = { noEmit: false, declaration: true, emitDeclarationOnly: true, stripInternal: true };
  const compilerOptions = { ...emit, outDir: types, rootDir: root };
  const files = Object.values(entries).map((file) => join(root, file));
  writeFileSync(config, JSON.stringify({ extends: "../tsconfig.json", compilerOptions, include: [], files }));
  const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
  const { status } = spawnSync(process.execPath, [tsc, "-p", config], { stdio: "inherit" });
  rmSync(config);
  if (status !== 0) throw new Error("the declarations were not written: tsc reports the errors above");
  const reached = new Set();
  for (const file of Object.values(entries)) finish(join(types, file.replace(/\.ts$/, ".d.ts")), reached);
  for (const file of readdirSync(types, { recursive: true })) {
    if (file.endsWith(".d.ts") && !reached.has(join(types, file))) rmSync(join(types, file));
  }
}

/** Rewrites a declaration file's imports to the names of modules (".js", which every resolution understands), and on. */
function finish(file, reached) {
  if (reached.has(file)) return;
  reached.add(file);
  const text = readFileSync(file, "utf8");
  const relativeImport = /((?:\bfrom |\bimport\()")(\.{1,2}\/[^"]+)\.ts"/g;
  writeFileSync(file, text.replace(relativeImport, '$1$2.js"'));
  for (const [, , target] of text.matchAll(relativeImport)) finish(join(dirname(file), `${target}.d.ts`), reached);
}

function list(folder) {
  const files = readdirSync(folder, { recursive: true }).map((name) => join(folder, name));
  return files.filter((file) => statSync(file).isFile());
}

rmSync(dist, { recursive: true, force: true });
mkdirSync(dist, { recursive: true });
await build({ sourcemap: false });
await buildForBrowsers();
declare();
const bytes = (files) => `${Math.round(files.reduce((sum, file) => sum + statSync(file).size, 0) / 1024)} KiB`;
const all = list(dist);
const part = (folder) => all.filter((file) => relative(dist, file).startsWith(folder));
console.error(
  `dist: ${all.length} files, ${bytes(all)}; for browsers ${bytes(part("browser"))}, types ${bytes(part("types"))}`,
);
