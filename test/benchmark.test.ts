// The benchmark's pure parts: what a configuration may say, what it asks for, and how a result is laid out in the paper's tables:
// marks, ties, failures, protocols that differ, the paper's numbers. What trains and samples is benchmark_run.test.ts.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { type BenchmarkConfig, benchmarkSchema, parseBenchmark } from "../eval/benchmark/config.ts";
import { renderBenchmarkMarkdown } from "../eval/benchmark/markdown.ts";
import { JOINT, PARAMETERS, SECONDS, SEPARATE, TRAINING_SETS } from "../eval/benchmark/paper.ts";
import { estimate, planBenchmark, pointsOf } from "../eval/benchmark/plan.ts";
import type { BenchmarkResult, Cell, Table, TableCell } from "../eval/benchmark/result.ts";
import { curvesOf, failuresOf, tablesOf } from "../eval/benchmark/tables.ts";
import type { Metric, Score } from "../eval/score.ts";
import { SYSTEMS } from "../models/systems.ts";

const SMALL = {
  preset: "nano",
  training: { name: "VSD2M", stickers: { starter: { count: 8 } } },
  test: { "VSD-R": { folder: "real" }, "VSD-C": { folder: "/cartoon" } },
  tables: { separate: true, joint: true },
  steps: { autoencoder: 3, diffusion: 10, vqvae: 4, prior: 5 },
  weights: { train: { steps: 3 } },
};
const parse = (over: object = {}): BenchmarkConfig => parseBenchmark({ ...SMALL, ...over }, "b.json", "/base");

describe("a configuration", () => {
  test("is filled in, with paths from its own folder", () => {
    const config = parse({ take: { "joint/sti": "runs/mine" } });
    expect(config).toMatchObject({ seed: 1, sampling: { sampler: "ddim", steps: 25, guidance: 7.5 } });
    expect(config.systems).toEqual(SYSTEMS.map(({ name }) => name));
    expect(config.test).toEqual({ "VSD-R": { folder: "/base/real" }, "VSD-C": { folder: "/cartoon" } });
    expect(config.take).toEqual({ "joint/sti": "/base/runs/mine" });
  });

  test.each<[object, RegExp]>([
    [{ preset: "huge" }, /^b\.json: preset must be "nano", "micro", "tiny", "small" or "paper", not "huge"$/],
    [{ sede: 1 }, /^b\.json: "sede": no such key; there are title, preset, size, seed, /],
    [{ size: 60 }, /^b\.json: size must be a multiple of 8, not 60$/],
    [{ systems: [] }, /^b\.json: systems must have at least 1, not \[\]$/],
    [{ training: undefined }, /^b\.json: training is missing$/],
    [
      { training: { stickers: { starter: { cout: 3 } } } },
      /starter\.count is missing; "training\.stickers\.starter\.cout": no such key; there are count, seed, domains/,
    ],
    [
      { training: { stickers: { dir: "x" } } },
      /training\.stickers must be \{"folder": "path"\} or \{"starter": \{"count": 500\}\}, not \{"dir":"x"\}$/,
    ],
    [{ steps: { ...SMALL.steps, prior: 0 } }, /^b\.json: steps\.prior must be above 0, not 0$/],
    [{ weights: {} }, /weights must be \{"folder": "path"\} or \{"train": \{"steps": 300\}\}, not \{\}$/],
    [{ metrics: ["fid"] }, /metrics\.0 must be "vqa", "fvd" or "clip", not "fid"$/],
    [
      { tables: { trainingSets: { sets: { "a b": { stickers: { folder: "x" }, test: ["VSD-R"] } } } } },
      /^b\.json: tables\.trainingSets\.sets\.a b must have a name of letters, digits, - and _, not "a b"$/,
    ],
    [{ test: {} }, /test: give at least one of VSD-R and VSD-C/],
    [{ tables: {} }, /tables: nothing is asked for/],
    [{ systems: ["sti", "sti"] }, /systems: sti is named twice/],
    [
      { systems: ["sti"], tables: { curves: { systems: ["videoldm"], every: 5 } } },
      /videoldm is not among the systems/,
    ],
    [
      { tables: { trainingSets: { sets: { joint: { stickers: { folder: "x" }, test: ["VSD-R"] } } } } },
      /name is taken/,
    ],
    [
      { tables: { trainingSets: { sets: { VSD2M: { stickers: { folder: "x" }, test: ["VSD-R"] } } } } },
      /sets\.VSD2M: training\.name is the same/,
    ],
    [
      { test: { "VSD-C": { folder: "x" } }, tables: { curves: { systems: ["sti"], set: "real", every: 5 } } },
      /curves\.set: "real" is scored on VSD-R, and there is no such test set/,
    ],
    [
      {
        test: { "VSD-R": { folder: "x" } },
        tables: { trainingSets: { sets: { TGIF: { stickers: { folder: "x" }, test: ["VSD-C"] } } } },
      },
      /sets\.TGIF\.test: there is no test set VSD-C/,
    ],
  ])("%j is refused: %s", (over, message) => {
    expect(() => parse(over)).toThrow(message);
  });

  test("the one in the README is valid", () => {
    const readme = readFileSync(fileURLToPath(new URL("../eval/README.md", import.meta.url)), "utf8");
    const [, json] = /## The benchmark.*?```json\n(.*?)```/s.exec(readme) ?? [];
    const config = parseBenchmark(JSON.parse(json), "eval/README.md", "/");
    expect(planBenchmark(config)).toHaveLength(19);
  });

  test("the shipped one is valid, and the schema says what its keys mean", () => {
    const path = fileURLToPath(new URL("../eval/benchmark/nano.json", import.meta.url));
    const plan = planBenchmark(parseBenchmark(JSON.parse(readFileSync(path, "utf8")), path, "/"));
    const parts = new Set(plan.flatMap(({ cells }) => cells.map(({ part }) => part)));
    expect([...parts].sort()).toEqual(["curves", "joint", "separate", "trainingSets"]);
    expect(new Set(plan.map(({ system }) => system.name)).size).toBe(6);
    expect(JSON.stringify(benchmarkSchema())).toContain("optimiser steps of each stage");
  });
});

