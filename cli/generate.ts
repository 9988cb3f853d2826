// `gifgrad generate`: captions -> GIF files, from a trained run.

import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { encodeGif } from "../data/encode/gif.ts";
import { toRgba } from "../data/frames.ts";
import { replaceFile } from "../engine/atomic.ts";
import { openDevice } from "../engine/index.ts";
import { progress } from "../train/progress.ts";
import { loadSampler, type SampleOptions, type Sampler } from "../train/sample.ts";
import type { GenerateOptions } from "./options.ts";
import { announce, stageFolder } from "./train.ts";

const DELAY_MS = 100;

export async function run(o: GenerateOptions): Promise<void> {
  const device = await openDevice();
  try {
    announce(device);
    const sampler = await loadSampler(stageFolder(o.run, "diffusion"));
    for (const [i, caption] of o.captions.entries()) {
      const path = o.out?.endsWith(".gif") ? o.out : join(o.out ?? join(o.run, "generated"), `${slug(caption)}-${o.seed}.gif`);
      const line = progress(caption.replace(/\s+/g, " "), o.steps);
      const gif = await sampleGif(sampler, caption, { ...o, onStep: (done) => line.update(done) });
      await mkdir(dirname(path), { recursive: true });
      await replaceFile(path, (file) => file.writeFile(gif));
      line.done(path);
      if (i === o.captions.length - 1) await device.settle();
    }
  } finally {
    device.close();
  }
}

/** One sticker as GIF bytes: the same model, caption, seed and adapter give the same bytes. */
export async function sampleGif(sampler: Sampler, caption: string, o: SampleOptions): Promise<Uint8Array> {
  const { size } = sampler.config;
  const frames = toRgba(await sampler.sample(caption, o), size).map((data) => ({ data, delayMs: DELAY_MS }));
  return encodeGif(frames, size, size, { comment: `gifgrad ${caption.replace(/\s+/g, " ")} seed ${o.seed} steps ${o.steps} guidance ${o.guidance}` });
}

/** "Cartoon \t a red heart" -> "cartoon-a-red-heart": letters of any script, at most 60 characters. */
function slug(caption: string): string {
  const words = caption.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["sticker"];
  return words.join("-").slice(0, 60);
}
