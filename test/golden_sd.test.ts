// The golden kinds that put networks together: Stable Diffusion from captions to pictures, and training steps of its UNet,
// with mistakes planted in their settings.

import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { afterAll, expect, test, vi } from "vitest";
import { useDevice } from "../engine/index.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { onGpu } from "./device.ts";
import { describeFolder } from "./golden.ts";
import { changedCopy, goldenFailures } from "./golden_failures.ts";

// A software adapter compiles two hundred kernels for a training step.
vi.setConfig({ testTimeout: 600_000 });

const temporary: string[] = [];
afterAll(() => {
  for (const folder of temporary) rmSync(folder, { recursive: true });
});

/** A copy with another configuration, beside links to the folders that it names. */
async function changed(path: string, edit: (config: never) => object): Promise<string> {
  const outer = mkdtempSync(join(tmpdir(), "golden-sd-"));
  temporary.push(outer);
  for (const name of ["clip-text-a", "unet-sd-a", "vae-sd-a"])
    symlinkSync(join(dirname(path), name), join(outer, name));
  const copy = await changedCopy(path, { "config.json": edit });
  temporary.push(copy);
  symlinkSync(copy, join(outer, basename(path)));
  return join(outer, basename(path));
}

interface Pipeline {
  readonly scheduler: object;
}

describeFolder("pipeline-sd-a", (path) => {
  onGpu("passes", async () => {
    expect(await goldenFailures(path)).toEqual({ count: 6, failed: [] });
  });
  test("a schedule that ends at a clean sample is found", async () => {
    useDevice(new ReferenceDevice());
    const edit = (c: Pipeline): object => ({ ...c, scheduler: { ...c.scheduler, set_alpha_to_one: true } });
    const { failed } = await goldenFailures(await changed(path, edit));
    expect(failed.map((line) => line.split(":")[0])).toEqual(["out.latents", "out.decoded_raw", "out.image"]);
  });
});

interface Training {
  readonly optimizer: object;
}

describeFolder("train-sd-a", (path) => {
  onGpu("passes, and settings a little off are found", async () => {
    expect(await goldenFailures(path)).toEqual({ count: 338, failed: [] });
    const edit = (c: Training): object => ({
      ...c,
      ema_decay: 0.991,
      optimizer: { ...c.optimizer, weight_decay: 0.02 },
    });
    const { failed } = await goldenFailures(await changed(path, edit));
    const names = failed.map((line) => line.split(":")[0]);
    expect(names).toEqual(expect.arrayContaining(["out.param.conv_in.weight", "out.ema.conv_in.weight"]));
  });
});
