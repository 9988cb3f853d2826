// The command line of `npm run bench`. Called by main.ts.

import { Command, InvalidArgumentError } from "commander";
import { PEERS } from "./results.ts";
import { select, type Workload } from "./workloads.ts";

export interface Options {
  readonly workloads: readonly Workload[];
  readonly peers: readonly string[];
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

/** "jax-js" stands for both of its back ends. */
function selectPeers(names: string | true | undefined): readonly string[] {
  if (names === undefined || names === true) return names ? PEERS : [];
  const wanted = names.split(",").map((n) => n.replace("-js-", "-js ").replace("tfjs-", "tfjs "));
  for (const n of wanted)
    if (!PEERS.some((p) => p.startsWith(n)))
      throw new Error(`--peers: there is no ${n}; there are ${PEERS.join(", ")}`);
  return PEERS.filter((p) => wanted.some((n) => p.startsWith(n)));
}

/** Throws commander's error, which names the argument, instead of ending the process, when `quiet`. */
export function parseOptions(argv: readonly string[], quiet = false): Options {
  const command = new Command("bench")
    .description("Time Gifgrad, and with --peers jax-js and TensorFlow.js, on the workloads of test/bench/README.md.")
    .option("--only <ids>", "comma-separated workloads: W1.512, or W1 for all of W1", "")
    .option(
      "--peers [names]",
      "measure the peers too, interleaved: all, or some of jax-js-webgpu, jax-js-wasm, tfjs-webgpu",
    )
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
  const { only, peers, ...rest } = command
    .parse(argv, { from: "user" })
    .opts<{ only: string; peers?: string | true } & Omit<Options, "workloads" | "peers">>();
  return { workloads: select(only), peers: selectPeers(peers), ...rest };
}
