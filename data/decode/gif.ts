// GIF 87a/89a -> composed frames. Browsers are the truth where the specification and practice differ: the background
// colour is ignored (cleared areas are transparent), disposal 4 means "previous", a first frame that leaves the canvas makes it
// larger, and a file may end without saying so. The whole block structure is walked before any pixel is decoded, so sizes, frame
// count and a missing end are known without allocating.

import { ByteReader } from "./bytes.ts";
import { type Animation, compose, type Develop, type FrameSelection, type Patch, type Rect } from "./compose.ts";
import { GifPixels } from "./gif_pixels.ts";
import { checkFrameBudget, checkSize } from "./limits.ts";

interface Control {
  readonly disposal: Patch["disposal"];
  readonly delayMs: number;
  /** Palette index that is not drawn, or -1. */
  readonly transparent: number;
}

interface Image extends Rect, Control {
  /** RGBA of each index. */
  readonly palette: Uint8Array;
  readonly interlaced: boolean;
  readonly literalBits: number;
  /** Where the image's data sub-blocks start, and how long they are. */
  readonly dataAt: number;
  readonly dataBytes: number;
}

const NO_CONTROL: Control = { disposal: "keep", delayMs: 0, transparent: -1 };
const DISPOSALS: readonly Patch["disposal"][] = ["keep", "keep", "clear", "previous", "previous"];
const BLOCK = { image: 0x2c, extension: 0x21, trailer: 0x3b, graphicControl: 0xf9 };

/** Decodes the selected frames of a GIF. Throws Error with the reason when it is damaged or over the limits. */
export function decodeGif<T>(bytes: Uint8Array, select: FrameSelection, develop: Develop<T>): Animation<T> {
  const reader = new ByteReader(bytes);
  reader.skip(6);
  const screen = { width: reader.u16le(), height: reader.u16le() };
  checkSize(screen.width, screen.height, "the image");
  const images = readImages(reader, screen);
  if (images.length === 0) throw new Error("the GIF has no frames");
  const { width, height } = canvasOf(screen, images[0]);
  const most = (of: (image: Image) => number): number => images.reduce((most, image) => Math.max(most, of(image)), 0);
  const pixels = new GifPixels(
    width * height,
    most((image) => image.width * image.height),
    most((image) => image.dataBytes),
  );
  const patches = images.map(
    (image, i): Patch => ({ ...image, paint: () => paintImage(bytes, image, i, pixels, width, height) }),
  );
  try {
    return compose(width, height, patches, select, develop, pixels.canvas);
  } finally {
    pixels.close();
  }
}

interface Size {
  readonly width: number;
  readonly height: number;
}

/** The logical screen, or as much more as the first frame needs. */
function canvasOf(screen: Size, first: Rect): Size {
  const [width, height] = [
    Math.max(screen.width, first.x + first.width),
    Math.max(screen.height, first.y + first.height),
  ];
  checkSize(width, height, "the image");
  return { width, height };
}

/** Walks all blocks up to the trailer, or the end of a file that lacks one; only structure is read. */
function readImages(reader: ByteReader, screen: Size): Image[] {
  const globalPalette = readPalette(reader, reader.u8(), 2);
  const images: Image[] = [];
  let control = NO_CONTROL;
  let [canvas, pixels] = [screen, 0];
  for (;;) {
    if (reader.at === reader.bytes.length && images.length > 0) return images;
    const block = reader.u8();
    if (block === BLOCK.trailer) return images;
    if (block === BLOCK.extension) {
      control = readExtension(reader) ?? control;
    } else if (block === BLOCK.image) {
      const image = readImage(reader, globalPalette, control, images.length);
      if (images.length === 0) canvas = canvasOf(screen, image);
      // A patch may be larger than the canvas; what has to be decoded is what counts.
      pixels += Math.max(canvas.width * canvas.height, image.width * image.height);
      checkFrameBudget(images.length + 1, pixels);
      images.push(image);
      control = NO_CONTROL;
    } else {
      throw new Error(`byte ${reader.at - 1} is 0x${block.toString(16)}, where a GIF block should start`);
    }
  }
}

