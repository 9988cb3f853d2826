// Pictures that guide I2VGen-XL, as its two encoders read them: from a file for sampling, from the first frames of stickers
// for training. What the network makes of them is models/i2vgen_xl.ts.

import { readFile } from "node:fs/promises";
import { CLIP_PREPROCESS, clipPreprocess } from "../data/clip_preprocess.ts";
import { decodeSticker } from "../data/decode/index.ts";
import { prepareFrame, toUnitRange } from "../data/frames.ts";
import { type Tensor, tensor } from "../engine/index.ts";
import type { SystemConfig } from "../models/config.ts";

/** A picture on the device: [1, size, size, 3] in [-1, 1], and [1, side, side, 3] as CLIP's encoder reads it, if there is one. */
export type PictureInput = { readonly image: Tensor; readonly prepared?: Tensor };

/**
 * The picture in a file, or the first frame of a sticker, on white and as wide and high as the frames of `config`.
 * @throws Error in one line when the system takes no pictures, or the file cannot be read as one
 */
export async function readPicture(path: string, config: SystemConfig): Promise<PictureInput> {
  if (!config.unet.image) throw new Error(`${config.system} is not guided by pictures: that takes a run of i2vgen-xl`);
  const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`${path} cannot be read: ${error.code ?? error.message}`);
  });
  const { width, height, frames } = await decodeSticker(bytes, path, () => [0]);
  return pictureInput(prepareFrame(frames[0], width, height, config.size), config);
}

/** From bytes [size, size, 3]. */
export function pictureInput(rgb: Uint8Array, { size, imageEncoder }: SystemConfig): PictureInput {
  const pixels = new Float32Array(rgb.length);
  toUnitRange(rgb, pixels);
  const image = tensor(pixels, [1, size, size, 3]);
  if (!imageEncoder) return { image };
  const side = imageEncoder.size;
  const prepared = clipPreprocess({ width: size, height: size, rgb }, { ...CLIP_PREPROCESS, size: side, crop: side });
  return { image, prepared: tensor(prepared, [1, side, side, 3]) };
}
