// Runs a golden folder through the project's own runner, for tests: how many tensors it held, and a line for each that failed.

import { golden } from "../eval/golden/index.ts";

export async function goldenFailures(path: string): Promise<{ count: number; failed: string[] }> {
  const failed: string[] = [];
  let count = 0;
  for await (const event of golden(path)) {
    if (event.type === "problem") failed.push(`${event.folder}: ${event.message}`);
    if (event.type !== "check") continue;
    const { name, ok, error, bound, message } = event.check;
    count++;
    if (!ok) failed.push(`${name}: ${message ?? `error ${error}, bound ${bound}`}`);
  }
  return { count, failed };
}
