// The golden kinds of CLIP's networks: the folders pass on the GPU device, and fail in float64 when their configuration is
// changed to that of a slightly different network.

import { rmSync } from "node:fs";
import { afterAll, expect, test, vi } from "vitest";
import { useDevice } from "../engine/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { onGpu } from "./device.ts";
import { describeFolder } from "./golden.ts";
import { changedCopy, goldenFailures } from "./golden_failures.ts";

// A software adapter compiles over a hundred kernels for a network and its gradients.
vi.setConfig({ testTimeout: 300_000 });

interface Config {
  readonly vision_config: object;
}

const temporary: string[] = [];
afterAll(() => {
  for (const folder of temporary) rmSync(folder, { recursive: true });
});

/** A copy of the folder with another configuration. */
async function changed(path: string, edit: (config: Config) => object): Promise<string> {
  const copy = await changedCopy(path, { "config.json": edit });
  temporary.push(copy);
  return copy;
}

describeFolder("clip-text-a", (path) => {
  onGpu("passes", async () => {
    expect(await goldenFailures(path)).toEqual({ count: 64, failed: [] });
  });
  test.each<[string, object, string, string]>([
    ["another activation", { hidden_act: "quick_gelu" }, "out.last_hidden_state", "grad_norm."],
    ["another end token", { eos_token_id: 7 }, "out.pooled", "out.pooled"],
    ["another number of heads", { num_attention_heads: 8 }, "out.penultimate_hidden", "grad.w."],
    ["another epsilon", { layer_norm_eps: 1e-4 }, "out.short_last_hidden_state", "grad.w."],
  ])("%s is found", async (_, edit, output, other) => {
    useDevice(new ReferenceDevice());
    const { failed } = await goldenFailures(await changed(path, (config) => ({ ...config, ...edit })));
    expect(failed.join("\n")).toContain(output);
    expect(failed.join("\n")).toContain(other);
  });
  test("a wrong size is an error that names the weights", async () => {
    useDevice(new ReferenceDevice());
    const { count, failed } = await goldenFailures(await changed(path, (config) => ({ ...config, hidden_size: 36 })));
    expect({ count, failed }).toEqual({ count: 0, failed: [expect.stringMatching(/misshapen: text_model/)] });
  });
});

describeFolder("clip-sim-a", (path) => {
  onGpu("passes", async () => {
    expect(await goldenFailures(path)).toEqual({ count: 94, failed: [] });
  });
  test("heads of the image tower alone are found", async () => {
    useDevice(new ReferenceDevice());
    const edit = (c: Config): object => ({ ...c, vision_config: { ...c.vision_config, num_attention_heads: 2 } });
    const { failed } = await goldenFailures(await changed(path, edit));
    expect(failed.some((line) => line.startsWith("out.vision_last_hidden_state"))).toBe(true);
    expect(failed.some((line) => line.startsWith("out.text_embeds"))).toBe(false);
  });
});

describeFolder("clip-openai-a", (path) => {
  onGpu("passes", async () => {
    expect(await goldenFailures(path)).toEqual({ count: 61, failed: [] });
  });
});
