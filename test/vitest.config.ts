// How `npm test` runs: two processes, each with a device of its own and one file after another. Most of a cold run is the
// software driver compiling kernels, which it does on one core at a time. Run one file with `npm test -- ops`.

import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  root: fileURLToPath(new URL("..", import.meta.url)),
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks", // processes, not threads: Dawn's native module outlives no worker thread
    isolate: false, // files of a process share the modules, and so the open device
    maxWorkers: 2,
    testTimeout: 120_000, // the first dispatch of a kernel on a software adapter compiles for seconds
    hookTimeout: 120_000,
  },
});
