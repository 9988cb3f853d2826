// README.md keeps its word: its example type-checks, runs and learns; its commands and options exist; its links lead
// somewhere; the parameter counts of models/README.md are those of the presets. That the layout block is true is
// layout.test.ts.

import { execFile, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { build } from "esbuild";
import { beforeAll, describe, expect, test } from "vitest";
import { PRESETS, presetConfig } from "../models/config.ts";
import { LatentDiffusion } from "../models/latent_diffusion.ts";
import { onGpu } from "./device.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const folders = ["", "engine", "kernels", "models", "train", "data", "data/starter", "test"];
const readmes = folders.map((folder) => join(folder, "README.md"));
const read = (path: string): string => readFileSync(join(root, path), "utf8");
const readme = read("README.md");

/** The fenced blocks of one language, in order. */
function fences(markdown: string, language: string): string[] {
  return Array.from(markdown.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm))
    .filter(([, name]) => name === language)
    .map(([, , text]) => text);
}

describe("the example", () => {
  // Inside the checkout, so that packages resolve; two folders down, so its imports start two folders up.
  const folder = join(root, ".cache", "readme");
  const source = join(folder, "example.ts");

  beforeAll(() => {
    mkdirSync(folder, { recursive: true });
    const blocks = fences(readme, "ts");
    expect(blocks).toHaveLength(1);
    writeFileSync(source, blocks[0].replaceAll('from "./', 'from "../../'));
  });

  test("type-checks under the rules of the project, where a wrong one does not", () => {
    const config = join(folder, "tsconfig.json");
    const files = ["example.ts", "wrong.ts"];
    writeFileSync(join(folder, "wrong.ts"), readFileSync(source, "utf8").replace("lr: 0.01", 'lr: "0.01"'));
    writeFileSync(config, JSON.stringify({ extends: "../../tsconfig.json", include: [], files }));
    const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
    const { stdout } = spawnSync(process.execPath, [tsc, "-p", config], { encoding: "utf8" });
    const faulty = files.filter((file) => stdout.includes(`${file}(`));
    expect({ faulty, stdout }).toEqual({ faulty: ["wrong.ts"], stdout });
  });

  onGpu("learns, in a process of its own that ends by itself", async () => {
    const outfile = join(folder, "example.mjs");
    await build({
      entryPoints: [source],
      outfile,
      bundle: true,
      platform: "node",
      format: "esm",
      packages: "external",
    });
    const { stdout } = await promisify(execFile)(process.execPath, [outfile], { timeout: 50_000 });
    const losses = Array.from(stdout.matchAll(/^step \d+ {2}loss (.+)$/gm), ([, loss]) => Number(loss));
    expect(losses).toHaveLength(4);
    // The disc fills 39 % of the square, so its mean, the best constant answer, scores 0.39 * 0.61 = 0.24.
    expect(losses[3]).toBeLessThan(0.12);
  });
});

describe("commands", () => {
  /** Options in a line of shell that the command's help does not know. */
  function unknownOptions(line: string, help: string): string[] {
    const options = line.match(/(?<=\s)--?[a-z][a-z-]*/g) ?? [];
    const known: readonly string[] = help.match(/(?<=[\s,])--?[a-z][a-z-]*/g) ?? [];
    return options.filter((option) => !known.includes(option));
  }
  const lines = [
    ...new Set(
      Array.from(
        readmes
          .map(read)
          .join("\n")
          .matchAll(/\bnpx gifgrad [^`\n]+/g),
        ([line]) => line,
      ),
    ),
  ];
  const help = (command: string) => {
    const args = [join(root, "cli", "gifgrad.mjs"), command, "--help"];
    return spawnSync(process.execPath, args, { encoding: "utf8" });
  };

  test("of gifgrad exist, with their options", () => {
    expect(lines.length).toBeGreaterThan(4);
    for (const command of new Set(lines.map((line) => line.split(" ")[2]))) {
      const { status, stdout } = help(command);
      expect({ command, status }).toEqual({ command, status: 0 });
      for (const line of lines.filter((text) => text.split(" ")[2] === command)) {
        expect({ line, unknown: unknownOptions(line, stdout) }).toEqual({ line, unknown: [] });
      }
    }
  });
  test("of npm are scripts of package.json", () => {
    const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
    const named = readmes.flatMap((path) =>
      Array.from(read(path).matchAll(/\bnpm (?:run )?([a-z]+)/g), ([, name]) => name),
    );
    expect(named).toContain("start");
    expect(named.filter((name) => !(name in scripts) && name !== "ci")).toEqual([]);
  });
  test("that do not exist are noticed", () => {
    expect(unknownOptions("npx gifgrad train d --stesp 3 -o x", help("train").stdout)).toEqual(["--stesp", "-o"]);
  });
});

/** Relative links and images of a file that lead nowhere: to no file, or to no heading of it. */
function deadLinks(path: string, text: string): string[] {
  const links = Array.from(text.matchAll(/(?:\]\(|src=")([^)\s"]+)/g), ([, target]) => target);
  return links.filter((target) => {
    if (/^https?:/.test(target)) return false;
    const [file, heading] = target.split("#");
    const found = file === "" ? path : join(dirname(path), file);
    return (
      !existsSync(join(root, found)) ||
      (heading !== undefined && !anchors(found === path ? text : read(found)).includes(heading))
    );
  });
}

/** What headings are called in links: lower case, words joined by hyphens, punctuation left out. */
function anchors(markdown: string): string[] {
  const headings = Array.from(markdown.matchAll(/^#+ (.+)$/gm), ([, heading]) => heading.toLowerCase());
  return headings.map((heading) => heading.replace(/[^\p{L}\p{N} -]/gu, "").replaceAll(" ", "-"));
}

describe("links", () => {
  test.each(readmes)("of %s lead somewhere", (path) => expect(deadLinks(path, read(path))).toEqual([]));
  test("that do not are noticed", () => {
    const text = "# One\n[a](#one) [b](#two) [c](engine/README.md#adding-an-op) [d](engine/gone.ts) [e](https://x.org)";
    expect(deadLinks("README.md", text)).toEqual(["#two", "engine/gone.ts"]);
  });
});

describe("parameter counts", () => {
  const rows = Array.from(read("models/README.md").matchAll(/^\| `(\w+)` \|(.*)\|$/gm));
  test.each(PRESETS)("of preset %s", (preset) => {
    const row = rows
      .find(([, name]) => name === preset)?.[2]
      .split("|")
      .map((cell) => cell.trim());
    const config = presetConfig(preset);
    expect(row?.slice(0, 2)).toEqual([String(config.size), new LatentDiffusion(config).count().toLocaleString("en")]);
  });
  test("of the whole system are those in README.md", () => {
    expect(readme).toContain(new LatentDiffusion(presetConfig("paper")).count().toLocaleString("en"));
  });
});