/** The colour table that `flags` announces after `unused` more bytes, as opaque RGBA, padded with black to 256 entries. */
function readPalette(reader: ByteReader, flags: number, unused: number): Uint8Array | undefined {
  reader.skip(unused);
  if ((flags & 0x80) === 0) return undefined;
  const table = reader.take(3 << ((flags & 7) + 1));
  const palette = new Uint8Array(4 * 256);
  for (let i = 0; i < 4 * 256; i++) palette[i] = (i & 3) === 3 ? 255 : (table[3 * (i >> 2) + (i & 3)] ?? 0);
  return palette;
}

function skipSubBlocks(reader: ByteReader): void {
  for (let length = reader.u8(); length !== 0; length = reader.u8()) reader.skip(length);
}

/** Returns the control block if the extension is one and skips any other kind. */
function readExtension(reader: ByteReader): Control | undefined {
  const isControl = reader.u8() === BLOCK.graphicControl;
  const start = reader.at;
  skipSubBlocks(reader);
  if (!isControl || reader.bytes[start] < 4) return undefined;
  const [, flags, low, high, transparent] = reader.bytes.subarray(start);
  return {
    disposal: DISPOSALS[(flags >> 2) & 7] ?? "keep",
    delayMs: 10 * (low | (high << 8)),
    transparent: flags & 1 ? transparent : -1,
  };
}

function readImage(reader: ByteReader, globalPalette: Uint8Array | undefined, control: Control, i: number): Image {
  const [x, y, width, height] = [reader.u16le(), reader.u16le(), reader.u16le(), reader.u16le()];
  checkSize(width, height, `frame ${i}`);
  const flags = reader.u8();
  const palette = readPalette(reader, flags, 0) ?? globalPalette;
  if (!palette) throw new Error(`frame ${i} has no colour table`);
  const literalBits = reader.u8();
  if (literalBits < 1 || literalBits > 8)
    throw new Error(`frame ${i} has an LZW code size of ${literalBits}, not 1..8`);
  const dataAt = reader.at;
  skipSubBlocks(reader);
  const dataBytes = reader.at - dataAt;
  return { x, y, width, height, ...control, palette, interlaced: (flags & 0x40) !== 0, literalBits, dataAt, dataBytes };
}

function paintImage(
  bytes: Uint8Array,
  image: Image,
  i: number,
  pixels: GifPixels,
  canvasWidth: number,
  canvasHeight: number,
): void {
  const colours = image.palette.slice();
  if (image.transparent >= 0) colours.fill(0, 4 * image.transparent, 4 * image.transparent + 4);
  const count = image.width * image.height;
  const decoded = pixels.decode(bytes, image.dataAt, image.literalBits, colours, count);
  if (decoded < count) throw new Error(`frame ${i} ends after ${decoded} of ${count} pixels`);
  const rows = image.interlaced ? interlacedRows(image.height) : undefined;
  const visibleWidth = Math.min(image.width, canvasWidth - image.x);
  if (visibleWidth <= 0) return;
  for (let stored = 0; stored < image.height; stored++) {
    const y = image.y + (rows ? rows[stored] : stored);
    if (y < canvasHeight) pixels.draw(stored * image.width, y * canvasWidth + image.x, visibleWidth);
  }
}

/** The image row of each stored row (GIF89a appendix E): every 8th from 0, every 8th from 4, 4th from 2, 2nd from 1. */
function interlacedRows(height: number): number[] {
  const rows: number[] = [];
  for (const [first, step] of [
    [0, 8],
    [4, 8],
    [2, 4],
    [1, 2],
  ]) {
    for (let y = first; y < height; y += step) rows.push(y);
  }
  return rows;
}
