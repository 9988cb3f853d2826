// The 8-frame rule, image preparation, and data sets on disk: mixed formats, bad files of every kind, the cache and
// its keys, and the errors a user meets first.

import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterEach, describe, expect, it } from "vitest";
import { encodeApng } from "../data/encode/apng.ts";
import { encodeGif } from "../data/encode/gif.ts";
import { formatCaption, pickFrames, prepareFrame, toRgba, toUnitRange } from "../data/frames.ts";
import { CUBIC, taps } from "../data/resample.ts";
import { openDataset } from "../data/store.ts";

describe("pickFrames", () => {
  it.each([
    [1, "0 0 0 0 0 0 0 0"],
    [2, "0 1 0 1 0 1 0 1"],
    [3, "0 1 2 1 0 1 2 1"], // spec 9.6
    [7, "0 1 2 3 4 5 6 5"],
    [8, "0 1 2 3 4 5 6 7"],
    [9, "0 1 2 3 5 6 7 8"],
    [12, "0 2 3 5 6 8 9 11"],
    [512, "0 73 146 219 292 365 438 511"],
  ])("of %i frames takes %s", (n, expected) => {
    expect(pickFrames(n).join(" ")).toBe(expected);
  });

  it("never meets a tie, so that rounding half up or half to even is the same", () => {
    const halves = Array.from({ length: 504 * 8 }, (_, k) => ((k % 8) * (8 + (k >> 3))) / 7).filter(
      (x) => x % 1 === 0.5,
    );
    expect(halves).toEqual([]);
    expect(() => pickFrames(0)).toThrow(/got 0/);
  });
});

describe("prepareFrame", () => {
  const rgba = (w: number, h: number, f: (x: number, y: number) => number[]) =>
    Uint8ClampedArray.from(Array.from({ length: w * h }, (_, i) => f(i % w, Math.floor(i / w))).flat());

  it("puts white under alpha", () => {
    const image = rgba(
      2,
      2,
      (x, y) =>
        [
          [255, 0, 0, 255],
          [255, 0, 0, 0],
          [0, 0, 0, 128],
          [10, 20, 30, 51],
        ][2 * y + x],
    );
    // 255 * (1 - 128/255) = 127; 10 * 0.2 + 255 * 0.8 = 206, and so on.
    expect([...prepareFrame(image, 2, 2, 2)]).toEqual([255, 0, 0, 255, 255, 255, 127, 127, 127, 206, 208, 210]);
  });

  it("keeps flat colour at any size, and never shows the colour under alpha 0", () => {
    const flat = rgba(37, 23, () => [200, 100, 50, 255]);
    const striped = (hidden: number) => rgba(37, 23, (x) => (x % 3 ? [200, 100, 50, 255] : [hidden, hidden, 0, 0]));
    for (const size of [5, 16, 64]) {
      expect(new Set(prepareFrame(flat, 37, 23, size))).toEqual(new Set([200, 100, 50]));
      expect(prepareFrame(striped(0), 37, 23, size)).toEqual(prepareFrame(striped(255), 37, 23, size));
    }
  });

  it("samples pixel centres: a ramp stays the same ramp, up and down, away from the border", () => {
    for (const [from, to] of [
      [16, 64],
      [64, 16],
      [40, 24],
    ]) {
      const ramp = rgba(from, from, (x, y) => [40 + (160 * (x + 0.5)) / from, 40 + (160 * (y + 0.5)) / from, 0, 255]);
      const out = prepareFrame(ramp, from, from, to);
      const margin = Math.ceil(2 * Math.max(1, to / from));
      for (let p = margin; p < to - margin; p++) {
        // Input and output are each rounded to whole levels.
        expect(Math.abs(out[3 * (to * (to >> 1) + p)] - (40 + (160 * (p + 0.5)) / to))).toBeLessThanOrEqual(1);
        expect(Math.abs(out[3 * (to * p + (to >> 1)) + 1] - (40 + (160 * (p + 0.5)) / to))).toBeLessThanOrEqual(1);
      }
    }
  });

  it.each([
    [37, 23, 16],
    [64, 64, 16],
    [5, 90, 7],
    [1, 3, 4],
    [3000, 2, 9],
    [16, 16, 40],
  ])("is a separable cubic on white, rounded once: %i x %i pixels to %i", (width, height, size) => {
    let state = 7;
    const noise = Uint8ClampedArray.from({ length: 4 * width * height }, (_, i) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return i % 4 === 3 && state % 2 === 0 ? 255 * ((state >> 8) % 2) : state >>> 24; // half of the alphas are 0 or 255
    });
    const [columns, rows] = [taps(width, size, CUBIC), taps(height, size, CUBIC)];
    const onWhite = (x: number, y: number, c: number): number => {
      const at = 4 * (y * width + x);
      return 255 + ((noise[at + c] - 255) * noise[at + 3]) / 255;
    };
    const out = prepareFrame(noise, width, height, size);
    for (let i = 0; i < out.length; i++) {
      const [c, x, y] = [i % 3, Math.floor(i / 3) % size, Math.floor(i / 3 / size)];
      let sum = 0;
      rows.weights[y].forEach((v, k) => {
        columns.weights[x].forEach((w, j) => {
          sum += v * w * onWhite(columns.starts[x] + j, rows.starts[y] + k, c);
        });
      });
      // Half a level of rounding; sums of float32 may fall on the other side of a half.
      expect(Math.abs(out[i] - Math.min(255, Math.max(0, sum)))).toBeLessThan(0.501);
    }
  });

  it("averages what it shrinks instead of skipping pixels", () => {
    const checks = rgba(64, 64, (x, y) => new Array(3).fill(255 * ((x + y) % 2)).concat(255));
    for (const value of prepareFrame(checks, 64, 64, 8)) expect(Math.abs(value - 127.5)).toBeLessThan(2);
  });

  it("goes to [-1, 1] and back to the same bytes", () => {
    const bytes = Uint8Array.from({ length: 2 * 4 * 4 * 3 }, (_, i) => (i * 37) % 256);
    const clip = new Float32Array(bytes.length);
    toUnitRange(bytes, clip);
    expect([Math.min(...clip) >= -1, Math.max(...clip) <= 1]).toEqual([true, true]);
    const frames = toRgba(clip, 4);
    expect(frames.flatMap((frame) => [...frame].filter((_, i) => i % 4 < 3))).toEqual([...bytes]);
    expect(toRgba([9, -9, 0, ...new Array(9).fill(0)], 2)[0].subarray(0, 4)).toEqual(
      Uint8ClampedArray.of(255, 0, 128, 255),
    );
  });
});

