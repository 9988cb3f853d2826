// A benchmark's result made up for tests of its pages: six systems with scores that follow from their names, one cell that failed,
// one that is not done, and words that would be markup if a page let them.

import type { BenchmarkResult, Cell, SystemCost, TestName } from "../eval/benchmark/result.ts";
import type { Metric, Score } from "../eval/score.ts";

/** What captions, names and reasons of a made-up result contain. */
export const HOSTILE = `</td></table><script>document.title = "taken"</script><img src=x onerror="document.title = 'taken'">"'&`;

const NAMES: readonly (readonly [name: string, title: string])[] = [
  ["videogpt", "VideoGPT"],
  ["make-a-video", "Make-A-Video"],
  ["videoldm", "VideoLDM"],
  ["videofactory", "VideoFactory"],
  ["i2vgen-xl", "I2VGen-XL"],
  ["sti", "Ours (STI)"],
];

export function madeUpScore(metric: Metric, value: number, over: Partial<Score["protocol"]> = {}): Score {
  return {
    name: `${metric.toUpperCase()}-x`,
    value,
    better: metric === "fvd" ? "lower" : "higher",
    protocol: {
      n: 24,
      size: 16,
      frames: 8,
      extension: metric === "fvd" ? "8 frames" : "none",
      clips: "gif-1",
      preprocessing: "own-1 16",
      extractor: `own network, ${metric}`,
      extractorHash: "ab".repeat(32),
      real: metric === "fvd" ? "cd".repeat(32) : null,
      captions: metric === "clip" ? "ef".repeat(32) : null,
      ...over,
    },
    floor: { value: metric === "fvd" ? 0.9 : 0.6, n: metric === "fvd" ? 12 : 24 },
    interval: { low: 0.8 * value, high: 1.25 * value, share: 0.95, rounds: 50 },
    seed: 1,
    also: {},
  };
}

function scores(i: number, test: TestName, gain = 1): Cell["scores"] {
  const c = test === "VSD-C" ? 1.2 : 1;
  return {
    vqa: madeUpScore("vqa", 0.3 * c + 0.02 * i * gain),
    fvd: madeUpScore("fvd", ((3.1 - 0.1 * i) * c) / gain),
    ...(i > 0 && { clip: madeUpScore("clip", 0.1 * c + 0.01 * ((5 * i) % 7) * gain) }),
  };
}

function cost(i: number): SystemCost {
  const [unet, autoencoder] = [1_300_000 + 10_000 * i, 242_327];
  return {
    parameters: { total: unet + autoencoder, components: { autoencoder, unet } },
    time: { runs: 10, mean: 1 + 0.1 * i, median: 0.98 + 0.1 * i, p5: 0.9, p95: 1.4 + 0.1 * i },
    memory: { planned: 11e6 + 1e5 * i, measured: i === 2 ? null : 11.2e6 },
    flops: 1.4e9,
    dispatches: 3000 + i,
  };
}

/** `captions`: rows of the gallery for each test set. */
export function madeUpResult({ captions = 4 } = {}): BenchmarkResult {
  const tests: readonly TestName[] = ["VSD-R", "VSD-C"];
  const setOf = { "VSD-R": "real", "VSD-C": "cartoon" } as const;
  const base = { steps: null, state: "done", samples: null, seconds: { sampling: 2, scoring: 1 } } as const;
  const cells = NAMES.flatMap(([system], i) =>
    tests.flatMap((test): Cell[] => {
      const set = setOf[test];
      const id = `${system}/${set}/${test}`;
      const separate: Cell = {
        ...base,
        id: `separate/${id}`,
        part: "separate",
        system,
        set,
        test,
        scores: scores(i, test),
      };
      const joint: Cell = {
        ...base,
        id: `joint/${id}`,
        part: "joint",
        system,
        set: "joint",
        test,
        scores: scores(i, test, 1.1),
      };
      const curve = [20, 40, 60].map(
        (steps): Cell => ({
          ...joint,
          id: `curves/${id}/${steps}`,
          part: "curves",
          steps,
          scores: scores(i, test, steps / 50),
        }),
      );
      if (i === 2 && test === "VSD-C")
        return [{ ...separate, state: "failed", reason: `the loss is NaN ${HOSTILE}`, scores: {} }, joint, ...curve];
      return i === 4 && test === "VSD-R"
        ? [separate, { ...joint, state: "pending", scores: {} }, ...curve]
        : [separate, joint, ...curve];
    }),
  );
  return {
    format: 1,
    title: `A benchmark ${HOSTILE}`,
    config: { metrics: ["vqa", "fvd", "clip"], training: { name: "VSD2M" } },
    environment: {
      versions: { gifgrad: "0.1.0", node: "22.0.0", webgpu: "0.6.2" },
      git: { commit: "0123456789abcdef", dirty: false },
    },
    adapter: { name: `llvmpipe ${HOSTILE}`, kind: "cpu" },
    began: "2026-01-01T10:00:00.000Z",
    written: "2026-01-01T10:20:00.000Z",
    seconds: 1200,
    complete: false,
    preset: "nano",
    size: 16,
    frames: 8,
    seed: 1,
    sampling: "DDIM, 10 steps, guidance 2; VideoGPT: code by code",
    published: false,
    missing: { clip: `no folder clip ${HOSTILE}` },
    systems: NAMES.map(([name, title], i) => ({
      name,
      title,
      conditions: HOSTILE,
      cost: i === 3 ? null : cost(i),
      ...(i === 3 && { costFailed: HOSTILE }),
    })),
    trainings: NAMES.map(([system], i) => ({
      id: `real/${system}`,
      system,
      set: "real",
      stickers: 40,
      state: i === 2 ? "failed" : "done",
      ...(i === 2 && { reason: HOSTILE }),
      run: `runs/real/${system}`,
      taken: false,
      stages: [{ recipe: "diffusion", steps: 60, seconds: 33, firstLoss: 1.2, lastLoss: 0.7, baseline: 0.95 }],
    })),
    tests: tests.map((name) => ({
      name,
      domain: name === "VSD-R" ? "Real" : "Cartoon",
      stickers: 24,
      sha256: "01".repeat(32),
    })),
    cells,
    gallery: tests.flatMap((test) =>
      Array.from({ length: captions }, (_, k) => ({
        test,
        caption: k === 0 ? `a red heart ${HOSTILE}` : `a sticker of something with a longer description, number ${k}`,
        reference: `reference/${k}.gif`,
        stickers: NAMES.flatMap(([system]) =>
          [setOf[test], "joint"].map((set) => ({
            system,
            set,
            gif: system === "videoldm" ? null : `samples/${system}/${k}.gif`,
          })),
        ),
      })),
    ),
  };
}
