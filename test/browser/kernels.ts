// Every kernel family and the laws of programs, for `npm run test:browser`: the checks of `npm run check:deep` that run on a
// device, each with a few cases. Those of ops are ops.test.ts.

import { describe, expect } from "vitest";
import { suite } from "../deep/suite.ts";
import { onGpu } from "../device.ts";

const CASES = 6;

const checks = suite().filter(({ subject, needs }) => needs === "gpu" && !subject.startsWith("op "));

describe.each(checks.map((check) => [check.subject, check.law, check] as const))("%s", (_, law, check) => {
  onGpu(law, async () => {
    const { failure } = await check.run({ seed: 1, cases: CASES });
    expect(failure?.message ?? "").toBe("");
  });
});
