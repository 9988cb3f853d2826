// `gifgrad golden`: runs golden folders and prints every tensor's error, bound and verdict, or one JSON document.
// What keeps a folder from being checked goes to standard error.

import { openDevice } from "../engine/index.ts";
import { type Event, folderProblem, golden } from "../eval/golden/index.ts";
import type { Check } from "../eval/golden/kind.ts";
import type { GoldenOptions } from "./options.ts";

interface Result {
  readonly folder: string;
  readonly kind: string | null;
  readonly checks: Check[];
  problem?: string;
}

/** Prints the report. Sets exit code 1 when a check fails or a folder cannot be checked. Throws when there is no folder. */
export async function run({ folder, json, device: kind }: GoldenOptions): Promise<void> {
  const wrong = await folderProblem(folder);
  if (wrong) throw new Error(`golden: ${folder} ${wrong}`); // before a device is opened for nothing
  const device = await openDevice({ device: kind });
  const results: Result[] = [];
  try {
    for await (const event of golden(folder)) {
      record(results, event);
      if (!json) print(event);
    }
  } finally {
    device.close();
  }
  const checks = results.flatMap((r) => r.checks);
  const failed = checks.filter((c) => !c.ok).length;
  const problems = results.filter((r) => r.problem !== undefined).length;
  if (json)
    console.log(JSON.stringify({ device: device.name, passed: checks.length - failed, failed, problems, results }));
  else {
    console.log(summary(checks.length, failed, problems, device.name));
    const wide = checks.filter(beyond).length;
    if (wide > 0)
      console.log(`${wide} of them are single numbers beyond 10 times their own stated cost (marked above)`);
  }
  if (failed + problems > 0) process.exitCode = 1;
}

function record(results: Result[], event: Event): void {
  if (event.type === "folder") results.push({ folder: event.folder, kind: event.kind, checks: [] });
  else if (event.type === "check") results.at(-1)?.checks.push(event.check);
  else results.push({ folder: event.folder, kind: null, checks: [], problem: event.message });
}

function print(event: Event): void {
  if (event.type === "folder") console.log(`${event.folder} (${event.kind})`);
  else if (event.type === "problem") console.error(`gifgrad: golden: ${event.folder}: ${event.message}`);
  else console.log(line(event.check));
}

/** Passed by the bound for single numbers, and would not have by ten times what is stated for this one. */
function beyond({ ok, error, stated }: Check): boolean {
  return ok && stated !== undefined && error > stated;
}

function line(check: Check): string {
  const { name, error, bound, ok, message, stated = 0 } = check;
  const own = beyond(check) ? `  (a single number; 10 times its own stated cost is ${stated.toExponential(1)})` : "";
  const numbers = message ?? `error ${error.toExponential(1)}  bound ${bound.toExponential(1)}${own}`;
  return `${ok ? "ok  " : "FAIL"}  ${name.padEnd(44)}  ${numbers}`;
}

function summary(count: number, failed: number, problems: number, device: string): string {
  const rest = problems > 0 ? `; ${problems} ${problems === 1 ? "folder" : "folders"} not checked to the end` : "";
  return `${count - failed} of ${count} tensors within their bounds on ${device}${rest}`;
}
