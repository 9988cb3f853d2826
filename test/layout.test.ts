// The architecture as a test: the rules of layout.ts hold for this checkout, and each rule catches a planted violation.

import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import {
  dawnViolations,
  importViolations,
  layoutNames,
  nodeViolations,
  readmeViolations,
  readTree,
  syntaxViolations,
  type Tree,
  valueImports,
} from "./layout.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const readme = `${root}README.md`;

describe("this checkout", () => {
  const tree = readTree(root);

  test("has the sources that the rules speak of", () => {
    expect([...tree.keys()]).toEqual(expect.arrayContaining(["engine/shape.ts", "kernels/wgsl.ts", "cli/gifgrad.mjs"]));
  });
  test("imports only in the direction of the architecture", () => expect(importViolations(tree)).toEqual([]));
  test("loads Dawn in one place", () => expect(dawnViolations(tree)).toEqual([]));
  test("asks of Node only what a browser can do without", () => expect(nodeViolations(tree)).toEqual([]));
  test("uses no enums or namespaces", () => expect(syntaxViolations(tree)).toEqual([]));
  test("has the files that README.md names", (context) => {
    if (!existsSync(readme)) context.skip("there is no README.md");
    expect(readmeViolations(tree, readFileSync(readme, "utf8"))).toEqual([]);
  });
});

/** A made-up tree: every file that is imported below, plus the given ones. */
function plant(files: Record<string, string>): Tree {
  const others = ["engine/index.ts", "engine/tensor.ts", "engine/graph.ts", "engine/plan/emit.ts", "eval/fvd.ts"];
  const more = ["kernels/wgsl.ts", "models/sti.ts", "engine/runtime/gpu.ts", "engine/nn/module.ts", "engine/atomic.ts"];
  return new Map([...[...others, ...more].map((path) => [path, "export {};"] as const), ...Object.entries(files)]);
}
const use = (path: string) => `import { x } from "${path}";\n`;
const load = (path: string) => `const { x } = await import("${path}");\n`;

describe("a planted violation is found:", () => {
  test.each([
    ["a model importing kernels", "models/a.ts", "../kernels/wgsl.ts"],
    ["training importing metrics", "train/a.ts", "../eval/fvd.ts"],
    ["the engine importing a model", "engine/shape.ts", "../models/sti.ts"],
    ["data importing more of the engine than atomic.ts", "data/record.ts", "../engine/index.ts"],
    ["ops importing tensor values", "engine/ops/reduce.ts", "../tensor.ts"],
    ["graph importing a kernel", "engine/graph.ts", "../kernels/wgsl.ts"],
    ["the planner importing the runtime", "engine/plan/memory.ts", "../runtime/gpu.ts"],
    ["the runtime importing layers", "engine/runtime/gpu.ts", "../nn/module.ts"],
    ["a file that is gone", "models/a.ts", "../engine/gone.ts"],
  ])("%s", (_, path, target) => {
    expect(importViolations(plant({ [path]: use(target) }))).toHaveLength(1);
  });

  test("an engine file that no rule covers", () => {
    expect(importViolations(plant({ "engine/novel.ts": "export {};" }))).toHaveLength(1);
  });
  test("Dawn loaded elsewhere, statically or not", () => {
    const files = { "engine/device.ts": use("webgpu"), "cli/doctor.ts": load("webgpu") };
    expect(dawnViolations(plant(files))).toHaveLength(2);
  });
  test("Node in the library, and only there", () => {
    const found = nodeViolations(
      plant({
        "engine/a.ts": 'import { join } from "node:path";\nconst t = process.hrtime(); // of the process.\n',
        "models/b.ts": 'const b = Buffer.from("");\nconst c = x.process.y;\n',
        "cli/c.ts": 'import { join } from "node:path";\n',
      }),
    );
    const about = ['engine/a.ts: from "node:path"', "engine/a.ts: process.hrtime", "models/b.ts: Buffer.from"];
    expect(found.sort()).toEqual(about.map((what) => `${what} is not in browsers`));
  });
  test("an enum and a namespace", () => {
    const files = { "data/a.ts": "export const enum E { A }", "data/b.ts": "namespace N {}" };
    expect(syntaxViolations(plant(files))).toHaveLength(2);
  });
  test("a README that names too much and too little", () => {
    const text =
      "## Layout\n```\nengine/     the library\n  graph.ts tensor.ts   nodes\n  lost.ts\nmodels/ eval/   both\n```\n";
    expect(layoutNames(text)).toContain("engine/tensor.ts");
    expect(readmeViolations(plant({}), text)).toEqual([
      "README.md: names engine/lost.ts, which does not exist",
      "README.md: the layout leaves out kernels/",
    ]);
  });
});

describe("what is allowed passes:", () => {
  test("the planned directions", () => {
    const files = {
      "data/curate/a.ts": use("../../engine/atomic.ts"),
      "engine/ops/conv.ts": use("../../kernels/wgsl.ts") + 'import type { Tensor } from "../tensor.ts";\n',
      "engine/device.ts": load("./runtime/gpu.ts"),
      "engine/index.ts": 'export * from "./nn/module.ts";\n',
    };
    expect(importViolations(plant(files))).toEqual([]);
  });
  test("types, comments and strings are not imports", () => {
    const source = `// import { a } from "a";\nimport type { B } from "b";\nexport type { C } from "c";\nimport {\n  d,\n  type E,\n} from "d";\nimport "f";\n`;
    expect(valueImports(source).map(({ target }) => target)).toEqual(["d", "f"]);
  });
});