describe("a plan", () => {
  test("has every system once for each set, and names every cell", () => {
    const config = parse();
    const plan = planBenchmark(config);
    expect(plan).toHaveLength(18);
    expect(plan.find(({ id }) => id === "cartoon/sti")?.cells.map(({ id }) => id)).toEqual([
      "separate/sti/cartoon/VSD-C",
    ]);
    expect(estimate(config, plan)).toMatchObject({ trainings: 18, autoencoders: 3, cells: 24, samplings: 24 });
    expect(estimate(config, plan).optimiserSteps).toBe(3 * 3 + 15 * 10 + 3 * 9);
  });

  test("Table 5 and Figure 6 share what Tables 4 and 7 train and sample", () => {
    const sets = { TGIF: { stickers: { folder: "x" }, test: ["VSD-R"] } };
    const tables = { ...SMALL.tables, trainingSets: { sets }, curves: { systems: ["sti"], every: 4 } };
    const config = parse({ tables });
    const plan = planBenchmark(config);
    expect(plan).toHaveLength(19);
    expect(plan.find(({ id }) => id === "joint/sti")).toMatchObject({ every: 4 });
    // Points 4, 8 and 10 of both test sets; those at 10, and Table 5's rows of this set, are cells of other tables too.
    expect(estimate(config, plan)).toMatchObject({ cells: 24 + 3 + 6, samplings: 24 + 1 + 4 });
  });

  test("points end with the last step", () => {
    expect(pointsOf(10, 4)).toEqual([4, 8, 10]);
    expect(pointsOf(8, 4)).toEqual([4, 8]);
    expect(pointsOf(3, 4)).toEqual([3]);
  });

  test("a run that nothing asks for is not taken", () => {
    expect(() => planBenchmark(parse({ take: { "joint/stix": "x" } }))).toThrow(/take: "joint\/stix" is not asked for/);
    const plan = planBenchmark(parse({ take: { "joint/sti": "x" } }));
    expect(estimate(parse(), plan)).toMatchObject({ trainings: 17, taken: 1 });
  });
});

const PROTOCOL: Score["protocol"] = {
  ...{ n: 8, size: 16, frames: 8, extension: "loop to 16", clips: "gif-1", preprocessing: "p", extractor: "e" },
  ...{ extractorHash: "a".repeat(64), real: null, captions: null },
};

function score(metric: Metric, value: number, over: Partial<Score> = {}): Score {
  const better = metric === "fvd" ? "lower" : "higher";
  const interval = { low: value - 0.1, high: value + 0.1, share: 0.95, rounds: 10 };
  const rest = { protocol: PROTOCOL, floor: { value: 0.5, n: 4 }, interval, seed: 1, also: {} };
  return { name: `${metric.toUpperCase()}-x`, value, better, ...rest, ...over } as Score;
}

