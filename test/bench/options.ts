// The command line of `npm run bench`. Called by main.ts.

import { Command, InvalidArgumentError } from "commander";
import { select, type Workload } from "./workloads.ts";

export interface Options {
  readonly workloads: readonly Workload[];
  readonly peers: boolean;
  readonly json: boolean;
  readonly runs: number;
  readonly timeout: number;
  readonly cold: boolean;
  readonly profile: boolean;
  readonly explain: boolean;
  readonly out?: string;
  readonly against?: string;
}

function positive(text: string): number {
  const n = Number(text);
  if (!(n > 0)) throw new InvalidArgumentError("expected a number above zero");
  return n;
}

/** Throws commander's error, which names the argument, instead of ending the process, when `quiet`. */
export function parseOptions(argv: readonly string[], quiet = false): Options {
  const command = new Command("bench")
    .description("Time Gifgrad, and with --peers jax-js and TensorFlow.js, on the workloads of test/bench/README.md.")
    .option("--only <ids>", "comma-separated workloads: W1.512, or W1 for all of W1", "")
    .option("--peers", "measure the peers too, interleaved", false)
    .option("--runs <n>", "executions timed after the first", positive, 5)
    .option(
      "--timeout <seconds>",
      "for each of: opening, the first execution, every later one, the check",
      positive,
      150,
    )
    .option("--cold", "start with an empty driver cache, and a second time with the one this filled", false)
    .option("--profile", "print Gifgrad's time by kernel", false)
    .option("--explain", "print Gifgrad's plan", false)
    .option("--against <file>", "take peers that are not measured from an earlier results file")
    .option(
      "--out <file>",
      "write the results as JSON, with adapter, versions and commit; in test/bench/results/ unless a path",
    )
    .option("--json", "print the results as JSON instead of tables", false);
  if (quiet) command.exitOverride().configureOutput({ writeErr: () => {} });
  const { only, ...rest } = command.parse(argv, { from: "user" }).opts<{ only: string } & Omit<Options, "workloads">>();
  return { workloads: select(only), ...rest };
}
