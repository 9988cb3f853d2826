// `gifgrad benchmark`: its name, options and help. Its work is in benchmark.ts, imported when it runs. Called by main.ts.

import type { Command } from "commander";
import type { BenchmarkOptions } from "./options.ts";

export function addBenchmark(program: Command): void {
  program
    .command("benchmark")
    .description("train, sample and score systems as a configuration says; the paper's tables of it, and a page")
    .argument("[config]", "a JSON file; eval/README.md says what is in it")
    .option("--out <folder>", "where everything goes; what is there is gone on with", "runs/benchmark")
    .option("--estimate", "only say how much there is to do", false)
    .option("--schema", "print the configuration's keys and their meaning, as JSON Schema", false)
    .action(async (config: string | undefined, options: Omit<BenchmarkOptions, "config">) =>
      (await import("./benchmark.ts")).run({ config, ...options }),
    );
}
