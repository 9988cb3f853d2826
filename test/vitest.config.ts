// How `npm test` runs: one process for all files, one file after another. There is one GPU device and two cores; a
// second worker would only compile the same shaders again. Run one file with `npm test -- ops`.

import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  root: fileURLToPath(new URL("..", import.meta.url)),
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks", // a process, not a thread: Dawn's native module outlives no worker thread
    isolate: false, // files share the modules, and so the open device
    fileParallelism: false,
    maxWorkers: 1,
    testTimeout: 60_000, // the first dispatch of a kernel on a software adapter compiles for seconds
    hookTimeout: 60_000,
  },
});