const folders: string[] = [];
afterEach(async () => {
  await Promise.all(folders.splice(0).map((dir) => rm(dir, { recursive: true, force: true })));
});

async function folder(
  files: Record<string, Uint8Array | string>,
  records: readonly object[] | string,
): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "stickers-"));
  folders.push(dir);
  for (const [name, bytes] of Object.entries(files)) {
    await mkdir(join(dir, name, ".."), { recursive: true });
    await writeFile(join(dir, name), bytes);
  }
  const lines = typeof records === "string" ? records : records.map((record) => `${JSON.stringify(record)}\n`).join("");
  await writeFile(join(dir, "metadata.jsonl"), lines);
  return dir;
}

const SIDE = 12;
/** Frame t is one flat grey level, so that every clip shows which frames it was made of. */
const greys = (...levels: number[]) =>
  levels.map((level) => ({
    data: Uint8Array.from({ length: SIDE * SIDE * 4 }, (_, i) => (i % 4 === 3 ? 255 : level)),
    delayMs: 100,
  }));

async function mixedFolder(): Promise<string> {
  const gif = encodeGif(greys(10, 20, 30), SIDE, SIDE);
  const tall = Buffer.concat(greys(5, 15).map(({ data }) => data));
  const webp = sharp(tall, { raw: { width: SIDE, height: 2 * SIDE, channels: 4, pageHeight: SIDE } }).webp({
    lossless: true,
  });
  const still = sharp(greys(99)[0].data, { raw: { width: SIDE, height: SIDE, channels: 4 } });
  const apng = encodeApng(greys(1, 2, 3, 4), SIDE, SIDE);
  const files = {
    "a.gif": gif,
    "deep/b.webp": await webp.toBuffer(),
    "c.png": apng,
    "d.png": await still.png().toBuffer(),
    "e.jpeg": await still.jpeg().toBuffer(),
    "renamed.jpg": gif,
    "cut.gif": gif.subarray(0, gif.length - 40),
    "cut.png": apng.subarray(0, apng.length >> 1),
    "empty.gif": "",
    "page.gif": "<!DOCTYPE html><title>404</title>",
  };
  const good = ["a.gif", "deep/b.webp", "c.png", "d.png", "e.jpeg", "renamed.jpg"];
  const bad = ["cut.gif", "cut.png", "empty.gif", "page.gif", "absent.gif", "../outside.gif", "deep"];
  const order = [bad[0], ...good, ...bad.slice(1), "a.gif"];
  return folder(
    files,
    order.map((file_name, i) => ({ file_name, caption: `sticker ${i}`, domain: i === 2 ? "Real" : undefined })),
  );
}

