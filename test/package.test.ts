// The package as other projects meet it: `npm pack` in a copy of this checkout, `npm install` of the tarball in an empty
// project, then the README's program, a TypeScript project, the command and a bundler's view of it for browsers. Works
// without a network: the dependencies are links to those of the checkout.

import { type SpawnSyncOptions, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, posix, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { allOps } from "../engine/ops/op.ts";
import { type Browser, hasChromium, openPage, WEBGPU } from "./browser/chromium.ts";
import { onGpu } from "./device.ts";
import { fences } from "./markdown.ts";
import "../engine/index.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "gifgrad-package-"));
const project = join(folder, "project");
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
  readonly version: string;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly exports: Readonly<Record<string, unknown>>;
};
const programs = (readme: string, language: string): string[] =>
  fences(readFileSync(join(root, readme), "utf8"), language);
const snippet = programs("README.md", "js")[0];
const ownOp = programs("engine/README.md", "ts").find((text) => text.includes('from "gifgrad/testing"')) as string;

interface Packed {
  readonly filename: string;
  readonly size: number;
  readonly files: readonly { readonly path: string; readonly size: number }[];
}
let packed: Packed;

function run(command: string, args: readonly string[], cwd: string): string {
  const options: SpawnSyncOptions = { cwd, encoding: "utf8", shell: process.platform === "win32", timeout: 100_000 };
  const { status, stdout, stderr } = spawnSync(command, args, options);
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${status}:\n${stderr}${stdout}`);
  return String(stdout);
}

/** The sources alone, as a clone has them: what is packed cannot depend on what earlier builds left behind. */
function copySources(to: string): void {
  const leftOut = new Set(["node_modules", "dist", "runs", ".cache", ".git", ".gpu"]);
  cpSync(root, to, { recursive: true, filter: (path) => !leftOut.has(relative(root, path)) });
  symlinkSync(join(root, "node_modules"), join(to, "node_modules"), "junction");
}

function linkDependencies(to: string): void {
  for (const name of [...Object.keys(manifest.dependencies), "typescript"]) {
    const link = join(to, "node_modules", name);
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(join(root, "node_modules", name), link, "junction");
  }
}

/** `npm install`; where this npm does not take links for dependencies, what it would do with the tarball itself. */
function install(tarball: string): void {
  const quiet = ["--offline", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save"];
  try {
    run("npm", ["install", ...quiet, tarball], project);
  } catch (error) {
    if (!String(error).includes("ENOTCACHED")) throw error;
    console.warn("npm wants a network to install the package: it is unpacked instead");
    const to = join(project, "node_modules", "gifgrad");
    mkdirSync(to, { recursive: true });
    run("tar", ["-xzf", tarball, "--strip-components=1", "-C", to], project);
    mkdirSync(join(project, "node_modules", ".bin"), { recursive: true });
    symlinkSync(join(to, "cli", "gifgrad.mjs"), join(project, "node_modules", ".bin", "gifgrad"));
  }
}

beforeAll(() => {
  const clone = join(folder, "clone");
  copySources(clone);
  [packed] = JSON.parse(run("npm", ["pack", "--json", "--pack-destination", folder], clone)) as [Packed];
  mkdirSync(project);
  writeFileSync(join(project, "package.json"), '{ "name": "project", "private": true, "type": "module" }');
  linkDependencies(project);
  install(join(folder, packed.filename));
  writeFileSync(join(project, "mlp.mjs"), snippet);
  writeFileSync(join(project, "mlp.ts"), snippet);
  writeFileSync(join(project, "own_op.ts"), ownOp);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the tarball", () => {
  test("holds the build, the command, the starter set's assets and no more", () => {
    const allowed =
      /^(dist\/.*\.js|dist\/types\/(engine|kernels|models)\/.*\.d\.ts|cli\/[\w-]+\.(mjs|sh)|data\/starter\/assets\/[\w.-]+|train\/example\.gif|eval\/benchmark\/nano\.json|package\.json|([a-z]+\/)*README\.md|LICENSE)$/;
    const paths = packed.files.map(({ path }) => path);
    expect(paths.filter((path) => !allowed.test(path))).toEqual([]);
    expect(paths).toEqual(expect.arrayContaining(["LICENSE", "README.md", "cli/gifgrad.mjs", "dist/main.js"]));
  });
  test("is small: no source maps, nothing bundled that belongs to another package", () => {
    expect(packed.size).toBeLessThan(1 << 20);
    expect(packed.files.filter(({ size }) => size > 512 * 1024)).toEqual([]);
  });
  test("has every README that one of its READMEs links", () => {
    const paths = packed.files.map(({ path }) => path);
    const linked = (path: string): string[] =>
      Array.from(readFileSync(join(root, path), "utf8").matchAll(/\]\(([^)\s#:]+\.md)/g), ([, target]) =>
        posix.join(posix.dirname(path), target),
      );
    const readmes = paths.filter((path) => path.endsWith("README.md"));
    expect(readmes).toContain("engine/README.md");
    expect(readmes.flatMap(linked).filter((path) => !paths.includes(path))).toEqual([]);
  });
  test("has every file that its entry points name", () => {
    const named = JSON.stringify([manifest.exports]).match(/\.\/[^"]+\.(js|d\.ts|json)(?=")/g) ?? [];
    expect(named.length).toBeGreaterThan(12);
    const paths = packed.files.map(({ path }) => `./${path}`);
    expect(named.filter((path) => !paths.includes(path))).toEqual([]);
  });
});

/** The disc fills 39 % of the square, so its mean, the best constant answer, scores 0.39 * 0.61 = 0.24. */
function expectLearning(output: string): void {
  const losses = Array.from(output.matchAll(/^step \d+ {2}loss (.+)$/gm), ([, loss]) => Number(loss));
  expect(losses, output).toHaveLength(4);
  expect(losses[3]).toBeLessThan(0.12);
}

describe("installed", () => {
  onGpu("trains the README's network, in a process that ends by itself", async () => {
    expectLearning(run(process.execPath, ["mlp.mjs"], project));
  });
  test("all entry points share one engine", () => {
    const source = `
      import { openDevice, tensor, Tensor } from "gifgrad";
      import { Linear } from "gifgrad/nn";
      import { Sgd } from "gifgrad/optim";
      import { Autoencoder, presetConfig } from "gifgrad/models";
      import { drawn, gradcheck } from "gifgrad/testing";
      const device = await openDevice({ device: "reference" });
      const layer = new Linear(2, 3).seed(1);
      new Sgd(layer.state());
      const y = layer.forward(tensor([1, 2], [1, 2]));
      new Autoencoder(presetConfig("nano").autoencoder);
      const rows = drawn((d) => ({ inputs: [{ shape: [d.int(1, 3), 2] }] }));
      await gradcheck(([x]) => layer.forward(x).tanh(), rows, { cases: 3 }); // throws when it does not hold
      console.log(y instanceof Tensor, (await y.data()).length, device.name);`;
    writeFileSync(join(project, "shared.mjs"), source);
    expect(run(process.execPath, ["shared.mjs"], project)).toMatch(/^true 3 reference/);
  });
  test("has the command", () => {
    expect(run("npx", ["--no-install", "gifgrad", "--version"], project)).toBe(`${manifest.version}\n`);
  });
});

describe("in TypeScript", () => {
  const wrong = snippet.replace("lr: 0.01", 'lr: "0.01"');

  test.each([
    ["bundler", "esnext"],
    ["nodenext", "nodenext"],
  ])("the declarations are complete with moduleResolution %s, and find a mistake", (moduleResolution, module) => {
    writeFileSync(join(project, "wrong.ts"), wrong);
    const compilerOptions = {
      module,
      moduleResolution,
      target: "es2023",
      strict: true,
      noEmit: true,
      skipLibCheck: false, // our declarations are what is checked
      types: [], // and they may lean on no other package's globals
      lib: ["es2023"],
    };
    const files = ["mlp.ts", "own_op.ts", "wrong.ts", "entries.ts"];
    const entries = Object.keys(manifest.exports).filter((path) => !path.endsWith(".json"));
    const imports = entries.map((path, i) => `export * as e${i} from "${path.replace(".", "gifgrad")}";`);
    writeFileSync(join(project, "entries.ts"), imports.join("\n"));
    writeFileSync(join(project, "console.d.ts"), "declare const console: { log(text: string): void };");
    writeFileSync(
      join(project, "tsconfig.json"),
      JSON.stringify({ compilerOptions, files: [...files, "console.d.ts"] }),
    );
    const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
    const { stdout } = spawnSync(process.execPath, [tsc], { cwd: project, encoding: "utf8" });
    expect(stdout.trim().split("\n")).toHaveLength(1);
    expect(stdout).toMatch(/^wrong\.ts\(\d+,\d+\): error TS2322: Type 'string' is not assignable to type/);
  });
});

describe("bundled for a browser", () => {
  let page = "";

  beforeAll(async () => {
    const outfile = join(project, "page.js");
    const { metafile } = await build({
      absWorkingDir: project,
      entryPoints: ["mlp.mjs"],
      outfile,
      bundle: true,
      format: "esm",
      platform: "browser",
      minifyWhitespace: true, // comments may speak of processes
      metafile: true,
    });
    // Of our package the files for browsers, of no other package anything.
    const foreign = (path: string): boolean => !/^(mlp\.mjs|.*\/dist\/browser\/[\w-]+\.js)$/.test(path);
    expect(Object.keys(metafile.inputs).filter(foreign)).toEqual([]);
    page = readFileSync(outfile, "utf8");
  });

  test("it is small, has every op, and of Node only what engine/env.ts guards", () => {
    expect(page.length).toBeLessThan(1 << 20);
    expect(page.match(/\bprocess\.(?!env\b|cpuUsage\b)\w+/g) ?? []).toEqual([]);
    // Other tests of this process may have defined ops of their own.
    const folder = join(root, "engine", "ops");
    const sources = readdirSync(folder)
      .map((file) => readFileSync(join(folder, file), "utf8"))
      .join("\n");
    const own = allOps().filter(({ name }) => sources.includes(`"${name}"`));
    expect(own.length).toBeGreaterThan(50);
    expect(own.filter(({ name }) => !page.includes(`"${name}"`))).toEqual([]);
  });

  test.skipIf(!hasChromium)("it trains the README's network in Chromium", async (context) => {
    const files = new Map([["/", "<!doctype html>"]]).set("/page.js", page);
    const lines = await inChromium(files, async (chromium) => {
      const said: string[] = [];
      chromium.on("console", (message) => said.push(message.text()));
      await chromium.evaluate('import("/page.js").then(() => {})');
      return said;
    });
    if (!lines) return context.skip("this Chromium has no WebGPU adapter");
    expectLearning(lines.join("\n"));
  });
});

test.skipIf(!hasChromium)("without a bundler, the README's page computes in Chromium", async (context) => {
  const built = packed.files.map(({ path }) => path).filter((path) => path.startsWith("dist/browser/"));
  const folder = "node_modules/gifgrad";
  const files = new Map(built.map((path) => [`/${folder}/${path}`, readFileSync(join(project, folder, path), "utf8")]));
  files.set("/", programs("README.md", "html")[0]);
  const title = await inChromium(files, async (chromium) => {
    await chromium.waitForFunction("document.title");
    return chromium.title();
  });
  if (title === null) return context.skip("this Chromium has no WebGPU adapter");
  expect(title).toMatch(/^.+: 7,10,15,22$/);
});

/** What `use` makes of the page "/" of these files; null where Chromium has no adapter. */
async function inChromium<T>(
  files: Map<string, string>,
  use: (page: Browser["page"]) => Promise<T>,
): Promise<T | null> {
  const { page, close } = await openPage(files, WEBGPU);
  try {
    return (await page.evaluate("navigator.gpu?.requestAdapter()")) ? await use(page) : null;
  } finally {
    await close();
  }
}
