// The most memory that this process has had. Told by the processes that decode (worker.ts) and by test/scale.

import { readFileSync } from "node:fs";

/** Bytes. Linux carries maxRSS over from the process that started it, so that one of a large one would look large; what /proc says is its own. */
export function peakBytes(): number {
  try {
    const [, kilobytes] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8")) ?? [];
    if (kilobytes !== undefined) return 1024 * Number(kilobytes);
  } catch {
    // no such file on other systems
  }
  return 1024 * process.resourceUsage().maxRSS;
}
