// Ocr: what is written on every sticker that can be decoded, by vote over frames (../ocr.ts). Without the optional package a
// build says so once and goes on without; asked for by name, the stage fails with what to install.

import { readFile } from "node:fs/promises";
import sharp from "sharp";
import { decodeSticker } from "../../decode/index.ts";
import { pickFrames } from "../../frames.ts";
import { openRecogniser, type Reading, recogniserInstalled, vote } from "../ocr.ts";
import { type Item, NONE, queried, type Stage } from "../stage.ts";
import { table } from "../tables.ts";

interface File extends Item {
  readonly format: string;
}

type Row = Omit<Reading, "boxes"> & { readonly boxes: string; readonly model: string; readonly error: string | null };

const FRAMES = 3;
const MODEL = "PP-OCRv4 (@gutenye/ocr-node)";

export const ocr: Stage<File, Row> = {
  name: "ocr",
  about: "read the words on stickers with PP-OCR",
  version: 1,
  columns: {
    text: "VARCHAR",
    characters: "INTEGER",
    area: "DOUBLE",
    confidence: "DOUBLE",
    boxes: "VARCHAR",
    model: "VARCHAR",
    error: "VARCHAR",
  },
  settings: () => null,
  parallel: () => 1, // the recogniser uses all cores by itself
  items: async (collection, db) => {
    const { ocr: wanted } = collection.config.annotate;
    if (wanted === false || (wanted === "auto" && !recogniserInstalled())) return NONE;
    const sql = `SELECT c.id AS "key", min(c.format) AS format FROM ${table(collection, "collect")} c
      JOIN ${table(collection, "measure")} m ON m."key" = c.id AND m.error IS NULL
      GROUP BY c.id HAVING count(c.text) = 0`; // what a source says need not be read
    return queried(db, sql);
  },
  open: async (collection) => {
    const recogniser = await openRecogniser();
    return {
      run: async ({ key, format }) => {
        try {
          const bytes = await readFile(collection.mediaPath(key, format));
          const { frames, width, height } = await decodeSticker(bytes, key, (n) => pickFrames(n, Math.min(n, FRAMES)));
          const raw = { width, height, channels: 4 as const };
          const read = [];
          for (const rgba of frames) {
            read.push(
              await recogniser.read(await sharp(rgba, { raw }).flatten({ background: "white" }).png().toBuffer()),
            );
          }
          const { boxes, ...reading } = vote(read, width, height);
          return { ...reading, boxes: JSON.stringify(boxes), model: MODEL, error: null };
        } catch (error) {
          const nothing = { text: "", characters: 0, area: 0, confidence: null, boxes: "[]", model: MODEL };
          return { ...nothing, error: (error as Error).message };
        }
      },
      close: () => recogniser.close(),
    };
  },
};
