// The file of decoded clips: the same bytes whoever decodes, killed builds that go on without doing finished work
// again, and what is not to be trusted of them. What is in the clips is store.test.ts's. The killed process is
// clip_cache_child.ts.

import { spawn } from "node:child_process";
import { appendFile, cp, mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { build, stale } from "../cli/build.mjs";
import { storeClip } from "../data/clip.ts";
import { type ClipCache, openClipCache } from "../data/clip_cache.ts";
import { encodeGif } from "../data/encode/gif.ts";
import { discFrames } from "./stickers.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const SHAPE = { size: 16, frames: 8 };
const CLIP = 8 * 16 * 16 * 3;
const BAD = [3, 17];
const names = Array.from({ length: 24 }, (_, i) => `${i}.gif`);

let dir: string;
beforeAll(async () => {
  if (stale()) await build(); // the decoding processes run the built worker
  dir = await mkdtemp(join(tmpdir(), "gifgrad-clips-"));
  for (const [i, name] of names.entries()) {
    const gif = encodeGif(discFrames([10 * i, 255 - 10 * i, 90], i), 40, 40);
    await writeFile(join(dir, name), BAD.includes(i) ? gif.subarray(0, 300) : gif);
  }
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const open = (cacheDir: string, processes: number) =>
  openClipCache(dir, names, SHAPE, { cacheDir: join(dir, cacheDir), processes });

/** The pixel file of a cache folder, and the names of all files in it. */
async function contents(cacheDir: string): Promise<{ pixels: Buffer; files: string[] }> {
  const files = (await readdir(join(dir, cacheDir))).sort();
  const pixels = files.find((name) => name.endsWith(".u8")) as string;
  return { pixels: await readFile(join(dir, cacheDir, pixels)), files };
}

test("is the same file whatever the number of processes, with a place for each sticker", async () => {
  const [here, one, three] = [await open("here", 0), await open("one", 1), await open("three", 3)];
  const reference = await contents("here");
  expect(reference.files.map((name) => name.split(".")[1])).toEqual(["json", "u8"]);
  expect(reference.pixels).toHaveLength(names.length * CLIP);
  for (const [name, cache] of Object.entries({ one, three })) {
    const found = await contents(name);
    expect(found.files).toEqual(reference.files);
    expect(found.pixels.equals(reference.pixels)).toBe(true);
    expect([cache.files, cache.rejected, cache.sha256]).toEqual([here.files, here.rejected, here.sha256]);
  }
  expect(here.rejected.map(({ file_name }) => file_name)).toEqual(BAD.map((i) => names[i]));
  expect(here.files).toEqual(names.filter((_, i) => !BAD.includes(i)));
  // The clip after a rejected file is that file's own, read at once or later.
  const at = here.files.indexOf("18.gif");
  expect(Buffer.from(here.read(at)).equals(reference.pixels.subarray(18 * CLIP, 19 * CLIP))).toBe(true);
  expect(await here.load(at)).toEqual(here.read(at));
  for (const cache of [here, one, three]) cache.close();
});

describe("a build that is killed", () => {
  let whole: ClipCache;
  let pixels: Buffer;
  let left: string;
  let done: number[];

  beforeAll(async () => {
    whole = await open("whole", 0);
    whole.close();
    ({ pixels } = await contents("whole"));
    left = join(dir, "left");
    await kill(await stickers(), left);
    const lines = await journalled(left);
    done = lines.map((line) => Number((JSON.parse(line) as { key: string }).key));
  });

  /** A copy of the stickers, whose times are always the same. */
  async function stickers(): Promise<string> {
    const folder = await mkdtemp(join(dir, "copy-"));
    for (const name of names) {
      await cp(join(dir, name), join(folder, name));
      await utimes(join(folder, name), 1, 1);
    }
    return folder;
  }
  const named = async (cache: string, extension: string): Promise<string | undefined> =>
    (await readdir(cache).catch(() => [])).find((name) => name.endsWith(extension));
  async function journalled(cache: string): Promise<string[]> {
    const journal = await named(cache, ".jsonl");
    return journal ? (await readFile(join(cache, journal), "utf8")).split("\n").slice(0, -1) : [];
  }
  /** Decodes into `cache` by a process that is killed when some stickers are done. */
  async function kill(folder: string, cache: string): Promise<void> {
    await mkdir(join(root, ".cache"), { recursive: true });
    // Inside the checkout, so that packages are found, and as deep in it as the file that looks for the built worker.
    const bundle = await mkdtemp(join(root, ".cache/clips-test-"));
    const outfile = join(bundle, "child.mjs");
    const { build } = await import("esbuild");
    const common = { bundle: true, platform: "node", format: "esm", packages: "external" } as const;
    await build({ ...common, entryPoints: [join(root, "test/clip_cache_child.ts")], outfile });
    const child = spawn(process.execPath, [outfile, folder, cache, ...names], { stdio: "ignore" });
    const ended = new Promise((resolve) => child.once("exit", (code, signal) => resolve(signal ?? code)));
    while ((await journalled(cache)).length < 5 && child.exitCode === null) await sleep(2);
    child.kill("SIGKILL");
    expect(await ended).toBe("SIGKILL");
    await rm(bundle, { recursive: true });
  }
  /** What was left, once more: the folder of the cache, and the paths of its journal and pixels. */
  async function again(): Promise<{ cache: string; journal: string; pixelFile: string }> {
    const cache = await mkdtemp(join(dir, "again-"));
    await cp(left, cache, { recursive: true });
    const journal = join(cache, (await named(cache, ".jsonl")) as string);
    return { cache, journal, pixelFile: journal.replace("jsonl", "u8") };
  }
  /** Goes on with what was left; the end must be that of a build that was never killed. */
  async function finish(folder: string, cache: string): Promise<void> {
    const finished = await openClipCache(folder, names, SHAPE, { cacheDir: cache, processes: 0 });
    finished.close();
    expect([finished.files, finished.sha256]).toEqual([whole.files, whole.sha256]);
    expect((await readdir(cache)).map((name) => name.split(".")[1]).sort()).toEqual(["json", "u8"]); // no journal any more
    const found = await readFile(join(cache, (await named(cache, ".u8")) as string));
    expect(found.equals(pixels)).toBe(true);
  }
  /** Makes a sticker useless without its size and time showing it. */
  async function spoil(path: string): Promise<void> {
    const { size } = await stat(path);
    await writeFile(path, Buffer.alloc(size));
    await utimes(path, 1, 1);
  }

  test("goes on without doing finished files again, to the same bytes", async () => {
    expect(done.length).toBeGreaterThanOrEqual(5);
    expect(done.length).toBeLessThan(names.length);
    const [folder, { cache, journal }] = [await stickers(), await again()];
    expect(await named(cache, ".json")).toBe(undefined); // nobody takes it for whole
    await appendFile(journal, '{"key":"9","inp'); // cut off while a line was written
    for (const slot of done) await spoil(join(folder, names[slot])); // were it read again, it would be rejected
    await finish(folder, cache);
  });

  test("does again what a power cut has left in the journal but not in the pixels", async () => {
    const [folder, { cache, pixelFile }] = [await stickers(), await again()];
    const [, slot] = done.filter((i) => !BAD.includes(i));
    const lost = await readFile(pixelFile);
    lost.fill(0, slot * CLIP, slot * CLIP + 512);
    await writeFile(pixelFile, lost);
    await finish(folder, cache);
  });

  test("begins anew where the journal is damaged", async () => {
    const [folder, { cache, journal }] = [await stickers(), await again()];
    await writeFile(journal, `not a line\n${await readFile(journal, "utf8")}`);
    await finish(folder, cache);
  });
});

test("a clip that cannot be written is an error, and no fault of the sticker", async () => {
  const task = { path: join(dir, names[0]), shape: SHAPE, target: join(dir, "absent.u8"), slot: 0 };
  await expect(storeClip(task)).rejects.toThrow(/absent\.u8 cannot be written \(ENOENT.*\): make room there/);
  expect(await storeClip({ ...task, path: join(dir, "absent.gif") })).toMatchObject({
    reason: expect.stringMatching(/ENOENT/),
  });
  const blocked = openClipCache(dir, names.slice(0, 1), SHAPE, { cacheDir: join(dir, names[0]) });
  await expect(blocked).rejects.toThrow(/cannot write the frame cache in .*0\.gif; choose another cacheDir/);
});
