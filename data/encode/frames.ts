// What every animation writer takes, and the checks they share. No pixels are changed here.
// Called by gif.ts and apng.ts.

/** One composed frame: straight (not premultiplied) RGBA, row-major, width * height * 4 bytes. */
export interface EncodeFrame {
  readonly data: Uint8Array | Uint8ClampedArray;
  readonly delayMs: number;
}

/** Throws RangeError naming `writer` unless the frames can be written as one width x height animation. */
export function checkFrames(
  writer: string,
  frames: readonly EncodeFrame[],
  width: number,
  height: number,
  maxSide: number,
): void {
  if (![width, height].every((side) => Number.isInteger(side) && side >= 1 && side <= maxSide)) {
    throw new RangeError(
      `${writer}: width and height must be whole numbers from 1 to ${maxSide}, got ${width}x${height}`,
    );
  }
  if (frames.length === 0) throw new RangeError(`${writer}: an animation needs at least one frame, got none`);
  frames.forEach(({ data, delayMs }, i) => {
    if (data.length !== width * height * 4) {
      throw new RangeError(
        `${writer}: frame ${i} of ${frames.length} must be RGBA with ${width}x${height}x4 = ${width * height * 4} bytes, got ${data.length}`,
      );
    }
    if (!Number.isFinite(delayMs) || delayMs < 0) {
      throw new RangeError(`${writer}: frame ${i} of ${frames.length} has delayMs ${delayMs}; expected a number >= 0`);
    }
  });
}