const levels = (clip: Uint8Array, size: number) => Array.from({ length: 8 }, (_, t) => clip[3 * size * size * t]);

describe("openDataset", () => {
  it("reads mixed formats by content, in order, and names each bad file without stopping", async () => {
    const dir = await mixedFolder();
    const progress: number[] = [];
    const data = await openDataset(dir, { size: 8, onProgress: (done) => progress.push(done) });
    expect(data.records.map(({ file_name }) => file_name)).toEqual([
      "a.gif",
      "deep/b.webp",
      "c.png",
      "d.png",
      "e.jpeg",
      "renamed.jpg",
      "a.gif",
    ]);
    expect(data.captions.slice(0, 2)).toEqual([formatCaption("Cartoon", "sticker 1"), "Real \t sticker 2"]);
    expect(levels(data.frame(0), 8)).toEqual([10, 20, 30, 20, 10, 20, 30, 20]);
    expect(levels(data.frame(1), 8)).toEqual([5, 15, 5, 15, 5, 15, 5, 15]);
    expect(levels(data.frame(2), 8)).toEqual([1, 2, 3, 4, 3, 2, 1, 2]);
    expect(levels(data.frame(3), 8)).toEqual(new Array(8).fill(99));
    expect(levels(data.frame(5), 8)).toEqual(levels(data.frame(0), 8));
    expect(data.frame(6)).toEqual(data.frame(0));
    const reasons = Object.fromEntries(data.rejected.map(({ file_name, reason }) => [file_name, reason]));
    expect(Object.keys(reasons).sort()).toEqual([
      "../outside.gif",
      "absent.gif",
      "cut.gif",
      "cut.png",
      "deep",
      "empty.gif",
      "page.gif",
    ]);
    expect(reasons["cut.gif"]).toMatch(/truncated/);
    expect(reasons["empty.gif"]).toMatch(/empty/);
    expect(reasons["page.gif"]).toMatch(/HTML/);
    expect(reasons["absent.gif"]).toMatch(/does not exist/);
    expect(reasons["../outside.gif"]).toMatch(/\.\./);
    expect(reasons.deep).toMatch(/not a regular file/);
    const report = (await readFile(join(dir, "rejected.jsonl"), "utf8")).trim().split("\n");
    expect(report.map((line) => JSON.parse(line))).toEqual(data.rejected);
    expect(progress.at(-1)).toBe(progress.length);
    data.close();
  });

  it("gives batches [b, 8, size, size, 3] in [-1, 1] and names an index that does not exist", async () => {
    const dir = await mixedFolder();
    const data = await openDataset(dir, { size: 4 });
    const batch = await data.batch([3, 0]);
    const clip = 8 * 4 * 4 * 3;
    expect(batch).toHaveLength(2 * clip);
    expect(batch[0]).toBe(Math.fround(99 / 127.5 - 1));
    expect(batch[clip]).toBe(Math.fround(10 / 127.5 - 1));
    await expect(data.batch([7])).rejects.toThrow(/record 7 does not exist; there are 7/);
    data.close();
  });

  it("decodes once: the second opening reads the cache, a changed file or shape builds it anew", async () => {
    const dir = await mixedFolder();
    let decoded = 0;
    const open = async (size = 8) => {
      decoded = 0;
      const data = await openDataset(dir, { size, onProgress: () => decoded++ });
      data.close();
      return data;
    };
    const first = await open();
    expect(decoded).toBe(12);
    const second = await open();
    expect(decoded).toBe(0);
    expect([second.fingerprint, second.rejected]).toEqual([first.fingerprint, first.rejected]);
    const smaller = await open(4);
    expect([decoded, smaller.fingerprint === first.fingerprint]).toEqual([12, false]);
    await writeFile(join(dir, "a.gif"), encodeGif(greys(77, 78, 79), SIDE, SIDE));
    await utimes(join(dir, "a.gif"), 1, 1);
    const changed = await open();
    expect([decoded, changed.fingerprint === first.fingerprint]).toEqual([12, false]);
    expect((await readdir(join(dir, ".gifgrad"))).filter((name) => name.startsWith("clips-8x8-"))).toHaveLength(2);
  });

  it("builds a cache that was cut short again", async () => {
    const dir = await mixedFolder();
    (await openDataset(dir, { size: 8 })).close();
    const [pixels] = (await readdir(join(dir, ".gifgrad"))).filter((name) => name.endsWith(".u8"));
    await truncate(join(dir, ".gifgrad", pixels), 100);
    const data = await openDataset(dir, { size: 8 });
    expect(levels(data.frame(2), 8)).toEqual([1, 2, 3, 4, 3, 2, 1, 2]);
    data.close();
  });

  it("gives equal data an equal fingerprint wherever it lies, and can keep its files elsewhere", async () => {
    const [one, two] = [await mixedFolder(), await mixedFolder()];
    const elsewhere = await folder({}, "");
    const a = await openDataset(one, { size: 8 });
    const b = await openDataset(two, { size: 8, cacheDir: join(elsewhere, "cache") });
    expect(a.fingerprint).toBe(b.fingerprint);
    expect([existsSync(join(two, ".gifgrad")), existsSync(join(two, "rejected.jsonl"))]).toEqual([false, false]);
    expect(existsSync(join(elsewhere, "cache", "rejected.jsonl"))).toBe(true);
    a.close();
    b.close();
  });

  it("skips bad lines of metadata.jsonl and accepts a byte order mark, CRLF and blank lines", async () => {
    const good = JSON.stringify({ file_name: "a.gif", caption: "a cat" });
    const lines = ["\uFEFF" + good, "", "{broken", '{"file_name": "b.gif"}', good, ""].join("\r\n");
    const dir = await folder({ "a.gif": encodeGif(greys(1), SIDE, SIDE) }, lines);
    const data = await openDataset(dir, { size: 4 });
    expect(data.captions).toEqual(["Cartoon \t a cat", "Cartoon \t a cat"]);
    expect(data.rejected.map(({ file_name }) => file_name)).toEqual(["metadata.jsonl:3", "b.gif"]);
    data.close();
  });

  it("removes an old report when nothing is rejected any more", async () => {
    const files = { "a.gif": encodeGif(greys(1), SIDE, SIDE), "rejected.jsonl": "old" };
    const dir = await folder(files, [{ file_name: "a.gif", caption: "a cat" }]);
    (await openDataset(dir, { size: 4 })).close();
    expect(existsSync(join(dir, "rejected.jsonl"))).toBe(false);
  });

  it("says how to begin when metadata.jsonl is missing", async () => {
    const dir = await folder({ "x.gif": "x", "y.webp": "y" }, "");
    await rm(join(dir, "metadata.jsonl"));
    await expect(openDataset(dir, { size: 8 })).rejects.toThrow(
      /2 image files but no metadata\.jsonl[\s\S]*\n\{"file_name":"x\.gif","caption":/,
    );
    await expect(openDataset(join(dir, "nowhere"), { size: 8 })).rejects.toThrow(/does not exist/);
  });

  it("stops when nothing can be used, with the first reasons", async () => {
    const none = await folder({}, "");
    await expect(openDataset(none, { size: 8 })).rejects.toThrow(/metadata\.jsonl has no records/);
    const bad = await folder({ "a.gif": "" }, [{ file_name: "a.gif", caption: "x" }]);
    await expect(openDataset(bad, { size: 8 })).rejects.toThrow(
      /none of the 1 stickers[\s\S]*a\.gif: the file is empty/,
    );
    await expect(openDataset(bad, { size: 0 })).rejects.toThrow(/size/);
  });
});
