// The pool of decoding processes (data/curate/pool.ts) with processes that die and hang when told to: each request is
// answered once, and only that in hand pays for its process. What decoding itself does to a process is fuzz.test.ts's.

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Pool, WorkerFailure } from "../data/curate/pool.ts";

const WORKER = `
let turn = Promise.resolve();
process.on("message", ({ what, n }) => {
  turn = turn.then(() => {
    if (what === "die") process.kill(process.pid, "SIGKILL");
    if (what === "hang") return new Promise(() => {});
    process.send(what === "fail" ? { error: "no sticker", peakBytes: 1 } : { answer: n, peakBytes: 2 });
  });
});
process.on("disconnect", () => process.exit());`;

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "decoding-pool-"));
  await writeFile(join(folder, "worker.mjs"), WORKER);
});
afterEach(() => rm(folder, { recursive: true }));

/** Long enough for a process to start on a busy machine. */
const SECONDS = 4;

/** What becomes of these requests, all made at once. */
async function outcomes(processes: number, requests: readonly string[]): Promise<(string | number)[]> {
  const pool = new Pool({ processes, seconds: SECONDS, worker: join(folder, "worker.mjs") });
  const told = requests.map((what, n) =>
    pool
      .run<number>({ what, n })
      .catch((error: Error) => (error instanceof WorkerFailure ? error.message : `says: ${error.message}`)),
  );
  const all = await Promise.all(told);
  await pool.close();
  return all;
}

test("a request that kills its process, or takes too long, is alone in paying for it", async () => {
  const died = "the decoder died of it (SIGKILL)";
  const requests = ["ok", "die", "ok", "die", "die", "ok", "fail", "die", "ok"];
  const expected = [0, died, 2, died, died, 5, "says: no sticker", died, 8];
  expect(await outcomes(2, requests)).toEqual(expected);
  const late = `not decoded within ${SECONDS} s`;
  expect(await outcomes(1, [...requests, "hang", "ok"])).toEqual([...expected, late, 10]);
});

test("answers come whatever the number of requests and processes", async () => {
  const requests = Array.from({ length: 100 }, () => "ok");
  expect(await outcomes(3, requests)).toEqual(requests.map((_, n) => n));
});
