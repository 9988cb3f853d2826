// The example with published scores: the values of eval/README.md come out, and other values and other stickers are noticed.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { writeStarter } from "../data/starter/index.ts";
import { type Clips, openClips } from "../eval/clips.ts";
import { compareExample, EXAMPLE, EXPECTED, exampleScores, TOLERANCE } from "../eval/example.ts";
import type { Score } from "../eval/score.ts";
import { onGpu } from "./device.ts";

const dir = mkdtempSync(join(tmpdir(), "gifgrad-example-"));
let sets: Record<"generated" | "real", Clips>;

beforeAll(async () => {
  const open = async (name: "generated" | "real"): Promise<Clips> => {
    await writeStarter(join(dir, name), { count: EXAMPLE.count, size: EXAMPLE.size, seed: EXAMPLE[name] });
    return openClips(join(dir, name));
  };
  sets = { generated: await open("generated"), real: await open("real") };
});
afterAll(() => {
  for (const clips of Object.values(sets)) clips.close();
  rmSync(dir, { recursive: true });
});

onGpu("the example scores what is published for it", async () => {
  const rows = compareExample(await exampleScores(sets.generated, sets.real), sets);
  expect(rows.map(({ name, ok }) => [name, ok])).toEqual([
    ["FVD-x", true],
    ["CLIP-x", true],
    ["VQA-x", true],
  ]);
});

test("a value a little further off than adapters may be is noticed, and so are other stickers", () => {
  const score = (name: string, off: number) => ({ name, value: EXPECTED.values[name] * (1 + off) }) as Score;
  const rows = compareExample([score("FVD-x", 0.9 * TOLERANCE), score("VQA-x", -1.1 * TOLERANCE)], sets);
  expect(rows.map(({ ok }) => ok)).toEqual([true, false]);
  const others = { generated: sets.real, real: sets.real };
  expect(() => compareExample([], others)).toThrow(/real: the stickers are not those of the example \(233d51db7adc/);
});

test("the values are those that eval/README.md prints", () => {
  const readme = readFileSync(fileURLToPath(new URL("../eval/README.md", import.meta.url)), "utf8");
  expect(readme).toContain(`| ${Object.values(EXPECTED.values).join(" | ")} |`);
});
