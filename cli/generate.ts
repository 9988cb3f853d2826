// `gifgrad generate`: captions -> GIF files, from a trained run.

import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { encodeGif } from "../data/encode/gif.ts";
import { formatCaption, toRgba } from "../data/frames.ts";
import { DOMAINS } from "../data/record.ts";
import { replaceFile } from "../engine/atomic.ts";
import { openDevice } from "../engine/index.ts";
import { progress } from "../train/progress.ts";
import { loadSampler, type SampleOptions, type Sampler } from "../train/sample.ts";
import type { GenerateOptions } from "./options.ts";
import { announce, existingStage } from "./train.ts";

const DELAY_MS = 100;

/**
 * As the model was trained to read it: "Domain \t Description". A bare description is taken as a cartoon, as in metadata.
 * Throws when a domain is named that does not exist.
 */
export function captionFor(text: string): string {
  const [first, ...rest] = text.split("\t");
  if (rest.length === 0) return formatCaption(DOMAINS[0], text.trim());
  const domain = DOMAINS.find((d) => d.toLowerCase() === first.trim().toLowerCase());
  if (!domain)
    throw new Error(
      `there is no domain "${first.trim()}": begin with ${DOMAINS.join(" or ")} and a tab, or give the description alone`,
    );
  return formatCaption(domain, rest.join(" ").trim());
}

export async function run(options: GenerateOptions): Promise<void> {
  const o = { ...options, captions: options.captions.map(captionFor) };
  const sampler = await loadSampler(existingStage(o.run, "diffusion"), console.error);
  const device = await openDevice();
  try {
    announce(device);
    await generateAll(sampler, o);
    await device.settle();
  } finally {
    device.close();
  }
}

/** Every caption to its file, on the open device. */
export async function generateAll(sampler: Sampler, o: GenerateOptions): Promise<void> {
  const paths = outputPaths(o);
  for (const [i, caption] of o.captions.entries()) {
    const cut = sampler.cut(caption);
    if (cut !== null) console.error(`this caption is too long for the model, which reads only: ${cut}`);
    const line = progress(caption.replace(/\s+/g, " "), o.steps);
    const gif = await sampleGif(sampler, caption, { ...o, onStep: (done) => line.update(done) });
    await mkdir(dirname(paths[i]), { recursive: true });
    await replaceFile(paths[i], (file) => file.writeFile(gif));
    line.done(paths[i]);
  }
}

/** Where each caption's GIF goes; captions that would share a name are numbered. */
function outputPaths({ captions, out, run, seed }: GenerateOptions): string[] {
  if (out?.toLowerCase().endsWith(".gif")) return [out];
  const slugs = captions.map(slug);
  const nth = (i: number): number => slugs.slice(0, i).filter((s) => s === slugs[i]).length;
  const name = (i: number): string => `${slugs[i]}-${seed}${nth(i) > 0 ? `-${nth(i) + 1}` : ""}.gif`;
  return captions.map((_, i) => join(out ?? join(run, "generated"), name(i)));
}

/** One sticker as GIF bytes: the same model, caption, seed and adapter give the same bytes. */
export async function sampleGif(sampler: Sampler, caption: string, o: SampleOptions): Promise<Uint8Array> {
  const { size } = sampler.config;
  const frames = toRgba(await sampler.sample(caption, o), size).map((data) => ({ data, delayMs: DELAY_MS }));
  return encodeGif(frames, size, size, {
    comment: `gifgrad ${caption.replace(/\s+/g, " ")} seed ${o.seed} steps ${o.steps} guidance ${o.guidance}`,
  });
}

/** "Cartoon \t a red heart" -> "cartoon-a-red-heart": letters of any script, at most 60 characters. */
function slug(caption: string): string {
  const words = caption.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["sticker"];
  return [...words.join("-")].slice(0, 60).join("");
}
