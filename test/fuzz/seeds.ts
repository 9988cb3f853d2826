// What mutate.ts starts from: small whole files of every format, by our writers and by another program's, with the features
// that decoders get wrong: disposals, interlacing, palettes, 16 bits, EXIF, lossy and lossless frames. Always the same bytes.

import { buffer } from "node:stream/consumers";
import sharp from "sharp";
import { pack } from "tar-stream";
import { encodeApng } from "../../data/encode/apng.ts";
import { encodeGif } from "../../data/encode/gif.ts";
import { discFrames } from "../stickers.ts";

export type SeedFormat = "gif" | "webp" | "apng" | "png" | "jpeg";

export interface Seed {
  readonly format: SeedFormat;
  readonly bytes: Buffer;
}

const SIDE = 40; // of discFrames

export async function seeds(): Promise<Seed[]> {
  const frames = discFrames([230, 40, 40]);
  const tall = Buffer.concat(frames.map(({ data }) => Buffer.from(data)));
  const raw = { width: SIDE, height: SIDE * frames.length, channels: 4, pageHeight: SIDE } as const;
  const delay = frames.map(() => 80);
  const still = () => sharp(frames[0].data, { raw: { width: SIDE, height: SIDE, channels: 4 } });
  const flat = () => still().flatten({ background: "white" });
  const made: [SeedFormat, Uint8Array][] = [
    ["gif", encodeGif(frames, SIDE, SIDE)],
    ["gif", await sharp(tall, { raw }).gif({ delay, interFrameMaxError: 0 }).toBuffer()],
    ["gif", interlaced],
    ["webp", await sharp(tall, { raw }).webp({ delay, lossless: true }).toBuffer()],
    ["webp", await sharp(tall, { raw }).webp({ delay, quality: 60 }).toBuffer()],
    ["webp", await flat().webp().toBuffer()],
    ["apng", encodeApng(frames, SIDE, SIDE)],
    ["apng", encodeApng(frames.slice(0, 2), SIDE, SIDE)],
    ["png", await still().png().toBuffer()],
    ["png", await still().png({ palette: true, progressive: true }).toBuffer()],
    ["png", await still().toColourspace("rgb16").png().toBuffer()],
    ["jpeg", await flat().jpeg().toBuffer()],
    ["jpeg", await flat().jpeg({ progressive: true, chromaSubsampling: "4:4:4" }).toBuffer()],
    ["jpeg", await flat().withMetadata({ orientation: 6 }).toColourspace("cmyk").jpeg().toBuffer()],
  ];
  return made.map(([format, bytes]) => ({ format, bytes: Buffer.from(bytes) }));
}

/** GIF's LZW of pixels from 0 to 3 in its plainest form, as one sub-block: the table is cleared before each pixel. */
function plainLzw(pixels: readonly number[]): Buffer {
  const codes = [...pixels.flatMap((pixel) => [4, pixel]), 5];
  const out = Buffer.alloc(Math.ceil((3 * codes.length) / 8));
  codes.forEach((code, i) => {
    for (let bit = 0; bit < 3; bit++) out[(3 * i + bit) >> 3] |= ((code >> bit) & 1) << ((3 * i + bit) & 7);
  });
  return Buffer.concat([Buffer.from([2, out.length]), out, Buffer.from([0])]);
}

/** 2 x 4 pixels, interlaced, two frames with disposals 2 and 3, the second with a palette of its own. */
const interlaced = Buffer.concat([
  Buffer.from("GIF89a"),
  Buffer.from([2, 0, 4, 0, 0x80, 0, 0, 255, 0, 0, 0, 0, 255]),
  Buffer.from([0x21, 0xf9, 4, 0x09, 5, 0, 1, 0]),
  Buffer.from([0x2c, 0, 0, 0, 0, 2, 0, 4, 0, 0x40]),
  plainLzw([0, 1, 1, 0, 0, 0, 1, 1]),
  Buffer.from([0x21, 0xf9, 4, 0x0d, 5, 0, 0, 0]),
  Buffer.from([0x2c, 1, 0, 1, 0, 1, 0, 2, 0, 0x80, 1, 1, 1, 9, 9, 9]),
  plainLzw([0, 1]),
  Buffer.from([0x3b]),
]);

/** A tar with a sticker and its caption beside members that want to be somewhere else. `outside` is an absolute path. */
export async function hostileTar(outside: string, sticker: Uint8Array): Promise<Buffer> {
  const archive = pack();
  const file = (name: string) => archive.entry({ name, mtime: new Date(0) }, Buffer.from(sticker));
  file("a/one.gif");
  archive.entry({ name: "a/one.json", mtime: new Date(0) }, JSON.stringify({ caption: "a disc", words: ["disc"] }));
  file("../../../escape.gif");
  file(`${outside}/absolute.gif`);
  file("C:\\escape.gif");
  archive.entry({ name: "b", type: "symlink", linkname: outside });
  file("b/through-a-link.gif");
  archive.entry({ name: "hard.gif", type: "link", linkname: "../../escape.gif" });
  archive.entry({ name: "pipe.gif", type: "fifo" });
  file(`${"deep/".repeat(60)}${"long".repeat(60)}.gif`);
  archive.finalize();
  return buffer(archive);
}

const LAUGHS = Array.from({ length: 12 }, (_, i) => {
  const inside = i === 0 ? "ha" : `&l${i - 1};`.repeat(10);
  return `<!ENTITY l${i} "${inside}">`;
});

/** Files that are none of the formats, under any name. */
export const STRANGERS: readonly Buffer[] = [
  Buffer.from(`<?xml version="1.0"?><!DOCTYPE svg [${LAUGHS.join("")}]><svg><text>&l11;</text></svg>`),
  Buffer.from(`<!DOCTYPE svg [<!ENTITY f SYSTEM "file:///etc/passwd">]><svg><text>&f;</text></svg>`),
  Buffer.from(`<svg xmlns="http://www.w3.org/2000/svg" width="60000" height="60000"><rect width="1"/></svg>`),
  Buffer.from("<html><script>while(1);</script></html>"),
  Buffer.from("GIF89a"),
  Buffer.from("\x89PNG\r\n\x1a\n", "latin1"),
  Buffer.from("RIFF\xff\xff\xff\xffWEBP", "latin1"),
  Buffer.from("\xff\xd8\xff", "latin1"),
  Buffer.alloc(0),
  Buffer.alloc(100_000),
];
