// Pictures as CLIP's image encoder was trained on them: the shorter side resized by Pillow's bicubic filter, the middle cut
// out, each channel shifted and scaled. To the last bit Pillow's resize, because scores move with it. Called by evaluation
// and by image guidance; what sets a sticker's frames on white is frames.ts.

import { CUBIC, type Kernel, LINEAR, taps } from "./resample.ts";

/** Bytes [height, width, 3], row by row. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly rgb: Uint8Array;
}

export interface ClipPreprocess {
  /** What the shorter side becomes, and the side of the square cut out of the middle. */
  readonly size: number;
  readonly crop: number;
  readonly filter: "bicubic" | "bilinear";
  /** Per channel of values in [0, 1]. */
  readonly mean: readonly number[];
  readonly std: readonly number[];
}

/** OpenAI's models of 224 pixels; `size` and `crop` go with the model. */
export const CLIP_PREPROCESS: ClipPreprocess = {
  size: 224,
  crop: 224,
  filter: "bicubic",
  mean: [0.48145466, 0.4578275, 0.40821073],
  std: [0.26862954, 0.26130258, 0.27577711],
};

const KERNELS: Readonly<Record<ClipPreprocess["filter"], Kernel>> = { bicubic: CUBIC, bilinear: LINEAR };

/**
 * Normalised floats [crop, crop, 3]. The longer side becomes floor(size long / short); an odd margin is one pixel wider at
 * the end. Throws RangeError when the cut does not fit.
 */
export function clipPreprocess(picture: Picture, o: ClipPreprocess = CLIP_PREPROCESS): Float32Array {
  const { width, height, rgb } = resizeShorter(picture, o.size, o.filter);
  const { crop, mean, std } = o;
  if (crop > Math.min(width, height))
    throw new RangeError(`clipPreprocess: a square of ${crop} pixels does not fit ${width} x ${height}`);
  const [top, left] = [Math.floor((height - crop) / 2), Math.floor((width - crop) / 2)];
  return Float32Array.from({ length: crop * crop * 3 }, (_, i) => {
    const [pixel, c] = [Math.floor(i / 3), i % 3];
    const [y, x] = [top + Math.floor(pixel / crop), left + (pixel % crop)];
    return (rgb[3 * (y * width + x) + c] / 255 - mean[c]) / std[c];
  });
}

/** The shorter side becomes `size`, the longer one floor(size long / short). */
export function resizeShorter(picture: Picture, size: number, filter: ClipPreprocess["filter"]): Picture {
  const { width, height } = picture;
  const short = Math.min(width, height);
  const scaled = (side: number): number => (side === short ? size : Math.floor((size * side) / short));
  return resizeBytes(picture, scaled(width), scaled(height), filter);
}

/** Weights as Pillow holds them: whole multiples of 2^-22. */
const UNIT = 2 ** 22;

/** Pillow's resize of bytes: columns, then rows, each rounded to bytes; a side that stays is left alone. */
export function resizeBytes(
  picture: Picture,
  width: number,
  height: number,
  filter: ClipPreprocess["filter"],
): Picture {
  const across = width === picture.width ? picture : pass(picture, width, KERNELS[filter], "columns");
  return height === picture.height ? across : pass(across, height, KERNELS[filter], "rows");
}

function pass({ width, height, rgb }: Picture, to: number, kernel: Kernel, axis: "columns" | "rows"): Picture {
  const [from, stride] = axis === "columns" ? [width, 3] : [height, 3 * width];
  const { starts, weights } = taps(from, to, kernel);
  const whole = weights.map((row) => row.map((w) => Math.sign(w) * Math.floor(Math.abs(w) * UNIT + 0.5)));
  const [newWidth, newHeight] = axis === "columns" ? [to, height] : [width, to];
  const out = new Uint8Array(newWidth * newHeight * 3);
  for (let y = 0, at = 0; y < newHeight; y++) {
    for (let x = 0; x < newWidth; x++) {
      const i = axis === "columns" ? x : y;
      const first = axis === "columns" ? 3 * (y * width + starts[i]) : stride * starts[i] + 3 * x;
      for (let c = 0; c < 3; c++, at++) {
        let sum = UNIT / 2;
        for (let k = 0; k < whole[i].length; k++) sum += whole[i][k] * rgb[first + k * stride + c];
        out[at] = Math.max(0, Math.min(255, Math.floor(sum / UNIT)));
      }
    }
  }
  return { width: newWidth, height: newHeight, rgb: out };
}
