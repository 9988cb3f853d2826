// One face for what makes stickers: VideoGPT behind it, with a sampler that only notes what it is asked. Diffusion systems are
// sampled through theirs in generate.test.ts.

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { sampleGifs } from "../cli/generate.ts";
import { openMaker, videoGptMaker } from "../cli/makers.ts";
import { existingStage } from "../cli/train.ts";
import type { Sticker } from "../train/sample.ts";
import type { CodeSampleOptions, VideoGptSampler } from "../train/sample_videogpt.ts";

const asked: unknown[] = [];
const STEPS = 4;
const sampler = {
  config: { size: 2 },
  steps: STEPS,
  rounds: null,
  read: (text: string) => ({ tags: [0], unknown: text.split(", ").slice(1) }),
  sample: async (stickers: readonly Sticker[], { onStep, seed, temperature }: CodeSampleOptions) => {
    asked.push({ stickers, seed, temperature });
    for (let i = 1; i <= STEPS; i++) onStep?.(i, STEPS);
    return stickers.map(({ index }) => new Float32Array(8 * 2 * 2 * 3).fill(index));
  },
} as unknown as VideoGptSampler;

test("VideoGPT's stickers are made together, each with its own index", async () => {
  const maker = videoGptMaker(sampler);
  const stickers = ["cat", "dog"].map((caption, index) => ({ caption, index }));
  const done: number[] = [];
  const o = { seed: 7, steps: 25, guidance: 2, temperature: 0.5, onStep: (n: number) => void done.push(n) };
  const gifs = await sampleGifs(maker, stickers, o);
  expect(asked).toEqual([{ stickers, seed: 7, temperature: 0.5 }]);
  expect(done).toEqual([1, 2, 3, 4]);
  expect(maker.steps(2, o)).toBe(4);
  // Steps and guidance are no settings of it.
  expect(Buffer.from(gifs[1]).toString("latin1")).toContain("gifgrad dog seed 7 index 1 temperature 0.5");
});

test("words that are no tags are named", () => {
  const maker = videoGptMaker(sampler);
  expect(maker.unread("cat")).toBeNull();
  expect(maker.unread("cat, xyzzy, plugh")).toBe("no tags, and so not read: xyzzy, plugh");
});

test("pictures are refused, and so is a folder without a model", async () => {
  await expect(videoGptMaker(sampler).picture("cat.png")).rejects.toThrow("videogpt is not guided by pictures");
  const folder = await mkdtemp(join(tmpdir(), "gifgrad-makers-"));
  await expect(openMaker(folder)).rejects.toThrow(
    `holds no diffusion yet: train one with gifgrad train <data> --out ${folder}`,
  );
  const half = join(folder, "half");
  await mkdir(join(half, "vqvae"), { recursive: true });
  await writeFile(join(half, "vqvae", "config.json"), "{}");
  await expect(openMaker(half)).rejects.toThrow(
    `holds no prior yet: train one with gifgrad train <data> --system videogpt`,
  );
  await expect(openMaker(join(half, "vqvae"))).rejects.toThrow(`is one stage of a run: give the run folder, ${half}`);
  expect(() => existingStage(half, "diffusion")).toThrow(`${half} is a run of VideoGPT, which has no diffusion`);
  await rm(folder, { recursive: true });
});
