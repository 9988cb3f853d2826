// What the commands say of options that leave a network untrained or have no effect. Mistakes that stop before any work are
// in cli.test.ts.

import { expect, test } from "vitest";
import { untrained } from "../cli/train.ts";

test("a frozen part that nothing has trained is said so", () => {
  expect(untrained({ trainable: "conv" })).toMatch(
    /^--trainable conv without --init: all layers within frames .* random/,
  );
  expect(untrained({ trainable: "all" })).toMatch(/the text encoder is random/);
  expect(untrained({})).toBeNull();
  expect(untrained({ trainable: "conv", init: ["sd21", "runs/sd21"] })).toBeNull();
});
