// The architecture as functions from a tree of files to a list of violations: which folder may import which, where Dawn
// may be loaded, what the README promises to exist. Pure, so that layout.test.ts can plant violations in made-up trees.

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";

/** Path from the root, with slashes -> text. Only sources have their text; other files map to "". */
export type Tree = ReadonlyMap<string, string>;

const ignored = new Set(["node_modules", "dist", "runs", ".cache", ".git", ".gpu"]);

export function readTree(root: string, folder = ""): Tree {
  const tree = new Map<string, string>();
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    const path = posix.join(folder, entry.name);
    if (entry.isDirectory()) {
      if (!ignored.has(entry.name)) for (const [file, text] of readTree(root, path)) tree.set(file, text);
    } else tree.set(path, /\.(ts|mjs)$/.test(path) ? readFileSync(join(root, path), "utf8") : "");
  }
  return tree;
}

// ---- imports

/** folder: the folders whose values it may use besides its own. Types may come from anywhere. */
const FOLDERS: Record<string, readonly string[]> = {
  kernels: [],
  engine: ["kernels"],
  data: [], // and engine/atomic.ts
  models: ["engine"],
  train: ["engine", "models", "data"],
  eval: ["engine", "models", "data"],
  cli: ["engine", "models", "train", "eval", "data", "package.json"], // its version,
  test: ["kernels", "engine", "models", "train", "eval", "data", "cli"],
};

/** The parts of engine/ and what is in each, from the bottom up. */
const CORE: readonly (readonly [string, readonly string[]])[] = [
  [
    "base",
    [
      "env",
      "error",
      "shape",
      "dtype",
      "storage",
      "safetensors",
      "source",
      "torch",
      "tensor_file",
      "tensor_shards",
      "atomic",
      "timeline",
    ],
  ],
  ["graph", ["graph", "trace"]],
  ["ops", ["ops"]],
  ["tensor", ["tensor", "device", "einops", "einsum"]],
  ["front", ["state", "autograd", "custom"]],
  ["compile", ["compile"]],
];
const core = CORE.map(([part]) => part);
/** Parts beside each other on top of the core: each may use the core, itself and what is named here. */
const TOP: Record<string, readonly string[]> = {
  nn: [],
  optim: [],
  checkpoint: [],
  reference: [],
  plan: [],
  planning: ["plan"],
  runtime: ["plan"],
  selfcheck: ["reference"],
  tuning: [],
  tune: ["plan", "runtime", "testing", "tuning"],
  testing: ["nn", "reference", "plan", "runtime"],
  index: ["nn", "optim", "checkpoint", "reference", "plan", "runtime", "selfcheck"],
};

/**
 * What in engine/ may use kernels: ops for their lists of variants, the planner to emit them; the generator's host twin
 * and the least capabilities of an adapter are defined beside the kernels that they belong to.
 */
const KERNEL_USERS = [
  "engine/tune.ts",
  "engine/index.ts",
  "engine/testing/",
  "engine/ops/",
  "engine/plan/",
  "engine/state.ts",
  "engine/reference.ts",
  "engine/nn/init.ts",
];

/** "engine/ops/reduce.ts" -> "ops"; undefined when the tables above do not know the file. */
function enginePart(path: string): string | undefined {
  const name = path.split("/")[1].replace(/\.ts$/, "");
  return CORE.find(([, members]) => members.includes(name))?.[0] ?? (name in TOP ? name : undefined);
}

interface Import {
  readonly target: string;
  /** `import(...)`: runs only when asked for, so it makes no cycle. */
  readonly dynamic: boolean;
}

