// Animated PNG -> composed frames (PNG specification, 3rd edition, 11.3.6): chunks, frame rectangles, blending.
// Chunk checksums and sequence numbers are verified, so a damaged file is refused rather than shown in part.
// Still PNGs do not come here: image.ts reads them. Pixel formats are in png_pixels.ts.

import { crc32 } from "node:zlib";
import { ByteReader } from "./bytes.ts";
import { type Animation, compose, type Develop, type FrameSelection, type Patch, type Rect } from "./compose.ts";
import { checkFrameBudget, checkSize } from "./limits.ts";
import { checkFormat, decodePixels, type PixelFormat } from "./png_pixels.ts";

interface Chunk {
  readonly type: string;
  readonly body: ByteReader;
}

interface Frame extends Rect {
  readonly disposal: Patch["disposal"];
  readonly over: boolean;
  readonly delayMs: number;
  readonly data: Uint8Array[];
}

const SIGNATURE_BYTES = 8;
const DISPOSALS: readonly Patch["disposal"][] = ["keep", "clear", "previous"];

/** Whether a file that starts as PNG is animated, i.e. has an acTL chunk before its image data. */
export function isAnimatedPng(bytes: Uint8Array): boolean {
  const { buffer, byteOffset, length } = bytes;
  const view = new DataView(buffer, byteOffset, length);
  for (let at = SIGNATURE_BYTES; at + 8 <= length; at += 12 + view.getUint32(at)) {
    const type = chunkName(bytes.subarray(at + 4, at + 8));
    if (type === "acTL") return true;
    if (type === "IDAT") return false;
  }
  return false;
}

/** Decodes the selected frames of an APNG. Throws Error with the reason when it is damaged or over the limits. */
export function decodeApng<T>(bytes: Uint8Array, select: FrameSelection, develop: Develop<T>): Animation<T> {
  const reader = new ByteReader(bytes);
  reader.skip(SIGNATURE_BYTES);
  const first = readChunk(reader);
  if (first.type !== "IHDR") throw new Error(`the first chunk is ${first.type}, not IHDR`);
  const { width, height, ...header } = readHeader(first.body);
  checkSize(width, height, "the image");
  const { frames, format } = readFrames(reader, width, height, header);
  const patches = frames.map(
    (frame): Patch => ({ ...frame, paint: (canvas) => paintFrame(frame, format, canvas, width) }),
  );
  return compose(width, height, patches, select, develop);
}

const chunkName = (bytes: Uint8Array): string => String.fromCharCode(...bytes);

function readChunk(reader: ByteReader): Chunk {
  const length = reader.u32be();
  const typed = reader.take(4 + length);
  const type = chunkName(typed.subarray(0, 4));
  if (reader.u32be() !== crc32(typed)) throw new Error(`the checksum of a ${type} chunk is wrong`);
  return { type, body: new ByteReader(typed.subarray(4)) };
}

function readHeader(body: ByteReader): PixelFormat & { width: number; height: number } {
  const [width, height] = [body.u32be(), body.u32be()];
  const [bitDepth, colourType, , , interlace] = body.take(5);
  return { width, height, bitDepth, colourType, interlaced: interlace === 1 };
}

/** Reads all chunks to IEND. The default image is a frame only if a control chunk comes before it. */
function readFrames(
  reader: ByteReader,
  width: number,
  height: number,
  header: PixelFormat,
): { frames: Frame[]; format: PixelFormat } {
  const frames: Frame[] = [];
  let format = header;
  let declared = 0;
  let sequence = 0;
  const expectSequence = (body: ByteReader) => {
    const number = body.u32be();
    if (number !== sequence++) throw new Error(`animation chunk ${sequence - 1} carries number ${number}`);
  };
  for (;;) {
    const { type, body } = readChunk(reader);
    if (type === "IEND") break;
    if (type === "PLTE") format = { ...format, palette: body.bytes };
    else if (type === "tRNS") format = { ...format, transparency: body.bytes };
    else if (type === "acTL") {
      declared = body.u32be();
      checkFrameBudget(declared, declared * width * height);
    } else if (type === "fcTL") {
      expectSequence(body);
      if (frames.length === declared) throw new Error(`more frames than the ${declared} announced`);
      frames.push(readFrameControl(body, width, height, frames.length));
    } else if (type === "IDAT") frames.at(-1)?.data.push(body.bytes);
    else if (type === "fdAT") {
      expectSequence(body);
      const current = frames.at(-1);
      if (!current) throw new Error("frame data comes before the first frame control chunk");
      current.data.push(body.bytes.subarray(4));
    }
  }
  if (frames.length < declared || declared === 0) throw new Error(`${frames.length} frames, but ${declared} announced`);
  checkFormat(format);
  return { frames, format };
}

function readFrameControl(body: ByteReader, canvasWidth: number, canvasHeight: number, i: number): Frame {
  const [width, height, x, y] = [body.u32be(), body.u32be(), body.u32be(), body.u32be()];
  const [numerator, denominator] = [body.u16be(), body.u16be()];
  const [disposal, blend] = [body.u8(), body.u8()];
  checkSize(width, height, `frame ${i}`);
  if (x + width > canvasWidth || y + height > canvasHeight) {
    throw new Error(`frame ${i} (${width}x${height} at ${x},${y}) leaves the ${canvasWidth}x${canvasHeight} image`);
  }
  if (disposal > 2 || blend > 1) throw new Error(`frame ${i} has disposal ${disposal} and blend ${blend}`);
  // A zero denominator means hundredths of a second.
  const delayMs = (1000 * numerator) / (denominator || 100);
  return { x, y, width, height, disposal: DISPOSALS[disposal], over: blend === 1, delayMs, data: [] };
}

function paintFrame(frame: Frame, format: PixelFormat, canvas: Uint8ClampedArray, canvasWidth: number): void {
  const pixels = decodePixels(Buffer.concat(frame.data), frame.width, frame.height, format);
  const rowBytes = 4 * frame.width;
  for (let row = 0; row < frame.height; row++) {
    const source = pixels.subarray(row * rowBytes, (row + 1) * rowBytes);
    const at = 4 * ((frame.y + row) * canvasWidth + frame.x);
    if (frame.over) blendOver(canvas, at, source);
    else canvas.set(source, at);
  }
}

/** Porter-Duff "over" on straight-alpha RGBA, one row. */
function blendOver(canvas: Uint8ClampedArray, start: number, source: Uint8Array): void {
  for (let i = 0, at = start; i < source.length; i += 4, at += 4) {
    const over = source[i + 3] / 255;
    const under = (canvas[at + 3] / 255) * (1 - over);
    const alpha = over + under;
    if (alpha === 0) continue;
    for (let c = 0; c < 3; c++) canvas[at + c] = (source[i + c] * over + canvas[at + c] * under) / alpha;
    canvas[at + 3] = alpha * 255;
  }
}
