// Hugging Face's imagefolder: a folder for each split with the files and a metadata.jsonl of exactly that name. Viewers show a
// GIF's first frame only, so strips of eight frames can be put beside.

import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import sharp from "sharp";
import { replaceFile } from "../../../engine/atomic.ts";
import { decodeSticker } from "../../decode/index.ts";
import { CLIP_FRAMES, pickFrames, prepareFrame } from "../../frames.ts";
import type { Collection } from "../collection.ts";
import { copyWhole } from "../files.ts";
import { withDatabase } from "../tables.ts";
import { type ExportRow, exportRows, fileName } from "./rows.ts";

const STRIP_SIDE = 128;

export interface ImagefolderOptions {
  readonly strips?: boolean;
  readonly onProgress?: (done: number) => void;
}

/** Writes the folder; returns how many stickers it holds. Files that are there already stay. */
export async function exportImagefolder(
  collection: Collection,
  out: string,
  o: ImagefolderOptions = {},
): Promise<number> {
  let done = 0;
  await withDatabase(async (db) => {
    const rows = exportRows(collection, db);
    let row = (await rows.next()).value as ExportRow | undefined;
    while (row) {
      const { split } = row;
      const dir = join(out, split);
      await mkdir(dir, { recursive: true });
      // Written as they come: the lines of a million stickers are more than a string holds.
      await replaceFile(join(dir, "metadata.jsonl"), async (file) => {
        for (; row?.split === split; row = (await rows.next()).value as ExportRow | undefined) {
          const source = collection.mediaPath(row.id, row.format);
          await copyWhole(source, join(dir, fileName(row)));
          const strip = o.strips ? { strip: await writeStrip(row, source, dir) } : {};
          const line = JSON.stringify({ file_name: fileName(row), ...row.record, ...strip });
          await file.writeFile(`${line}\n`); // from where the last one ended
          done++;
          o.onProgress?.(done);
        }
      });
    }
  });
  return done;
}

async function writeStrip(row: ExportRow, source: string, dir: string): Promise<string> {
  const name = `strips/${row.id}.png`;
  if (existsSync(join(dir, name))) return name;
  const { frames, width, height } = await decodeSticker(await readFile(source), row.id, (n) => pickFrames(n));
  const images = frames.map((rgba) => prepareFrame(rgba, width, height, STRIP_SIDE));
  await mkdir(join(dir, "strips"), { recursive: true });
  const raw = { width: STRIP_SIDE, height: STRIP_SIDE, channels: 3 as const };
  const [strip, background] = [{ width: STRIP_SIDE * CLIP_FRAMES, height: STRIP_SIDE }, "white"];
  const png = await sharp({ create: { ...strip, channels: 3, background } })
    .composite(images.map((input, i) => ({ input: Buffer.from(input), raw, left: i * STRIP_SIDE, top: 0 })))
    .png()
    .toBuffer();
  await replaceFile(join(dir, name), (file) => file.writeFile(png));
  return name;
}
