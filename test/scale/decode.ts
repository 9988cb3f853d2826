// How fast stickers become training clips, in this process, by as many others as there are cores and by fewer: 12
// frames of 256 pixels to 8 of 64, through the build of the cache that training reads. `npm run dataset:scale --
// --decode`. Prints JSON lines; `cpuMs` is what a sticker costs this process, and does not hang on what else runs.

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { openClipCache } from "../../data/clip_cache.ts";
import { encodeGif } from "../../data/encode/gif.ts";

const [SIDE, FRAMES] = [256, 12];
const SHAPE = { size: 64, frames: 8 };
/** Stickers that differ; each file is one of them. */
export const DIFFERENT = 8;
const TURNS = 2;

type Pixel = (x: number, y: number, t: number) => readonly [number, number, number, number];

/**
 * What is hard for a decoder and what is easy: grain in every pixel, and flat discs with an outline on a transparent
 * ground.
 */
const KINDS = {
  drawn: (seed: number): Pixel => {
    const discs = Array.from({ length: 6 }, (_, i) => [seed + 3 * i, 20 + ((37 * i + 11 * seed) % 40)]);
    return (x, y, t) => {
      for (const [phase, radius] of discs) {
        const angle = phase + (2 * Math.PI * t) / FRAMES;
        const distance = Math.hypot(x - 128 - 60 * Math.cos(angle), y - 128 - 50 * Math.sin(phase));
        if (distance < radius - 4) return [(71 * phase) % 256, (151 * phase) % 256, (29 * phase) % 256, 255];
        if (distance < radius) return [20, 20, 20, 255];
      }
      return [0, 0, 0, 0];
    };
  },
  photographed: (seed: number): Pixel => {
    let state = seed + 1;
    const grain = (): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return 24 * (state / 2 ** 32 - 0.5);
    };
    return (x, y, t) => {
      const noise = grain();
      const wave = (a: number, b: number): number => 128 + 90 * Math.sin(a * x + b * y + seed + t / 2) + noise;
      return [wave(0.02, 0.03), wave(0.035, -0.02), wave(0.01, 0.05), 255];
    };
  },
};

/** A GIF. */
export function sticker(kind: keyof typeof KINDS, seed: number): Uint8Array {
  const pixel = KINDS[kind](seed);
  const frames = Array.from({ length: FRAMES }, (_, t) => {
    const data = new Uint8ClampedArray(4 * SIDE * SIDE);
    for (let p = 0; p < SIDE * SIDE; p++) data.set(pixel(p % SIDE, Math.floor(p / SIDE), t), 4 * p);
    return { data, delayMs: 100 };
  });
  return encodeGif(frames, SIDE, SIDE);
}

/** Times the decoding of `stickers` files of each kind by 0 (here), 1, 2, 4, ... processes, up to one per core, in turns. */
export async function decodeScale(stickers: number): Promise<void> {
  const fewer = Array.from({ length: 10 }, (_, i) => 2 ** i).filter((n) => n < availableParallelism());
  const counts = [0, ...fewer, availableParallelism()];
  const dir = await mkdtemp(join(tmpdir(), "gifgrad-decode-"));
  try {
    for (const kind of Object.keys(KINDS) as (keyof typeof KINDS)[]) {
      const some = Array.from({ length: DIFFERENT }, (_, i) => sticker(kind, i));
      const names = Array.from({ length: stickers }, (_, i) => `${kind}-${i}.gif`);
      for (const [i, name] of names.entries()) await writeFile(join(dir, name), some[i % DIFFERENT]);
      const best = new Map(counts.map((processes) => [processes, { perSecond: 0, cpuMs: Infinity }]));
      for (let turn = 0; turn < TURNS; turn++) {
        for (const [processes, so] of best) {
          const { perSecond, cpuMs } = await rate(dir, names, processes);
          so.perSecond = Math.max(so.perSecond, Math.round(perSecond));
          so.cpuMs = Math.min(so.cpuMs, Number(cpuMs.toFixed(2)));
        }
      }
      for (const [processes, so] of best)
        console.log(JSON.stringify({ what: "decode", kind, stickers, processes, ...so }));
    }
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** Stickers a second, and this process's milliseconds for each, from the first that is done: before it, processes start. */
async function rate(
  dir: string,
  names: readonly string[],
  processes: number,
): Promise<{ readonly perSecond: number; readonly cpuMs: number }> {
  const cacheDir = join(dir, "cache");
  let [first, used] = [0, process.cpuUsage()];
  const onProgress = (): void => {
    if (first === 0) [first, used] = [performance.now(), process.cpuUsage()];
  };
  const cache = await openClipCache(dir, names, SHAPE, { cacheDir, processes, onProgress });
  const seconds = (performance.now() - first) / 1000;
  const { user, system } = process.cpuUsage(used);
  if (cache.rejected.length > 0) throw new Error(`${cache.rejected[0].file_name}: ${cache.rejected[0].reason}`);
  cache.close();
  await rm(cacheDir, { recursive: true });
  const stickers = names.length - 1;
  return { perSecond: stickers / seconds, cpuMs: (user + system) / 1000 / stickers };
}
