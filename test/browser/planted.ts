// Tests that must come out as their names say. browser.test.ts runs them in a page to see that failures are heard of; the
// name of this file keeps them from `npm test`.

import { expect, test } from "vitest";
import { tensor } from "../../engine/index.ts";
import { sin } from "../../engine/ops/elementwise.ts";
import { apply } from "../../engine/tensor.ts";
import { onGpu } from "../device.ts";

test("passes", () => expect([1, 2]).toEqual([1, 2]));
test("is skipped", (context) => context.skip("for a reason"));
onGpu("fails: WGSL that is not the definition", async () => {
  const broken = {
    ...sin,
    name: "sinBroken",
    lower: { kind: "elementwise", wgsl: ([x]: readonly string[]) => `(2.0 * ${x})` },
  } as typeof sin;
  expect(await apply(broken, [tensor([1])]).data()).toEqual(Float32Array.of(Math.sin(1)));
});
onGpu("fails: WGSL that does not compile", async () => {
  const broken = { ...sin, name: "sinUnknown", lower: { kind: "elementwise", wgsl: () => "sine(x)" } } as typeof sin;
  await apply(broken, [tensor([1])]).data();
});
