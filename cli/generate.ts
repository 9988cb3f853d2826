// `gifgrad generate`: captions -> GIF files, from a trained run.

import { mkdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { encodeGif } from "../data/encode/gif.ts";
import { formatCaption, toRgba } from "../data/frames.ts";
import { DOMAINS } from "../data/record.ts";
import { replaceFile } from "../engine/atomic.ts";
import { openDevice } from "../engine/index.ts";
import { loadSystem, openImported, tokenizerOf } from "../train/foreign/imported.ts";
import { holdsImport } from "../train/foreign/record.ts";
import { readPicture } from "../train/pictures.ts";
import { progress } from "../train/progress.ts";
import { loadSampler, type SampleOptions, Sampler, type Sticker } from "../train/sample.ts";
import type { GenerateOptions } from "./options.ts";
import { announce, existingStage } from "./train.ts";

/** As the stickers that are trained on are sampled. */
const FPS = 10;

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
  // Other programs' models were trained on captions without domains.
  const imported = holdsImport(options.run);
  const o = imported ? options : { ...options, captions: options.captions.map(captionFor) };
  const sampler = imported
    ? await importedSampler(o.run)
    : await loadSampler(existingStage(o.run, "diffusion"), console.error);
  const picture = o.image === undefined ? undefined : await readPicture(o.image, sampler.config);
  if (picture && !sampler.config.pictures)
    console.error(`${o.run} was trained on captions alone: what the picture does to its stickers is left to chance`);
  const device = await openDevice();
  try {
    announce(device);
    await generateAll(sampler, { ...o, picture });
    await device.settle();
  } finally {
    device.close();
  }
}

/** The model of an imported checkpoint. */
async function importedSampler(dir: string): Promise<Sampler> {
  const checkpoint = await openImported(dir);
  try {
    return new Sampler(await loadSystem(checkpoint), await tokenizerOf(checkpoint));
  } finally {
    await checkpoint.close();
  }
}

/** Every sticker to its file, `batch` at a time, on the open device. */
export async function generateAll(sampler: Sampler, o: GenerateOptions & GifOptions): Promise<void> {
  for (const caption of o.captions) {
    const cut = sampler.cut(caption);
    if (cut !== null) console.error(`this caption is too long for the model, which reads only: ${cut}`);
  }
  const stickers = o.captions.flatMap((caption) => Array.from({ length: o.count }, (_, index) => ({ caption, index })));
  const paths = outputPaths(stickers, o);
  const batch = Math.min(o.batch, stickers.length);
  for (let first = 0; first < stickers.length; first += batch) {
    const some = stickers.slice(first, first + batch);
    // The last batch is filled up, so that there is one shape and one program.
    const filled = Array.from({ length: batch }, (_, i) => some[Math.min(i, some.length - 1)]);
    const line = progress(some.length === 1 ? oneLine(some[0].caption) : `${some.length} stickers`, o.steps);
    const gifs = await sampleGifs(sampler, filled, { ...o, onStep: (done) => line.update(done) });
    const written = paths.slice(first, first + some.length);
    for (const [i, path] of written.entries()) {
      await mkdir(dirname(path), { recursive: true });
      await replaceFile(path, (file) => file.writeFile(gifs[i]));
    }
    line.done(written.join("  "));
  }
}

/** Where each sticker's GIF goes; those that would share a name are numbered. */
function outputPaths(stickers: readonly Sticker[], { out, run, seed }: GenerateOptions): string[] {
  if (out?.toLowerCase().endsWith(".gif")) return [out];
  const slugs = stickers.map(({ caption }) => slug(caption));
  const nth = (i: number): number => slugs.slice(0, i).filter((s) => s === slugs[i]).length;
  const name = (i: number): string => `${slugs[i]}-${seed}${nth(i) > 0 ? `-${nth(i) + 1}` : ""}.gif`;
  return stickers.map((_, i) => join(out ?? join(run, "generated"), name(i)));
}

export interface GifOptions extends SampleOptions {
  /** Frames per second; GIF counts in hundredths of a second. */
  readonly fps?: number;
  /** The file that `picture` is from. */
  readonly image?: string;
}

/** Stickers of one batch as GIF bytes: the same model, captions, seed and adapter give the same bytes. */
export async function sampleGifs(sampler: Sampler, stickers: readonly Sticker[], o: GifOptions): Promise<Uint8Array[]> {
  const { size } = sampler.config;
  const delayMs = 10 * Math.round(100 / (o.fps ?? FPS));
  const clips = await sampler.sample(stickers, o);
  return stickers.map(({ caption, index }, i) => {
    const frames = toRgba(clips[i], size).map((data) => ({ data, delayMs }));
    const sampler = o.sampler === "ddim" ? undefined : o.sampler;
    const image = o.image === undefined ? undefined : basename(o.image);
    const extras = { index: index || undefined, sampler, eta: o.eta || undefined, negative: o.negative, image };
    const settings = { seed: o.seed, steps: o.steps, guidance: o.guidance, ...extras };
    const words = Object.entries(settings).filter(([, value]) => value !== undefined);
    return encodeGif(frames, size, size, { comment: `gifgrad ${oneLine(caption)} ${words.flat().join(" ")}` });
  });
}

function oneLine(caption: string): string {
  return caption.replace(/\s+/g, " ");
}

/** "Cartoon \t a red heart" -> "cartoon-a-red-heart": letters of any script, at most 60 characters. */
function slug(caption: string): string {
  const words = caption.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["sticker"];
  return [...words.join("-")].slice(0, 60).join("");
}
