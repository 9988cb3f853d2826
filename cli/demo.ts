// What the demonstrations start.ts and systems.ts share: their stickers, the captions that they sample, and the folder that
// they may begin anew.

import { existsSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { formatCaption } from "../data/frames.ts";
import type { StickerRecord } from "../data/record.ts";
import { captionsOf, planStarter, writeStarter } from "../data/starter/index.ts";
import { replaceFile } from "../engine/atomic.ts";
import { progress } from "../train/progress.ts";

/** Few subjects and actions, so that minutes on two CPU cores are enough to learn them. */
export const SUBJECTS = ["red heart", "yellow star", "blue diamond", "green apple"];
export const ACTIONS = ["pulse", "spin", "bounce", "slide"] as const;
/** Never trained on: what the model makes of it is combination, not memory. */
export const HELD_OUT = { subject: "red heart", action: "spin" } as const;
export const SAMPLED = [
  { subject: "red heart", action: "pulse" },
  { subject: "yellow star", action: "spin" },
  { subject: "blue diamond", action: "bounce" },
  HELD_OUT,
] as const;
const STICKER_SIZE = 64;

/** Every pair but the held-out one, once. */
export async function makeStickers(out: string, seed: number): Promise<StickerRecord[]> {
  const count = SUBJECTS.length * ACTIONS.length - 1;
  const line = progress("starter", count);
  const records = await writeStarter(out, {
    count,
    size: STICKER_SIZE,
    seed,
    plain: true,
    domains: ["Cartoon"],
    only: { subjects: SUBJECTS, actions: [...ACTIONS] },
    exclude: [HELD_OUT],
    onProgress: (done) => line.update(done),
  });
  line.done(`${count} stickers in ${out}`);
  return records;
}

/** The caption that the starter set gives a pair. */
export function captionOf(pair: (typeof SAMPLED)[number]): string {
  const [recipe] = planStarter({
    count: 1,
    seed: 1,
    plain: true,
    domains: ["Cartoon"],
    only: { subjects: [pair.subject], actions: [pair.action] },
  });
  return formatCaption("Cartoon", captionsOf(recipe).en);
}

/**
 * Makes `out` with a note of whose it is, and deletes what an earlier run of the same command left in `folders`. Throws when
 * there is something in them that this command has not made: it is somebody's work.
 */
export async function claimFolder(out: string, command: string, folders: readonly string[]): Promise<void> {
  const left = folders.filter((folder) => existsSync(folder));
  const note = join(out, `${command}.txt`);
  if (left.length > 0 && !existsSync(note))
    throw new Error(`${out} holds work that ${command} has not made: give ${command} another --out`);
  await mkdir(out, { recursive: true });
  await replaceFile(note, (file) => file.writeFile(`made by gifgrad ${command}, which may delete what is here\n`));
  for (const folder of left) await rm(folder, { recursive: true });
}
