// README.md keeps its word: its commands and options exist; its links lead somewhere; the parameter counts of
// models/README.md are those of the presets. That its program type-checks, runs and learns is package.test.ts, that the
// layout block is true is layout.test.ts.

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { PRESETS, presetConfig } from "../models/config.ts";
import { LatentDiffusion } from "../models/latent_diffusion.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const folders = ["", "engine", "kernels", "models", "train", "data", "data/starter", "eval", "test"];
const readmes = folders.map((folder) => join(folder, "README.md"));
const read = (path: string): string => readFileSync(join(root, path), "utf8");
const readme = read("README.md");

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
  /** "train", or "dataset build": a group's commands have options of their own. */
  const commandOf = (line: string): string => {
    const [, , name, inner] = line.split(" ");
    return ["dataset", "eval"].includes(name) && /^[a-z-]+$/.test(inner ?? "") ? `${name} ${inner}` : name;
  };
  const help = (command: string) => {
    const args = [join(root, "cli", "gifgrad.mjs"), ...command.split(" "), "--help"];
    return spawnSync(process.execPath, args, { encoding: "utf8" });
  };

  test("of gifgrad exist, with their options", () => {
    expect(lines.length).toBeGreaterThan(4);
    for (const command of new Set(lines.map(commandOf))) {
      const { status, stdout } = help(command);
      expect({ command, status }).toEqual({ command, status: 0 });
      for (const line of lines.filter((text) => commandOf(text) === command)) {
        expect({ line, unknown: unknownOptions(line, stdout) }).toEqual({ line, unknown: [] });
      }
    }
  });
  test("of npm are scripts of package.json", () => {
    const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
    const named = readmes.flatMap((path) =>
      Array.from(read(path).matchAll(/\bnpm (?:run )?([a-z:]+[a-z])/g), ([, name]) => name),
    );
    expect(named).toContain("start");
    expect(named.filter((name) => !(name in scripts) && !["ci", "pack", "install"].includes(name))).toEqual([]);
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
