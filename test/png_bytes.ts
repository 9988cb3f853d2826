// PNG and APNG written chunk by chunk. Used by decode.test.ts and, with Chromium as the judge, by chromium.test.ts.

import { crc32, deflateSync } from "node:zlib";

export function chunk(type: string, ...parts: (Uint8Array | number[])[]): Buffer {
  const typed = Buffer.concat([Buffer.from(type, "latin1"), ...parts.map((part) => Uint8Array.from(part))]);
  return Buffer.concat([Uint8Array.from(be32(typed.length - 4)), typed, Uint8Array.from(be32(crc32(typed)))]);
}
export const be32 = (n: number) => [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255];
export const PNG = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
export const header = (w: number, h: number) => chunk("IHDR", be32(w), be32(h), [8, 6, 0, 0, 0]);

/** A small pseudo-random stream, so that a failing case is one seed. */
export function stream(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/**
 * An APNG of partial RGBA frames with every disposal and blend operation, alpha 0 or 255. After a frame that is cleared,
 * upng-js restores "previous" to the frame as displayed instead of as cleared, so the two are not drawn in that order.
 */
export function partialApng(seed: number): Uint8Array<ArrayBuffer> {
  const next = stream(seed);
  const [width, height, count] = [2 + next(6), 2 + next(6), 2 + next(4)];
  const parts = [PNG, header(width, height), chunk("acTL", be32(count), be32(0))];
  let sequence = 0;
  let cleared = true; // "previous" means "background" on the first frame, where upng-js fails
  for (let i = 0; i < count; i++) {
    const [w, h] = i === 0 ? [width, height] : [1 + next(width), 1 + next(height)];
    const [x, y] = [next(width - w + 1), next(height - h + 1)];
    const rows = Array.from({ length: h }, () => [
      0,
      ...Array.from({ length: w }, () => [next(256), next(256), next(256), 255 * next(2)]).flat(),
    ]);
    const place = [w, h, x, y].flatMap(be32);
    const disposal = next(cleared ? 2 : 3);
    if (disposal < 2) cleared = disposal === 1;
    parts.push(chunk("fcTL", be32(sequence++), place, [0, 1 + next(30), 0, 100, disposal, next(2)]));
    const data = deflateSync(Uint8Array.from(rows.flat()));
    parts.push(i === 0 ? chunk("IDAT", data) : chunk("fdAT", be32(sequence++), data));
  }
  return new Uint8Array(Buffer.concat([...parts, chunk("IEND")]));
}

/** Makes a still PNG an APNG of one frame, so that our decoder and not sharp reads it. */
export function animateStill(png: Buffer, width: number, height: number): Uint8Array {
  const control = chunk("fcTL", be32(0), be32(width), be32(height), be32(0), be32(0), [0, 1, 0, 10, 0, 0]);
  return new Uint8Array(
    Buffer.concat([png.subarray(0, 33), chunk("acTL", be32(1), be32(0)), control, png.subarray(33)]),
  );
}
