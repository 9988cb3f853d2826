// A small folder of stickers as people have them: four formats by two programs, some files cut short, misnamed, empty or
// absent. Used by the tests of training and generating.

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import sharp from "sharp";
import { encodeApng } from "../data/encode/apng.ts";
import type { EncodeFrame } from "../data/encode/frames.ts";
import { encodeGif } from "../data/encode/gif.ts";

const SIZE = 40;
const FRAMES = 8;

/** A disc that moves in a circle over a transparent ground. */
export function discFrames(colour: readonly [number, number, number], phase = 0): EncodeFrame[] {
  return Array.from({ length: FRAMES }, (_, t) => {
    const angle = (2 * Math.PI * (t + phase)) / FRAMES;
    const [x0, y0] = [SIZE / 2 + 8 * Math.cos(angle), SIZE / 2 + 8 * Math.sin(angle)];
    const data = new Uint8Array(4 * SIZE * SIZE);
    for (let i = 0; i < SIZE * SIZE; i++) {
      if (Math.hypot((i % SIZE) - x0, Math.floor(i / SIZE) - y0) < 10) data.set([...colour, 255], 4 * i);
    }
    return { data, delayMs: 100 };
  });
}

/** The frames through another program's writer: an animation where the format has them, else the first frame. */
function byAnother(frames: readonly EncodeFrame[], format: "webp" | "gif" | "png" | "jpeg"): Promise<Buffer> {
  const shown = format === "webp" || format === "gif" ? frames : frames.slice(0, 1);
  const tall = Buffer.concat(shown.map(({ data }) => Buffer.from(data)));
  const raw = { width: SIZE, height: SIZE * shown.length, channels: 4, pageHeight: SIZE } as const;
  const image = sharp(tall, { raw });
  return (format === "jpeg" ? image.flatten({ background: "white" }) : image)
    .toFormat(format, { delay: shown.map(() => 100), loop: 0 })
    .toBuffer();
}

export interface MixedFolder {
  /** Names of the files that can be used, and of those that cannot. */
  readonly good: readonly string[];
  readonly bad: readonly string[];
}

/** Writes the folder with its metadata.jsonl. */
export async function writeMixedFolder(dir: string): Promise<MixedFolder> {
  const [red, green, blue] = [discFrames([230, 40, 40]), discFrames([40, 180, 60], 2), discFrames([40, 80, 220], 5)];
  const gif = encodeGif(red, SIZE, SIZE);
  const webp = await byAnother(green, "webp");
  const apng = encodeApng(blue, SIZE, SIZE);
  const good: [string, Uint8Array][] = [
    ["red.gif", gif],
    ["green.webp", webp],
    ["blue.png", apng],
    ["still.png", await byAnother(blue, "png")],
    ["photo.jpg", await byAnother(green, "jpeg")],
    ["other.gif", await byAnother(blue, "gif")],
    ["really-a-gif.png", gif],
  ];
  const bad: [string, Uint8Array | null][] = [
    ["cut.png", apng.subarray(0, 60)],
    ["cut.webp", webp.subarray(0, 40)],
    ["empty.gif", new Uint8Array(0)],
    ["missing.gif", null],
    ["notes.png", new TextEncoder().encode("not a picture")],
  ];
  await mkdir(dir, { recursive: true });
  for (const [name, bytes] of [...good, ...bad]) if (bytes) await writeFile(join(dir, name), bytes);
  const lines = [...good, ...bad].map(([file_name], i) =>
    JSON.stringify({ file_name, caption: `a disc, number ${i}`, domain: "Cartoon" }),
  );
  await writeFile(join(dir, "metadata.jsonl"), `${lines.join("\n")}\n{"file_name": "red.gif", broken\n`);
  return { good: good.map(([name]) => name), bad: bad.map(([name]) => name) };
}
