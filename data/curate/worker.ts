// A process that decodes, one request at a time (pool.ts). Its answer is an object, or the reason why there is none.

import { readFile } from "node:fs/promises";
import { DecodeError } from "../decode/index.ts";
import { checkFileSize } from "../decode/limits.ts";
import { type Measures, measure } from "./measure.ts";
import type { Answer } from "./pool.ts";

/** What the other side may ask. */
export interface Request {
  readonly task: "measure";
  readonly path: string;
}

async function answer({ path }: Request): Promise<Measures> {
  const bytes = await readFile(path);
  checkFileSize(bytes.length);
  return measure(bytes, path);
}

process.on("message", (request: Request) => {
  const send = (result: Omit<Answer, "peakBytes">): void => {
    process.send?.({ ...result, peakBytes: 1024 * process.resourceUsage().maxRSS } satisfies Answer);
  };
  answer(request).then(
    (value) => send({ answer: value }),
    (error: Error) => send({ error: error instanceof DecodeError ? error.reason : error.message }),
  );
});
// Whoever asked is gone.
process.on("disconnect", () => process.exit());