/** A result whose systems score `values` in VQA, and 10 less that in FVD, everywhere. */
function made(values: Readonly<Record<string, number>>, over: Partial<BenchmarkResult> = {}): BenchmarkResult {
  const config = parse({ systems: SYSTEMS.map(({ name }) => name).filter((name) => name in values) });
  const cells = planBenchmark(config)
    .flatMap((training) => training.cells)
    .map((cell): Cell => {
      const value = values[cell.system];
      const scores = { vqa: score("vqa", value), fvd: score("fvd", 10 - value), clip: score("clip", value) };
      return { ...cell, state: "done", scores, samples: "samples/x", seconds: null };
    });
  return {
    ...{ format: 1, title: "A test", config, adapter: { name: "none", kind: "software" }, complete: true },
    environment: { versions: { gifgrad: "0", node: "0", webgpu: "0" }, git: null },
    ...{ began: "2026-01-01", written: "2026-01-01", seconds: 1, preset: "nano", size: 16, frames: 8, seed: 1 },
    ...{ sampling: "ddim", published: false, missing: {}, trainings: [], tests: [], gallery: [], cells },
    systems: SYSTEMS.filter(({ name }) => name in values).map(({ name, title, conditions }) => ({
      ...{ name, title, conditions, cost: null },
    })),
    ...over,
  };
}

const cellAt = (table: Table, row: number, column: number): TableCell => table.rows[row].cells[column];
const places = (table: Table, column: number): unknown[] =>
  table.rows.map(({ cells }) => (cells[column].kind === "value" ? cells[column].place : cells[column].kind));
const change = (result: BenchmarkResult, id: string, over: Partial<Cell>): BenchmarkResult => ({
  ...result,
  cells: result.cells.map((cell) => (cell.id === id ? { ...cell, ...over } : cell)),
});

