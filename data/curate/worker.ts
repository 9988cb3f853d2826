// A process that decodes, one request after another (pool.ts). Its answer is an object, or the reason why there is none.

import { readFile } from "node:fs/promises";
import { type ClipResult, type ClipTask, storeClip } from "../clip.ts";
import { DecodeError } from "../decode/index.ts";
import { checkFileSize } from "../decode/limits.ts";
import { type Measures, measure } from "./measure.ts";
import { peakBytes } from "./memory.ts";
import type { Answer } from "./pool.ts";

/** What the other side may ask: numbers that describe a file, or its clip in its place of a file of clips. */
export type Request = { readonly task: "measure"; readonly path: string } | ({ readonly task: "clip" } & ClipTask);

async function answer(request: Request): Promise<Measures | ClipResult> {
  if (request.task === "clip") return storeClip(request);
  const bytes = await readFile(request.path);
  checkFileSize(bytes.length);
  return measure(bytes, request.path);
}

let turn: Promise<void> = Promise.resolve();
process.on("message", (request: Request) => {
  const send = (result: Omit<Answer, "peakBytes">): void => {
    process.send?.({ ...result, peakBytes: peakBytes() } satisfies Answer);
  };
  turn = turn
    .then(() => answer(request))
    .then(
      (value) => send({ answer: value }),
      (error: Error) => send({ error: error instanceof DecodeError ? error.reason : error.message }),
    );
});
// Whoever asked is gone.
process.on("disconnect", () => process.exit());
