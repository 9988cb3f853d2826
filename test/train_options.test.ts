// What the commands say of options that leave a network untrained or have no effect. Mistakes that stop before any work are
// in cli.test.ts.

import { expect, test } from "vitest";
import { videoGptMaker } from "../cli/makers.ts";
import { refuseGiven } from "../cli/options.ts";
import { untrained } from "../cli/train.ts";
import type { VideoGptSampler } from "../train/sample_videogpt.ts";

test("a frozen part that nothing has trained is said so", () => {
  expect(untrained({ trainable: "conv" })).toMatch(
    /^--trainable conv without --init: all layers within frames .* random/,
  );
  expect(untrained({ trainable: "all" })).toMatch(/the text encoder is random/);
  expect(untrained({})).toBeNull();
  expect(untrained({ trainable: "conv", init: ["sd21", "runs/sd21"] })).toBeNull();
});

test("what a prior does not read is refused; a masked one has rounds, which are its steps", () => {
  const refused = (rounds: number | null, given: string[]): void => {
    const { unused } = videoGptMaker({ config: { size: 2 }, rounds } as unknown as VideoGptSampler);
    refuseGiven(given, unused.options, unused.whom);
  };
  for (const given of ["guidance", "sampler", "eta", "negative", "steps"])
    expect(() => refused(null, [given])).toThrow(`--${given} is for runs of diffusion systems, not of VideoGPT`);
  expect(() => refused(12, ["steps", "temperature", "topK"])).not.toThrow();
  expect(() => refuseGiven(["topK"], ["topK"], "VideoGPT")).toThrow("--top-k is for VideoGPT: leave it out");
});
