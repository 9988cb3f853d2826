// The first cases of `npm run fuzz` (fuzz/run.ts), and that the run notices what it is there to notice: dead and hanging
// processes, reasons that are none, impossible measures, memory, and files outside of the data set.

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { build, stale } from "../cli/build.mjs";
import { measure } from "../data/curate/measure.ts";
import { WorkerFailure } from "../data/curate/pool.ts";
import { encodeGif } from "../data/encode/gif.ts";
import { fuzzCase } from "./fuzz/mutate.ts";
import { type Decoder, fuzz, fuzzArchives, LIMIT, poolDecoder, strays } from "./fuzz/run.ts";
import { seeds } from "./fuzz/seeds.ts";
import { discFrames } from "./stickers.ts";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "gifgrad-fuzz-test-"));
  if (stale()) await build(); // the decoding processes run the built worker
});
afterAll(() => rm(dir, { recursive: true, force: true }));

describe("damaged files", () => {
  it("are decoded or refused with a reason, by processes that live and stay small", async () => {
    const decoder = poolDecoder(1);
    const report = await fuzz({ seed: 1, from: 0, cases: 150, dir, decoder, parallel: 2 });
    await decoder.close();
    expect(report.failures).toEqual([]);
    expect(report.peakBytes).toBeGreaterThan(50e6); // what a process has with nothing in it
    expect(report.decoded).toBeGreaterThan(10);
    expect(report.rejected.size).toBeGreaterThan(20);
  });

  it("in archives leave nothing outside of the data set", async () => {
    expect(await fuzzArchives(1, 6, dir)).toEqual([]);
  });

  it("are the same for the same seed and number, and made of whole files that decode", async () => {
    const all = await seeds();
    for (const { bytes, format } of all) expect((await measure(bytes, format)).frames).toBeGreaterThan(0);
    expect(fuzzCase(all, 1, 17)).toEqual(fuzzCase(await seeds(), 1, 17));
    expect(fuzzCase(all, 1, 17)).not.toEqual(fuzzCase(all, 2, 17));
  });
});

describe("the run notices", () => {
  const good = measure(encodeGif(discFrames([1, 2, 3]), 40, 40), "a disc");
  const found = async (run: Decoder["run"], peakBytes = 1e6): Promise<string[]> => {
    const decoder = { run, peakBytes, close: async () => {} };
    const { failures } = await fuzz({ seed: 1, from: 0, cases: 1, dir, decoder, parallel: 1 });
    return failures.map(({ what }) => what);
  };
  const saying = (error: Error) => () => Promise.reject(error);

  it("processes that die, reasons that are none, impossible measures and too much memory", async () => {
    expect(await found(() => good)).toEqual([]);
    expect(await found(saying(new Error("the file is truncated at byte 3")))).toEqual([]);
    expect(await found(saying(new WorkerFailure("the decoder died of it (SIGSEGV)")))).toHaveLength(1);
    expect(await found(saying(new Error("Cannot read properties of undefined (reading 'x')")))).toHaveLength(1);
    expect(await found(saying(new Error("")))).toEqual(["no reason"]);
    expect(await found(async () => ({ ...(await good), entropy: Number.NaN }))).toHaveLength(1);
    expect(await found(() => good, LIMIT + 1e6)).toEqual(["a process has had 513 MB"]);
  });

  it("files that appear where they should not", async () => {
    const here = join("a", "b");
    const set = join(dir, "strays", here, "set", "media", "ab");
    await mkdir(set, { recursive: true });
    await writeFile(join(set, `${"ab".repeat(32)}.gif`), "");
    expect(await strays(join(dir, "strays"), here)).toEqual([]);
    await writeFile(join(dir, "strays", "escape.gif"), "");
    await writeFile(join(set, "escape.gif"), "");
    const escaped = [join(here, "set", "media", "ab", "escape.gif"), "escape.gif"];
    expect((await strays(join(dir, "strays"), here)).sort()).toEqual(escaped);
  });
});
