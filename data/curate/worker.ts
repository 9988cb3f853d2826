// A process that decodes, one request at a time (pool.ts). Its answer is an object, or the reason why there is none.

import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { type ClipResult, type ClipTask, storeClip } from "../clip.ts";
import { DecodeError } from "../decode/index.ts";
import { checkFileSize } from "../decode/limits.ts";
import { type Measures, measure } from "./measure.ts";
import type { Answer } from "./pool.ts";

/** What the other side may ask: numbers that describe a file, or its clip in its place of a file of clips. */
export type Request = { readonly task: "measure"; readonly path: string } | ({ readonly task: "clip" } & ClipTask);

async function answer(request: Request): Promise<Measures | ClipResult> {
  if (request.task === "clip") return storeClip(request);
  const bytes = await readFile(request.path);
  checkFileSize(bytes.length);
  return measure(bytes, request.path);
}

/**
 * The most memory this process has had. Linux carries maxRSS over from the process that started it, so that a worker of a large one
 * would look large; what /proc says is its own.
 */
function peakBytes(): number {
  try {
    const [, kilobytes] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8")) ?? [];
    if (kilobytes !== undefined) return 1024 * Number(kilobytes);
  } catch {
    // no such file on other systems
  }
  return 1024 * process.resourceUsage().maxRSS;
}

process.on("message", (request: Request) => {
  const send = (result: Omit<Answer, "peakBytes">): void => {
    process.send?.({ ...result, peakBytes: peakBytes() } satisfies Answer);
  };
  answer(request).then(
    (value) => send({ answer: value }),
    (error: Error) => send({ error: error instanceof DecodeError ? error.reason : error.message }),
  );
});
// Whoever asked is gone.
process.on("disconnect", () => process.exit());