/** The modules whose values a source uses: `import type` and `export type` are erased and so do not count. */
export function valueImports(source: string): Import[] {
  const code = source.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
  const fixed = code.matchAll(/^\s*(?:import|export)\s+(?!type\b)(?:[^;"'()]*?\bfrom\s*)?["']([^"']+)["']/gm);
  const dynamic = code.matchAll(/\bimport\(\s*["']([^"']+)["']\s*\)/g);
  return [
    ...Array.from(fixed, ([, target]) => ({ target, dynamic: false })),
    ...Array.from(dynamic, ([, target]) => ({ target, dynamic: true })),
  ];
}

/** Imports against the direction of the folders, and of the parts inside engine/. */
export function importViolations(tree: Tree): string[] {
  const found: string[] = [];
  for (const [path, text] of sources(tree)) {
    if (path.startsWith("engine/") && !enginePart(path)) found.push(`${path}: not in the table of engine parts`);
    for (const { target, dynamic } of valueImports(text)) {
      if (!target.startsWith(".")) continue;
      const to = posix.normalize(posix.join(dirname(path), target));
      if (!tree.has(to)) found.push(`${path}: imports ${to}, which does not exist`);
      else if (!allowed(path, to, dynamic)) found.push(`${path}: must not import ${to}`);
    }
  }
  return found;
}

function allowed(from: string, to: string, dynamic: boolean): boolean {
  const [folder, target] = [from.split("/")[0], to.split("/")[0]];
  if (target === "kernels" && folder === "engine") return KERNEL_USERS.some((user) => from.startsWith(user));
  if (folder !== target) return FOLDERS[folder].includes(target) || (folder === "data" && to === "engine/atomic.ts");
  if (folder !== "engine" || dynamic) return true;
  const [part, other] = [enginePart(from) ?? "", enginePart(to) ?? ""];
  if (part === other) return true;
  if (part in TOP) return core.includes(other) || TOP[part].includes(other);
  return core.includes(other) && core.indexOf(other) < core.indexOf(part);
}

function sources(tree: Tree): [string, string][] {
  return [...tree].filter(([path, text]) => text !== "" && path.split("/")[0] in FOLDERS && path.includes("/"));
}

// ---- Dawn and syntax

/** The engine's one door to Dawn, the probe that runs before anything is built, and what the benchmark's peers find it by. */
const DAWN = ["engine/runtime/dawn.ts", "cli/adapter.mjs", "test/bench/peers/host.ts"];

export function dawnViolations(tree: Tree): string[] {
  return sources(tree)
    .filter(([path, text]) => !DAWN.includes(path) && valueImports(text).some(({ target }) => target === "webgpu"))
    .map(([path]) => `${path}: must not load webgpu; only ${DAWN.join(", ")} do`);
}

/** The library runs in browsers too: what it asks of Node goes through engine/env.ts, or is replaced there (package.json). */
const NODE_ONLY = ["engine/env.ts", "engine/atomic.ts"];

export function nodeViolations(tree: Tree): string[] {
  const library = sources(tree).filter(
    ([path]) => /^(kernels|engine|models)\//.test(path) && !NODE_ONLY.includes(path),
  );
  return library.flatMap(([path, text]) => {
    const code = text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/\/\/.*$/gm, "");
    const used = code.match(/(?<![\w#.])(?:process|Buffer)\.\w+|from "node:(?!fs\/promises")[\w/]+"/g) ?? [];
    return [...new Set(used)].map((what) => `${path}: ${what} is not in browsers`);
  });
}

/** TypeScript that is more than types: it would not run under a loader that only strips types. */
export function syntaxViolations(tree: Tree): string[] {
  const construct = /^\s*(?:export\s+)?(?:declare\s+)?(?:const\s+)?(enum|namespace)\s+\w+\s*\{/m;
  return sources(tree).flatMap(([path, text]) => {
    const match = construct.exec(text);
    return match ? [`${path}: ${match[1]} "${match[0].trim()}"`] : [];
  });
}

// ---- README

/**
 * The README's section "Layout" holds one code block: names, two spaces, what they are. Folders end in a slash, what is
 * inside a folder is indented below it, several names stand in one line with single spaces between them.
 */
export function layoutNames(readme: string): string[] {
  const block = /^#+ Layout\b[\s\S]*?```[^\n]*\n([\s\S]*?)```/m.exec(readme)?.[1];
  if (block === undefined) return [];
  const parents: { indent: number; folder: string }[] = [];
  return block.split("\n").flatMap((line) => {
    const [, space, list] = /^( *)(\S+(?: \S+)*)/.exec(line) ?? [];
    if (list === undefined) return [];
    while (parents.length > 0 && parents[parents.length - 1].indent >= space.length) parents.pop();
    const base = parents[parents.length - 1]?.folder ?? "";
    const names = list.split(" ").filter((name) => /^[\w.@-]+(\/|\.\w+)$/.test(name));
    const paths = names.map((name) => base + name);
    if (paths.length === 1 && paths[0].endsWith("/")) parents.push({ indent: space.length, folder: paths[0] });
    return paths;
  });
}

/** What the README names and is not there, and the top-level source folders that it leaves out. */
export function readmeViolations(tree: Tree, readme: string): string[] {
  const named = layoutNames(readme);
  if (named.length === 0) return ['README.md: no section "Layout" with a code block that names files'];
  const files = [...tree.keys()];
  const exists = (name: string) => (name.endsWith("/") ? files.some((file) => file.startsWith(name)) : tree.has(name));
  const present = Object.keys(FOLDERS).map((folder) => `${folder}/`);
  return [
    ...named.filter((name) => !exists(name)).map((name) => `README.md: names ${name}, which does not exist`),
    ...present
      .filter((folder) => exists(folder) && !named.includes(folder))
      .map((folder) => `README.md: the layout leaves out ${folder}`),
  ];
}
