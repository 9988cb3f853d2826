// Batches read ahead: the same ones as without, in order, each read once, whatever step a run is resumed at; the time
// that a step waits for its data; and what goes wrong in a batch that nobody has asked for yet.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Dataset, openDataset } from "../data/store.ts";
import { chunksOf, Loader } from "../train/loader.ts";
import { batchIndices } from "../train/order.ts";
import { writeMixedFolder } from "./stickers.ts";

let folder: string;
let data: Dataset;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "gifgrad-loader-"));
  await writeMixedFolder(folder);
  data = await openDataset(folder, { size: 8 });
});
afterAll(async () => {
  data.close();
  await rm(folder, { recursive: true });
});

describe("batches of a data set", () => {
  const [batch, steps, seed] = [3, 9, 4];
  /** Those of steps `from` to the last, as text, and the steps in the order in which they were read. */
  async function batches(from: number, ahead?: number): Promise<{ all: string[]; read: number[] }> {
    const read: number[] = [];
    const loader = new Loader({
      read: (k) => {
        read.push(k);
        return data.batch(batchIndices(data.length, batch, k, seed));
      },
      ...{ from, to: steps, ahead },
    });
    const all: string[] = [];
    for (let k = from; k < steps; k++) {
      all.push(Buffer.from((await loader.next()).buffer).toString("base64"));
      if (k % 3 !== 0) await turn(); // a device that is sometimes done at once
    }
    await turn();
    await loader.close();
    return { all, read };
  }

  test("are the same read ahead or not, and of a run that is resumed; each is read once and none beyond the end", async () => {
    const plain = await batches(0, 0);
    expect(new Set(plain.all).size).toBeGreaterThan(6); // steps differ
    for (const ahead of [undefined, 1, 5]) {
      const { all, read } = await batches(0, ahead);
      expect(all).toEqual(plain.all);
      expect(read).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
      expect((await batches(4, ahead)).all).toEqual(plain.all.slice(4));
    }
  });

  test("in chunks are all clips in their order, the last one repeated to fill the last chunk", async () => {
    const chunks = chunksOf(data, 4);
    const clip = data.frame(0).length;
    const found = [await chunks.next(), await chunks.next()];
    await chunks.close();
    expect(found[0]).toEqual(await data.batch([0, 1, 2, 3]));
    expect(found[1]).toEqual(await data.batch([4, 5, 6, 6]));
    expect(found[1]).toHaveLength(4 * clip);
  });
});

describe("a loader", () => {
  /** One whose reads and clock are in the test's hands. */
  function byHand(to = 10) {
    let now = 0;
    const asked: number[] = [];
    const waiting = new Map<number, { resolve(batch: string): void; reject(error: Error): void }>();
    const read = (k: number): Promise<string> => {
      asked.push(k);
      return new Promise((resolve, reject) => waiting.set(k, { resolve, reject }));
    };
    const loader = new Loader({ read, from: 0, to, clock: () => now });
    const pass = (ms: number): void => {
      now += ms;
    };
    const done = (k: number): void => waiting.get(k)?.resolve(`batch ${k}`);
    return { loader, asked, waiting, pass, done };
  }

  test("reads two batches while the device works, and says how long a step waited", async () => {
    const { loader, asked, pass, done } = byHand();
    const first = loader.next();
    await turn();
    expect(asked).toEqual([0]); // nothing else before the device has something to do
    pass(30);
    done(0);
    expect([await first, loader.stall]).toEqual(["batch 0", 30]);
    await turn();
    expect(asked).toEqual([0, 1, 2]);
    done(1);
    pass(500); // the device works
    expect([await loader.next(), loader.stall]).toEqual(["batch 1", 0]);
    const third = loader.next();
    await turn();
    pass(7.25);
    done(2);
    expect([await third, loader.stall]).toEqual(["batch 2", 7.25]);
    for (const k of [3, 4]) done(k);
    await loader.close();
  });

  test("throws what reading threw at the step whose batch it was, and not before", async () => {
    const { loader, waiting, done } = byHand();
    const first = loader.next();
    await turn();
    done(0);
    await first;
    await turn();
    waiting.get(1)?.reject(new Error("cut short"));
    await turn(); // a rejection that nobody handles would end the process here
    await expect(loader.next()).rejects.toThrow("cut short");
    done(2);
    await loader.close();
  });

  test("is closed when nothing is being read any more, so that files may be", async () => {
    const { loader, asked, done } = byHand();
    const first = loader.next();
    await turn();
    done(0);
    await first;
    await turn();
    let closed = false;
    const closing = loader.close().then(() => {
      closed = true;
    });
    await turn();
    expect(closed).toBe(false);
    done(1);
    done(2);
    await closing;
    await turn();
    expect(asked).toEqual([0, 1, 2]);
  });
});
