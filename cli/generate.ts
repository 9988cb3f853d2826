// `gifgrad generate`: captions -> GIF files, from a trained run; in a folder with a metadata.jsonl, which `gifgrad eval` reads.

import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import { addRecords, captionFields } from "../data/add_records.ts";
import { encodeGif } from "../data/encode/gif.ts";
import { formatCaption, toRgba } from "../data/frames.ts";
import { DOMAINS, type StickerRecord } from "../data/record.ts";
import { replaceFile } from "../engine/atomic.ts";
import { openDevice } from "../engine/index.ts";
import { progress } from "../train/progress.ts";
import type { Sticker } from "../train/sample.ts";
import { type MakeOptions, type Maker, openMaker } from "./makers.ts";
import { type GenerateOptions, refuseGiven } from "./options.ts";
import { announce } from "./train.ts";

/** As the stickers that are trained on are sampled. */
const FPS = 10;

/**
 * As the model was trained to read it: "Domain \t Description". A bare description is taken as a cartoon, as in metadata.
 * Throws when a domain is named that does not exist.
 */
function captionFor(text: string): string {
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
  checkOut(options);
  const { given = [], steps: rounds, topK } = options;
  const maker = await openMaker(options.run, { topK, ...(given.includes("steps") && { rounds }) });
  refuseGiven(given, maker.unused.options, maker.unused.whom);
  const captions = maker.domains ? options.captions.map(captionFor) : options.captions;
  const picture = options.image === undefined ? undefined : await maker.picture(options.image);
  const device = await openDevice();
  try {
    announce(device);
    await generateAll(maker, { ...options, captions, picture });
    await device.settle();
  } finally {
    device.close();
  }
}

/** A file name that is no GIF's would become a folder's. A folder may have a dot in its name when it is there. */
function checkOut({ out = "" }: GenerateOptions): void {
  const extension = extname(out);
  if (!/^\.[a-z]/i.test(extension) || extension.toLowerCase() === ".gif" || existsSync(out)) return;
  throw new Error(
    `generate: ${out} is no .gif: give -o a .gif file, or a folder whose name does not end in ${extension}`,
  );
}

/** Every sticker to its file, `batch` at a time, on the open device. */
export async function generateAll(maker: Maker, o: GenerateOptions & GifOptions): Promise<void> {
  for (const caption of o.captions) {
    const unread = maker.unread(caption);
    if (unread !== null) console.error(unread);
  }
  const stickers = o.captions.flatMap((caption) => Array.from({ length: o.count }, (_, index) => ({ caption, index })));
  const paths = outputPaths(stickers, o);
  const batch = Math.min(o.batch, stickers.length);
  for (let first = 0; first < stickers.length; first += batch) {
    const some = stickers.slice(first, first + batch);
    // The last batch is filled up, so that there is one shape and one program.
    const filled = Array.from({ length: batch }, (_, i) => some[Math.min(i, some.length - 1)]);
    const label = some.length === 1 ? oneLine(some[0].caption) : `${some.length} stickers`;
    const line = progress(label, maker.steps(batch, o));
    const gifs = await sampleGifs(maker, filled, { ...o, onStep: (done) => line.update(done) });
    const written = paths.slice(first, first + some.length);
    for (const [i, path] of written.entries()) {
      await mkdir(dirname(path), { recursive: true });
      await replaceFile(path, (file) => file.writeFile(gifs[i]));
    }
    if (!isFile(o.out)) {
      const records = written.map((path, i) => recordOf(basename(path), some[i], maker, o));
      await addRecords(dirname(written[0]), records);
    }
    line.done(written.join("  "));
  }
}

/** Whether `-o` names a file: what else it names is a folder. */
function isFile(out: string | undefined): out is string {
  return out?.toLowerCase().endsWith(".gif") ?? false;
}

/** What metadata.jsonl says of a sticker: its caption, and how it was made. */
function recordOf(file_name: string, { caption, index }: Sticker, maker: Maker, o: GifOptions): StickerRecord {
  return { file_name, ...captionFields(caption), system: maker.system, ...settingsOf(maker, o), index };
}

/** Seed and options that made a difference. */
function settingsOf(maker: Maker, o: GifOptions): Record<string, string | number> {
  const all = Object.entries({ seed: o.seed, ...maker.settings(o) });
  return Object.fromEntries(all.flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])));
}

/** Where each sticker's GIF goes; those that would share a name are numbered. */
function outputPaths(stickers: readonly Sticker[], { out, run, seed }: GenerateOptions): string[] {
  if (isFile(out)) return [out];
  const slugs = stickers.map(({ caption }) => slug(caption));
  const nth = (i: number): number => slugs.slice(0, i).filter((s) => s === slugs[i]).length;
  const name = (i: number): string => `${slugs[i]}-${seed}${nth(i) > 0 ? `-${nth(i) + 1}` : ""}.gif`;
  return stickers.map((_, i) => join(out ?? join(run, "generated"), name(i)));
}

export interface GifOptions extends MakeOptions {
  /** Frames per second; GIF counts in hundredths of a second. */
  readonly fps?: number;
}

/** Stickers of one batch as GIF bytes: the same model, captions, seed and adapter give the same bytes. */
export async function sampleGifs(maker: Maker, stickers: readonly Sticker[], o: GifOptions): Promise<Uint8Array[]> {
  const { size } = maker;
  const delayMs = 10 * Math.round(100 / (o.fps ?? FPS));
  const clips = await maker.make(stickers, o);
  return stickers.map(({ caption, index }, i) => {
    const frames = toRgba(clips[i], size).map((data) => ({ data, delayMs }));
    const { seed, ...settings } = settingsOf(maker, o);
    const words = Object.entries({ seed, ...(index > 0 && { index }), ...settings }).flat();
    return encodeGif(frames, size, size, { comment: `gifgrad ${oneLine(caption)} ${words.join(" ")}` });
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
