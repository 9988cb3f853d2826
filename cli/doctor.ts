// `gifgrad doctor`: what this machine offers, whether the kernels compute the right thing on it, and what to do if not.

import { openDevice, selfCheck } from "../engine/index.ts";

const ADVICE_NO_ADAPTER = [
  "no WebGPU adapter was found.",
  "Debian, Ubuntu: sh cli/setup-vulkan.sh (installs Mesa's software driver). Other Linux: install a Vulkan driver and loader.",
];

/** Prints the report. Sets exit code 1 when something is wrong. */
export async function run(): Promise<void> {
  console.log(`node ${process.version} on ${process.platform} ${process.arch}`);
  const device = await openDevice({ device: "gpu" }).catch((e: Error) => e);
  if (device instanceof Error) {
    for (const line of ADVICE_NO_ADAPTER) console.log(line);
    console.log(`(${device.message})`);
    process.exitCode = 1;
    return;
  }
  try {
    describe(device.details());
    const failed = (await checkKernels()).length;
    if (failed > 0) {
      console.log(`${failed} checks give wrong results on this adapter: do not train on it.`);
      console.log("Update the driver first; if that does not help, please report this output.");
      process.exitCode = 1;
    } else console.log("everything checked computes what it should.");
  } finally {
    device.close();
  }
}

function describe(details: Readonly<Record<string, string>>): void {
  const width = Math.max(...Object.keys(details).map((k) => k.length));
  for (const [key, value] of Object.entries(details)) console.log(`${key.padEnd(width)}  ${value}`);
  if (details.kind === "software") {
    console.log(
      "This is a software adapter: results are right, training is slow. A GPU needs its vendor's Vulkan driver.",
    );
  }
}

/** Width of the longest name of a check. */
const NAME = "table gradient, many rows".length;

/** Runs the self-check, printing one line per op; returns those that failed. */
async function checkKernels(): Promise<readonly string[]> {
  const failed: string[] = [];
  const results = await selfCheck((c) => {
    const error =
      typeof c.error === "number" ? `error ${c.error.toExponential(1)} (bound ${c.bound.toExponential(0)})` : c.error;
    if (!c.ok) failed.push(c.name);
    console.log(`${c.ok ? "ok    " : "WRONG "} ${c.name.padEnd(NAME)} ${error}`);
  });
  console.log(`${results.length - failed.length} of ${results.length} checks agree with the float64 reference`);
  return failed;
}
