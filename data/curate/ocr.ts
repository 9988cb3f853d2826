// Reading words on stickers with PP-OCR through the optional package @gutenye/ocr-node: several frames are read and vote, since
// recognisers see letters in art. Pure functions, and the one place that loads the package.

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

/** One line as the recogniser reports it: corners of its box in pixels, confidence in [0, 1]. */
export interface Line {
  readonly text: string;
  readonly mean: number;
  readonly box?: readonly (readonly number[])[];
}

export interface Recogniser {
  /** Lines on a picture; PNG bytes. */
  read(png: Uint8Array): Promise<Line[]>;
  close(): Promise<void>;
}

const PACKAGE = "@gutenye/ocr-node";
export const MISSING = `reading words needs the package ${PACKAGE}: npm install --ignore-scripts ${PACKAGE}; or set annotate.ocr to false`;

/** Of this installation, else of the folder that the program is run from: `npx gifgrad` has none of its own to install into. */
function locate(): string | null {
  for (const from of [import.meta.url, pathToFileURL(join(process.cwd(), "package.json"))]) {
    try {
      return createRequire(from).resolve(PACKAGE);
    } catch {
      // not there
    }
  }
  return null;
}

export function recogniserInstalled(): boolean {
  return locate() !== null;
}

interface Loaded {
  readonly default: { create(): Promise<{ detect(path: string): Promise<Line[]> }> };
}

/** @throws Error with how to install it where the package is absent, and with what it says where it does not load */
export async function openRecogniser(): Promise<Recogniser> {
  const path = locate();
  if (path === null) throw new Error(MISSING);
  const ocr = await import(pathToFileURL(path).href)
    .then((loaded: Loaded) => loaded.default.create())
    .catch((error: Error) => {
      const said = error.message.split("\n")[0];
      throw new Error(
        `${PACKAGE} is installed and does not load (${said}): install it anew, or set annotate.ocr to false`,
      );
    });
  const dir = await mkdtemp(join(tmpdir(), "gifgrad-ocr-")); // it takes paths only
  let number = 0;
  return {
    async read(png) {
      const path = join(dir, `${number++}.png`);
      await writeFile(path, png);
      try {
        return await ocr.detect(path);
      } finally {
        await rm(path, { force: true });
      }
    },
    close: () => rm(dir, { recursive: true, force: true }),
  };
}

export interface Reading {
  /** Lines in reading order, joined by spaces; empty where nothing is written. */
  readonly text: string;
  readonly characters: number;
  /** Share of the picture under boxes, the largest of all frames. */
  readonly area: number;
  /** Mean of the kept lines. */
  readonly confidence: number | null;
  readonly boxes: readonly { frame: number; text: string; confidence: number; box: readonly (readonly number[])[] }[];
}

const CONFIDENT = 0.6;

/** What the frames agree on: lines that most frames have, by the same letters, and that are more than a symbol. */
export function vote(frames: readonly (readonly Line[])[], width: number, height: number): Reading {
  const seen = new Map<string, { line: Line; frame: number; frames: Set<number> }>();
  frames.forEach((lines, frame) => {
    for (const line of lines.filter(legible)) {
      const key = line.text.toLowerCase().replaceAll(/\s+/g, "");
      const found = seen.get(key);
      if (!found) seen.set(key, { line, frame, frames: new Set([frame]) });
      else {
        found.frames.add(frame);
        if (line.mean > found.line.mean) Object.assign(found, { line, frame });
      }
    }
  });
  const needed = Math.floor(frames.length / 2) + 1;
  const kept = [...seen.values()]
    .filter((s) => s.frames.size >= needed)
    .sort((a, b) => byReading(a.line, b.line, height));
  const text = kept.map(({ line }) => line.text.trim()).join(" ");
  return {
    text,
    characters: text.replaceAll(/\s/g, "").length,
    area:
      Math.max(0, ...frames.map((lines) => lines.filter(legible).reduce((sum, line) => sum + areaOf(line), 0))) /
      (width * height),
    confidence: kept.length === 0 ? null : kept.reduce((sum, { line }) => sum + line.mean, 0) / kept.length,
    boxes: kept.map(({ line, frame }) => ({ frame, text: line.text, confidence: line.mean, box: line.box ?? [] })),
  };
}

/** Recognisers read stars and hearts as single characters. */
function legible({ text, mean }: Line): boolean {
  const letters = text.match(/[\p{L}\p{N}]/gu) ?? [];
  return mean >= CONFIDENT && (letters.length >= 2 || /\p{Script=Han}/u.test(text));
}

/** Lines at about the same height go from left to right, others from top to bottom. */
function byReading(a: Line, b: Line, height: number): number {
  const [[x, y], [u, v]] = [corner(a), corner(b)];
  return Math.abs(y - v) > height / 20 ? y - v : x - u;
}

function corner({ box }: Line): [number, number] {
  if (!box || box.length === 0) return [0, 0];
  return [Math.min(...box.map((p) => p[0])), Math.min(...box.map((p) => p[1]))];
}

/** Of a quadrilateral, by the shoelace formula. */
function areaOf({ box = [] }: Line): number {
  const twice = box.reduce((sum, [x, y], i) => {
    const [u, v] = box[(i + 1) % box.length];
    return sum + x * v - u * y;
  }, 0);
  return Math.abs(twice) / 2;
}
