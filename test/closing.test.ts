// A device may be closed and collected while Dawn works for it: the process lives. In a process of its own, closing_child.ts,
// with an empty driver cache, so that there is work.

import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { build } from "esbuild";
import { expect } from "vitest";
import { onGpu } from "./device.ts";

const root = fileURLToPath(new URL("..", import.meta.url));

onGpu("devices that are closed and collected while kernels are compiled leave the process alive", async () => {
  await mkdir(join(root, ".cache"), { recursive: true });
  const dir = await mkdtemp(join(root, ".cache", "closing-"));
  try {
    const outfile = join(dir, "child.mjs");
    const entryPoints = [join(root, "test/closing_child.ts")];
    await build({ entryPoints, outfile, bundle: true, platform: "node", format: "esm", packages: "external" });
    const env = { ...process.env, MESA_SHADER_CACHE_DIR: join(dir, "mesa") };
    const { stdout } = await promisify(execFile)(process.execPath, [outfile], { env, timeout: 60_000 });
    expect(stdout).toContain("alive");
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});
