// What a configuration may say and how it is refused: every fault by its key and what it may be, the schema that editors read,
// and builds that would destroy or swallow something.

import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { checkBuild } from "../data/curate/collection.ts";
import { configSchema, parseConfig } from "../data/curate/config.ts";
import { readConfiguration } from "../data/json_config.ts";

/** What is said of a configuration, without the file's name. */
function fault(config: unknown): string {
  try {
    parseConfig(config, "c.json", "/base");
  } catch (error) {
    return (error as Error).message.replace("c.json: ", "");
  }
  return "";
}

describe("a configuration", () => {
  it.each([
    [null, "the file must be an object, not null"],
    [{ filter: { maxAspect: "wide" } }, 'filter.maxAspect must be a number, not "wide"'],
    [{ filter: { maxAspect: 0.5 } }, "filter.maxAspect must be at least 1, not 0.5"],
    [{ fetch: { robots: "maybe" } }, 'fetch.robots must be "obey" or "ignore", not "maybe"'],
    [{ annotate: { ocr: "yes" } }, 'annotate.ocr must be true or false or "auto", not "yes"'],
    [{ annotate: { budget: 0 } }, "annotate.budget must be above 0, not 0"],
    [
      { annotate: { server: "localhost" } },
      'annotate.server must be an address like http://localhost:11434/v1, not "localhost"',
    ],
    [{ processes: 1.5 }, "processes must be a whole number, not 1.5"],
    [{ sources: [{ type: "folder", name: "a" }] }, "sources.0.path is missing"],
    [{ sources: [{ type: "zip" }] }, 'sources.0.type must be one of "folder", "archive", "table", "search", not "zip"'],
    [{ sources: [{}] }, 'sources.0.type is missing: it must be one of "folder", "archive", "table", "search"'],
    [
      { sources: [{ type: "folder", name: "a", path: "b", words: 3 }] },
      'sources.0.words must be "folders" or a list, not 3',
    ],
    [
      { split: { word: 3, seed: -1 } },
      'split.seed must be at least 0, not -1; "split.word": no such key; there are words, apartBits, heldOutPairs, seed',
    ],
    [
      { sources: [1, 2].map((path) => ({ type: "folder", name: "a", path: `${path}` })) },
      'two sources are called "a"; give each a name of its own',
    ],
  ])("%j is refused by its key", (config, message) => expect(fault(config)).toBe(message));

  it("takes its paths from its own folder, and keeps what is for editors to itself", () => {
    const config = parseConfig(
      { $schema: "s.json", sources: [{ type: "folder", name: "a", path: "in" }] },
      "c",
      "/base",
    );
    expect(config.sources).toMatchObject([{ path: "/base/in", words: "folders" }]);
    expect(config).not.toHaveProperty("$schema");
  });

  it("is described to editors key by key, with its defaults", () => {
    interface Node {
      readonly description?: string;
      readonly default?: unknown;
      readonly const?: unknown;
      readonly properties?: Readonly<Record<string, Node>>;
      readonly items?: Node & { readonly oneOf?: readonly Node[] };
    }
    const bare: string[] = [];
    const walk = ({ properties = {}, items }: Node, at: string): void => {
      for (const [key, node] of Object.entries(properties)) {
        if (!node.description && node.const === undefined) bare.push(`${at}${key}`);
        walk(node, `${at}${key}.`);
      }
      for (const kind of items?.oneOf ?? []) walk(kind, `${at}${String(kind.properties?.type.const)}.`);
    };
    const schema = configSchema() as Node;
    walk(schema, "");
    expect(bare).toEqual([]);
    expect(schema.properties?.sources.items?.oneOf).toHaveLength(4);
    expect(schema.properties?.filter.properties?.maxAspect).toMatchObject({ default: 2, type: "number", minimum: 1 });
  });
});

describe("a build", () => {
  let dir: string;
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "gifgrad-config-"));
    await mkdir(join(dir, "in", "cats"), { recursive: true });
    await symlink("in", join(dir, "link"));
  });
  afterAll(() => rm(dir, { recursive: true }));

  it("is refused in one line where its configuration cannot be read", async () => {
    const file = join(dir, "broken.json");
    await writeFile(file, "{\n  x\n}");
    await expect(readConfiguration(file)).rejects.toThrow(/^\S+broken\.json is not JSON: [^\n]+$/);
    await expect(readConfiguration(dir)).rejects.toThrow(`the configuration ${dir} is a folder, not a file`);
    await expect(readConfiguration(`${dir}/none`)).rejects.toThrow(`the configuration ${dir}/none does not exist`);
    await expect(readConfiguration(`${file}/x`)).rejects.toThrow(`the configuration ${file}/x does not exist`);
  });

  it("without sources is refused: it would make an empty data set of a full one", async () => {
    await expect(checkBuild(join(dir, "out"), parseConfig({}, "c", dir), "c.json")).rejects.toThrow(/names no sources/);
  });

  it("into a folder that stickers are taken from is refused, also through a link", async () => {
    const config = parseConfig({ sources: [{ type: "folder", name: "cats", path: "in" }] }, "c", dir);
    for (const out of ["in", "in/new", "in/cats", "link", "link/a/b"])
      await expect(checkBuild(join(dir, out), config, "c.json"), out).rejects.toThrow(/source "cats" takes stickers/);
    for (const out of ["out", "inside", "."]) await checkBuild(join(dir, out), config, "c.json");
  });
});