describe("tables", () => {
  const result = made({ videogpt: 1, videoldm: 3, sti: 2 });

  test("have the paper's layout, best and second best marked by each metric's own direction", () => {
    const [four, seven, six] = tablesOf(result);
    expect([four.name, seven.name, six.name]).toEqual(["Table 4", "Table 7", "Table 6"]);
    expect(four.rows.map(({ title }) => title)).toEqual(["VideoGPT", "VideoLDM", "Ours (STI)"]);
    expect(four.groups.map(({ title }) => title)).toEqual(["VSD-R", "VSD-C"]);
    expect(four.groups[0].columns.map(({ title }) => title)).toEqual(["VQA-x", "FVD-x", "CLIP-x"]);
    expect(places(four, 0)).toEqual([null, 1, 2]);
    expect(places(four, 1)).toEqual([null, 1, 2]);
    expect(places(four, 5)).toEqual(["none", 1, 2]); // VideoGPT has no captions
    expect(cellAt(four, 0, 2)).toMatchObject({ why: "VideoGPT is told tags, not captions" });
  });

  test("equal values share a place, and two that are best leave no second", () => {
    const [four] = tablesOf(made({ videogpt: 1, videoldm: 3, sti: 3 }));
    expect(places(four, 0)).toEqual([null, 1, 1]);
    const [second] = tablesOf(made({ "make-a-video": 4, videoldm: 3, sti: 3 }));
    expect(places(second, 0)).toEqual([1, 2, 2]);
    // Three digits are printed: what is equal in them shares its place too.
    const [alike] = tablesOf(made({ videogpt: 2.9996, videoldm: 3.0004, sti: 2.9994 }));
    expect(alike.rows.map(({ cells: [cell] }) => cell.kind === "value" && cell.text)).toEqual([
      "3.000",
      "3.000",
      "2.999",
    ]);
    expect(places(alike, 0)).toEqual([1, 1, null]);
  });

  test("a failed cell is shown with its reason, and the rest is ranked without it", () => {
    const failed = { state: "failed", reason: "it | broke <here>", scores: {} } as const;
    const [four] = tablesOf(change(result, "separate/videoldm/real/VSD-R", failed));
    expect(cellAt(four, 1, 0)).toEqual({ kind: "failed", reason: "it | broke <here>" });
    expect(places(four, 0)).toEqual([2, "failed", 1]);
    expect(places(four, 3)).toEqual([null, 1, 2]);
  });

  test("a metric that failed leaves the others of its cell", () => {
    const { vqa, clip } = result.cells[0].scores;
    const failed = change(result, "separate/videoldm/real/VSD-R", {
      scores: { vqa, clip },
      failed: { fvd: "no root" },
    });
    const [four] = tablesOf(failed);
    expect(cellAt(four, 1, 1)).toEqual({ kind: "failed", reason: "no root" });
    expect([cellAt(four, 1, 0).kind, cellAt(four, 1, 2).kind]).toEqual(["value", "value"]);
    expect(failuresOf(failed)).toEqual(["separate/videoldm/real/VSD-R, FVD-x: no root"]);
    expect(renderBenchmarkMarkdown(failed)).toContain("- separate/videoldm/real/VSD-R, FVD-x: no root");
  });

  test("scores of unlike protocols are not ranked: what differs is said", () => {
    const other = { ...result.cells[0].scores, vqa: score("vqa", 9, { protocol: { ...PROTOCOL, size: 32 } }) };
    const [four] = tablesOf(change(result, "separate/sti/real/VSD-R", { scores: other }));
    expect(places(four, 0)).toEqual([null, null, null]);
    expect(four.notes[0]).toMatch(/^VSD-R, not ranked: VQA-x: scores cannot be compared: size 16 and 32$/);
    expect(places(four, 1)).not.toEqual([null, null, null]);
  });

  test("the paper's values stand beside the published networks' scores alone; else its order", () => {
    const [own] = tablesOf(result);
    expect(cellAt(own, 2, 1)).toMatchObject({ paper: { text: null, place: 1, of: 6 } });
    expect(cellAt(own, 1, 2)).toMatchObject({ paper: { text: null, place: 3, of: 5 } });
    expect(own.notes.at(-1)).toMatch(/cannot be held against the paper's numbers/);
    const [published] = tablesOf({ ...result, published: true });
    expect(cellAt(published, 2, 1)).toMatchObject({ paper: { text: "2613.41", place: 1, of: 6 } });
    expect(published.groups[0].columns[1].title).toBe("FVD");
  });

  test("times and parameters stand in Table 4 once they are measured; one that failed says so", () => {
    const time = { runs: 3, mean: 1.5, median: 1.5, p5: 1, p95: 2 };
    const parameters = { total: 1234, components: { unet: 1200 } };
    const cost = { parameters, time, memory: { planned: 1e6, measured: null }, flops: 2e9, dispatches: 7 };
    const systems = result.systems.map((system, i) => ({
      ...system,
      ...(i === 2 ? { cost: null, costFailed: "no memory" } : { cost }),
    }));
    const [four, seven] = tablesOf({ ...result, systems });
    expect(cellAt(four, 1, 6)).toMatchObject({ text: "1.50", place: null, paper: { text: null, place: 2 } });
    expect(cellAt(four, 1, 7)).toMatchObject({ text: "1,234", paper: { text: null } });
    expect(cellAt(four, 2, 6)).toEqual({ kind: "failed", reason: "no memory" });
    expect(seven.groups).toHaveLength(2);
    const joint = result.cells.filter(({ part }) => part === "joint");
    expect(renderBenchmarkMarkdown({ ...result, systems, cells: joint })).toContain(
      "## What one sticker takes\n\n| System | Parameters | unet | Seconds, mean | median | 5 % to 95 % | runs |",
    );
    expect(renderBenchmarkMarkdown({ ...result, systems, cells: joint })).toContain(
      "| VideoLDM | 1,234 | 1,200 | 1.50 | 1.50 | 1.00 to 2.00 | 3 | 1.0 MB | not known | 2.00 G | 7 |",
    );
    expect(renderBenchmarkMarkdown(result)).not.toContain("What one sticker takes");
    const [paper] = tablesOf({ ...result, systems, preset: "paper" });
    expect(cellAt(paper, 1, 7)).toMatchObject({ text: "0.000 B", paper: { text: "1.835 B" } });
  });

  test("where intervals overlap, a note says that the order is no finding", () => {
    expect(tablesOf(made({ videogpt: 1, videoldm: 3, sti: 2 }))[0].notes).toHaveLength(1);
    const [four] = tablesOf(made({ videogpt: 1, videoldm: 2.1, sti: 2 }));
    expect(four.notes[0]).toMatch(/overlap in 6 of 6 ranked columns, those of the best and the worst in 2: /);
  });

  test("Table 5 names this set as it is called, last, beside the paper's row of that name", () => {
    const sets = { TGIF: { stickers: { folder: "x" }, test: ["VSD-R"] } };
    const config = parse({
      systems: ["sti"],
      tables: { trainingSets: { sets }, curves: { systems: ["sti"], every: 4 } },
    });
    const cells = planBenchmark(config).flatMap((training) => training.cells);
    const values = cells.map((cell, i): Cell => {
      const scores = { vqa: score("vqa", i), fvd: score("fvd", i) };
      return { ...cell, state: "done", scores, samples: null, seconds: null };
    });
    const five = { ...made({ sti: 1 }), config, cells: values, published: true };
    const [table] = tablesOf(five);
    expect(table.rows.map(({ title }) => title)).toEqual(["TGIF", "VSD2M"]);
    expect(cellAt(table, 0, 1)).toMatchObject({ paper: { text: "3310.25", place: 2 } });
    expect(cellAt(table, 1, 1)).toMatchObject({ paper: { text: "2613.41", place: 1 } });
    expect(cellAt(table, 0, 2)).toMatchObject({ kind: "none", why: "not asked for", paper: null });
    const curves = curvesOf(five);
    expect(curves.map(({ test, metric }) => `${test} ${metric}`)).toHaveLength(4);
    expect(curves[0].points.map(({ steps }) => steps)).toEqual([4, 8, 10]);
    // It has no column for CLIP, and Table 6 no row for ours: neither is printed empty.
    const clip = { ...five, config: { ...config, metrics: ["clip"] } };
    expect(tablesOf(five).map(({ name }) => name)).toEqual(["Table 5"]);
    expect(tablesOf(clip)).toEqual([]);
    const markdown = renderBenchmarkMarkdown(clip);
    expect(markdown).toContain("- no Table 5: it compares VQA and FVD, and neither is among the metrics");
    expect(markdown).toContain("- no Table 6: ");
    // A point that is not done is left out of its line.
    const without = change(five, "curves/sti/joint/VSD-R/8", { state: "failed", scores: {} });
    expect(curvesOf(without)[0].points.map(({ steps }) => steps)).toEqual([4, 10]);
  });

  test("the paper's numbers are those of its tables", () => {
    // Its own claims: the best in VQA and FVD everywhere, second in CLIP.
    for (const scores of [SEPARATE, JOINT])
      for (const { vqa, fvd, clip } of Object.values(scores)) {
        const sorted = (column: typeof vqa): number[] =>
          Object.values(column)
            .flatMap((x) => (typeof x === "number" ? [x] : []))
            .sort((a, b) => a - b);
        expect(vqa.sti).toBe(sorted(vqa).at(-1));
        expect(fvd.sti).toBe(sorted(fvd)[0]);
        expect(clip.sti).toBe(sorted(clip).at(-2));
        expect(clip.videogpt).toBeNull();
      }
    expect(TRAINING_SETS["VSD-R"].fvd.VSD2M).toBe(SEPARATE["VSD-R"].fvd.sti);
    expect(TRAINING_SETS["VSD-C"].vqa.VSD2M).toBe(SEPARATE["VSD-C"].vqa.sti);
    expect([SECONDS.sti, PARAMETERS["i2vgen-xl"]]).toEqual([11.71, 2.489e9]);
  });
});

describe("benchmark.md", () => {
  test("marks, intervals, places and failures are legible, and text cannot break the table", () => {
    const result = made({ videogpt: 1, videoldm: 3, sti: 2 }, { title: "a | b <script>" });
    const failed = { state: "failed", reason: "it | broke <here>", scores: {} } as const;
    const markdown = renderBenchmarkMarkdown(change(result, "joint/videogpt/joint/VSD-C", failed));
    expect(markdown).toContain("# a \\| b &lt;script>");
    const rows = markdown.split("\n").filter((line) => line.startsWith("| VideoLDM"));
    expect(rows[0]).toBe(
      "| VideoLDM | **3.000** [2.900, 3.100] (p5/6) | **7.000** [6.900, 7.100] (p3/6) | **3.000** [2.900, 3.100] (p3/5) " +
        "| **3.000** [2.900, 3.100] (p4/6) | **7.000** [6.900, 7.100] (p4/6) | **3.000** [2.900, 3.100] (p3/5) |",
    );
    expect(markdown).toContain("<u>2.000</u> [1.900, 2.100] (p1/6)");
    expect(markdown).toMatch(/\| VideoGPT \| 1\.000 .* \| failed \| failed \| – \|/);
    expect(markdown).toContain("- joint/videogpt/joint/VSD-C: it \\| broke &lt;here>");
    expect(markdown).toContain("- VSD-R, FVD-x: 0.500 (n 4)");
  });
});
