// What a sticker file may ask for, and the error every decoder ends in. Limits are checked on numbers read from the
// header, before anything of that size is allocated. Used by all decoders and by ../store.ts.

export const LIMITS = {
  /** Pixels along either side of the canvas or of a partial frame. */
  side: 4096,
  frames: 512,
  /** Pixels of all frames together. */
  totalPixels: 256_000_000,
  fileBytes: 32 * 1024 * 1024,
} as const;

/** A sticker file that cannot be used. `where` is the file, `reason` what is wrong with it. */
export class DecodeError extends Error {
  override readonly name = "DecodeError";
  readonly where: string;
  readonly reason: string;

  constructor(where: string, reason: string, options?: ErrorOptions) {
    super(`${where}: ${reason}`, options);
    this.where = where;
    this.reason = reason;
  }
}

export function checkFileSize(bytes: number): void {
  if (bytes === 0) throw new Error("the file is empty");
  if (bytes > LIMITS.fileBytes)
    throw new Error(`the file has ${bytes} bytes, more than the limit of ${LIMITS.fileBytes}`);
}

/** Throws unless a width x height image is within the side limit and not empty. `what` names it in the message. */
export function checkSize(width: number, height: number, what: string): void {
  if (width === 0 || height === 0) throw new Error(`${what} is empty (${width}x${height} pixels)`);
  if (width > LIMITS.side || height > LIMITS.side) {
    throw new Error(`${what} is ${width}x${height} pixels, more than the limit of ${LIMITS.side} a side`);
  }
}

/** Throws when `frames` frames of `totalPixels` pixels together are more than one sticker may have. */
export function checkFrameBudget(frames: number, totalPixels: number): void {
  if (frames > LIMITS.frames) throw new Error(`more than ${LIMITS.frames} frames`);
  if (totalPixels > LIMITS.totalPixels) {
    throw new Error(`the frames have over ${LIMITS.totalPixels / 1e6} megapixels in all, the limit for one file`);
  }
}
